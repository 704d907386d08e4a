"""Reading a CSV so that one damaged row is named and costs none of the others."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from perfmodel.errors import Fault, SpecError, nearest_name

__all__ = ["CaseFile", "CaseRow", "read_cases", "write_cases"]

_LONGEST_CELL = 10_000
_MOST_ROWS = 5_000_000
_FORMULA = re.compile(r"[=@\t\r]|[+-](?=.*[(|!])", re.DOTALL)
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class CaseRow:
    """One row of a file: its number (the first under the header is 1), line and cells, and what is wrong."""

    number: int
    line: int
    cells: tuple[str, ...]
    fault: Fault | None = None


@dataclass(frozen=True)
class CaseFile:
    """A table of texts; every row has as many cells as there are columns."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[CaseRow, ...]

    def column(self, name: str) -> list[str]:
        """The cells of one column without surrounding spaces; empty texts where there is no such column."""
        if name not in self.columns:
            return [""] * len(self.rows)
        place = self.columns.index(name)
        return [row.cells[place].strip() for row in self.rows]


def read_cases(
    content: bytes, file: str, *, required: Sequence[str] = (), known: Sequence[str] = ()
) -> CaseFile:
    """Return the rows of a comma-separated UTF-8 file with a header; further columns are kept as they are.

    A row with too many or too few cells, an unclosed quote, bytes that are no UTF-8, control characters or a
    cell that a spreadsheet would run as a formula carries a fault; the rows after it are read all the same.
    Spaces, case and hyphens in the names of `known` columns do not matter.

    Raises
    ------
    SpecError
        When the header cannot be used: unreadable, doubled names, or `required` columns missing.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SpecError.single(
            file, "", "the file is UTF-16", "Save it as CSV UTF-8 (comma separated)", line=1
        )
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape")
    lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text)
    lines = lines[:-1] if not lines[-1] else lines
    start = next((index for index, line in enumerate(lines) if line.strip()), None)
    if start is None:
        raise SpecError.single(
            file, "", "the file is empty", f"Start it with the columns {','.join(required)}"
        )
    header, after = _header(lines, start, file, required, known)
    rows: list[CaseRow] = []
    for line, cells, fault in _records(lines, after, len(header)):
        if len(rows) >= _MOST_ROWS:
            raise SpecError.single(file, "", f"more than {_MOST_ROWS} rows", "Split the file")
        rows.append(_row(len(rows) + 1, line, cells, fault, header))
    return CaseFile(file, header, tuple(rows))


def write_cases(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as CSV text, an apostrophe before cells that a spreadsheet would run as a formula."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_inert(cell) for cell in row] for row in rows)
    return stream.getvalue()


def _header(
    lines: list[str], start: int, file: str, required: Sequence[str], known: Sequence[str]
) -> tuple[tuple[str, ...], int]:
    """Return the column names and the index of the line after them."""
    length = _record_length(lines, start)
    cells = _cells("".join(lines[start : start + (length or 1)]))
    if length is None or cells is None:
        raise SpecError.single(file, "", "the header cannot be read", "Check its quotes", line=start + 1)
    meant = {_plain(name): name for name in known}
    names = [meant.get(_plain(cell), cell.strip()) for cell in cells]
    if len(names) == 1 and (other := next((sign for sign in ";\t|" if sign in names[0]), None)):
        raise SpecError.single(
            file, "", f"the columns are separated by {other!r}", "Separate them by commas", line=start + 1
        )
    faults = [
        Fault(file, start + 1, name, "the column appears twice", "Keep one of them")
        for name, times in Counter(names).items()
        if times > 1 and name
    ]
    faults += [
        Fault(file, start + 1, name, "the column is missing", f"Columns found: {', '.join(names)[:500]}",
              nearest_name(name, [other for other in names if other and other not in known]))
        for name in required
        if name not in names
    ]  # fmt: skip
    faults += [
        Fault(file, start + 1, name[:50], "the column's name is no plain text", "Write letters and digits")
        for name in names
        if _NOT_TEXT.search(name) or _FORMULA.match(name)
    ]
    if faults:
        raise SpecError(faults)
    return tuple(names), start + length


def _records(lines: list[str], index: int, width: int) -> Iterator[tuple[int, list[str], Fault | None]]:
    """Yield line number, cells and what is wrong, record by record; a record may span lines inside quotes."""
    while index < len(lines):
        line, length = index + 1, _record_length(lines, index)
        cells = _cells("".join(lines[index : index + length])) if length else None
        if not lines[index].strip():
            index += 1
        elif cells is not None and len(cells) == width:
            yield line, cells, None
            index += length or 1
        elif cells is not None and length == 1:
            problem = f"has {len(cells)} cells, the header has {width}"
            yield line, cells, Fault("", line, "", problem, "Give every row as many cells as the header")
            index += 1
        else:
            problem = "has a quote that is not closed or out of place, or far too long a cell"
            cells = lines[index].rstrip("\r\n").split(",")
            yield (
                line,
                cells,
                Fault("", line, "", problem, 'Close the quote; inside quotes write "" for a quote'),
            )
            index += 1


def _record_length(lines: list[str], index: int) -> int | None:
    """Return how many lines the record that starts at `index` spans: up to where its quotes are balanced."""
    odd = lines[index].count('"') % 2
    if not odd:
        return 1
    for further in range(index + 1, len(lines)):
        if lines[further].count('"') % 2:
            return further - index + 1
    return None


def _cells(record: str) -> list[str] | None:
    # A stray control character must not stop the parser: the row is refused afterwards, with its place.
    try:
        rows = list(csv.reader([record.rstrip("\r\n").replace("\x00", "\ufffd\x01")], strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None


def _row(number: int, line: int, cells: list[str], fault: Fault | None, header: tuple[str, ...]) -> CaseRow:
    padded = (cells + [""] * len(header))[: len(header)]
    for name, cell in zip(header, padded, strict=True):
        if fault is None and (wrong := _wrong_in(cell)):
            fault = Fault("", line, name, *wrong)
    return CaseRow(
        number, line, tuple(_NOT_TEXT.sub("\ufffd", cell)[:_LONGEST_CELL] for cell in padded), fault
    )


def _wrong_in(cell: str) -> tuple[str, str] | None:
    if _NOT_TEXT.search(cell):
        return "holds bytes that are no UTF-8 text", "Save the file as CSV UTF-8"
    if len(cell) > _LONGEST_CELL:
        return f"holds {len(cell)} characters", f"Give at most {_LONGEST_CELL}"
    if _FORMULA.match(cell):
        return f"starts with {cell[0]!r}, which a spreadsheet runs as a formula", "Write plain text"
    return None


def _inert(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")
