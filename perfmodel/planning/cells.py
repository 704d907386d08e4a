"""The cells of a plan as columns, one array a field, of which cells are made when somebody asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from perfmodel.files.numbers import FloatArray
from perfmodel.planning.packed import Coded, Later, Packed, codes_of, distinct, join, pack

__all__ = ["BLOCK", "Cells"]

BLOCK = 4096
"""Cells that are made at once where all are asked for, and kept where there are no more. [1]"""

CellT = TypeVar("CellT")
Reason = Callable[[Mapping[str, Any], str], str]


class Cells(Sequence[CellT], Generic[CellT]):
    """A sequence of cells that behaves as their tuple and holds their columns.

    kind : the dataclass that a cell is.
    columns : the values of each field, packed, in the order of the fields.
    reason, hindrances : what makes a cell's ``why`` of its other fields and of what hinders its drafts, which
        is done when it is asked for; None where `columns` holds it.
    """

    def __init__(
        self,
        kind: type[CellT],
        columns: Mapping[str, Packed],
        reason: Reason | None = None,
        hindrances: Packed | None = None,
    ) -> None:
        self.kind, self.columns = kind, dict(columns)
        self.reason, self.hindrances = reason, hindrances
        self._sorted: dict[tuple[str, ...], Any] = {}
        self._all: tuple[CellT, ...] | None = None  # of few cells, once they were made

    @classmethod
    def of(cls, cells: Iterable[CellT], kind: type[CellT]) -> Cells[CellT]:
        """Return cells as columns; those that are, as they are.

        Parameters
        ----------
        kind : the dataclass where there are no cells; else it is that of the first.
        """
        if isinstance(cells, cls):
            return cells
        rows = list(cells)
        kind = type(rows[0]) if rows else kind
        names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
        return cls(kind, {name: pack([getattr(row, name) for row in rows], len(rows)) for name in names})

    @classmethod
    def joined(cls, parts: list[Cells[CellT]], places: Sequence[NDArray[np.intp]]) -> Cells[CellT]:
        """Return the cells of some parts as one sequence.

        Parameters
        ----------
        parts : at least one, all of one kind; they lose their columns one by one, so that nothing is held
            twice.
        places : where the cells of each part stand in it, each place once.
        """
        first, size = parts[0], sum(len(place) for place in places)
        if len(parts) == 1 and np.array_equal(places[0], np.arange(size)):
            return first
        names, columns = list(first.columns), {}
        hindrances = None
        if first.hindrances is not None:
            hindrances = join([part.hindrances for part in parts if part.hindrances], places, size)
        for name in names:
            columns[name] = join([part.columns.pop(name) for part in parts], places, size)
        return cls(first.kind, columns, first.reason, hindrances)

    def __len__(self) -> int:
        return next(iter(self.columns.values())).size

    @overload
    def __getitem__(self, place: int) -> CellT: ...
    @overload
    def __getitem__(self, place: slice) -> Cells[CellT]: ...
    def __getitem__(self, place: int | slice) -> CellT | Cells[CellT]:
        if isinstance(place, slice):
            return self.take(place)
        at = range(len(self))[place]
        return next(self._made(at, at + 1)) if self._all is None else self._all[at]

    def __iter__(self) -> Iterator[CellT]:
        if len(self) <= BLOCK:
            if self._all is None:
                self._all = tuple(self._made(0, len(self)))
            yield from self._all
            return
        for start in range(0, len(self), BLOCK):
            yield from self._made(start, start + BLOCK)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Cells, tuple)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_sorted": {}, "_all": None}

    def take(self, place: slice | NDArray[Any]) -> Cells[CellT]:
        """Return some of the cells, by a slice, their indices or whether each is one of them."""
        columns = {name: column.take(place) for name, column in self.columns.items()}
        hindrances = None if self.hindrances is None else self.hindrances.take(place)
        return Cells(self.kind, columns, self.reason, hindrances)

    def packed(self, name: str) -> Packed:
        """Return one field, packed; of a ``why`` that is not yet made the texts that it is made with."""
        column = self.columns[name]
        if name == "why" and self.hindrances is not None:
            return self.hindrances
        return column.made() if isinstance(column, Later) else column

    def listed(self, name: str) -> list[Any]:
        """Return the values of one field."""
        if self.reason is not None and name == "why":
            return [fields["why"] for fields in self.fields()]
        return self.columns[name].listed()

    def numbers(self, name: str) -> FloatArray:
        """Return the values of one field as numbers, nan where there is none."""
        return self.columns[name].floats()

    def says(self, name: str) -> bool:
        """Whether any cell has something in a field: neither None nor an empty text."""
        column = self.columns[name]
        if isinstance(column, Coded):
            return any(value not in (None, "") for value in column.table)
        return any(value not in (None, "") for value in column.listed())

    def first_of_each(self, *names: str) -> Cells[CellT]:
        """Return the first cell of each combination of values of some fields, in order."""
        codes = np.zeros(len(self), dtype=np.intp)
        for name in names:
            each = codes_of(self.columns[name])
            codes = distinct(codes * (int(each.max(initial=0)) + 1) + each)[0]
        return self.take(np.sort(np.unique(codes, return_index=True)[1]))

    def where(self, **values: Any) -> Cells[CellT]:
        """Return the cells that have these values in these fields."""
        place = np.ones(len(self), dtype=bool)
        for name, value in values.items():
            place &= self.columns[name].equals(value)
        return self.take(place)

    def find(self, **values: float) -> CellT:
        """Return the first cell with these numbers in two fields; KeyError where there is none."""
        (first, second), names = values.values(), tuple(values)
        if names not in self._sorted:
            columns = [self.numbers(name) for name in names]
            order = np.lexsort(columns[::-1])
            self._sorted[names] = order, columns[0][order], columns[1][order]
        order, firsts, seconds = self._sorted[names]
        low, high = firsts.searchsorted(first, "left"), firsts.searchsorted(first, "right")
        at = low + seconds[low:high].searchsorted(second)
        if at == high or seconds[at] != second:
            raise KeyError((first, second))
        return self[int(order[at])]

    def fields(self, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the fields of each cell by their names, from `start` to before `stop`."""
        stop = len(self) if stop is None else min(stop, len(self))
        for first in range(start, stop, BLOCK):
            part = self.take(slice(first, min(first + BLOCK, stop)))
            lists = [column.listed() for column in part.columns.values()]
            rows = (dict(zip(part.columns, row, strict=True)) for row in zip(*lists, strict=True))
            if self.reason is None or part.hindrances is None:
                yield from rows
                continue
            for row, hindrance in zip(rows, part.hindrances.listed(), strict=True):
                row["why"] = self.reason(row, hindrance)
                yield row

    def _made(self, start: int, stop: int) -> Iterator[CellT]:
        """Yield cells without the ways of a frozen class, which take five times as long."""
        for row in self.fields(start, stop):
            cell = self.kind.__new__(self.kind)
            object.__setattr__(cell, "__dict__", row)
            yield cell
