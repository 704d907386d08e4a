"""Plain values read from a text, with the line of every one and what is wrong with them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from perfmodel.errors import Fault, SpecError

__all__ = ["LARGEST_FILE", "Builder", "Document", "Place", "decoded", "dotted", "number_in", "shown"]

LARGEST_FILE = 1_000_000
_DEEPEST = 24
_LONGEST_NUMBER = 30

Place: TypeAlias = tuple[str | int, ...]


@dataclass
class Document:
    """Plain values (`data`, a mapping), the line of every key and item, and the faults found on the way."""

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
        self.faults.append(Fault(self.file, line, dotted(place), problem, remedy))


class Builder:
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
        fault = Fault(self.document.file, line, dotted(self.place), problem, remedy)
        return SpecError([*self.document.faults, fault])

    def key(self, name: str, line: int) -> None:
        self._check_text(name, line)
        self._keys[-1] = name
        holder = self._open[-1]
        if name in holder:
            first = self.document.lines[self.place]
            self.document.refuse(
                self.place, line, f"the key appears twice, first in line {first}", "Keep one of them"
            )
        else:
            self.document.lines[self.place] = line

    def value(self, value: Any, line: int) -> None:
        self._check_text(value, line)
        if not self._open:
            raise self.stop(
                line, f"found {shown(value)}, not a mapping", "Write 'key: value' lines at the top level"
            )
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

    def _check_text(self, value: Any, line: int) -> None:
        if isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
            raise self.stop(line, "found half of a character pair", "Write the character itself")

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


_SURROGATE = re.compile("[\ud800-\udfff]")

HUGE = "a number of absurd length"
INFINITE = "which is not a finite number"
REMEDY = {HUGE: f"Write at most {_LONGEST_NUMBER} digits", INFINITE: "Write a finite number"}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_DIGITS = re.compile(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)


def number_in(text: str) -> tuple[Any, str | None]:
    """Return the number that a text spells, else the text itself, and what is wrong with it."""
    if len(text) > _LONGEST_NUMBER:
        return text, HUGE if _DIGITS.fullmatch(text) else None
    if not (is_integer := _INTEGER.fullmatch(text)) and not _FLOAT.fullmatch(text):
        return text, None
    if is_integer:
        return int(text), None
    value = float(text)
    return (value, None) if math.isfinite(value) else (text, INFINITE)


def decoded(content: bytes, file: str) -> str:
    """Return a file as text; raises SpecError unless it is UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError.single(
            file, "", f"byte {error.start} is not UTF-8 text", "Save the file as UTF-8", line=line
        ) from error


def dotted(place: Sequence[str | int]) -> str:
    """Return a place as people write it, such as `peak.bf16.value`."""
    return ".".join(part if (part := str(key)[:80]).isprintable() else repr(part) for key in place)


def shown(value: Any) -> str:
    """Return a value for people, in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
