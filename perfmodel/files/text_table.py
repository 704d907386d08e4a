"""A table of texts and numbers kept as columns: rows are made when asked for, CSV in blocks of bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from perfmodel.files.csv_columns import Texts
from perfmodel.files.csv_rows import csv_text
from perfmodel.files.number_texts import DIGITS, WIDTH, number_signs
from perfmodel.files.numbers import FloatArray

__all__ = ["TableColumn", "TextTable"]

_ROWS = 8192
"""Rows that are written at once."""
_ANYWHERE = re.compile(r"(?:[0-9A-Za-z][0-9A-Za-z_. /-]*)?", re.ASCII)
"""Texts that are written as they are."""
_WIDEST = 200
"""Longest text of a column that is written as an array of bytes. [B]"""


@dataclass(frozen=True)
class TableColumn:
    """What stands in a column: a number where there is one, else a text.

    texts : of every row.
    numbers : in place of texts wherever they are finite; shape (rows,).
    """

    texts: Texts
    numbers: FloatArray | None = None

    def cells(self, rows: slice) -> list[str]:
        """The texts of some rows, a number with ten digits."""
        distinct = self.texts.distinct
        cells = [distinct[code] for code in self.texts.codes[rows].tolist()]
        if self.numbers is None:
            return cells
        numbers = self.numbers[rows].tolist()
        is_finite = np.isfinite(self.numbers[rows]).tolist()
        return [
            f"{number:.{DIGITS}g}" if finite else cell
            for number, finite, cell in zip(numbers, is_finite, cells, strict=True)
        ]


class TextTable(Sequence[tuple[str, ...]]):
    """Rows of texts; equal to whatever holds the same rows.

    columns : by name, in order, all equally long.
    """

    def __init__(self, columns: dict[str, TableColumn], rows: int) -> None:
        self.columns = columns
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, index: int) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[tuple[str, ...], ...]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, ...] | tuple[tuple[str, ...], ...]:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(*index.indices(len(self))))
        place = range(len(self))[index]
        return next(self._block(slice(place, place + 1)))

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        for rows in self._blocks():
            yield from self._block(rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(own == its for own, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def csv_blocks(self) -> Iterator[bytes]:
        """Yield the table as CSV in UTF-8, as `csv_text` writes it, the header first."""
        yield csv_text(list(self.columns), ()).encode()
        written = [_Written(column) for column in self.columns.values()]
        at_once = all(column.width <= _WIDEST for column in written)
        for rows in self._blocks():
            if at_once:
                signs = np.concatenate([column.signs(rows) for column in written], axis=1)
                signs[:, -1] = ord("\n")
                yield signs.tobytes().translate(None, b"\0")
            else:
                cells = zip(*(column.cells(rows) for column in written), strict=True)
                yield "".join(f"{','.join(row)}\n" for row in cells).encode()

    def _blocks(self) -> Iterator[slice]:
        return (slice(start, start + _ROWS) for start in range(0, len(self), _ROWS))

    def _block(self, rows: slice) -> Iterator[tuple[str, ...]]:
        return zip(*(column.cells(rows) for column in self.columns.values()), strict=True)


class _Written:
    """A column as it stands in a CSV file: quoted where need be, and nothing invisible or run in it."""

    def __init__(self, column: TableColumn) -> None:
        texts = [_quoted(text) for text in column.texts.distinct]
        self._column = TableColumn(Texts(column.texts.codes, texts), column.numbers)
        self._bytes = [text.encode() for text in texts]
        self.width = max(map(len, self._bytes), default=0)
        self._signs: NDArray[np.uint8] | None = None

    def signs(self, rows: slice) -> NDArray[np.uint8]:
        """Its cells of some rows with a comma behind, as bytes among which zeros stand for nothing."""
        if self._signs is None:
            fixed = np.array(self._bytes, dtype=f"S{max(self.width, 1)}")
            self._signs = fixed.view(np.uint8).reshape(len(fixed), -1)
        codes = self._column.texts.codes[rows]
        numbers = None if self._column.numbers is None else self._column.numbers[rows]
        width = max(self._signs.shape[1], 0 if numbers is None else WIDTH)
        signs = np.zeros((codes.size, width + 1), dtype=np.uint8)
        signs[:, -1] = ord(",")
        if numbers is None:
            signs[:, :-1] = self._signs[codes]
            return signs
        is_finite = np.isfinite(numbers)
        signs[:, :WIDTH] = number_signs(np.where(is_finite, numbers, 1.0))
        if not is_finite.all():
            signs[~is_finite, :-1] = 0
            signs[~is_finite, : self._signs.shape[1]] = self._signs[codes[~is_finite]]
        return signs

    def cells(self, rows: slice) -> list[str]:
        """Its cells of some rows."""
        return self._column.cells(rows)


def _quoted(text: str) -> str:
    """Return a text as a cell of a CSV file."""
    if _ANYWHERE.fullmatch(text):
        return text
    return csv_text((), [(text, "")]).removeprefix("\n")[:-2]
