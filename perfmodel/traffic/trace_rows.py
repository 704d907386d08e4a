"""The rows of a trace's file, read one by one: columns, ids of blocks, and what is left out."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from perfmodel.errors import Fault, SpecError, shown
from perfmodel.files.csv_rows import open_csv
from perfmodel.files.lines import LONGEST_LINE, Lines
from perfmodel.traffic.trace_cells import MOST_TOKENS, date, number_of, puts_out_nothing, tokens
from perfmodel.traffic.trace_forms import ARRIVAL, OUTPUT, PROMPT, columns_of

__all__ = ["ENOUGH", "MOST_REQUESTS", "TraceRows", "read_rows"]

MOST_REQUESTS = 10_000_000
ENOUGH = 20_000
"""Rows that tell how a trace is written: its unit of time, its blocks, and how many cannot be read."""
_MOST_FAULTS = 20

_DAMAGED_SHARE, _SILENT_SHARE = 0.01, 0.5
"""Shares of the rows up to which those that cannot be read, or put out nothing, are left out. [1]"""
_MOST_NAMES = 1_000
"""Keys of JSON lines that are looked at."""
_HOPELESS = 1000
"""Damaged rows after which a file that is damaged by more than half is not read on."""
_LINES_THAT_NAME = 200
"""JSON lines that are looked through for keys: a later turn may have some that the first has not."""
_ROWS_BETWEEN = 20_000
"""Rows after each of which people are told how far the reading is."""
_ABSENT = (None, "")
_FIRST_NAMED = 1 << 62
"""Numbers of blocks whose ids are texts begin here, out of the way of those that are numbers."""

FURTHER = ("hash_ids", "session_id", "delay")
"""Keys of JSON lines that are read beside the three columns."""

Row = tuple[int, Sequence[Any]]
Rows = tuple[Sequence[str], Sequence[str], Iterator[Row | Fault]]


def read_rows(
    lines: Lines,
    file: str,
    *,
    timeless: bool = False,
    first: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> TraceRows:
    """Read the rows of a CSV file or of JSON lines.

    Parameters
    ----------
    progress : is called now and then with how much was read. [characters]
    timeless : whether they may say nothing of when requests arrive: all at 0 then, but for delays.
    first : how many requests are wanted; all where None. `ENOUGH` are read at least, and all where those are
        not in order of arrival.

    Raises
    ------
    SpecError
        When columns are missing, too many rows cannot be read or put out nothing, or none or too many are
        left.
    """
    is_json = lines.skip_empty().lstrip().startswith("{")
    names, keys, rows = (_json_rows if is_json else _csv_rows)(lines, file, timeless)
    read = TraceRows(file, names, keys)
    enough = math.inf if first is None else max(first, ENOUGH)
    for row in rows:
        if len(read.columns[0]) >= enough and read.in_order:
            read.cut = True
            break
        if read.add(row):
            break
        if progress is not None and read.rows % _ROWS_BETWEEN == 0:
            progress(lines.characters)
    read.check()
    return read


def _csv_rows(lines: Lines, file: str, timeless: bool) -> Rows:
    """All columns of a CSV file, those that are wanted, and their cells row by row or what is wrong."""
    known = (*ARRIVAL, *PROMPT, *OUTPUT)
    names: list[str] = []

    def wanted(header: Sequence[str]) -> Sequence[str]:
        names.extend(name.strip().lower() for name in header)
        return columns_of(file, header, timeless=timeless)

    keys, rows = open_csv(lines, file, known=known, wanted=wanted)
    return names, keys, (
        replace(row.fault, file=file) if row.fault else (row.line, [cell.strip() for cell in row.cells])
        for row in rows
    )


def _json_rows(lines: Lines, file: str, timeless: bool) -> Rows:
    """All keys of a file of JSON objects, one a line, those wanted, and their values or what is wrong."""
    first = [_object(text) for text in map(lines.ahead, range(_LINES_THAT_NAME)) if text.strip()]
    if first and not any(isinstance(row, dict) for row in first):
        raise SpecError.single(file, "", str(first[0]), "Write one JSON object per line", line=1)
    names = list(dict.fromkeys(name for row in first if isinstance(row, dict) for name in row))[:_MOST_NAMES]
    keys = [*columns_of(file, names, timeless=timeless), *(key for key in FURTHER if key in names)]
    return names, keys, (_values(file, line, _object(text), keys) for line, text in _numbered(lines))


def _numbered(lines: Lines) -> Iterator[tuple[int, str]]:
    """Every line that is not empty, with its number."""
    while text := lines.skip_empty():
        yield lines.number, text
        lines.take()


def _values(file: str, line: int, row: dict[str, Any] | str, keys: Sequence[str]) -> Row | Fault:
    if isinstance(row, str):
        return Fault(file, line, "", row, "Write one JSON object per line")
    return line, [row.get(key) for key in keys]


def _object(line: str) -> dict[str, Any] | str:
    """A line as an object with keys in lower case, or what is wrong with it."""
    if len(line) > LONGEST_LINE:
        return f"has more than {LONGEST_LINE:,} characters"
    try:
        if not line.isascii():
            line.encode()  # refuses what was no UTF-8
        row = _JSON.decode(line)
    except UnicodeEncodeError:
        return "holds bytes that are no UTF-8 text"
    except RecursionError:
        return "is nested too deep to be read"
    except ValueError as error:
        return f"is not JSON: {error}"[:200]
    return row if isinstance(row, dict) else f"is a {type(row).__name__}, not an object"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = {_plain(key): value for key, value in pairs}
    if len(unique) < len(pairs):
        raise ValueError("a key appears twice")
    return unique


@lru_cache(maxsize=1024)
def _plain(key: str) -> str:
    return key.strip().lower().replace("-", "_").replace(" ", "_")


def _no_number(text: str) -> float:
    """A missing figure, as tools write NaN; infinite ones are none."""
    if text != "NaN":
        raise ValueError(f"{text} is not a number")
    return math.nan


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)


class TraceRows:
    """What has been read of a trace.

    Attributes
    ----------
    names, keys : all columns, and those that are read: arrival, prompt and output first.
    columns : numbers of the rows that are kept: arrival as it is written, prompt [tokens], output [tokens].
    ids, counts : ids of the blocks that prompts begin with, row after row, and how many each row has.
    dated : whether arrivals are dates, in seconds since 1970.
    timeless : whether no column says when requests arrive.
    first, last : earliest and latest arrival as they are written, and the lines they stand in.
    rows, silent, damaged, delayed : how many there are, put out nothing, cannot be read, and how many name a
        delay in place of a time.
    faults : what is wrong with the first damaged rows.
    in_order : whether all arrive in the order in which they are written.
    cut : whether there are more rows than were read.
    """

    def __init__(self, file: str, names: Sequence[str], keys: Sequence[str]) -> None:
        self.file, self.names, self.keys = file, names, keys
        self.columns = (array("d"), array("d"), array("d"))
        self.ids, self.counts = array("q"), array("q")
        self.dated = self.cut = False
        self.in_order = True
        self.timeless = keys[0] == keys[1]
        self.first, self.last = (math.inf, 0), (-math.inf, 0)
        self.rows = self.silent = self.damaged = self.delayed = 0
        self.faults: list[Fault] = []
        self._of_ids, self._of_session, self._of_delay = (
            keys.index(key) if key in keys else None for key in FURTHER
        )
        self._numbers: dict[str, int] = {}
        self._last: dict[str, float] = {}

    def add(self, row: Row | Fault) -> bool:
        """Take in a row; returns whether there is no use in going on."""
        self.rows += 1
        if isinstance(row, Fault):
            return self._damage([row])
        line, values = row
        try:
            output = tokens(values[2])
            arrival, prompt = self._arrival(values), tokens(values[1])
        except (TypeError, ValueError, OverflowError):
            if values[1] not in _ABSENT and puts_out_nothing(values[2]):
                self.silent += 1
                return False
            return self._damage(self._faults(line, values))
        if prompt + output > MOST_TOKENS:
            problem = f"prompt and output are {prompt + output:.0f} tokens together"
            remedy = f"Give at most {MOST_TOKENS} together"
            return self._damage([Fault(self.file, line, self.keys[1], problem, remedy)])
        arrivals, prompts, outputs = self.columns
        self.in_order = self.in_order and arrival >= self.last[0]
        self.first, self.last = min(self.first, (arrival, line)), max(self.last, (arrival, line))
        arrivals.append(arrival)
        prompts.append(prompt)
        outputs.append(output)
        self.delayed += values[0] is None or values[0] != values[0] or (self.timeless and arrival > 0.0)
        if self._of_ids is not None:
            self._add_ids(values[self._of_ids])
        return len(arrivals) > MOST_REQUESTS

    def _faults(self, line: int, values: Sequence[Any]) -> list[Fault]:
        """What is wrong with each cell of a row that cannot be read."""
        faults = []
        for key, value, read in zip(self.keys, values, (self._arrival, tokens, tokens), strict=False):
            try:
                read(values if read == self._arrival else value)
            except (TypeError, ValueError, OverflowError):
                text = "NaN" if value != value else shown(value)
                faults.append(Fault(self.file, line, key, f"found {text}", str(read.__doc__)))
        return faults

    def _arrival(self, values: Sequence[Any]) -> float:
        """Give seconds from 0 on, or in every row a date and time such as 2023-11-16 18:17:03.98"""
        named = None if self._of_session is None else values[self._of_session]
        session = None if named is None else str(named)
        silent = self.timeless or values[0] is None or values[0] != values[0]
        if silent and session in self._last and self._of_delay is not None:
            delay = number_of(values[self._of_delay])
            if delay is None or delay < 0:
                raise ValueError("a turn has neither a time nor a delay")
            arrival = self._last[str(session)] + delay
        elif self.timeless:
            arrival = 0.0
        else:
            number = number_of(values[0])
            arrival = date(values[0]) if number is None else number
            if arrival < 0.0 or (self.columns[0] and not self.delayed and self.dated != (number is None)):
                raise ValueError("before 1970, or a number among dates")
            self.dated |= number is None
        if session is not None:
            self._last[session] = arrival
        return arrival

    def _damage(self, faults: list[Fault]) -> bool:
        self.damaged += 1
        self.faults += faults[: _MOST_FAULTS - len(self.faults)]
        return self.damaged > _HOPELESS and self.damaged > self.rows // 2

    def _add_ids(self, ids: Any) -> None:
        """Append the ids of a row's blocks, numbers or texts; none where it has no list."""
        before = len(self.ids)
        if isinstance(ids, list):
            try:
                self.ids.extend(ids)
            except (TypeError, OverflowError):
                del self.ids[before:]
                numbered = (self._numbers.setdefault(str(name), len(self._numbers)) for name in ids)
                self.ids.extend(_FIRST_NAMED + number for number in numbered)
        self.counts.append(len(self.ids) - before)

    def check(self) -> None:
        """Raise SpecError where too much is damaged, too little is left, or there are too many rows."""
        kept = len(self.columns[0])
        if self.damaged > _DAMAGED_SHARE * self.rows or (self.damaged and not kept):
            more = self.damaged - len(self.faults)
            if more > 0:
                problem = f"{self.damaged} of {self.rows} rows cannot be read"
                remedy = f"At most {_DAMAGED_SHARE:.0%} of them are left out"
                self.faults[-1] = Fault(self.file, None, "", problem, remedy)
            raise SpecError(self.faults)
        if self.silent > _SILENT_SHARE * self.rows:
            raise SpecError.single(
                self.file, self.keys[2], f"{self.silent} of {self.rows} rows put out nothing",
                f"At most {_SILENT_SHARE:.0%} of them are left out: give the requests that were answered",
            )  # fmt: skip
        if not 1 <= kept <= MOST_REQUESTS:
            count = "too many" if kept else "no"
            raise SpecError.single(
                self.file, "", f"holds {count} requests", f"Give 1 to {MOST_REQUESTS} rows"
            )
