"""Requests as they arrive, read from files in the forms of public traces."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import Fault, SpecError, nearest_name, shown
from perfmodel.files.csv_rows import open_csv, read_bytes
from perfmodel.files.document import decode
from perfmodel.files.scalars import number_in

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
    content = read_bytes(path, _MOST_BYTES)
    is_json = content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    keys, rows = (_json_rows if is_json else _csv_rows)(content, file)
    return _trace(Path(path).stem, file, keys, rows)


def _csv_rows(content: bytes, file: str) -> tuple[Sequence[str], Iterator[Row | Fault]]:
    """The wanted columns of a CSV file, and their cells row by row or what is wrong with the row."""
    known = (*ARRIVAL, *PROMPT, *OUTPUT)
    keys, rows = open_csv(content, file, known=known, wanted=lambda names: _columns(file, names))
    return keys, (
        replace(row.fault, file=file) if row.fault else (row.line, [cell.strip() for cell in row.cells])
        for row in rows
    )


def _json_rows(content: bytes, file: str) -> tuple[Sequence[str], Iterator[Row | Fault]]:
    """The wanted keys of a file of JSON objects, one a line, and their values or what is wrong."""
    lines = decode(content, file).split("\n")
    objects = (row for row in map(_object, lines) if isinstance(row, dict))
    keys = _columns(file, list(next(objects, {})))
    numbered = ((line, text) for line, text in enumerate(lines, start=1) if text.strip())
    return keys, (_values(file, line, _object(text), keys) for line, text in numbered)


def _values(file: str, line: int, row: dict[str, Any] | str, keys: Sequence[str]) -> Row | Fault:
    if isinstance(row, str):
        return Fault(file, line, "", row, "Write one JSON object per line")
    return line, [row.get(key) for key in keys]


def _object(line: str) -> dict[str, Any] | str:
    """A line as an object with lower-case keys, or what is wrong with it."""
    try:
        row = json.loads(line, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"[:200]
    return row if isinstance(row, dict) else f"is a {type(row).__name__}, not an object"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = {key.strip().lower(): value for key, value in pairs}
    if len(unique) < len(pairs):
        raise ValueError("a key appears twice")
    return unique


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _trace(name: str, file: str, keys: Sequence[str], rows: Iterator[Row | Fault]) -> Trace:
    scale = 1e-3 if keys[0] == "timestamp" and keys[1] == "input_length" else 1.0  # Mooncake: milliseconds
    faults: list[Fault] = []
    columns = (array("d"), array("d"), array("d"))
    for row in rows:
        if isinstance(row, Fault):
            faults.append(row)
        else:
            line, values = row
            readers = (_seconds, _tokens, _tokens)
            for key, value, column, read in zip(keys, values, columns, readers, strict=True):
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


def _columns(file: str, names: Sequence[str]) -> list[str]:
    """The names, out of all there are, of the columns with arrival, prompt and output."""
    return [_column(file, names, known) for known in (ARRIVAL, PROMPT, OUTPUT)]


def _column(file: str, names: Sequence[str], known: tuple[str, ...]) -> str:
    if (present := next((key for key in known if key in names), None)) is not None:
        return present
    nearest = next((near for near in (nearest_name(name, known) for name in names) if near), None)
    remedy = f"Name it one of {', '.join(known)}"
    raise SpecError.single(file, known[0], "there is no such column", remedy, nearest, line=1)


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
