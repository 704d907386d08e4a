"""YAML and JSON files as plain values with the line of each; whatever could be misread is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol, TypeAlias

import yaml

from perfmodel.errors import Fault, SpecError, shown
from perfmodel.files.opening import PROFILE, Kind, read_file, text_of
from perfmodel.files.scalars import INFINITE, REMEDY, number_in, scalar_in

__all__ = [
    "Document", "Place", "Resource", "dotted", "parse_json", "parse_yaml", "read_json", "read_yaml",
]  # fmt: skip

_DEEPEST = 24
_MOST_FAULTS = 200
_MOST_PLACES = 100_000
"""Values of a YAML file, and those of a JSON file whose lines are told one by one."""
_MOST_VALUES = 400_000
"""Values of a JSON file: some configs name every quantised expert."""

Place: TypeAlias = tuple[str | int, ...]


class Resource(Protocol):
    """What `importlib.resources` hands out; a `pathlib.Path` is one too."""

    @property
    def name(self) -> str: ...

    def read_bytes(self) -> bytes: ...


@dataclasses.dataclass
class Document:
    """Plain values (`data`, a mapping), the line of every key and item, and the faults found on the way.

    `remarks` are sentences on what is assumed about the file as a whole.
    `beside` holds the documents that belong to this one, by their file names.
    """

    file: str
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[Place, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    refused: set[Place] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)
    beside: dict[str, Document] = field(default_factory=dict)

    def line(self, place: Sequence[str | int]) -> int | None:
        """Return the line of a place, or of the nearest thing around it."""
        around = (tuple(place[:end]) for end in range(len(place), -1, -1))
        return next((self.lines[outer] for outer in around if outer in self.lines), None)

    def is_refused(self, place: Sequence[str | int]) -> bool:
        """Tell whether a fault is already known at this place or around it."""
        return any(tuple(place[:end]) in self.refused for end in range(len(place) + 1))

    def refuse(self, place: Place, line: int | None, problem: str, remedy: str) -> None:
        """Note a fault that leaves the rest of the file readable."""
        self.refused.add(place)
        self.faults.append(Fault(self.file, line, dotted(place), problem, remedy))
        if len(self.faults) >= _MOST_FAULTS:
            self.stop((), None, "there are further faults", "Mend these first")

    def stop(self, place: Place, line: int | None, problem: str, remedy: str) -> NoReturn:
        """Raise everything wrong up to the point where reading cannot go on."""
        raise SpecError([*self.faults, Fault(self.file, line, dotted(place), problem, remedy)])


def read_yaml(path: str | os.PathLike[str] | Resource, kind: Kind = PROFILE) -> Document:
    """Return a YAML file as plain values with the line of each.

    Accepted is what cannot be misread: one document, a mapping at the top, no tags, anchors, aliases,
    duplicate keys or tabs, no yes/no/on/off, numbers in decimal notation. Raises SpecError; faults that leave
    the rest readable are kept in the document and raised by `check` together with its own.
    """
    return parse_yaml(*_read(path, kind))


def read_json(path: str | os.PathLike[str] | Resource, kind: Kind = PROFILE) -> Document:
    """Return a JSON file, an object at the top, as plain values with lines; strict as `read_yaml`."""
    return parse_json(*_read(path, kind))


def _read(path: str | os.PathLike[str] | Resource, kind: Kind) -> tuple[bytes, str]:
    if isinstance(path, (str, os.PathLike)):
        return read_file(path, kind), os.fspath(path)
    return path.read_bytes(), str(path)


def dotted(place: Sequence[str | int]) -> str:
    """Return a place as people write it, such as `peak.bf16.value`."""
    return ".".join(part if (part := str(key)[:80]).isprintable() else repr(part) for key in place)


# YAML.

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TOP = "Write 'key: value' lines at the top level"
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_yaml(content: bytes, file: str) -> Document:
    """Return the document of a YAML file; raises SpecError where the text cannot be read on."""
    text, document = text_of(content, file), Document(file)
    if tab := re.search(r"^ *\t", text, re.MULTILINE):
        line = text.count("\n", 0, tab.start()) + 1
        document.stop((), line, "found a tab in the indentation", "Indent with spaces")
    document.data = _Events(document, text, scalar_in).take()
    return document


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


class _Events:
    """Takes values and lines from the events of a YAML text, as they come, into a document."""

    def __init__(
        self, document: Document, text: str, resolve: Callable[[str, bool], tuple[Any, str | None]]
    ) -> None:
        self._document, self._text, self._resolve = document, text, resolve
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_Loader)
        self._place: Place = ()

    def take(self) -> dict[str, Any]:
        """Return the mapping at the top of the only document."""
        data: dict[str, Any] | None = None
        try:
            for event in self._events:
                line = _line(event)
                if isinstance(event, yaml.NodeEvent):
                    data = self._top(event, line)
                elif isinstance(event, yaml.DocumentStartEvent) and data is not None:
                    remedy = "Write one document per file, without '---'"
                    self._stop(line, "a second document starts here", remedy)
                elif isinstance(event, yaml.DocumentStartEvent) and event.tags:
                    self._stop(line, "found a %TAG directive", "Remove it: tags are not accepted")
        except SpecError:
            raise
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: impossible escapes
            problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable text"
            remedy = "Check quotes, colons and indentation"
            self._stop(self._line_of(error), f"not valid YAML: {problem}", remedy)
        if data is None:
            self._stop(1, "the file is empty", "Write 'key: value' lines")
        return data

    def _line_of(self, error: Exception) -> int | None:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        position: int | None = getattr(error, "position", None)
        if mark is None and position is not None:
            return self._text.count("\n", 0, position) + 1
        return mark.line + 1 if mark else None

    def _stop(self, line: int | None, problem: str, remedy: str) -> NoReturn:
        self._document.stop(self._place, line, problem, remedy)

    def _next(self, place: Place) -> yaml.Event:
        """Return the next event, which stands at or in a place."""
        self._place = place
        return next(self._events)

    def _top(self, event: yaml.NodeEvent, line: int) -> dict[str, Any]:
        self._document.lines[()] = line
        value = self._value(event, ())
        if not isinstance(value, dict):
            what = "a list" if isinstance(value, list) else shown(value)
            self._stop(line, f"found {what}, not a mapping", _TOP)
        return value

    def _value(self, event: yaml.Event, place: Place) -> Any:
        line = _line(event)
        self._refuse_marks(event, line)
        if len(self._document.lines) > _MOST_PLACES:
            self._document.stop((), line, f"holds more than {_MOST_PLACES:,} values", "Write a shorter file")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, place, line, is_key=False)
        if len(place) >= _DEEPEST:
            self._stop(line, f"nested deeper than {_DEEPEST} levels", "Write a flatter file")
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := self._next(place), yaml.SequenceEndEvent):
                inside = (*place, len(items))
                self._document.lines[inside] = _line(event)
                items.append(self._value(event, inside))
            return items
        mapping: dict[str, Any] = {}
        while not isinstance(event := self._next(place), yaml.MappingEndEvent):
            inside = (*place, self._key(event, place, mapping))
            mapping.setdefault(str(inside[-1]), self._value(self._next(inside), inside))
        return mapping

    def _key(self, event: yaml.Event, place: Place, mapping: dict[str, Any]) -> str:
        line = _line(event)
        self._refuse_marks(event, line)
        if not isinstance(event, yaml.ScalarEvent):
            self._stop(line, "found a list or mapping as a key", "Write a text as key")
        inside = (*place, str(event.value))
        if event.value in mapping:
            problem = f"the key appears twice, first in line {self._document.lines[inside]}"
            self._document.refuse(inside, line, problem, "Keep one of them")
        else:
            self._document.lines[inside] = line
        self._scalar(event, inside, line, is_key=True)
        return str(event.value)

    def _scalar(self, event: yaml.ScalarEvent, place: Place, line: int, *, is_key: bool) -> Any:
        value, problem = (event.value, None) if event.style else self._resolve(event.value, is_key)
        if problem:
            self._document.refuse(place, line, f"found {shown(event.value)}, {problem}", REMEDY[problem])
        if isinstance(value, str) and _SURROGATE.search(value):
            self._stop(line, *_HALF)
        return value

    def _refuse_marks(self, event: yaml.Event, line: int) -> None:
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent):
            self._stop(line, f"found the alias *{anchor}", "Write the value out: aliases are not accepted")
        if anchor is not None:
            self._stop(line, f"found the anchor &{anchor}", "Remove it: anchors are not accepted")
        if tag is not None:
            self._stop(line, f"found the tag {tag[:80]}", "Remove it: tags are not accepted")


_HALF = ("found half of a character pair", "Write the character itself")


# JSON: values as Python's own reader gives them, lines as the YAML reader tells them.

_NOT_YAML = re.compile(r"[\t\x7f-\x9f\u2028\u2029\ufffe\uffff]|\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


@dataclass(frozen=True)
class _Refused:
    """A number that is none: how it is shown, what stands for it, and what is wrong."""

    text: str
    value: str | None
    problem: str


def parse_json(content: bytes, file: str) -> Document:
    """Return the document of a JSON file; raises SpecError where the text cannot be read on."""
    text, document = text_of(content, file), Document(file)
    values = text.count(",") + text.count("[") + text.count("{")
    if values > _MOST_VALUES:
        document.stop((), None, f"holds more than {_MOST_VALUES:,} values", "Give the file as it was made")
    try:
        if values > _MOST_PLACES:
            document.lines[()] = 1
        else:
            _Events(document, _NOT_YAML.sub(" ", text), lambda scalar, _: (scalar, None)).take()
    except SpecError:
        document.lines.setdefault((), 1)
    try:
        objects = json.loads(
            text, object_pairs_hook=tuple, parse_int=_number, parse_float=_number,
            parse_constant=lambda word: _Refused(word, None, INFINITE),
        )  # fmt: skip
    except json.JSONDecodeError as error:
        document.stop((), error.lineno, f"not valid JSON: {error.msg}", "Check quotes, commas and brackets")
    except RecursionError:
        line = max(document.lines.values())
        document.stop((), line, f"nested deeper than {_DEEPEST} levels", "Write a flatter file")
    if not isinstance(objects, tuple):
        what = "a list" if isinstance(objects, list) else shown(objects)
        document.stop((), document.line(()), f"found {what}, not a mapping", _TOP)
    document.data = _plain(document, objects, ())
    return document


def _number(text: str) -> Any:
    value, problem = number_in(text)
    return _Refused(shown(text), value, problem) if problem else value


def _plain(document: Document, value: Any, place: Place) -> Any:
    """Return plain data of what the JSON reader gave; what is wrong is refused at its place."""
    line = document.line(place)
    if isinstance(value, _Refused):
        document.refuse(place, line, f"found {value.text}, {value.problem}", REMEDY[value.problem])
        return value.value
    if isinstance(value, str) and _SURROGATE.search(value):
        document.stop(place, line, *_HALF)
    if not isinstance(value, (list, tuple)):
        return value
    if len(place) >= _DEEPEST:
        document.stop(place, line, f"nested deeper than {_DEEPEST} levels", "Write a flatter file")
    if isinstance(value, list):
        return [_plain(document, item, (*place, index)) for index, item in enumerate(value)]
    mapping: dict[str, Any] = {}
    for key, item in value:
        inside = (*place, _plain(document, key, place))
        if key in mapping and inside not in document.refused:
            document.refuse(inside, document.line(inside), "the key appears twice", "Keep one of them")
        mapping.setdefault(key, _plain(document, item, inside))
    return mapping
