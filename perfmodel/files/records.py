"""JSON objects of a file, one or many one after the other, each with the lines of its keys."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from perfmodel.errors import SpecError, shown
from perfmodel.files.json_text import refuse_many

__all__ = ["Record", "records_of"]


@dataclass(frozen=True)
class Record:
    """One object of a file: its values, and where it was read, so that a refusal names a line.

    Attributes
    ----------
    file : the file.
    values : keys and values, as JSON has them.
    text : the text of the object, in which the line of a key is looked up.
    first : the line where the text begins.
    entry : the place of the object in the file, where it is not the line.
    lines : lines of keys, where the text is no JSON.
    """

    file: str
    values: dict[str, Any]
    text: str
    first: int
    entry: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """File, and the line where the object begins or the entry in it."""
        return f"{self.file}: {self.entry}" if self.entry else f"{self.file}:{self.first}"

    def within(self, values: dict[str, Any], entry: str) -> Record:
        """Return an object inside this one."""
        return replace(self, values=values, entry=entry)

    def refusal(self, key: str, problem: str, remedy: str = "") -> SpecError:
        """Return the refusal of a key, with the line it stands in."""
        return SpecError.single(self.file, key, problem, remedy, line=self.line_of(key))

    def line_of(self, key: str) -> int:
        """Return the line that a key stands in, that of the object where it is not found."""
        last = key.rpartition(".")[2]
        match = re.search(rf'"{re.escape(last)}"\s*:', self.text) if last else None
        line = self.first + (self.text.count("\n", 0, match.start()) if match else 0)
        return self.lines.get(last, line)

    def value(self, key: str) -> Any:
        """Return what stands at a key, None where nothing does; ``a.b`` is b in a."""
        value: Any = self.values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def number(self, key: str, least: float = 0.0) -> float | None:
        """Return a finite number of at least `least`; None where the key is absent, null or NaN."""
        value = self.value(key)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < 1e18:
            raise self.refusal(key, f"found {shown(value)}", f"Give a number, {least:g} or more")
        return float(value)

    def needed(self, key: str, least: float = 0.0) -> float:
        """Return a number that must be there."""
        value = self.number(key, least)
        if value is None:
            raise self.refusal(key, "is missing", "Give the file as the tool wrote it")
        return value

    def numbers(self, key: str) -> list[float] | None:
        """Return a list of numbers, 0 or more; None where the key is absent or null."""
        values = self.value(key)
        if values is None:
            return None
        if not isinstance(values, list):
            raise self.refusal(key, f"found {shown(values)}", "Give a list of numbers")
        for value in values:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e18:
                raise self.refusal(key, f"found {shown(value)} in the list", "Give numbers, 0 or more")
        return [float(value) for value in values]

    def words(self, key: str) -> str:
        """Return a text, empty where the key is absent or holds something else."""
        value = self.value(key)
        return value if isinstance(value, str) else ""


def records_of(text: str, file: str) -> Iterator[Record]:
    """Yield objects written one after the other, one a line or over many; lists are opened.

    Raises
    ------
    SpecError : text that is not JSON, with its line.
    """
    refuse_many(text, file)
    decoder, place = json.JSONDecoder(), 0
    while (start := _next_start(text, place)) is not None:
        first = text.count("\n", 0, start) + 1
        try:
            value, place = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            remedy = "Give the whole file, as the tool wrote it"
            raise SpecError.single(
                file, "", f"not valid JSON: {error.msg}", remedy, line=error.lineno
            ) from error
        except RecursionError as error:
            remedy = "Give the file as the tool wrote it"
            raise SpecError.single(file, "", "nested too deep to be read", remedy, line=first) from error
        except ValueError as error:
            raise SpecError.single(file, "", f"not valid JSON: {str(error)[:80]}", line=first) from error
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, dict):
                raise SpecError.single(file, "", f"found {shown(item)}, not an object", line=first)
            yield Record(file, item, text[start:place], first)


def _next_start(text: str, place: int) -> int | None:
    match = re.compile(r"[^\s,]").search(text, place)
    return match.start() if match else None
