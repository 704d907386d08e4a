"""Checks a document against a pydantic schema and names everything wrong with it, each with its line."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from perfmodel.errors import Fault, SpecError, nearest_name
from perfmodel.files.document import Document, Place, dotted

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

    SchemaT = TypeVar("SchemaT", bound=BaseModel)

__all__ = ["check"]

_MOST_FAULTS = 200


def check(schema: type[SchemaT], document: Document, file: str = "") -> SchemaT:
    """Return the document as an instance of a pydantic schema.

    Validation is strict (a quoted number is a text). Raises one SpecError that lists every fault of the file
    with its line, what was found, what is allowed and the nearest known name.
    """
    from pydantic import ValidationError

    faults = list(document.faults)
    try:
        instance = schema.model_validate(document.data, strict=True)
    except ValidationError as error:
        refused = error.errors(include_url=False)[:_MOST_FAULTS]
        faults += [fault for details in refused for fault in _faults(schema, document, details)]
    if faults:
        ordered = sorted(dict.fromkeys(faults), key=lambda fault: fault.line or 0)
        if len(ordered) > _MOST_FAULTS:
            ordered[_MOST_FAULTS:] = [Fault("", None, "", "there are further faults", "Mend these first")]
        raise SpecError(ordered).located(file or document.file, None, "")
    return instance


_EXPECTED = {
    "string_type": "a text; put it in quotes if it looks like a number",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def _faults(schema: type[BaseModel], document: Document, details: ErrorDetails) -> Iterator[Fault]:
    place, kind = details["loc"], details["type"]
    if document.is_refused(place):
        return
    field, line = dotted([part for part in place if part != "[key]"]), document.line(place)
    given = f"found {_short.repr(details['input'])}"
    if kind == "value_error":
        cause = details["ctx"]["error"]
        refusal = cause if isinstance(cause, SpecError) else SpecError.single("", "", str(cause))
        yield from refusal.located("", line, field).faults
        return
    nearest = None
    if kind == "extra_forbidden":
        fields = getattr(_type_at(schema, place[:-1]), "model_fields", {})
        known = sorted(str(entry.alias or name) for name, entry in fields.items())
        problem, remedy = "unknown key", f"Allowed here: {', '.join(known)}"
        nearest = nearest_name(str(place[-1]), known)
    elif kind == "missing":
        problem, remedy = "missing", _meaning_at(schema, place)
    elif kind in _EXPECTED:
        problem, remedy = f"{given}, expected {_EXPECTED[kind]}", _meaning_at(schema, place)
    elif kind == "string_pattern_mismatch":
        problem, remedy = given, "Use lower-case letters, digits, '-', '_' and '.'"
    else:
        problem, remedy = given, details["msg"].replace("Input", "It")
        if kind in ("literal_error", "enum") and isinstance(details["input"], str):
            allowed = details["ctx"]["expected"].replace(" or ", ", ").split(",")
            nearest = nearest_name(details["input"], [part.strip(" '") for part in allowed])
    yield Fault("", line, field, problem, remedy, nearest)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_short.maxlevel, _short.maxdict, _short.maxlist = 2, 4, 4


def _meaning_at(schema: Any, place: Place) -> str:
    """Return what a field of a schema means, with an example."""
    field = _field_of(_type_at(schema, place[:-1]), str(place[-1]))
    if field is None or not field.description:
        return ""
    examples = f", for example {field.examples[0]}" if field.examples else ""
    return f"Expected: {field.description}{examples}"


def _type_at(schema: Any, place: Place) -> Any:
    """Return the pydantic model that stands at a place of the document, or None."""
    for part in place:
        field = _field_of(schema, str(part))
        if field is not None:
            schema = _unwrap(field.annotation)
        elif (origin := get_origin(schema)) in (list, dict, tuple) and get_args(schema):
            schema = _unwrap(get_args(schema)[-1 if origin is dict else 0])
        else:
            return None
    return schema


def _field_of(schema: Any, key: str) -> Any:
    """Return the field of a schema under a key, or None."""
    fields: Mapping[str, Any] = getattr(schema, "model_fields", {})
    return next((field for name, field in fields.items() if key in (name, field.alias)), None)


def _unwrap(annotation: Any) -> Any:
    """Return X of Optional[X] and of Annotated[X, ...]."""
    if hasattr(annotation, "__metadata__"):
        return _unwrap(annotation.__origin__)
    options = [option for option in get_args(annotation) if option is not type(None)]
    if get_origin(annotation) not in (list, dict, tuple) and len(options) == 1:
        return _unwrap(options[0])
    return annotation
