"""The pydantic schema of a noun, derived from its declared figures, and the reading of a file through it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import GenericAlias
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    create_model,
    model_validator,
)

from perfmodel.errors import SpecError
from perfmodel.files.checking import check
from perfmodel.files.document import Document, parse_yaml
from perfmodel.files.quantity import Declared, Figure, Grid, Kind, Quantity, Section, Table, Text, declared_in
from perfmodel.files.spec import Spec, to_yaml
from perfmodel.files.units import DIMENSIONS, EXAMPLE, SI_UNIT, format_quantity, parse_count, parse_quantity

__all__ = ["json_schema", "noun_from", "read_back", "schema_of"]

SpecT = TypeVar("SpecT", bound=Spec)

_NAME = r"^[a-z0-9][a-z0-9._-]*$"
_SCHEMAS: dict[type[Any], type[BaseModel]] = {}
_Name = Annotated[str, Field(pattern=_NAME, max_length=100)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Sourced(_Strict):
    """What every figure says beside its value."""

    source: Annotated[str, Field(min_length=1, max_length=2000, description="where the figure comes from")]
    kind: Annotated[Kind, Field(description="measured, published or assumed")]


class _Figure(_Sourced):
    """One figure in SI units; a range is needed unless the value is published."""

    value: Any
    low: Any = None
    high: Any = None

    @model_validator(mode="after")
    def _in_order(self) -> _Figure:
        absent = [name for name in ("low", "high") if getattr(self, name) is None]
        if len(absent) == 1 or (absent and self.kind != "published"):
            remedy = "Give the range of a measured or assumed figure in full"
            raise SpecError.single("", "", f"{' and '.join(absent)} missing", remedy)
        if not absent and not self.low <= self.value <= self.high:
            problem = "the value is not between low and high"
            raise SpecError.single("", "", problem, "Write low <= value <= high")
        return self

    def quantity(self, unit: str) -> Quantity:
        low, high = (self.value, self.value) if self.low is None else (self.low, self.high)
        return Quantity(self.value, low, high, unit, self.source, self.kind)


class _Grid(_Sourced):
    """Seconds by number of GPUs and message size."""

    sizes: list[Any]
    gpus: dict[str, Any]

    @model_validator(mode="after")
    def _is_a_grid(self) -> _Grid:
        counts = [parse_count(count) for count in self.gpus]
        if len(self.sizes) < 2 or np.any(np.diff(self.sizes) <= 0):
            raise SpecError.single("", "", "sizes do not rise", "Give at least two rising message sizes")
        if not counts or min(counts) < 2 or np.any(np.diff(counts) <= 0):
            remedy = "Give rows for rising counts such as 2, 4, 8"
            raise SpecError.single("", "", "GPU counts do not rise from 2", remedy)
        for count, row in self.gpus.items():
            if len(row) != len(self.sizes):
                problem = f"the row for {count} GPUs has {len(row)} times for {len(self.sizes)} sizes"
                raise SpecError.single("", "", problem, "Give one time per size")
            if np.any(np.diff(row) < 0):
                problem = f"the row for {count} GPUs falls with size"
                raise SpecError.single("", "", problem, "Give times that never fall")
        return self

    def grid(self) -> Grid:
        counts, rows = [parse_count(count) for count in self.gpus], list(self.gpus.values())
        return Grid(*(np.array(numbers, dtype=float) for numbers in (self.sizes, counts, rows)))


def _bounded(dimension: str, least: float, most: float) -> Any:
    """Return the type of one number in a file: text with a unit in, SI float within a plausible range out."""

    def read(given: Any) -> float:
        value = parse_quantity(given, dimension)
        if not least <= value <= most:
            allowed = f"{format_quantity(least, dimension)} to {format_quantity(most, dimension)}"
            raise SpecError.single("", "", f"found {given}, which is not plausible", f"Allowed: {allowed}")
        return value

    units = sorted(unit for unit in DIMENSIONS[dimension] if unit)
    accepted: dict[str, Any] = {"type": ["number", "string"] if "" in DIMENSIONS[dimension] else "string"}
    described = {"description": f"a number with one of the units {', '.join(units)}"} if units else {}
    return Annotated[float, BeforeValidator(read), WithJsonSchema({**accepted, **described})]


@lru_cache(maxsize=256)
def _figure_schema(dimension: str, least: float, most: float) -> type[BaseModel]:
    number = _bounded(dimension, least, most)
    return create_model(
        "Figure", __base__=_Figure, value=(number, ...), low=(number, None), high=(number, None)
    )


def _type_of(declared: Declared) -> Any:
    if isinstance(declared, Figure):
        figure = _figure_schema(declared.dimension, declared.least, declared.most)
        if not declared.keys:
            return figure
        entries: dict[str, Any] = {
            key: (figure, _described(declared, key in declared.required)) for key in declared.keys
        }
        return create_model(declared.path, __base__=_Strict, **entries)
    if isinstance(declared, Table):
        seconds = _bounded("seconds", declared.least, declared.most)
        sizes: Any = GenericAlias(list, _bounded("bytes", 1.0, 1e12))
        rows: Any = GenericAlias(dict, (str, GenericAlias(list, seconds)))
        return create_model("Grid", __base__=_Grid, sizes=(sizes, ...), gpus=(rows, ...))
    if isinstance(declared, Text):
        return list[str] if declared.many else str
    return GenericAlias(dict, (_Name, schema_of(declared.of))) if declared.named else schema_of(declared.of)


def _described(declared: Declared, required: bool) -> Any:
    if isinstance(declared, Figure):
        example = f"{{value: {EXAMPLE[declared.dimension]}, source: data sheet, kind: published}}"
        return Field(... if required else None, description=declared.meaning, examples=[example])
    if isinstance(declared, Section):
        return Field(None, description=f"{declared.of.__doc__}".strip().partition("\n")[0])
    return Field(... if required else None, description=declared.meaning)


def schema_of(noun: type[Any]) -> type[BaseModel]:
    """Return the pydantic model of the files that describe a noun (or a section of one)."""
    if noun in _SCHEMAS:
        return _SCHEMAS[noun]
    tree: dict[str, Any] = {}
    for _, declared in declared_in(noun):
        *groups, last = declared.path.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[last] = declared
    return _SCHEMAS.setdefault(noun, _model(noun.__name__, tree))


def _model(name: str, tree: Mapping[str, Any]) -> type[BaseModel]:
    entries: dict[str, Any] = {}
    for key, declared in tree.items():
        if isinstance(declared, dict):
            inner = _model(key, declared)
            needed = any(field.is_required() for field in inner.model_fields.values())
            entries[key] = (inner, ... if needed else None)
        else:
            entries[key] = (_type_of(declared), _described(declared, _is_required(declared)))
    return create_model(name, __base__=_Strict, **entries)


def _is_required(declared: Declared) -> bool:
    if isinstance(declared, Figure):
        return bool(declared.required) if declared.keys else declared.default is None
    return isinstance(declared, Table) or (isinstance(declared, Text) and declared.default is None)


def json_schema(noun: type[Any]) -> dict[str, Any]:
    """Return the JSON Schema of the files that describe a noun, for editors that complete and check YAML."""
    schema = schema_of(noun).model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def noun_from(noun: type[SpecT], document: Document) -> SpecT:
    """Return the noun that a document describes, with provenance; raises SpecError naming every fault."""
    checked = check(schema_of(noun), document)
    quantities: dict[str, Quantity] = {}
    return noun(**_fields(noun, checked, "", quantities), quantities=quantities).with_defaults()


def read_back(spec: SpecT) -> SpecT:
    """Return a spec as its file will be read: strictly, what it leaves out assumed. Raises SpecError."""
    return noun_from(type(spec), parse_yaml(to_yaml(spec).encode(), f"{spec.name}.yaml"))


def _fields(noun: type[Any], checked: Any, prefix: str, store: dict[str, Quantity]) -> dict[str, Any]:
    """Return what a file says of the fields of a noun, and note where every figure comes from."""
    fields: dict[str, Any] = {}
    for name, declared in declared_in(noun):
        path, entry = prefix + declared.path, checked
        for part in declared.path.split("."):
            entry = getattr(entry, part, None)
        if entry is None:
            continue
        if isinstance(declared, Text):
            fields[name] = tuple(entry) if declared.many else str(entry)
        elif isinstance(declared, Section) and declared.named:
            fields[name] = {
                key: declared.of(**_fields(declared.of, part, f"{path}.{key}.", store))
                for key, part in entry.items()
            }
        elif isinstance(declared, Section):
            fields[name] = declared.of(**_fields(declared.of, entry, f"{path}.", store))
        elif isinstance(declared, Table):
            fields[name] = grid = entry.grid()
            store[path] = Quantity(grid.seconds, grid.seconds, grid.seconds, "s", entry.source, entry.kind)
        elif declared.keys:
            given = {key: part for key in declared.keys if (part := getattr(entry, key)) is not None}
            unit = SI_UNIT[declared.dimension]
            store |= {f"{path}.{key}": part.quantity(unit) for key, part in given.items()}
            fields[name] = {key: part.value for key, part in given.items()}
        else:
            store[path] = entry.quantity(SI_UNIT[declared.dimension])
            fields[name] = entry.value
    return fields
