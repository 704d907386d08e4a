"""The pydantic schema of a noun, derived from its declared figures."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from types import GenericAlias
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    create_model,
    model_validator,
)

from perfmodel.files.plausible import (
    LONGEST_NAME,
    LONGEST_SOURCE,
    NAME,
    number_from,
    refuse_disorder,
    refuse_no_grid,
)
from perfmodel.files.quantity import Declared, Figure, Kind, Section, Table, Text, is_required, tree_of
from perfmodel.files.units import DIMENSIONS, EXAMPLE

__all__ = ["json_schema", "schema_of"]

_SCHEMAS: dict[type[Any], type[BaseModel]] = {}
_Name = Annotated[str, Field(pattern=NAME, max_length=LONGEST_NAME)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Sourced(_Strict):
    """What every figure says beside its value."""

    source: Annotated[
        str, Field(min_length=1, max_length=LONGEST_SOURCE, description="where the figure comes from")
    ]
    kind: Annotated[Kind, Field(description="measured, published or assumed")]


class _Figure(_Sourced):
    """One figure in SI units; a range is needed unless the value is published."""

    value: Any
    low: Any = None
    high: Any = None

    @model_validator(mode="after")
    def _in_order(self) -> _Figure:
        refuse_disorder(self.value, self.low, self.high, self.kind)
        return self


class _Grid(_Sourced):
    """Seconds by number of GPUs and message size."""

    sizes: list[Any]
    gpus: dict[str, Any]

    @model_validator(mode="after")
    def _is_a_grid(self) -> _Grid:
        refuse_no_grid(self.sizes, self.gpus, self.gpus.values())
        return self


def _bounded(dimension: str, least: float, most: float) -> Any:
    """Return the type of one number in a file: text with a unit in, SI float within a plausible range out."""
    read = partial(number_from, dimension=dimension, least=least, most=most)
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
    return _SCHEMAS.setdefault(noun, _model(noun.__name__, tree_of(noun)))


def _model(name: str, tree: Mapping[str, Any]) -> type[BaseModel]:
    entries: dict[str, Any] = {}
    for key, declared in tree.items():
        if isinstance(declared, dict):
            inner = _model(key, declared)
            needed = any(field.is_required() for field in inner.model_fields.values())
            entries[key] = (inner, ... if needed else None)
        else:
            entries[key] = (_type_of(declared), _described(declared, is_required(declared)))
    return create_model(name, __base__=_Strict, **entries)


def json_schema(noun: type[Any]) -> dict[str, Any]:
    """Return the JSON Schema of the files that describe a noun, for editors that complete and check YAML."""
    schema = schema_of(noun).model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
