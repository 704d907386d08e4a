"""Reading a CSV so that one damaged row is named and costs none of the others."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, TypeVar

from perfmodel.errors import Fault, SpecError, nearest_name, printable
from perfmodel.files.lines import LONGEST_LINE, Lines

__all__ = ["CsvFile", "CsvRow", "csv_text", "each_row", "open_csv", "read_csv", "rows_of"]

RowT = TypeVar("RowT")

LONGEST_CELL = 10_000
MOST_ROWS = 1_000_000
_MOST_COLUMNS = 1_000
_MOST_LINES = 10_000
"""Lines that a record may span."""
MOST_FAULTS = 50
HOPELESS = 10_000
"""Damaged rows after which a file is not read on."""
_FORMULA = re.compile(r"[=@\t\r]|[+-](?=.*[(|!])", re.DOTALL)
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_SUSPECT = re.compile(rf"^[=@\t\r+-]|{_NOT_TEXT.pattern}", re.MULTILINE)


class CsvRow(NamedTuple):
    """One row of a file: its number (the first under the header is 1), line and cells, and what is wrong."""

    number: int
    line: int
    cells: tuple[str, ...]
    fault: Fault | None = None


@dataclass(frozen=True)
class CsvFile:
    """A table of texts; every row has as many cells as there are columns."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[CsvRow, ...]

    def column(self, name: str) -> list[str]:
        """The cells of one column without surrounding spaces; empty texts where there is no such column."""
        if name not in self.columns:
            return [""] * len(self.rows)
        place = self.columns.index(name)
        return [row.cells[place].strip() for row in self.rows]


def read_csv(
    content: bytes, file: str, *, required: Sequence[str] = (), known: Sequence[str] = (), exact: bool = False
) -> CsvFile:
    """Return the rows of a comma-separated UTF-8 file with a header; further columns are kept as they are.

    A row with too many or too few cells, an unclosed quote, bytes that are no UTF-8, control characters or a
    cell that a spreadsheet would run as a formula carries a fault; the rows after it are read all the same.
    Spaces, case and hyphens in the names of `known` columns do not matter.

    Raises
    ------
    SpecError
        When the header cannot be used: unreadable, doubled names, `required` columns missing, or with `exact`
        columns that are not `known`.
    """
    with Lines(io.BytesIO(content), file) as lines:
        columns, read = open_csv(lines, file, required=required, known=known)
        faults = [
            Fault(file, 1, name, "unknown column", f"Known: {', '.join(known)}", nearest_name(name, known))
            for name in columns
            if exact and name not in known
        ]
        if faults:
            raise SpecError(faults[:MOST_FAULTS])
        return CsvFile(file, columns, _whole(read, file))


def _whole(read: Iterator[CsvRow], file: str) -> tuple[CsvRow, ...]:
    """Return all rows; SpecError where they are too many, or too many of them are damaged."""
    rows: list[CsvRow] = []
    damaged: list[Fault] = []
    for row in islice(read, MOST_ROWS + 1):
        rows.append(row)
        damaged += [] if row.fault is None else [located_in(row.fault, file, row.number, row.line)]
        if len(damaged) > HOPELESS:
            problem, remedy = f"more than {HOPELESS:,} rows cannot be read", "Mend these first"
            raise SpecError([*damaged[:MOST_FAULTS], Fault(file, None, "", problem, remedy)])
    if len(rows) > MOST_ROWS:
        raise SpecError.single(file, "", f"more than {MOST_ROWS:,} rows", "Split the file")
    return tuple(rows)


def each_row(
    table: CsvFile, columns: Iterable[str], make: Callable[[CsvRow, dict[str, str]], RowT]
) -> tuple[RowT, ...]:
    """Return what `make` makes of every row and its cells by column, empty where there is no such column.

    Raises SpecError naming row, line and column of everything that `make` refused, 50 faults or so.
    """
    cells = {name: table.column(name) for name in columns}
    made: list[RowT] = []
    faults: list[Fault] = []
    for index, row in enumerate(table.rows):
        try:
            if row.fault:
                raise SpecError([row.fault])
            made.append(make(row, {name: column[index] for name, column in cells.items()}))
        except SpecError as refusal:
            faults += [located_in(fault, table.name, row.number, row.line) for fault in refusal.faults]
        if len(faults) >= MOST_FAULTS:
            break
    if faults:
        raise SpecError(faults)
    return tuple(made)


def located_in(fault: Fault, file: str, number: int, line: int) -> Fault:
    """Return a fault of a row with its place: the file, the row's number and its line."""
    field = ", ".join(part for part in (f"row {number}", fault.field) if part)
    return replace(fault, file=file, line=line, field=field)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as CSV text, with nothing invisible in it but line ends inside of quotes.

    An apostrophe stands before cells that a spreadsheet would run as a formula.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([printable(name) for name in columns])
    writer.writerows([_safe(cell) for cell in row] for row in rows)
    return stream.getvalue()


def _safe(cell: str) -> str:
    seen = printable(cell, keep="\n")
    return f"'{seen}" if _FORMULA.match(cell) else seen


def open_csv(
    lines: Lines,
    file: str,
    *,
    required: Sequence[str] = (),
    known: Sequence[str] = (),
    wanted: Callable[[Sequence[str]], Sequence[str]] | None = None,
) -> tuple[tuple[str, ...], Iterator[CsvRow]]:
    """Return the columns of a file and its rows one by one, as they are read; see `read_csv`.

    Parameters
    ----------
    lines : of the file, of which no more than a record is held.
    wanted : which of the columns are read, by their names; others are neither kept nor looked at.
    """
    first = lines.skip_empty()
    if not first:
        remedy = f"Start it with a header that names the columns {', '.join(required)}".rstrip()
        raise SpecError.single(file, "", "the file is empty", remedy, line=1)
    place = (file, lines.number)
    names = _names(lines, place, known)
    columns = tuple(names if wanted is None else wanted(names))
    _check_header(names, columns, place, required, known)
    return columns, rows_of(lines, names, columns)


def rows_of(lines: Lines, names: Sequence[str], columns: Sequence[str]) -> Iterator[CsvRow]:
    """Yield the rows on the lines that follow, numbered from 1 on.

    Parameters
    ----------
    names : of all cells of a row, as the header says.
    columns : those of them that are kept and looked at.
    """
    places = [names.index(name) for name in columns]
    for number, record in enumerate(_records(lines, len(names)), start=1):
        yield _row(number, *record, columns, places)


def _names(lines: Lines, place: tuple[str, int], known: Sequence[str]) -> list[str]:
    """Take the header and return the names in it."""
    length, (file, line) = _record_length(lines), place
    record = lines.take(length or 1)
    cells = _cells(record)
    if len(record) > LONGEST_LINE or (cells and len(cells) > _MOST_COLUMNS):
        remedy = f"Give at most {_MOST_COLUMNS:,} columns, and every row a line of its own"
        raise SpecError.single(file, "", "the header is far too long", remedy, line=line)
    if length is None or cells is None:
        raise SpecError.single(file, "", "the header cannot be read", "Check its quotes", line=line)
    meant = {_plain(name): name for name in known}
    names = [meant.get(_plain(cell), cell.strip()) for cell in cells]
    if len(names) == 1 and (other := next((sign for sign in ";\t|" if sign in names[0]), None)):
        problem = f"the columns are separated by {other!r}"
        raise SpecError.single(file, "", problem, "Separate them by commas", line=line)
    return names


def _check_header(
    names: list[str],
    columns: Sequence[str],
    at: tuple[str, int],
    required: Sequence[str],
    known: Sequence[str],
) -> None:
    """Refuse doubled, missing and unreadable names of columns."""
    unknown = [name for name in names if name and name not in known]
    present = f"Columns found: {', '.join(names)[:500]}"
    faults = [
        Fault(*at, name, "the column appears twice", "Keep one of them")
        for name, times in Counter(names).items()
        if times > 1 and name and name in columns
    ]
    faults += [
        Fault(*at, name, "the column is missing", present, nearest_name(name, unknown))
        for name in required
        if name not in names
    ]
    faults += [
        Fault(*at, name[:50], "the column's name is no plain text", "Write letters and digits")
        for name in columns
        if _NOT_TEXT.search(name) or _FORMULA.match(name)
    ]
    if faults:
        raise SpecError(faults)


def _records(lines: Lines, width: int) -> Iterator[tuple[int, list[str], Fault | None]]:
    """Yield line number, cells and what is wrong, record by record; a record may span lines inside quotes."""
    while first := lines.skip_empty():
        line, length = lines.number, _record_length(lines)
        record = first if length == 1 else lines.next(length or 0)
        cells = _cells(record) if record and len(record) <= LONGEST_LINE else None
        if cells is not None and len(cells) == width:
            yield line, cells, None
            lines.take(length or 1)
        elif cells is not None and length == 1:
            problem = f"has {len(cells)} cells, the header has {width}"
            yield line, cells, Fault("", line, "", problem, "Give every row as many cells as the header")
            lines.take()
        else:
            problem = "has a quote that is not closed or out of place, or far too long a cell"
            remedy = 'Close the quote; inside quotes write "" for a quote'
            yield line, first.rstrip("\r\n").split(","), Fault("", line, "", problem, remedy)
            lines.take()


def _record_length(lines: Lines) -> int | None:
    """Return how many lines the next record spans: up to where its quotes are balanced."""
    first = lines.ahead()
    if '"' not in first or first.count('"') % 2 == 0:
        return 1
    signs = len(first)
    for further in range(1, _MOST_LINES):
        line = lines.ahead(further)
        signs += len(line)
        if not line or signs > LONGEST_LINE:
            return None
        if line.count('"') % 2:
            return further + 1
    return None


def _cells(record: str) -> list[str] | None:
    text = record.rstrip("\r\n")
    if '"' not in text:
        return text.split(",")
    # A stray control character must not stop the parser: the row is refused afterwards, with its place.
    try:
        rows = list(csv.reader([text.replace("\x00", "\ufffd\x01")], strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None


def _row(
    number: int, line: int, cells: list[str], fault: Fault | None, columns: Sequence[str], places: list[int]
) -> CsvRow:
    kept = [cells[place] if place < len(cells) else "" for place in places]
    text = "\n".join(kept)
    if fault is None and (len(text) > LONGEST_CELL or _SUSPECT.search(text)):
        wrong = ((name, _wrong_in(cell)) for name, cell in zip(columns, kept, strict=True))
        fault = next((Fault("", line, name, *reason) for name, reason in wrong if reason), None)
    if fault is None:
        return CsvRow(number, line, tuple(kept))
    return CsvRow(number, line, tuple(_NOT_TEXT.sub("\ufffd", cell)[:LONGEST_CELL] for cell in kept), fault)


def _wrong_in(cell: str) -> tuple[str, str] | None:
    if _NOT_TEXT.search(cell):
        return "holds control characters, or bytes that are no UTF-8 text", "Remove them; save as CSV UTF-8"
    if len(cell) > LONGEST_CELL:
        return f"holds {len(cell)} characters", f"Give at most {LONGEST_CELL}"
    if _FORMULA.match(cell):
        return f"starts with {cell[0]!r}, which a spreadsheet runs as a formula", "Write plain text"
    return None


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")
