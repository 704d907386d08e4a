"""Nouns whose every figure has a source: replace, draw and write their figures."""

from __future__ import annotations

import dataclasses
import json
import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from perfmodel.errors import Fault, SpecError, escaped, nearest_name
from perfmodel.files.numbers import FloatArray, Numeric
from perfmodel.files.quantity import (
    KINDS,
    Z90,
    Figure,
    Grid,
    Quantity,
    Section,
    Table,
    Text,
    declared_in,
    figures_of,
    refill,
)  # fmt: skip
from perfmodel.files.units import SI_UNIT, format_quantity, round_quantity, write_quantity

__all__ = ["Spec", "to_yaml"]

SelfT = TypeVar("SelfT", bound="Spec")

_Z75 = 0.6744897501960817  # 75th percentile of the standard normal distribution
_Z95 = 1.6448536269514722  # its 95th: nine tenths lie within so many deviations on both sides


@dataclass(frozen=True, kw_only=True, eq=False)
class Spec:
    """Base of nouns made of declared figures.

    `quantities` gives value, range, unit, source and kind of every figure by its dotted path in the file;
    `assumed` has one sentence for each figure that the file leaves out.
    """

    name: str
    quantities: Mapping[str, Quantity] = field(default_factory=dict, repr=False)
    assumed: tuple[str, ...] = field(default=(), repr=False)

    def paths(self) -> tuple[str, ...]:
        """Return the dotted path of every figure."""
        return tuple(path for path, _, _ in figures_of(self))

    def with_values(self: SelfT, values: Mapping[str, Numeric], source: str = "given by the caller") -> SelfT:
        """Return the same noun with the figures at the dotted paths of `values` replaced. SI units.

        Raises SpecError, naming the nearest known path, on unknown paths, negative and non-finite values.
        """
        given = {path: _finite(path, value) for path, value in values.items()}
        declared = self._declared(given)
        grids = {
            path: dataclasses.replace(value, seconds=np.broadcast_to(given[path], value.seconds.shape))
            for path, _, value in figures_of(self)
            if path in given and isinstance(value, Grid)
        }
        quantities = {
            path: Quantity(value, value, value, SI_UNIT[declared[path].dimension], source, "assumed")
            for path, value in given.items()
            if path not in grids
        }
        return dataclasses.replace(refill(self, given | grids), quantities={**self.quantities, **quantities})

    def with_quantities(self: SelfT, store: Mapping[str, Quantity], digits: int) -> SelfT:
        """Return the same noun with fitted figures at dotted paths, rounded to so many significant digits.

        Raises SpecError, naming the nearest known path, on unknown paths.
        """
        quantities: dict[str, Quantity] = {}
        for path, declared in self._declared(store).items():
            ends: dict[str, Any] = {
                end: round_quantity(float(np.asarray(getattr(store[path], end))), declared.dimension, digits)
                for end in ("value", "low", "high")
            }
            quantities[path] = dataclasses.replace(store[path], **ends, unit=SI_UNIT[declared.dimension])
        values = {path: quantity.value for path, quantity in quantities.items()}
        return dataclasses.replace(refill(self, values), quantities={**self.quantities, **quantities})

    def with_defaults(self: SelfT) -> SelfT:
        """Return the same noun with generic defaults, one sentence each, for figures that nobody gave."""
        quantities: dict[str, Quantity] = {}
        sentences = list(self.assumed)
        for path, declared, _ in figures_of(self):
            if path in self.quantities:
                quantities[path] = self.quantities[path]
            elif isinstance(declared, Figure) and declared.default is not None:
                quantities[path] = declared.assumption()
                low, value, high = (format_quantity(end, declared.dimension) for end in declared.default)
                if low != high:  # else it is the usual form of an equation: nothing is guessed
                    assumption = f"{value} assumed ({low} to {high}), {declared.meaning}"
                    sentences.append(f"{path} is not in the file: {assumption}")
        return dataclasses.replace(self, quantities=quantities, assumed=tuple(sentences))

    def sample(self: SelfT, n: int, seed: int = 0, kinds: Collection[str] = KINDS) -> SelfT:
        """Return the noun with `n` draws of every figure whose low is below its high, on a new last axis.

        Figures of other kinds than `kinds` keep their value.

        A draw is ``value * exp(s z)`` with standard normal ``z`` and ``s`` chosen on each side so that low
        and high are the 10th and 90th percentile; the median is the value itself. A range that reaches zero
        has no logarithm: it is drawn from ``value + s z``, cut off at zero, with the same median and
        percentiles, and where the value is zero too from the half normal ``high |z| / 1.645``, of which high
        is the 90th percentile. Draws stay within the plausible range of the figure. A figure that counts
        something takes low, value and high in a quarter, half and quarter of the draws. The same seed gives
        the same ``z`` for the same figure in every noun, whatever other figures there are.
        """
        drawn = {
            path: _draw(declared, quantity, value, (n, seed, zlib.crc32(path.encode())))
            for path, declared, value in figures_of(self)
            if isinstance(declared, Figure)
            for quantity in (self.quantities.get(path),)
            if quantity is None or quantity.kind in kinds
        }
        return refill(self, drawn)

    def doubts(self, kinds: Collection[str] = KINDS) -> dict[str, tuple[Figure, Quantity]]:
        """Return every figure of some kinds whose low is below its high, by its path: what `sample` draws."""
        return {
            path: (declared, quantity)
            for path, declared, _ in figures_of(self)
            if isinstance(declared, Figure)
            and (quantity := self.quantities.get(path)) is not None
            and quantity.kind in kinds
            and np.any(np.less(quantity.low, quantity.high))
        }

    def at_ends(self: SelfT, paths: Collection[str], first: int, size: int) -> SelfT:
        """Return the noun in `size` cases on a new last axis, in each of which one figure has left its value.

        Parameters
        ----------
        paths : the figures; the first is at its low in case `first`, at its high in the next, and so on.
        """
        moved: dict[str, Any] = {}
        for place, path in enumerate(paths):
            quantity, case = self.quantities[path], first + 2 * place
            values = np.repeat(np.asarray(quantity.value, dtype=float)[..., None], size, axis=-1)
            values[..., case], values[..., case + 1] = quantity.low, quantity.high
            moved[path] = values
        others = {
            path: np.asarray(value)[..., None]
            for path, declared, value in figures_of(self)
            if isinstance(declared, Figure) and path not in moved and np.ndim(value)
        }
        return refill(self, others | moved)

    def _declared(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return path -> declaration of the given figures; SpecError where there is no such figure."""
        declared = {path: declaration for path, declaration, _ in figures_of(self)}
        problem = f"no such figure of {type(self).__name__}"
        if unknown := [path for path in given if path not in declared]:
            raise SpecError(
                Fault("", None, path, problem, nearest=nearest_name(path, declared)) for path in unknown
            )
        return {path: declared[path] for path in given}


def _finite(path: str, value: Numeric) -> Numeric:
    array = np.asarray(value, dtype=float)
    if not np.all(np.isfinite(array)) or np.any(array < 0.0):
        remedy = "Give finite numbers of at least zero, in SI units"
        raise SpecError.single("", path, f"found {value}", remedy)
    return float(array) if array.ndim == 0 else array


def _draw(declared: Figure, quantity: Quantity | None, value: Any, draws: tuple[int, int, int]) -> Any:
    """Draw a figure (how often, seed, number of its path); of one known exactly only the axis is new."""
    if quantity is None or not np.any(np.less(quantity.low, quantity.high)):
        return value if np.ndim(value) == 0 else np.asarray(value)[..., None]
    count, *seed = draws
    z = np.random.default_rng(seed).standard_normal(count)
    low, middle, high = (
        np.asarray(end, dtype=float)[..., None] for end in (quantity.low, quantity.value, quantity.high)
    )
    if declared.dimension == "count":
        drawn = np.where(z < -_Z75, low, np.where(z > _Z75, high, middle))
    else:
        drawn = _two_sided(low, middle, high, z)
    return np.clip(drawn, declared.least, declared.most)


def _two_sided(low: FloatArray, value: FloatArray, high: FloatArray, z: FloatArray) -> FloatArray:
    """Return draws of which low, value and high are the 10th, 50th and 90th percentile, none below zero."""
    reaches_zero = low <= 0.0
    least, middle, most = (np.where(reaches_zero, 1.0, end) for end in (low, value, high))
    spread = np.where(z < 0.0, np.log(middle / least), np.log(most / middle)) / Z90
    split_lognormal = value * np.exp(spread * z)
    split_normal = np.maximum(value + np.where(z < 0.0, value, high - value) / Z90 * z, 0.0)
    half_normal = high * np.abs(z) / _Z95
    from_zero = np.where(value > 0.0, split_normal, half_normal)
    return np.where(reaches_zero, from_zero, split_lognormal)


# Writing.

_PLAIN = re.compile(r"[a-z][a-z0-9._-]{3,}")  # nothing that a YAML reader could take for anything but a text


def to_yaml(spec: Spec) -> str:
    """Return a spec as the text of its file, which reads back as the same spec.

    Every figure that was given has its value, range, source and kind, exactly, in the unit that suits it;
    what reading would assume again is left out.
    """
    text = "".join(f"{line}\n" for line in _lines(_tree(spec, spec.quantities, "")))
    return escaped(text, pairs=False)


def _tree(noun: Any, store: Mapping[str, Quantity], prefix: str) -> dict[str, Any]:
    """Return the entries of a noun, nested as in its file: texts ready to be written and mappings of them."""
    tree: dict[str, Any] = {}
    for name, declared in declared_in(type(noun)):
        path, value = prefix + declared.path, getattr(noun, name)
        entry: Any
        if isinstance(declared, Text):
            words = [_quote(word) for word in (value if declared.many else [value]) if word]
            entry = f"[{', '.join(words)}]" if declared.many and words else "".join(words) or None
        elif isinstance(declared, Section) and declared.named:
            entry = {key: _tree(part, store, f"{path}.{key}.") for key, part in value.items()}
        elif isinstance(declared, Section):
            entry = _tree(value, store, f"{path}.")
        elif isinstance(declared, Table):
            entry = _grid(value, store.get(path))
        elif declared.keys:
            entry = {key: _figure(declared, store.get(f"{path}.{key}")) for key in value}
        else:
            entry = _figure(declared, store.get(path))
        *groups, last = declared.path.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[last] = entry
    return tree


def _lines(tree: Mapping[str, Any], indent: str = "") -> list[str]:
    lines: list[str] = []
    for key, entry in tree.items():
        if isinstance(entry, str):
            lines.append(f"{indent}{key}: {entry}")
        elif inner := _lines(entry or {}, indent + "  "):
            lines += [f"{indent}{key}:", *inner]
    return lines


def _figure(declared: Figure, quantity: Quantity | None) -> str | None:
    if quantity is None or not quantity.given:
        return None
    ends = {name: float(np.asarray(getattr(quantity, name))) for name in ("value", "low", "high")}
    if quantity.kind == "published" and ends["low"] == ends["value"] == ends["high"]:
        ends = {"value": ends["value"]}
    numbers = ", ".join(f"{name}: {write_quantity(end, declared.dimension)}" for name, end in ends.items())
    return f"{{{numbers}, source: {json.dumps(quantity.source, ensure_ascii=False)}, kind: {quantity.kind}}}"


def _grid(grid: Grid, quantity: Quantity | None) -> dict[str, Any] | None:
    if quantity is None or not quantity.given:
        return None

    def row(values: FloatArray, dimension: str) -> str:
        return f"[{', '.join(write_quantity(float(value), dimension) for value in values)}]"

    rows = zip(grid.gpus, grid.seconds, strict=True)
    return {
        "source": json.dumps(quantity.source, ensure_ascii=False),
        "kind": quantity.kind,
        "sizes": row(grid.sizes, "bytes"),
        "gpus": {f"{gpus:g}": row(seconds, "seconds") for gpus, seconds in rows},
    }


def _quote(word: str) -> str:
    return word if _PLAIN.fullmatch(word) else json.dumps(word, ensure_ascii=False)
