"""Requests as they arrive, read from files in the forms of public traces."""

from __future__ import annotations

import csv
import io
import json
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import Fault, SpecError, nearest_name
from perfmodel.files.documents import decoded, number_in, shown

__all__ = ["MOST_REQUESTS", "MOST_TOKENS", "Trace", "read_trace"]

MOST_REQUESTS = 10_000_000
MOST_TOKENS = 100_000_000
_MOST_BYTES = 2**31
_MOST_FAULTS = 20

ARRIVAL = ("arrival_s", "arrived_at", "timestamp", "arrival_time", "time")
PROMPT = (
    "prompt_tokens", "contexttokens", "input_length", "num_prefill_tokens", "input_tokens", "prompt_len",
)  # fmt: skip
OUTPUT = ("output_tokens", "generatedtokens", "output_length", "num_decode_tokens", "output_len")

Row = tuple[int, Sequence[Any]]


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests in order of arrival; one element per request, the first arrives at 0. [s], [tokens], [tokens]

    Raises
    ------
    SpecError
        When the arrays do not belong together, are empty or not in order, or a length is below one.
    """

    name: str
    arrival: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]

    def __post_init__(self) -> None:
        columns = (self.arrival, self.prompt_tokens, self.output_tokens)
        if (
            {column.shape for column in columns} != {(self.arrival.size,)}
            or not 1 <= self.arrival.size <= MOST_REQUESTS
            or not np.all(np.isfinite(self.arrival))
            or np.any(np.diff(self.arrival, prepend=0.0) < 0)
            or min(self.prompt_tokens.min(), self.output_tokens.min()) < 1
        ):
            raise SpecError.single(
                "trace", "requests", "are not three columns of at least one request, in order of arrival",
                "Give times from 0 on that do not fall, and lengths of at least one token",
            )  # fmt: skip

    def __len__(self) -> int:
        return int(self.arrival.size)

    @property
    def longest(self) -> int:
        """Most tokens that any request reaches, prompt and output. [tokens]"""
        return int((self.prompt_tokens + self.output_tokens).max())

    @property
    def qps(self) -> float:
        """Mean arrivals per second; infinite where all arrive at once. [1/s]"""
        return len(self) / float(self.arrival[-1]) if self.arrival[-1] > 0 else np.inf

    def faster(self, factor: float) -> Trace:
        """The same requests arriving `factor` times as fast."""
        return Trace(self.name, self.arrival / factor, self.prompt_tokens, self.output_tokens)

    def first(self, count: int) -> Trace:
        """The first `count` requests."""
        return Trace(self.name, self.arrival[:count], self.prompt_tokens[:count], self.output_tokens[:count])


def read_trace(path: str | Path) -> Trace:
    """Read a CSV or JSONL trace: arrival time, prompt tokens and output tokens of every request.

    The columns of the Azure LLM inference traces (``TIMESTAMP, ContextTokens, GeneratedTokens``; a date and a
    time, in UTC where nothing else is said) and of the Mooncake traces (``timestamp`` in milliseconds,
    ``input_length``, ``output_length``) are known; plain ones are ``arrival_s``, ``prompt_tokens`` and
    ``output_tokens``.
    Further columns are ignored, so prompts that share a prefix are prefilled whole. The requests are sorted
    by arrival.

    Raises
    ------
    SpecError
        Naming file, line and value of every fault, at most 20 of them.
    """
    file = str(path)
    try:
        if Path(path).stat().st_size > _MOST_BYTES:
            raise SpecError.single(file, "", "is larger than 2 GiB", "Split it")
        content = Path(path).read_bytes()
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or str(fault)
        raise SpecError.single(file, "", f"cannot be read: {reason}", "Check the path") from None
    text = decoded(content, file)
    reader = _JsonLines(text, file) if text.lstrip().startswith("{") else _Table(text, file)
    return _trace(Path(path).stem, file, reader)


class _Table:
    """The rows of a CSV file; every row has as many fields as the header."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self._rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            self.names = [name.strip().lower() for name in next(self._rows, [])]
        except csv.Error as fault:
            raise SpecError.single(file, "", f"is not CSV: {fault}", line=1) from None
        if not any(self.names):
            raise SpecError.single(file, "", "has no header", "Name the columns in the first line", line=1)

    def rows(self, columns: Sequence[str]) -> Iterator[Row | Fault]:
        """The wanted fields of every row, or what is wrong with the row."""
        places = [self.names.index(column) for column in columns]
        try:
            for row in self._rows:
                line = self._rows.line_num
                if not row:
                    continue
                if len(row) != len(self.names):
                    yield Fault(
                        self.file, line, "", f"has {len(row)} fields, the header {len(self.names)}",
                        "Give every row as many fields as the header",
                    )  # fmt: skip
                else:
                    yield line, [row[place].strip() for place in places]
        except csv.Error as fault:
            line = self._rows.line_num
            raise SpecError.single(self.file, "", f"is not CSV: {fault}", line=line) from None


class _JsonLines:
    """The rows of a file with one JSON object per line."""

    def __init__(self, text: str, file: str) -> None:
        self.file, self._lines = file, text.split("\n")
        self.names = list(next((row for row in self._objects() if isinstance(row, dict)), {}))

    def rows(self, columns: Sequence[str]) -> Iterator[Row | Fault]:
        """The wanted values of every object, or what is wrong with the line."""
        for line, row in enumerate(self._objects(), start=1):
            if isinstance(row, dict):
                yield line, [row.get(column) for column in columns]
            elif row is not None:
                yield Fault(self.file, line, "", row, "Write one JSON object per line")

    def _objects(self) -> Iterator[dict[str, Any] | str | None]:
        """Every line as an object with lower-case keys, or what is wrong with it; None where it is empty."""
        for line in self._lines:
            if not line.strip():
                yield None
                continue
            try:
                row = json.loads(line, object_pairs_hook=_unique, parse_constant=_no_number)
            except (ValueError, RecursionError) as fault:
                yield f"is not JSON: {fault}"[:200]
                continue
            yield row if isinstance(row, dict) else f"is a {type(row).__name__}, not an object"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    by_key = {key.strip().lower(): value for key, value in pairs}
    if len(by_key) < len(pairs):
        raise ValueError("a key appears twice")
    return by_key


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _trace(name: str, file: str, reader: _Table | _JsonLines) -> Trace:
    keys = [_column(file, reader.names, known) for known in (ARRIVAL, PROMPT, OUTPUT)]
    scale = 1e-3 if keys[0] == "timestamp" and keys[1] == "input_length" else 1.0  # Mooncake: milliseconds
    faults: list[Fault] = []
    columns = (array("d"), array("d"), array("d"))
    for row in reader.rows(keys):
        if isinstance(row, Fault):
            faults.append(row)
        else:
            line, values = row
            for key, value, column, read in zip(
                keys, values, columns, (_seconds, _tokens, _tokens), strict=True
            ):
                try:
                    column.append(read(value))
                except (TypeError, ValueError, OverflowError):
                    faults.append(Fault(file, line, key, f"found {shown(value)}", str(read.__doc__)))
            if not faults and columns[1][-1] + columns[2][-1] > MOST_TOKENS:
                problem = f"prompt and output are {columns[1][-1] + columns[2][-1]:.0f} tokens together"
                faults.append(Fault(file, line, keys[1], problem, f"Give at most {MOST_TOKENS} together"))
        if len(faults) >= _MOST_FAULTS or len(columns[0]) > MOST_REQUESTS:
            break
    if faults:
        raise SpecError(faults)
    if not 1 <= len(columns[0]) <= MOST_REQUESTS:
        count = "no" if not columns[0] else "too many"
        raise SpecError.single(file, "", f"holds {count} requests", f"Give 1 to {MOST_REQUESTS} rows")
    arrival, prompt, output = (np.frombuffer(column, dtype=float) for column in columns)
    order = np.argsort(arrival, kind="stable")
    return Trace(
        name,
        (arrival[order] - arrival.min()) * scale,
        prompt[order].astype(np.int64),
        output[order].astype(np.int64),
    )


def _column(file: str, names: Sequence[str], known: tuple[str, ...]) -> str:
    """The one column that has a known name."""
    columns = [key for key in known if key in names]
    if not columns:
        nearest = next((near for near in (nearest_name(name, known) for name in names) if near), None)
        raise SpecError.single(
            file, known[0], "there is no such column", f"Name it one of {', '.join(known)}", nearest, line=1
        )
    if names.count(columns[0]) > 1:
        raise SpecError.single(file, columns[0], "the column appears twice", "Keep one of them", line=1)
    return columns[0]


_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,12}))?\s*(Z|UTC|[+-]\d\d:?\d\d)?",
    re.ASCII | re.IGNORECASE,
)


def _seconds(value: Any) -> float:
    """Give seconds, or a date and time such as 2023-11-16 18:17:03.98"""
    number = _number(value)
    if number is not None:
        return number
    match = _DATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(value)
    date, time, fraction, zone = match.groups()
    if zone is None or zone.upper() in ("Z", "UTC"):
        zone = "+00:00"
    whole = datetime.fromisoformat(f"{date} {time}{zone[:3]}:{zone[-2:]}").astimezone(timezone.utc)
    return whole.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)


def _tokens(value: Any) -> float:
    """Give a whole number of tokens from 1 to 100 million"""
    number = _number(value)
    if number is None or not 1 <= number <= MOST_TOKENS or number != round(number):
        raise ValueError(value)
    return number


def _number(value: Any) -> float | None:
    """A number, written or given as one; None where it is anything else."""
    if isinstance(value, str):
        value, problem = number_in(value)
        if problem is not None:
            raise ValueError(problem)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    number = float(value)
    if not abs(number) < 1e15:
        raise ValueError(value)
    return number
