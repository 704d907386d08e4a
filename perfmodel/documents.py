"""YAML and JSON text to plain values with the line of every one; refuses whatever could be misread."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from perfmodel.errors import Fault, SpecError

__all__ = ["LARGEST_FILE", "Document", "Place", "parse_json", "parse_yaml"]

LARGEST_FILE = 1_000_000
_DEEPEST = 24
_LONGEST_NUMBER = 30
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Place: TypeAlias = tuple[str | int, ...]


@dataclass
class Document:
    """Plain values (`data`, a mapping), the line of every key and item, and the faults that did not stop the reading."""

    file: str
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[Place, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    refused: set[Place] = field(default_factory=set)

    def line(self, place: Sequence[str | int]) -> int | None:
        """Return the line of a place, or of the nearest thing around it."""
        for end in range(len(place), -1, -1):
            if (found := self.lines.get(tuple(place[:end]))) is not None:
                return found
        return None

    def is_refused(self, place: Sequence[str | int]) -> bool:
        """Tell whether a fault is already known at this place or around it."""
        return any(tuple(place[:end]) in self.refused for end in range(len(place) + 1))

    def refuse(self, place: Place, line: int, problem: str, remedy: str) -> None:
        """Note a fault that leaves the rest of the file readable."""
        self.refused.add(place)
        self.faults.append(Fault(self.file, line, ".".join(map(str, place)), problem, remedy))


class _Builder:
    """Puts values, in the order in which they are read, where they belong in a document."""

    def __init__(self, file: str) -> None:
        self.document = Document(file)
        self._open: list[dict[str, Any] | list[Any]] = []
        self._keys: list[str | int | None] = []
        self._complete = False

    @property
    def place(self) -> Place:
        return tuple(key for key in self._keys if key is not None)

    @property
    def expects_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1], dict) and self._keys[-1] is None

    def stop(self, line: int | None, problem: str, remedy: str) -> SpecError:
        """Return everything wrong up to the point where reading cannot go on."""
        place = ".".join(map(str, self.place))
        return SpecError([*self.document.faults, Fault(self.document.file, line, place, problem, remedy)])

    def key(self, name: str, line: int) -> None:
        self._keys[-1] = name
        holder = self._open[-1]
        if name in holder:
            first = self.document.lines[self.place]
            self.document.refuse(self.place, line, f"the key appears twice, first in line {first}", "Keep one of them")
        else:
            self.document.lines[self.place] = line

    def value(self, value: Any, line: int) -> None:
        if not self._open:
            raise self.stop(line, f"found {_shown(value)}, not a mapping", "Write 'key: value' lines at the top level")
        self._put(value, line)
        self._next()

    def start(self, holder: dict[str, Any] | list[Any], line: int) -> None:
        if self.expects_key:
            raise self.stop(line, "found a list or mapping as a key", "Write a text as key")
        if len(self._open) >= _DEEPEST:
            raise self.stop(line, f"nested deeper than {_DEEPEST} levels", "Write a flatter file")
        if self._open:
            self._put(holder, line)
        elif isinstance(holder, dict):
            self.document.data = holder
            self.document.lines[()] = line
        else:
            raise self.stop(line, "found a list, not a mapping", "Write 'key: value' lines at the top level")
        self._open.append(holder)
        self._keys.append(None if isinstance(holder, dict) else 0)

    def end(self) -> None:
        self._open.pop()
        self._keys.pop()
        if self._open:
            self._next()

    def _put(self, value: Any, line: int) -> None:
        holder, key = self._open[-1], self._keys[-1]
        if isinstance(holder, list):
            holder.append(value)
            self.document.lines[self.place] = line
        elif isinstance(key, str):
            holder.setdefault(key, value)

    def _next(self) -> None:
        key = self._keys[-1]
        self._keys[-1] = key + 1 if isinstance(key, int) else None


def parse_yaml(content: bytes, file: str) -> Document:
    """Return the document of a YAML file; raises SpecError where the text cannot be read on."""
    text = _decode(content, file)
    build = _Builder(file)
    if tab := re.search(r"^ *\t", text, re.MULTILINE):
        line = text.count("\n", 0, tab.start()) + 1
        raise build.stop(line, "found a tab in the indentation", "Indent with spaces")
    try:
        for event in yaml.parse(text, Loader=_Loader):
            _take(build, event)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        position = getattr(error, "position", None)
        line = mark.line + 1 if mark else text.count("\n", 0, position) + 1 if position is not None else None
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable text"
        raise build.stop(line, f"not valid YAML: {problem}", "Check quotes, colons and indentation") from error
    return _finished(build)


_documents_seen = yaml.DocumentStartEvent


def _take(build: _Builder, event: yaml.Event) -> None:
    line = event.start_mark.line + 1
    if isinstance(event, yaml.DocumentStartEvent):
        if build.document.lines:
            raise build.stop(line, "a second document starts here", "Write one document per file, without '---'")
        if event.tags:
            raise build.stop(line, "found a %TAG directive", "Remove it: tags are not accepted")
    elif isinstance(event, yaml.AliasEvent):
        raise build.stop(line, f"found the alias *{event.anchor}", "Write the value out: aliases are not accepted")
    elif isinstance(event, yaml.NodeEvent):
        _take_node(build, event, line)
    elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
        build.end()


def _take_node(build: _Builder, event: yaml.NodeEvent, line: int) -> None:
    if event.anchor is not None:
        raise build.stop(line, f"found the anchor &{event.anchor}", "Remove it: anchors are not accepted")
    tag = getattr(event, "tag", None)
    if tag is not None:
        raise build.stop(line, f"found the tag {tag[:80]}", "Remove it: tags are not accepted")
    if isinstance(event, yaml.MappingStartEvent):
        build.start({}, line)
    elif isinstance(event, yaml.SequenceStartEvent):
        build.start([], line)
    elif isinstance(event, yaml.ScalarEvent):
        is_key = build.expects_key
        if is_key:
            build.key(event.value, line)
        problem, value = None, event.value
        if not event.style:
            value, problem = _resolve(event.value, is_key)
        if problem:
            build.document.refuse(build.place, line, f"found {_shown(event.value)}, {problem}", _REMEDY[problem])
        if not is_key:
            build.value(value, line)


_TRUTH = "which some YAML readers take for true or false"
_NOTATION = "a number in a notation that YAML readers read differently"
_HUGE = "a number of absurd length"
_INFINITE = "which is not a finite number"
_REMEDY = {
    _TRUTH: "Write true or false, or put the text in quotes",
    _NOTATION: "Write a decimal number without leading zeros, or put the text in quotes",
    _HUGE: f"Write at most {_LONGEST_NUMBER} digits",
    _INFINITE: "Write a finite number",
}
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NORWAY = frozenset(("y", "n", "yes", "no", "on", "off"))
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_ODD = re.compile(r"[-+]?(?:0[0-9_]+|0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*_[0-9_]*|[0-9]+(?::[0-5]?[0-9])+)", re.ASCII)


def _resolve(text: str, is_key: bool) -> tuple[Any, str | None]:
    """Return the value of an unquoted YAML scalar, and what is wrong with it."""
    if text.lower() in _NORWAY:
        return text, _TRUTH
    if is_key or text in _NULLS:
        return (text if is_key else None), None
    if text in _BOOLEANS:
        return _BOOLEANS[text], None
    if text.lower().lstrip("+-") in (".inf", ".nan"):
        return text, _INFINITE
    if _ODD.fullmatch(text):
        return text, _NOTATION
    return _number(text)


def _number(text: str) -> tuple[Any, str | None]:
    if not (is_integer := _INTEGER.fullmatch(text)) and not _FLOAT.fullmatch(text):
        return text, None
    if len(text) > _LONGEST_NUMBER:
        return text, _HUGE
    if is_integer:
        return int(text), None
    value = float(text)
    return (value, None) if math.isfinite(value) else (text, _INFINITE)


_JSON_TOKEN = re.compile(
    r'[ \t\r\n]*(?:([{}\[\],:])|("(?:[^"\\\x00-\x1f]|\\.)*")|([-+.\w]+))', re.ASCII
)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", re.ASCII)
_JSON_WORDS = {"true": True, "false": False, "null": None}


def parse_json(content: bytes, file: str) -> Document:
    """Return the document of a JSON file; raises SpecError where the text cannot be read on."""
    text = _decode(content, file)
    build = _Builder(file)
    wanted = "value"
    closers: list[str] = []
    for line, sign, string, word in _json_tokens(text, build):
        if wanted == "end":
            raise build.stop(line, "found text after the end of the document", "Write one JSON object per file")
        if sign and sign in "}]":
            if not closers or closers[-1] != sign or wanted not in ("next", "first key", "first value"):
                raise build.stop(line, f"not valid JSON: {sign} is out of place", "Check commas and brackets")
            closers.pop()
            build.end()
        elif wanted == "next" or wanted == "colon":
            if sign != ("," if wanted == "next" else ":"):
                raise build.stop(line, "not valid JSON: a comma or colon is missing", "Check commas and brackets")
            wanted = ("key" if closers[-1] == "}" else "value") if wanted == "next" else "value"
            continue
        elif wanted.endswith("key"):
            if not string:
                raise build.stop(line, "not valid JSON: a key must be a text in double quotes", "Check the commas")
            build.key(_json_string(build, string, line), line)
            wanted = "colon"
            continue
        elif sign and sign in "{[":
            build.start({} if sign == "{" else [], line)
            closers.append("}" if sign == "{" else "]")
            wanted = "first key" if sign == "{" else "first value"
            continue
        else:
            build.value(_json_scalar(build, sign, string, word, line), line)
        wanted = "next" if closers else "end"
    if wanted != "end":
        raise build.stop(text.count("\n") + 1, "the text ends too early or is empty", "Complete the JSON object")
    return build.document


def _json_tokens(text: str, build: _Builder) -> Iterator[tuple[int, str, str, str]]:
    position, line = 0, 1
    length = len(text.rstrip(" \t\r\n"))
    while position < length:
        match = _JSON_TOKEN.match(text, position)
        if match is None:
            start = re.compile(r"\s*").match(text, position)
            line += text.count("\n", position, start.end() if start else position)
            raise build.stop(line, f"not valid JSON: {_shown(text[position:position + 20])}", "Check quotes and commas")
        line += text.count("\n", position, match.end())
        position = match.end()
        yield line, match[1] or "", match[2] or "", match[3] or ""


def _json_string(build: _Builder, token: str, line: int) -> str:
    try:
        return str(json.loads(token))
    except ValueError as error:
        raise build.stop(line, f"not valid JSON: {_shown(token)}", "Check the escapes of this text") from error


def _json_scalar(build: _Builder, sign: str, string: str, word: str, line: int) -> Any:
    if string:
        return _json_string(build, string, line)
    if word in _JSON_WORDS:
        return _JSON_WORDS[word]
    if _JSON_NUMBER.fullmatch(word):
        value, problem = _number(word)
        if problem:
            build.document.refuse(build.place, line, f"found {_shown(word)}, {problem}", _REMEDY[problem])
        return value
    if word.lstrip("+-") in ("NaN", "Infinity"):
        build.document.refuse(build.place, line, f"found {word}, {_INFINITE}", _REMEDY[_INFINITE])
        return None
    raise build.stop(line, f"not valid JSON: found {_shown(sign or word)}", "Write a JSON value here")


def _decode(content: bytes, file: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError.single(
            file, "", f"byte {error.start} is not UTF-8 text", "Save the file as UTF-8", line=line
        ) from error


def _finished(build: _Builder) -> Document:
    if () not in build.document.lines:
        raise build.stop(1, "the file is empty", "Write 'key: value' lines")
    return build.document


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
