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
from perfmodel.files.document import Document, Kind, Quantity, check
from perfmodel.files.figures import Declared, Figure, Grid, Section, Table, Text, declared_in
from perfmodel.files.quantity import Sourced
from perfmodel.files.units import DIMENSIONS, EXAMPLE, SI_UNIT, format_quantity, parse_count, parse_quantity

__all__ = ["json_schema", "noun_from", "schema_of"]

SourcedT = TypeVar("SourcedT", bound=Sourced)

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
            raise SpecError.single(
                "",
                "",
                f"{' and '.join(absent)} missing",
                "Give the range of a measured or assumed figure in full",
            )
        if not absent and not self.low <= self.value <= self.high:
            raise SpecError.single(
                "", "", "the value is not between low and high", "Write low <= value <= high"
            )
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
            raise SpecError.single(
                "", "", "GPU counts do not rise from 2", "Give rows for rising counts such as 2, 4, 8"
            )
        for count, row in self.gpus.items():
            if len(row) != len(self.sizes):
                problem = f"the row for {count} GPUs has {len(row)} times for {len(self.sizes)} sizes"
                raise SpecError.single("", "", problem, "Give one time per size")
            if np.any(np.diff(row) < 0):
                raise SpecError.single(
                    "", "", f"the row for {count} GPUs falls with size", "Give times that never fall"
                )
        return self

    def grid(self) -> Grid:
        counts = np.array([parse_count(count) for count in self.gpus], dtype=float)
        return Grid(
            np.array(self.sizes, dtype=float), counts, np.array(list(self.gpus.values()), dtype=float)
        )


def _bounded(dimension: str, least: float, most: float) -> Any:
    """Return the type of one number in a file: text with a unit in, SI float within a plausible range out."""

    def read(found: Any) -> float:
        value = parse_quantity(found, dimension)
        if not least <= value <= most:
            allowed = f"{format_quantity(least, dimension)} to {format_quantity(most, dimension)}"
            raise SpecError.single("", "", f"found {found}, which is not plausible", f"Allowed: {allowed}")
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
        one = _figure_schema(declared.dimension, declared.least, declared.most)
        if not declared.keys:
            return one
        entries: dict[str, Any] = {
            key: (one, _described(declared, key in declared.required)) for key in declared.keys
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


def noun_from(noun: type[SourcedT], document: Document) -> SourcedT:
    """Return the noun that a document describes, with provenance; raises SpecError naming every fault."""
    checked = check(schema_of(noun), document)
    quantities: dict[str, Quantity] = {}
    assumed: list[str] = []
    values = _values(noun, checked, "", quantities, assumed)
    return noun(**values, quantities=quantities, assumed=tuple(assumed))


def _values(
    noun: type[Any], checked: Any, prefix: str, quantities: dict[str, Quantity], assumed: list[str]
) -> dict[str, Any]:
    """Return the constructor arguments of a noun, noting provenance and assumptions on the way."""
    values: dict[str, Any] = {}
    for name, declared in declared_in(noun):
        path, found = prefix + declared.path, checked
        for part in declared.path.split("."):
            found = getattr(found, part, None)
        if isinstance(declared, Text):
            values[name] = _text(declared, found)
        elif isinstance(declared, Table):
            values[name] = found.grid()
            seconds = values[name].seconds
            quantities[path] = Quantity(seconds, seconds, seconds, "s", found.source, found.kind)
        elif isinstance(declared, Section) and declared.named:
            values[name] = {
                key: declared.of(**_values(declared.of, one, f"{path}.{key}.", quantities, assumed))
                for key, one in (found or {}).items()
            }
        elif isinstance(declared, Section):
            values[name] = declared.of(**_values(declared.of, found, f"{path}.", quantities, assumed))
        elif declared.keys:
            given = {key: one for key in declared.keys if (one := getattr(found, key, None)) is not None}
            unit = SI_UNIT[declared.dimension]
            quantities |= {f"{path}.{key}": one.quantity(unit) for key, one in given.items()}
            values[name] = {key: one.value for key, one in given.items()}
        else:
            values[name] = _figure(declared, found, path, quantities, assumed)
    return values


def _figure(
    declared: Figure, found: Any, path: str, quantities: dict[str, Quantity], assumed: list[str]
) -> float:
    if found is None:
        quantity = declared.assumption()
        low, value, high = (declared.shown(end) for end in (quantity.low, quantity.value, quantity.high))
        if low != high:  # else it is the usual form of an equation: nothing is guessed
            told = f"{value} assumed ({low} to {high}), {declared.meaning}"
            assumed.append(f"{path} is not in the file: {told}")
    else:
        quantity = found.quantity(SI_UNIT[declared.dimension])
    quantities[path] = quantity
    return float(quantity.value)


def _text(declared: Text, found: Any) -> str | tuple[str, ...]:
    if declared.many:
        return tuple(found or ())
    return str(declared.default if found is None else found)
