"""Strict reading of YAML and JSON files into checked values, and writing files whole or not at all."""

from __future__ import annotations

import os
import reprlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import Fault, SpecError, nearest_name
from perfmodel.files.documents import LARGEST_FILE, Document, dotted
from perfmodel.files.json_text import parse_json
from perfmodel.files.yaml_text import parse_yaml

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

    SchemaT = TypeVar("SchemaT", bound=BaseModel)

__all__ = ["Document", "Kind", "Quantity", "check", "read_json", "read_yaml", "write_whole"]

_MOST_FAULTS = 200

Kind: TypeAlias = Literal["measured", "published", "assumed"]


class Resource(Protocol):
    """What `importlib.resources` hands out; a `pathlib.Path` is one too."""

    @property
    def name(self) -> str: ...

    def read_bytes(self) -> bytes: ...


@dataclass(frozen=True)
class Quantity:
    """One figure with its provenance: SI value, 10th and 90th percentile, unit, source and kind."""

    value: float | NDArray[np.float64]
    low: float | NDArray[np.float64]
    high: float | NDArray[np.float64]
    unit: str
    source: str
    kind: Kind


def read_yaml(path: str | os.PathLike[str] | Resource, largest: int = LARGEST_FILE) -> Document:
    """Return a YAML file as plain values with the line of each.

    Accepted is what cannot be misread: one document, a mapping at the top, no tags, anchors, aliases,
    duplicate keys or tabs, no yes/no/on/off, numbers in decimal notation. Raises SpecError; faults that leave
    the rest readable are kept in the document and raised by `check` together with its own.
    """
    file, content = _read(path, largest)
    return parse_yaml(content, file)


def read_json(path: str | os.PathLike[str] | Resource, largest: int = LARGEST_FILE) -> Document:
    """Return a JSON file, an object at the top, as plain values with lines; strict as `read_yaml`."""
    file, content = _read(path, largest)
    return parse_json(content, file)


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
        found = error.errors(include_url=False)[:_MOST_FAULTS]
        faults += [fault for details in found for fault in _faults(schema, document, details)]
    if faults:
        ordered = sorted(dict.fromkeys(faults), key=lambda fault: fault.line or 0)
        if len(ordered) > _MOST_FAULTS:
            ordered[_MOST_FAULTS:] = [Fault("", None, "", "there are further faults", "Mend these first")]
        raise SpecError(ordered).located(file or document.file, None, "")
    return instance


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file so that readers see the old or the new content, never a part of it. Text is UTF-8.

    Raises SpecError where the file cannot be written; the old content then still stands.
    """
    target = Path(os.path.realpath(path))
    payload = content.encode("utf-8") if isinstance(content, str) else content
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o777)
        temporary.replace(target)
    except OSError as error:
        problem = f"the file cannot be written: {error.strerror or error}"
        raise SpecError.single(str(path), "", problem, "Name a file in a folder you may write to") from error
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: str | os.PathLike[str] | Resource, largest: int) -> tuple[str, bytes]:
    source: Resource = Path(path) if isinstance(path, (str, os.PathLike)) else path
    file = str(source)
    try:
        if isinstance(source, Path):
            if not source.is_file():
                problem = "is a folder or device" if source.exists() else "does not exist"
                raise SpecError.single(file, "", f"the file {problem}", "Name a readable file")
            with source.open("rb") as stream:
                content = stream.read(largest + 1)
        else:
            content = source.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError.single(
            file, "", f"the file cannot be read: {error}", "Name a readable file"
        ) from error
    if len(content) > largest:
        raise SpecError.single(file, "", f"the file is larger than {largest} bytes", "Such files are refused")
    return file, content


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
    place = details["loc"]
    if document.is_refused(place):
        return
    field, line = dotted([part for part in place if part != "[key]"]), document.line(place)
    shown = _short.repr(details["input"])
    kind = details["type"]
    if kind == "extra_forbidden":
        known = sorted(_keys_at(schema, place[:-1]))
        nearest = nearest_name(str(place[-1]), known)
        yield Fault("", line, field, "unknown key", f"Allowed here: {', '.join(known)}", nearest)
    elif kind == "missing":
        yield Fault("", line, field, "missing", _meaning_at(schema, place))
    elif kind == "value_error":
        cause = details["ctx"]["error"]
        if isinstance(cause, SpecError):
            yield from cause.located("", line, field).faults
        else:
            yield Fault("", line, field, str(cause))
    elif kind in _EXPECTED:
        remedy = _meaning_at(schema, place)
        yield Fault("", line, field, f"found {shown}, expected {_EXPECTED[kind]}", remedy)
    elif kind == "string_pattern_mismatch":
        yield Fault("", line, field, f"found {shown}", "Use lower-case letters, digits, '-', '_' and '.'")
    else:
        nearest = None
        if kind in ("literal_error", "enum") and isinstance(details["input"], str):
            allowed = [
                part.strip(" '") for part in details["ctx"]["expected"].replace(" or ", ", ").split(",")
            ]
            nearest = nearest_name(details["input"], allowed)
        yield Fault("", line, field, f"found {shown}", details["msg"].replace("Input", "It"), nearest)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_short.maxlevel, _short.maxdict, _short.maxlist = 2, 4, 4


def _keys_at(schema: Any, place: tuple[int | str, ...]) -> list[str]:
    found = _type_at(schema, place)
    fields = getattr(found, "model_fields", {})
    return [str(field.alias or name) for name, field in fields.items()]


def _meaning_at(schema: Any, place: tuple[int | str, ...]) -> str:
    parent = _type_at(schema, place[:-1])
    fields: Mapping[str, Any] = getattr(parent, "model_fields", {})
    for name, field in fields.items():
        if place and place[-1] in (name, field.alias):
            examples = f", for example {field.examples[0]}" if field.examples else ""
            return f"Expected: {field.description}{examples}" if field.description else ""
    return ""


def _type_at(schema: Any, place: tuple[int | str, ...]) -> Any:
    """Return the pydantic model that stands at a place of the document, or None."""
    found = schema
    for part in place:
        found = _inside(found, str(part))
    return found


def _inside(found: Any, part: str) -> Any:
    fields: Mapping[str, Any] = getattr(found, "model_fields", {})
    for name, field in fields.items():
        if part in (name, field.alias):
            return _unwrapped(field.annotation)
    origin = get_origin(found)
    if origin in (list, dict, tuple) and get_args(found):
        return _unwrapped(get_args(found)[-1 if origin is dict else 0])
    return None


def _unwrapped(annotation: Any) -> Any:
    """Return X of Optional[X] and of Annotated[X, ...]."""
    if hasattr(annotation, "__metadata__"):
        return _unwrapped(annotation.__origin__)
    options = [one for one in get_args(annotation) if one is not type(None)]
    if get_origin(annotation) not in (list, dict, tuple) and len(options) == 1:
        return _unwrapped(options[0])
    return annotation
