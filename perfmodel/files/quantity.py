"""Figures: declared once in the noun that they belong to, and kept with range, unit and source.

A noun is a frozen dataclass whose fields are declared with the functions below. Reading its file, the JSON
Schema, provenance, replacing, sampling and writing all follow from the declaration (`files.nouns`,
`files.schema`, `files.spec`), so a fitted form changes by editing the one line that declares the figure.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, TypeVar

from perfmodel.files.numbers import FloatArray, Numeric
from perfmodel.files.units import DIMENSIONS, SI_UNIT

__all__ = [
    "KINDS", "Z90", "Declared", "Figure", "Grid", "Kind", "Quantity", "Section", "Table", "Text",
    "declared_in", "figure", "figures", "figures_of", "is_required", "refill", "section", "sections", "table",
    "text", "texts", "tree_of",
]  # fmt: skip

Z90 = 1.2815515655446004
"""90th percentile of the standard normal distribution: how far low and high lie from the middle. [1]"""

Kind: TypeAlias = Literal["measured", "published", "assumed"]
KINDS: tuple[Kind, ...] = ("measured", "published", "assumed")
Range: TypeAlias = tuple[float, float, float]
NounT = TypeVar("NounT")
_KEY = "declared"


@dataclass(frozen=True)
class Quantity:
    """One figure with its provenance: SI value, 10th and 90th percentile, unit, source and kind.

    `given` is false for a figure that nobody gave: reading fills it in again, so it is not written.
    """

    value: Numeric
    low: Numeric
    high: Numeric
    unit: str
    source: str
    kind: Kind
    given: bool = True

    def plus(self, more: float, source: str) -> Quantity:
        """Return the figure and its range with something on top, which is assumed. In the figure's unit."""
        return replace(
            self, value=self.value + more, low=self.low + more, high=self.high + more, kind="assumed",
            source=f"{self.source}; {source}",
        )  # fmt: skip


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
    default: Range | None = None
    keys: tuple[str, ...] = ()
    required: tuple[str, ...] = ()

    def assumption(self) -> Quantity:
        """Return the generic default with its wide range; only for figures that have one."""
        if self.default is None:
            raise TypeError(f"{self.path} has no generic default")
        low, value, high = self.default
        unit, source = SI_UNIT[self.dimension], "generic default of draftplan"
        return Quantity(value, low, high, unit, source, "assumed", given=False)


@dataclass(frozen=True)
class Grid:
    """Measured seconds on a grid: `sizes` [B] and `gpus` rise; `seconds` [s] has shape (gpus, sizes)."""

    sizes: FloatArray
    gpus: FloatArray
    seconds: FloatArray


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


def figure(
    dimension: str, least: float, most: float, meaning: str, default: Range | None = None, path: str = ""
) -> Any:
    """Declare one figure; range and default (low, value, high) in SI units.

    `path` is the dotted place in the file where it is not simply the field's name.
    """
    if dimension not in DIMENSIONS:
        raise TypeError(f"{dimension} is not a dimension of perfmodel.files.units")
    declared = Figure(dimension, least, most, meaning, path, default)
    return _field(declared) if default is None else _field(declared, default=float(default[1]))


def figures(
    dimension: str, least: float, most: float, meaning: str, keys: tuple[str, ...],
    required: tuple[str, ...] = (), path: str = "",
) -> Any:  # fmt: skip
    """Declare a mapping of figures of one dimension by the names in `keys`."""
    return _field(Figure(dimension, least, most, meaning, path, None, keys, required))


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


def _field(declared: Declared, **defaults: Any) -> Any:
    return dataclasses.field(metadata={_KEY: declared}, **defaults)


def declared_in(noun: type[Any]) -> tuple[tuple[str, Declared], ...]:
    """Return field name and declaration, its `path` filled in, of everything declared in a dataclass."""
    of: Any = noun
    return _declared_in(of)


@functools.cache
def _declared_in(noun: Any) -> tuple[tuple[str, Declared], ...]:
    fields = [(field.name, field.metadata[_KEY]) for field in dataclasses.fields(noun) if field.metadata]
    return tuple((name, dataclasses.replace(entry, path=entry.path or name)) for name, entry in fields)


def tree_of(noun: type[Any]) -> dict[str, Any]:
    """Return the declarations of a dataclass as its files are nested: by key, groups as further mappings."""
    tree: dict[str, Any] = {}
    for _, declared in declared_in(noun):
        *groups, last = declared.path.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[last] = declared
    return tree


def is_required(declared: Declared) -> bool:
    """Return whether files have to give it."""
    if isinstance(declared, Figure):
        return bool(declared.required) if declared.keys else declared.default is None
    return isinstance(declared, Table) or (isinstance(declared, Text) and declared.default is None)


def figures_of(noun: Any, prefix: str = "") -> Iterator[tuple[str, Figure | Table, Any]]:
    """Yield dotted path, declaration and value of every figure and grid of a noun."""
    for name, declared in declared_in(type(noun)):
        path, value = prefix + declared.path, getattr(noun, name)
        if isinstance(declared, Section) and declared.named:
            for key, part in value.items():
                yield from figures_of(part, f"{path}.{key}.")
        elif isinstance(declared, Section):
            yield from figures_of(value, f"{path}.")
        elif isinstance(declared, Figure) and declared.keys:
            yield from ((f"{path}.{key}", declared, entry) for key, entry in value.items())
        elif not isinstance(declared, Text):
            yield path, declared, value


def refill(noun: NounT, values: Mapping[str, Any], prefix: str = "") -> NounT:
    """Return a noun with other figures and grids at the dotted paths of `values`."""
    changed: dict[str, Any] = {}
    for name, declared in declared_in(type(noun)):
        path, value = prefix + declared.path, getattr(noun, name)
        if isinstance(declared, Section) and declared.named:
            changed[name] = {key: refill(part, values, f"{path}.{key}.") for key, part in value.items()}
        elif isinstance(declared, Section):
            changed[name] = refill(value, values, f"{path}.")
        elif isinstance(declared, Figure) and declared.keys:
            changed[name] = {key: values.get(f"{path}.{key}", entry) for key, entry in value.items()}
        else:
            changed[name] = values.get(path, value)
    return dataclasses.replace(noun, **changed)  # type: ignore[type-var]
