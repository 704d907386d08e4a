"""A noun read from its file as it is declared; the schema is built only to name what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from perfmodel.errors import SpecError
from perfmodel.files.document import Document, parse_yaml
from perfmodel.files.plausible import (
    LONGEST_NAME,
    LONGEST_SOURCE,
    NAME,
    number_from,
    refuse_disorder,
    refuse_no_grid,
)
from perfmodel.files.quantity import (
    KINDS,
    Declared,
    Figure,
    Grid,
    Quantity,
    Section,
    Table,
    Text,
    declared_in,
    is_required,
    tree_of,
)
from perfmodel.files.spec import Spec, to_yaml
from perfmodel.files.units import SI_UNIT, parse_count

__all__ = ["noun_from", "read_back"]

SpecT = TypeVar("SpecT", bound=Spec)

_NAME = re.compile(NAME.strip("^$"))


def noun_from(noun: type[SpecT], document: Document) -> SpecT:
    """Return the noun that a document describes, with provenance; raises SpecError naming every fault."""
    try:
        if document.faults:
            raise SpecError(document.faults)
        quantities: dict[str, Quantity] = {}
        fields = _fields(noun, document.data, "", quantities)
    except SpecError:
        from perfmodel.files.checking import check
        from perfmodel.files.schema import schema_of

        check(schema_of(noun), document)  # which names all that is wrong, and where
        raise
    return noun(**fields, quantities=quantities).with_defaults()


def read_back(spec: SpecT) -> SpecT:
    """Return a spec as its file will be read: strictly, what it leaves out assumed. Raises SpecError."""
    return noun_from(type(spec), parse_yaml(to_yaml(spec).encode(), f"{spec.name}.yaml"))


def _fields(noun: type[Any], data: Any, prefix: str, store: dict[str, Quantity]) -> dict[str, Any]:
    """Return what a file says of the fields of a noun, and note where every figure comes from.

    Raises SpecError at the first thing that is not as declared.
    """
    given: dict[str, Any] = {}
    _gather(tree_of(noun), data, "", given)
    return {
        name: _value(declared, given[declared.path], prefix + declared.path, store)
        for name, declared in declared_in(noun)
        if declared.path in given
    }


def _gather(tree: Mapping[str, Any], data: Any, prefix: str, given: dict[str, Any]) -> None:
    """Put what is given under every declared path into `given`."""
    _refuse_unless(isinstance(data, dict) and tree.keys() >= data.keys())
    for key, declared in tree.items():
        if isinstance(declared, dict):
            _gather(declared, data.get(key, {}), f"{prefix}{key}.", given)
        elif key in data:
            given[prefix + key] = data[key]
        else:
            _refuse_unless(not is_required(declared))


def _value(declared: Declared, data: Any, path: str, store: dict[str, Quantity]) -> Any:
    """Return the value of a field of what a file says of it."""
    if isinstance(declared, Text):
        texts = data if declared.many else [data]
        _refuse_unless(isinstance(texts, list) and all(type(text) is str for text in texts))
        return tuple(texts) if declared.many else data
    if isinstance(declared, Section) and declared.named:
        _refuse_unless(isinstance(data, dict))
        _refuse_unless(all(len(key) <= LONGEST_NAME and _NAME.fullmatch(key) for key in data))
        return {
            key: declared.of(**_fields(declared.of, part, f"{path}.{key}.", store))
            for key, part in data.items()
        }
    if isinstance(declared, Section):
        return declared.of(**_fields(declared.of, data, f"{path}.", store))
    if isinstance(declared, Table):
        grid = _grid(declared, data)
        store[path] = Quantity(grid.seconds, grid.seconds, grid.seconds, "s", data["source"], data["kind"])
        return grid
    if not declared.keys:
        store[path] = quantity = _quantity(declared, data)
        return quantity.value
    _refuse_unless(isinstance(data, dict))
    _refuse_unless(set(declared.required) <= data.keys() and data.keys() <= set(declared.keys))
    quantities = {key: _quantity(declared, data[key]) for key in declared.keys if key in data}
    store |= {f"{path}.{key}": quantity for key, quantity in quantities.items()}
    return {key: quantity.value for key, quantity in quantities.items()}


def _quantity(declared: Figure, data: Any) -> Quantity:
    _refuse_unsourced(data, {"value"}, {"low", "high"})
    number = {
        end: number_from(data[end], declared.dimension, declared.least, declared.most)
        for end in ("value", "low", "high")
        if end in data
    }
    value, low, high = number["value"], number.get("low"), number.get("high")
    refuse_disorder(value, low, high, data["kind"])
    ends = (value, value) if low is None or high is None else (low, high)
    return Quantity(value, *ends, SI_UNIT[declared.dimension], data["source"], data["kind"])


def _grid(declared: Table, data: Any) -> Grid:
    _refuse_unsourced(data, {"sizes", "gpus"}, set())
    _refuse_unless(isinstance(data["sizes"], list) and isinstance(data["gpus"], dict))
    _refuse_unless(all(isinstance(row, list) for row in data["gpus"].values()))
    sizes = [number_from(size, "bytes", 1.0, 1e12) for size in data["sizes"]]
    rows = [
        [number_from(time, "seconds", declared.least, declared.most) for time in row]
        for row in data["gpus"].values()
    ]
    refuse_no_grid(sizes, data["gpus"], rows)
    counts = [parse_count(count) for count in data["gpus"]]
    return Grid(*(np.array(numbers, dtype=float) for numbers in (sizes, counts, rows)))


def _refuse_unsourced(data: Any, needed: set[str], further: set[str]) -> None:
    """Refuse what is no mapping of these keys with a source and a kind."""
    _refuse_unless(isinstance(data, dict))
    needed = needed | {"source", "kind"}
    _refuse_unless(needed <= data.keys() and data.keys() <= needed | further)
    source, kind = data["source"], data["kind"]
    _refuse_unless(type(source) is str and 1 <= len(source) <= LONGEST_SOURCE and kind in KINDS)


def _refuse_unless(as_declared: bool) -> None:
    """Refuse what is not as declared, in few words: the schema has the right ones."""
    if not as_declared:
        raise SpecError.single("", "", "the file is not as declared", "Compare it with a bundled one")
