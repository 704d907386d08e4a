"""Figures declared once: one line gives a figure's field, dimension, plausible range, meaning and default.

A noun is a frozen dataclass whose fields are declared with the functions below. Reading its file, the JSON
Schema, provenance, replacing, stacking and sampling all follow from the declaration (`files.schema`,
`files.quantity`), so a fitted form changes by editing the one line that declares the figure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perfmodel.files.document import Quantity
from perfmodel.files.numbers import Numeric
from perfmodel.files.units import DIMENSIONS, SI_UNIT, format_quantity

__all__ = [
    "Change", "Declared", "Figure", "Grid", "Numeric", "Section", "Table", "Text", "declared_in",
    "default_quantities", "each_figure", "figure", "figures", "section", "sections", "table", "text",
    "texts",
]  # fmt: skip



_KEY = "declared"


@dataclass(frozen=True)
class Figure:
    """One number of a file: dimension, plausible SI range, meaning, and what to assume where it is left out.

    `default` is (low, value, high) in SI units; None makes the figure required. With `keys` it is a mapping
    of such figures, of which those named in `required` must be given.
    """

    dimension: str
    least: float
    most: float
    meaning: str
    path: str
    default: tuple[float, float, float] | None = None
    keys: tuple[str, ...] = ()
    required: tuple[str, ...] = ()

    def assumption(self) -> Quantity:
        """Return the generic default with its wide range; only for figures that have one."""
        if self.default is None:
            raise TypeError(f"{self.path} has no generic default")
        low, value, high = self.default
        return Quantity(value, low, high, SI_UNIT[self.dimension], "generic default of draftplan", "assumed")

    def shown(self, value: Numeric) -> str:
        """Return a value of this figure for people, with its unit."""
        return format_quantity(float(value), self.dimension)


@dataclass(frozen=True)
class Grid:
    """Measured seconds on a grid of message sizes and GPU counts.

    `sizes` [B] and `gpus` rise; `seconds` [s] has shape (..., gpus, sizes), with a leading axis where several
    nouns are stacked.
    """

    sizes: NDArray[np.float64]
    gpus: NDArray[np.float64]
    seconds: NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """A `Grid` read from a file; every entry lies between `least` and `most` [s]."""

    least: float
    most: float
    meaning: str
    path: str


@dataclass(frozen=True)
class Section:
    """A nested dataclass of figures; with `named`, a mapping from free names to such dataclasses."""

    of: type[Any]
    path: str
    named: bool = False


@dataclass(frozen=True)
class Text:
    """A text, or with `many` a list of texts; a `default` of None makes it required."""

    meaning: str
    path: str = ""
    default: str | None = None
    many: bool = False


Declared: TypeAlias = Figure | Table | Section | Text
Change: TypeAlias = Callable[[str, "Figure | Table", Any], Any]


def figure(
    dimension: str,
    least: float,
    most: float,
    meaning: str,
    default: tuple[float, float, float] | None = None,
    path: str = "",
) -> Any:
    """Declare one figure; range and default (low, value, high) in SI units.

    `path` is the dotted place in the file where it is not simply the field's name.
    """
    if dimension not in DIMENSIONS:
        raise TypeError(f"{dimension} is not a dimension of perfmodel.files.units")
    declared = Figure(dimension, least, most, meaning, path, default)
    return _field(declared) if default is None else _field(declared, default=default[1])


def figures(
    dimension: str,
    least: float,
    most: float,
    meaning: str,
    keys: Sequence[str],
    required: Sequence[str] = (),
    path: str = "",
) -> Any:
    """Declare a mapping of figures of one dimension by the names in `keys`."""
    return _field(Figure(dimension, least, most, meaning, path, None, tuple(keys), tuple(required)))


def table(least: float, most: float, meaning: str, path: str = "") -> Any:
    """Declare a grid of seconds over message sizes and GPU counts."""
    return _field(Table(least, most, meaning, path))


def section(of: type[Any], path: str = "") -> Any:
    """Declare a nested dataclass of figures, all of which have defaults."""
    return _field(Section(of, path), default_factory=of)


def sections(of: type[Any], path: str = "") -> Any:
    """Declare a mapping from free names to nested dataclasses of figures."""
    return _field(Section(of, path, named=True), default_factory=dict)


def text(meaning: str, default: str | None = None, path: str = "") -> Any:
    """Declare a text."""
    declared = Text(meaning, path, default)
    return _field(declared) if default is None else _field(declared, default=default)


def texts(meaning: str, path: str = "") -> Any:
    """Declare a list of texts, empty where left out."""
    return _field(Text(meaning, path, "", many=True), default=())


def declared_in(noun: type[Any]) -> Iterator[tuple[str, Declared]]:
    """Yield field name and declaration, its `path` filled in, of everything declared in a dataclass."""
    for field in dataclasses.fields(noun):
        declared: Declared | None = field.metadata.get(_KEY)
        if declared is not None:
            yield field.name, dataclasses.replace(declared, path=declared.path or field.name)


def _field(declared: Declared, **defaults: Any) -> Any:
    return dataclasses.field(metadata={_KEY: declared}, **defaults)


def each_figure(noun: Any, change: Change, prefix: str = "") -> dict[str, Any]:
    """Return field name -> value with `change(path, declaration, value)` applied to every figure and grid."""
    changed: dict[str, Any] = {}
    for name, declared in declared_in(type(noun)):
        value, path = getattr(noun, name), prefix + declared.path
        if isinstance(declared, Section):
            changed[name] = _each_in_section(declared, value, change, path)
        elif isinstance(declared, Figure) and declared.keys:
            changed[name] = {key: change(f"{path}.{key}", declared, one) for key, one in value.items()}
        elif not isinstance(declared, Text):
            changed[name] = change(path, declared, value)
    return changed


def _each_in_section(declared: Section, value: Any, change: Change, path: str) -> Any:
    if not declared.named:
        return dataclasses.replace(value, **each_figure(value, change, f"{path}."))
    return {
        key: dataclasses.replace(one, **each_figure(one, change, f"{path}.{key}."))
        for key, one in value.items()
    }


def default_quantities(noun: type[Any], prefix: str) -> Mapping[str, Quantity]:
    """Return dotted path -> generic default for every figure of a section that has one."""
    return {
        prefix + declared.path: declared.assumption()
        for _, declared in declared_in(noun)
        if isinstance(declared, Figure) and declared.default is not None
    }
