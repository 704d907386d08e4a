"""A plan as JSON, some cells at a time: memory stays bounded however many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from perfmodel.planning.cells import BLOCK, Cells
from perfmodel.planning.packed import Coded, Later, Numbers, Packed, Rows

__all__ = ["json_texts"]

Encode = Callable[[Any], str]


def json_texts(
    header: Mapping[str, Any], cells: Cells[Any], more: Mapping[str, Any], encode: Encode
) -> Iterator[str]:
    """Yield the parts of ``{**header, "cells": [...], **more}`` as JSON, indented by one space a level.

    They are together what `encode` makes of the whole.

    Parameters
    ----------
    header, more : plain values that stand before and behind the cells.
    encode : writes any plain value, indented by one space a level.
    """
    mark = '"cells": []'
    before, _, behind = encode({**header, "cells": [], **more}).partition("\n " + mark)
    yield before + '\n "cells": ['
    for start in range(0, len(cells), BLOCK):
        texts = _cell_texts(cells.take(slice(start, start + BLOCK)), encode)
        yield ("," if start else "") + ",".join(texts)
    yield ("\n ]" if len(cells) else "]") + behind


def _cell_texts(cells: Cells[Any], encode: Encode) -> Iterator[str]:
    """Yield the text of each cell, which is two levels deep."""
    written, columns = [], []
    for name, column in cells.columns.items():
        if isinstance(column, Coded) and len(column.table) == 1 and not (name == "why" and cells.reason):
            written.append(_field(name, _nested(encode(column.table[0])).replace("%", "%%"), encode))
            continue
        written.append(_field(name, "%s", encode))
        if name == "why" and cells.reason:
            columns.append(_each(cells.listed(name), encode))
        else:
            column = column.made() if isinstance(column, Later) else column
            columns.append(_value_texts(column, column.listed(), encode))
    template = "\n  {" + ",".join(written) + "\n  }"
    return (template % row for row in zip(*columns, strict=True))


def _field(name: str, text: str, encode: Encode) -> str:
    return f"\n   {encode(name)}: {text}"


def _value_texts(column: Packed, values: list[Any], encode: Encode) -> list[str]:
    """Return the text of each value of a column."""
    if isinstance(column, Coded):
        texts = [_nested(encode(value)) for value in column.table]
        return [texts[code] for code in column.codes.tolist()]
    if isinstance(column, Rows) and not np.any(np.isinf(column.values)):
        rows = {length: "[" + ",".join(["\n    %r"] * length) + "\n   ]" for length in column.lengths.table}
        return [rows[len(value)] % value if value else "[]" for value in values]
    numbers = column.values if isinstance(column, Numbers) else np.array([None])
    if numbers.dtype.kind in "iu":
        return [*map(repr, values)]
    if numbers.dtype.kind == "f" and not np.any(np.isinf(numbers)):
        return ["null" if value is None else repr(value) for value in values]
    if any(isinstance(value, (tuple, list, dict)) for value in values):
        return [_nested(encode([*value] if isinstance(value, tuple) else value)) for value in values]
    return _each(values, encode)


def _each(values: list[Any], encode: Encode) -> list[str]:
    """Return the text of each of some texts or numbers, which holds no line end."""
    return encode(values)[len("[\n ") : -len("\n]")].split(",\n ") if values else []


def _nested(text: str) -> str:
    """Return a value's text as it stands in a cell: in JSON only what is nested has line ends."""
    return text.replace("\n", "\n   ")
