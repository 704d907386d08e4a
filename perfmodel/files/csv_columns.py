"""A CSV as columns of codes: well-formed blocks are split at once, all others are read row by row."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import Fault, SpecError
from perfmodel.files.csv_rows import (
    HOPELESS,
    LONGEST_CELL,
    MOST_FAULTS,
    MOST_ROWS,
    CsvRow,
    located_in,
    open_csv,
    rows_of,
)  # fmt: skip
from perfmodel.files.lines import Lines

__all__ = ["Codes", "CsvColumns", "Texts", "read_columns", "shortest"]

Codes = NDArray[np.unsignedinteger[Any]]

_BLOCK = 1 << 18
"""Bytes that are split at once. [B]"""
_PLAIN = bytes(set(range(0x20, 0x7F)) - {ord('"')}) + b"\n"
"""What a block may hold that is split at its commas."""


@dataclass(frozen=True)
class Texts:
    """A column: the code of every row and the text of every code."""

    codes: Codes
    distinct: Sequence[str]

    @cached_property
    def bare(self) -> Texts:
        """The same without the spaces around each text; texts that then are equal share a code."""
        known: defaultdict[str, int] = defaultdict()
        known.default_factory = known.__len__
        meant = np.array([known[text.strip()] for text in self.distinct], dtype=np.int64)
        if len(known) == len(self.distinct):
            return Texts(self.codes, tuple(known))
        return Texts(shortest(meant[self.codes], len(known)), tuple(known))


@dataclass(frozen=True)
class CsvColumns:
    """A table as columns, of one text a row each.

    name, columns : the file, and what its header names.
    texts : by column.
    lines : on which each row begins. [1]
    faults : what is wrong with damaged rows, by the place of the row from 0 on.
    """

    name: str
    columns: tuple[str, ...]
    texts: dict[str, Texts]
    lines: NDArray[np.int32]
    faults: dict[int, Fault]

    def __len__(self) -> int:
        return int(self.lines.size)

    def bare(self, name: str) -> Texts:
        """The texts of a column without the spaces around them; empty ones where there is no such column."""
        if name in self.texts:
            return self.texts[name].bare
        return Texts(np.broadcast_to(np.zeros((), np.uint8), len(self)), ("",))


def read_columns(
    content: bytes, file: str, *, required: Sequence[str] = (), known: Sequence[str] = ()
) -> CsvColumns:
    """Return what `perfmodel.files.csv_rows.read_csv` reads of a file, with the same faults, as columns.

    Parameters
    ----------
    content : the whole file.
    file : what messages call it.
    required, known : columns, as there.

    Raises
    ------
    SpecError
        As there: the header cannot be used, rows are too many, or too many of them are damaged.
    """
    with Lines(io.BytesIO(content), file) as lines:
        columns, _ = open_csv(lines, file, required=required, known=known)
        number, empty = lines.number, lines.empty
    width, kept = len(columns), _Kept(file, columns)
    start = _after(content, 0, number - 1)
    while start < len(content):
        end = content.find(b"\n", start + _BLOCK) + 1 or len(content)
        block = content[start:end]
        cells = _cells(block, width)
        if cells is not None:
            kept.take(cells, number)
            start, number = end, number + len(cells) // width
            continue
        after = number + _line_ends(block) + (end == len(content))  # the last line may lack its end
        stream = io.BytesIO(content)
        stream.seek(start)
        with Lines(stream, file, number=number, empty=empty) as lines:
            following = kept.take_rows(rows_of(lines, columns, columns), after)
            number, empty = lines.number, lines.empty
        if following is None:
            break
        start = _after(content, end, number - after)
    return kept.table()


class _Kept:
    """The columns as far as they are read."""

    def __init__(self, file: str, columns: tuple[str, ...]) -> None:
        self._file, self._columns = file, columns
        self._known: list[defaultdict[str, int]] = []
        for _ in columns:
            texts: defaultdict[str, int] = defaultdict()
            texts.default_factory = texts.__len__
            self._known.append(texts)
        self._codes: list[list[Codes]] = [[] for _ in columns]
        self._lines: list[NDArray[np.int32]] = []
        self._faults: dict[int, Fault] = {}
        self._count = 0

    def take(self, cells: Sequence[str], line: int) -> None:
        """Take the cells of whole rows, one after another, the first of them on a line."""
        width = len(self._columns)
        count = len(cells) // width
        for place in range(width):
            self._add(place, cells[self._columns.index(self._columns[place]) :: width], count)
        self._lines.append(np.arange(line, line + count, dtype=np.int32))
        self._grow(count)

    def take_rows(self, rows: Iterator[CsvRow], until: int) -> CsvRow | None:
        """Take rows that begin before a line; return the first that does not, None where the file ends.

        Raises
        ------
        SpecError
            Too many of them are damaged, or there are too many.
        """
        taken: list[CsvRow] = []
        following = None
        for row in islice(rows, MOST_ROWS + 1 - self._count):
            if row.line >= until:
                following = row
                break
            if row.fault is not None:
                self._faults[self._count + len(taken)] = row.fault
            taken.append(row)
            if len(self._faults) > HOPELESS:
                self._give_up(taken)
        for place in range(len(self._columns)):
            self._add(place, [row.cells[place] for row in taken], len(taken))
        self._lines.append(np.array([row.line for row in taken], dtype=np.int32))
        self._grow(len(taken))
        return following

    def table(self) -> CsvColumns:
        """All that was read."""
        texts = {
            name: Texts(np.concatenate([np.zeros(0, np.uint8), *codes]), tuple(known))
            for name, codes, known in zip(self._columns, self._codes, self._known, strict=True)
        }
        lines = np.concatenate([np.zeros(0, np.int32), *self._lines])
        return CsvColumns(self._file, self._columns, texts, lines, self._faults)

    def _add(self, place: int, texts: Sequence[str], count: int) -> None:
        known = self._known[place]
        codes = np.fromiter(map(known.__getitem__, texts), dtype=np.int64, count=count)
        self._codes[place].append(shortest(codes, len(known)))

    def _grow(self, count: int) -> None:
        self._count += count
        if self._count > MOST_ROWS:
            raise SpecError.single(self._file, "", f"more than {MOST_ROWS:,} rows", "Split the file")

    def _give_up(self, taken: Sequence[CsvRow]) -> None:
        lines = np.concatenate([*self._lines, [row.line for row in taken]])
        first = islice(self._faults.items(), MOST_FAULTS)
        damaged = [located_in(fault, self._file, place + 1, int(lines[place])) for place, fault in first]
        problem, remedy = f"more than {HOPELESS:,} rows cannot be read", "Mend these first"
        raise SpecError([*damaged, Fault(self._file, None, "", problem, remedy)])


def _cells(block: bytes, width: int) -> list[str] | None:
    """Return the cells of a block of whole lines, one row after another; None where any may be damaged."""
    text = block.replace(b"\r\n", b"\n")
    if width < 2 or text.translate(None, _PLAIN):
        return None
    if not text.endswith(b"\n"):
        text += b"\n"
    signs = np.frombuffer(text, dtype=np.uint8)
    is_end = signs == ord("\n")
    ends = np.flatnonzero(is_end | (signs == ord(",")))
    if ends.size % width or np.count_nonzero(is_end) * width != ends.size:
        return None
    last = ends[width - 1 :: width]
    if not is_end[last].all() or np.diff(last, prepend=-1).max() > LONGEST_CELL:
        return None
    begins = signs[np.append(0, ends[:-1] + 1)]
    if np.isin(begins, (ord("="), ord("@"))).any():
        return None
    if np.isin(begins, (ord("+"), ord("-"))).any() and any(sign in text for sign in b"(|!"):
        return None
    return text[:-1].decode("ascii").replace("\n", ",").split(",")


def _line_ends(block: bytes) -> int:
    return block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n")


def _after(content: bytes, start: int, lines: int) -> int:
    """Return where so many lines after a place end. [B]"""
    for _ in range(lines):
        places = [place for sign in (b"\n", b"\r") if (place := content.find(sign, start)) >= 0]
        if not places:
            return len(content)
        start = min(places) + 1
        if content[start - 1 : start + 1] == b"\r\n":
            start += 1
    return start


def shortest(codes: NDArray[Any], count: int) -> Codes:
    """Return codes below a count in as few bytes as hold them."""
    return codes.astype(np.min_scalar_type(max(count - 1, 0)))
