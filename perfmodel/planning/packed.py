"""The values of one column in little memory: numbers as an array, what repeats as codes of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perfmodel.files.numbers import FloatArray

__all__ = [
    "Coded", "Later", "Numbers", "Packed", "Rows", "chosen", "coded", "codes_of", "distinct", "join", "pack",
]  # fmt: skip

_FEW = 16
"""Distinct values that are looked for one after another, which is faster than to sort. [1]"""


@dataclass(frozen=True, eq=False)
class Numbers:
    """One number each, nan where there is none; or objects of any kind, shape (size,)."""

    values: NDArray[Any]

    @property
    def size(self) -> int:
        """How many values there are."""
        return int(self.values.size)

    def take(self, place: Any) -> Packed:
        """Return some of the values."""
        return Numbers(self.values[place])

    def listed(self) -> list[Any]:
        """Return the values as Python's own, None where there is no number."""
        values: list[Any] = self.values.tolist()
        if self.values.dtype.kind == "f" and np.any(np.isnan(self.values)):
            return [None if value != value else value for value in values]
        return values

    def floats(self) -> FloatArray:
        """Return the values as numbers, nan where there is none."""
        return self.values.astype(float)

    def equals(self, value: Any) -> NDArray[np.bool_]:
        """Return which values equal another."""
        return np.asarray(self.values == value, dtype=bool)


@dataclass(frozen=True, eq=False)
class Coded:
    """Values that repeat: the place of each in a table, shape (size,); one value takes no memory a cell."""

    codes: NDArray[Any]
    table: tuple[Any, ...]

    @property
    def size(self) -> int:
        """How many values there are."""
        return int(self.codes.size)

    def take(self, place: Any) -> Packed:
        """Return some of the values."""
        taken = self.codes[place]
        return _alike(self.table[0], taken.size) if len(self.table) == 1 else Coded(taken, self.table)

    def listed(self) -> list[Any]:
        """Return the values as they are."""
        if len(self.table) == 1:
            return [self.table[0]] * self.size
        table = self.table
        return [table[code] for code in self.codes.tolist()]

    def floats(self) -> FloatArray:
        """Return the values as numbers, nan where there is none. Raises ValueError where one is no number."""
        table = np.array([np.nan if value is None else value for value in self.table], dtype=float)
        values: FloatArray = table[self.codes]
        return values

    def equals(self, value: Any) -> NDArray[np.bool_]:
        """Return which values equal another."""
        same: NDArray[np.bool_] = np.array([each == value for each in self.table], dtype=bool)[self.codes]
        return same


@dataclass(frozen=True, eq=False)
class Rows:
    """A tuple of numbers each, shape (size, longest): the first so many of a row, nan beyond."""

    values: FloatArray
    lengths: Coded

    @property
    def size(self) -> int:
        """How many tuples there are."""
        return len(self.values)

    def take(self, place: Any) -> Packed:
        """Return some of the tuples."""
        lengths = self.lengths.take(place)
        assert isinstance(lengths, Coded)
        return Rows(self.values[place], lengths)

    def listed(self) -> list[Any]:
        """Return the tuples."""
        rows = zip(self.values.tolist(), self.lengths.listed(), strict=True)
        return [tuple(row[:length]) for row, length in rows]

    def floats(self) -> FloatArray:
        """Return the numbers, axes (cell, place)."""
        return self.values

    def equals(self, value: Any) -> NDArray[np.bool_]:
        """Return which tuples equal another."""
        return np.array([row == value for row in self.listed()], dtype=bool)


@dataclass(frozen=True, eq=False)
class Later:
    """What a function makes of other columns when somebody asks for it: numbers, nan where there is none.

    make : a function of a module, so that it can be pickled; it takes the columns, packed.
    """

    make: Callable[..., FloatArray]
    of: tuple[Packed, ...]

    @property
    def size(self) -> int:
        """How many values there are."""
        return self.of[0].size

    def take(self, place: Any) -> Packed:
        """Return some of the values, not made yet either."""
        return Later(self.make, tuple(column.take(place) for column in self.of))

    def made(self) -> Numbers:
        """Return the values."""
        return Numbers(np.asarray(self.make(*self.of), dtype=float))

    def listed(self) -> list[Any]:
        """Return the values as Python's own, None where there is no number."""
        return self.made().listed()

    def floats(self) -> FloatArray:
        """Return the values as numbers, nan where there is none."""
        return self.made().values

    def equals(self, value: Any) -> NDArray[np.bool_]:
        """Return which values equal another."""
        return self.made().equals(value)


Packed: TypeAlias = "Numbers | Coded | Rows | Later"


def pack(values: Any, size: int) -> Packed:
    """Pack one column, such that `listed` gives the very values back, with nan for None.

    Parameters
    ----------
    values : one for all; or an array, or a list of whatever kind, of one for each; or a table of numbers,
        axes (cell, place); or packed already.
    size : how many there are. [1]
    """
    if isinstance(values, (Numbers, Coded, Rows, Later)):
        return values
    if isinstance(values, list):
        return _packed_list(values)
    if not isinstance(values, np.ndarray):
        value = values.item() if isinstance(values, np.generic) else values
        return _alike(None if value != value else value, size)
    if values.ndim == 2:
        return Rows(values, _alike(values.shape[1], size))
    values = np.broadcast_to(values, size)
    if values.dtype.kind == "U":
        codes, table = distinct(values)
        return coded(codes, table.tolist())
    if values.dtype == object:
        return Numbers(values)
    if size and _one_value(values):
        return pack(values[0], size)
    return Numbers(_narrow(values))


def _one_value(values: NDArray[Any]) -> bool:
    """Whether all numbers of an array are the same, nan among them; -0.0 is none of 0.0."""
    first, last = values[0], values[-1]
    if first != last and (first == first or last == last):
        return False
    if first != first:
        return bool(np.all(np.isnan(values)))
    signs = values.dtype.kind == "f" and first == 0.0 and np.any(np.signbit(values) != np.signbit(first))
    return bool(np.all(values == first)) and not signs


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """Return an array of its own; integers in the fewest bytes that hold them."""
    if values.dtype.kind in "iu" and values.size:
        least, most = int(values.min()), int(values.max())
        return values.astype(np.promote_types(np.min_scalar_type(least), np.min_scalar_type(most)))
    return np.array(values)


def _packed_list(values: list[Any]) -> Packed:
    kinds = set(map(type, values))
    if kinds <= {str, type(None)} or kinds == {int, type(None)}:
        return _by_first(values)
    if kinds == {tuple} and {type(number) for row in values for number in row} == {float}:
        return _packed_rows(values)
    if kinds <= {float, type(None)} or kinds == {int}:
        numbers = np.array(values, dtype=float) if float in kinds else np.array(values)
        if numbers.dtype.kind in "fi" and np.count_nonzero(numbers != numbers) == values.count(None):
            return pack(numbers, len(values))
    return Numbers(_objects(values))


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    """Return an array of any values; numpy itself would look into tuples."""
    return np.fromiter(values, dtype=object, count=len(values))


def _packed_rows(values: list[tuple[float, ...]]) -> Packed:
    lengths = [len(row) for row in values]
    table = np.full((len(values), max(lengths)), np.nan)
    for at, row in enumerate(values):
        table[at, : len(row)] = row
    return Rows(table, _by_first(lengths))


def _by_first(values: Sequence[Any]) -> Coded:
    """Code values that compare equal only where they are the same."""
    table: dict[Any, int] = {}
    codes = [table.setdefault(value, len(table)) for value in values]
    return coded(np.array(codes, dtype=np.intp), list(table))


def coded(codes: NDArray[Any], table: Sequence[Any]) -> Coded:
    """Return ``table[codes]``, in the fewest bytes."""
    if len(table) == 1:
        return _alike(table[0], codes.size)
    return Coded(codes.astype(np.min_scalar_type(max(len(table) - 1, 0))), tuple(table))


def _alike(value: Any, size: int) -> Coded:
    return Coded(_zeros(size), (value,))


@lru_cache(maxsize=64)
def _zeros(size: int) -> NDArray[np.uint8]:
    """Return so many codes of one byte altogether, not to be written to."""
    return np.broadcast_to(np.uint8(0), size)


def chosen(where: NDArray[np.bool_], value: Any, other: Any = None) -> Coded:
    """Return one value where a condition holds, another where it does not."""
    if value is other or np.all(where):
        return _alike(value, where.size)
    return Coded(where.astype(np.uint8), (other, value)) if np.any(where) else _alike(other, where.size)


def distinct(values: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Return the code of each value and the distinct values: the inverse of ``table[codes]``."""
    codes = np.full(values.size, -1, dtype=np.intp)
    table: list[Any] = []
    rest = 0
    while len(table) < _FEW and values.size:
        table.append(values[rest])
        codes[values == values[rest]] = len(table) - 1
        rest = int(np.argmin(codes))
        if codes[rest] >= 0:
            return codes, np.array(table, dtype=values.dtype)
    unique, codes = np.unique(values, return_inverse=True)
    return codes.reshape(-1), unique


def codes_of(values: Packed) -> NDArray[np.intp]:
    """Return numbers from 0 that are equal where the values are."""
    if isinstance(values, Coded):
        return values.codes.astype(np.intp)
    if isinstance(values, Numbers) and values.values.dtype != object:
        return distinct(values.values)[0]
    return _by_first(values.listed()).codes.astype(np.intp)


def join(parts: Sequence[Packed], places: Sequence[Any], size: int) -> Packed:
    """Return the values of some parts as one column.

    Parameters
    ----------
    places : where the values of each part stand in it: indices or a slice a part, each place once.
    size : how many there are. [1]
    """
    if len(parts) == 1 and isinstance(places[0], slice):
        return parts[0]
    if all(isinstance(part, Coded) for part in parts):
        return _join_coded([part for part in parts if isinstance(part, Coded)], places, size)
    if all(isinstance(part, Rows) for part in parts):
        return _join_rows([part for part in parts if isinstance(part, Rows)], places, size)
    if all(isinstance(part, Later) for part in parts):
        return _join_later([part for part in parts if isinstance(part, Later)], places, size)
    parts = [part.made() if isinstance(part, Later) else part for part in parts]
    kind = _kind_of(parts)
    if kind is None:
        objects = np.empty(size, dtype=object)
        for part, place in zip(parts, places, strict=True):
            objects[place] = _objects(part.listed())
        return _packed_list(objects.tolist())
    numbers = np.empty(size, dtype=kind)
    for part, place in zip(parts, places, strict=True):
        numbers[place] = part.values if isinstance(part, Numbers) else part.floats()
    return Numbers(numbers)


def _kind_of(parts: Sequence[Packed]) -> Any:
    """Return the dtype of numbers that holds the values of all parts as they are, None where none does."""
    kinds, types = [], set()
    for part in parts:
        if isinstance(part, Numbers):
            kinds.append(part.values.dtype)
        elif isinstance(part, Coded):
            types |= set(map(type, part.table))
        else:
            return None
    if all(kind.kind == "f" for kind in kinds) and types <= {float, type(None)}:
        return np.dtype(float)
    if all(kind.kind in "iu" for kind in kinds) and types <= {int}:
        tables = [part.table for part in parts if isinstance(part, Coded)]
        whole = np.result_type(*kinds, *(np.min_scalar_type(value) for table in tables for value in table))
        return whole if whole.kind in "iu" else None
    return None


def _join_coded(parts: Sequence[Coded], places: Sequence[Any], size: int) -> Packed:
    names = [[(type(value), str(value)) for value in part.table] for part in parts]  # 1 is not 1.0
    table = {
        name: value
        for part, each in zip(parts, names, strict=True)
        for name, value in zip(each, part.table, strict=True)
    }
    code = {name: at for at, name in enumerate(table)}
    codes = np.zeros(size, dtype=np.min_scalar_type(len(table) - 1))
    for part, each, place in zip(parts, names, places, strict=True):
        codes[place] = np.array([code[name] for name in each], dtype=codes.dtype)[part.codes]
    return coded(codes, list(table.values()))


def _join_rows(parts: Sequence[Rows], places: Sequence[Any], size: int) -> Packed:
    table = np.full((size, max(part.values.shape[1] for part in parts)), np.nan)
    for part, place in zip(parts, places, strict=True):
        table[place, : part.values.shape[1]] = part.values
    lengths = join([part.lengths for part in parts], places, size)
    assert isinstance(lengths, Coded)
    return Rows(table, lengths)


def _join_later(parts: Sequence[Later], places: Sequence[Any], size: int) -> Packed:
    if len({part.make for part in parts}) > 1:
        return join([part.made() for part in parts], places, size)
    columns = zip(*(part.of for part in parts), strict=True)
    return Later(parts[0].make, tuple(join(each, places, size) for each in columns))
