"""Columns along any axes as the text of a CSV file, each value put into words once."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import chain, groupby
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

__all__ = ["Column", "csv_header", "csv_text"]

Column: TypeAlias = "str | NDArray[Any]"
"""A text for all rows, or an array that broadcasts to them: numbers, truths, or texts without quotes."""

_ROWS = 2048
"""Rows that are put together at once: their texts stay in a core's cache. [rows]"""
_LEAST, _MOST = 1e-4, 1e16
"""Between these Python and JSON write a number alike, and so they do zero."""


def csv_header(names: Sequence[str]) -> str:
    """Return the first line, its end included."""
    return ",".join(map(_quoted, names)) + "\n"


def csv_text(columns: Sequence[Column], shape: tuple[int, ...]) -> Iterator[str]:
    """Yield the rows of some columns, some at a time; the last axis runs fastest.

    A float is the shortest text that is read back as the same number, as Python writes it, and empty where it
    is none: the text of ``DataFrame.to_csv``.

    Parameters
    ----------
    columns : in their order; an array that is short along an axis is put into words once for all of it.
    shape : of the rows, at least one axis.
    """
    shape = shape[next((axis for axis, length in enumerate(shape) if length > 1), len(shape) - 1) :]
    yield from _lines(list(_cells(columns, shape)), shape)


def _cells(columns: Sequence[Column], shape: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    """The columns with all axes: floats that differ row by row side by side, else texts with commas."""

    def differs(column: Column) -> bool:
        return not isinstance(column, str) and column.dtype.kind == "f" and column.size == math.prod(shape)

    comma, end = (np.full((1,) * len(shape), text, dtype=object) for text in (",", "\n"))
    for place, (floats, group) in enumerate(groupby(columns, differs)):
        if place:
            yield comma
        if floats:
            yield _marked([column.reshape(shape) for column in group])  # type: ignore[union-attr]
        else:
            first, *others = (_texts(column, len(shape)) for column in group)
            yield first
            for texts in others:
                yield "," + texts
    yield end


def _lines(cells: list[NDArray[Any]], shape: tuple[int, ...]) -> Iterator[str]:
    """The text of some rows after the others; what is the same along the first axis is joined once for it."""
    cells = _joined(cells, lambda cell: cell.dtype == object and cell.shape[0] == 1)
    inner = math.prod(shape[1:])
    if inner > _ROWS:
        for place in range(shape[0]):
            yield from _lines([cell[place if cell.shape[0] > 1 else 0] for cell in cells], shape[1:])
        return
    step = _ROWS // inner
    for start in range(0, shape[0], step):
        part = [cell[start : start + step] if cell.shape[0] > 1 else cell for cell in cells]
        of_part = (min(step, shape[0] - start), *shape[1:])
        rows = [
            np.broadcast_to(cell, of_part).ravel().tolist()
            if cell.dtype == object
            else _of_floats(cell.reshape(-1, cell.shape[-1]))
            for cell in _joined(part, lambda cell: cell.dtype == object)
        ]
        yield "".join(chain.from_iterable(zip(*rows, strict=True)))


def _joined(cells: list[NDArray[Any]], may: Callable[[NDArray[Any]], bool]) -> list[NDArray[Any]]:
    """The cells, those side by side that may be joined as one; from the right, whose axes vary fastest."""
    joined: list[NDArray[Any]] = []
    for together, group in groupby(cells, may):
        side_by_side = list(group)
        joined += [reduce(_before, reversed(side_by_side))] if together else side_by_side
    return joined


def _before(right: NDArray[Any], left: NDArray[Any]) -> NDArray[Any]:
    """The texts of one column before those of the other."""
    both: NDArray[Any] = left + right
    return both


def _texts(column: Column, axes: int) -> NDArray[Any]:
    """The texts of a column along the axes on which it differs, as objects: numpy adds one to another."""
    if isinstance(column, str):
        return np.full((1,) * axes, _quoted(column), dtype=object)
    column = column.reshape((1,) * (axes - column.ndim) + column.shape[-axes:])
    for axis in range(axes):
        first = column.take([0], axis)
        column = first if (column == first).all() else column
    if column.dtype == object:
        return column
    if column.dtype.kind == "b":
        return np.array(["False", "True"], dtype=object)[column.astype(np.intp)]
    values = column.ravel()
    texts = _of_floats(_marked([values])) if values.dtype.kind == "f" else list(map(str, values.tolist()))
    return np.array(texts, dtype=object).reshape(column.shape)


def _marked(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Floats side by side along an axis more, none after each row."""
    marked = np.full((*columns[0].shape, len(columns) + 1), np.nan)
    for place, column in enumerate(columns):
        marked[..., place] = column
    return marked


def _of_floats(marked: NDArray[Any]) -> list[str]:
    """A text a row, with commas between; of all that is always there JSON's writer is the fastest."""
    rows = marked[:, :-1]
    odd = [] if rows.min() >= _LEAST and rows.max() < _MOST else _odd(rows)
    of_odd = [",".join("" if value != value else repr(value) for value in rows[row].tolist()) for row in odd]
    if odd:
        marked = marked.copy()
        marked[odd, :-1] = 0.0
    texts = to_json(marked.ravel().tolist()).decode()[1:-1].split(",NaN,")
    texts[-1] = texts[-1].removesuffix(",NaN")
    for row, text in zip(odd, of_odd, strict=True):
        texts[row] = text
    return texts


def _odd(rows: NDArray[Any]) -> list[int]:
    """The rows with a number that Python writes otherwise."""
    size = np.abs(rows)
    alike = ((size >= _LEAST) & (size < _MOST)) | (size == 0.0)
    odd: list[int] = np.flatnonzero(~alike.all(axis=1)).tolist()
    return odd


def _quoted(text: str) -> str:
    """A text as a cell: in quotes where it needs them, as the csv module and pandas decide."""
    cell = io.StringIO()
    csv.writer(cell, lineterminator="\n").writerow([text, ""])
    return cell.getvalue()[:-2]
