"""Parquet in pieces: row groups that were made anywhere become one file, their bytes copied as they are."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["join_row_groups", "row_group"]

_MAGIC = b"PAR1"
_TAIL = 8
"""Bytes after the footer: its length and the magic. [bytes]"""

Fields: TypeAlias = dict[int, tuple[int, Any]]
"""A struct of thrift: the number of a field -> its type and its value."""

# Numbers of fields in parquet.thrift, https://github.com/apache/parquet-format.
_NUM_ROWS, _ROW_GROUPS, _KEY_VALUES = 3, 4, 5
"""Of FileMetaData."""
_COLUMNS, _GROUP_OFFSET, _ORDINAL = 1, 5, 7
"""Of RowGroup."""
_META_DATA = 3
"""Of ColumnChunk."""
_CHUNK_OFFSETS = (2, 4, 6)
"""Of ColumnChunk: where it lies (0 where that is not said), its offset index, its column index."""
_PAGE_OFFSETS = (9, 10, 11, 14)
"""Of ColumnMetaData: its data pages, index pages, dictionary page and bloom filter."""


def row_group(table: Any, **settings: Any) -> bytes:
    """Return a pyarrow table as a parquet file of one row group; settings are those of `write_table`."""
    import pyarrow.parquet as pq

    content = io.BytesIO()
    pq.write_table(table, content, row_group_size=max(1, table.num_rows), **settings)
    return content.getvalue()


def join_row_groups(pieces: Iterable[Any], path: Path, metadata: Mapping[str, str]) -> None:
    """Write the row groups of parquet files as one file, in order; their bytes are copied as they are.

    Parameters
    ----------
    pieces : the content of whole files, one at least, of one schema and written with the same settings.
    path : the file, made anew.
    metadata : what the file says of itself, beside what is in its schema.

    Raises
    ------
    OSError
        Where that cannot be written.
    """
    about: Fields = {}
    with path.open("wb") as stream:
        stream.write(_MAGIC)
        for piece in pieces:
            content = memoryview(piece)
            begin = len(content) - _TAIL - int.from_bytes(content[-_TAIL:-4], "little")
            of_piece = _read_footer(bytes(content[begin:-_TAIL]))
            _shift(of_piece, stream.tell() - len(_MAGIC), len(_groups(about)) if about else 0)
            stream.write(content[len(_MAGIC) : begin])
            if not about:
                about = of_piece
                continue
            _groups(about).extend(_groups(of_piece))
            about[_NUM_ROWS] = about[_NUM_ROWS][0], about[_NUM_ROWS][1] + of_piece[_NUM_ROWS][1]
        about[_KEY_VALUES] = _LIST, (_STRUCT, [
            {1: (_STRING, key.encode()), 2: (_STRING, value.encode())} for key, value in metadata.items()
        ])  # fmt: skip
        footer = _footer(about)
        stream.write(footer + len(footer).to_bytes(4, "little") + _MAGIC)


def _groups(about: Fields) -> list[Fields]:
    """The row groups that a footer tells of."""
    groups: list[Fields] = about[_ROW_GROUPS][1][1]
    return groups


def _shift(about: Fields, further: int, ordinal: int) -> None:
    """Move what a footer says of places so many bytes on, and number its row groups from `ordinal` on."""
    for place, group in enumerate(_groups(about)):
        _move(group, (_GROUP_OFFSET,), further)
        if _ORDINAL in group:
            group[_ORDINAL] = group[_ORDINAL][0], ordinal + place
        for chunk in group[_COLUMNS][1][1]:
            _move(chunk, _CHUNK_OFFSETS, further)
            _move(chunk[_META_DATA][1], _PAGE_OFFSETS, further)


def _move(fields: Fields, numbers: Iterable[int], further: int) -> None:
    for number in numbers:
        if fields.get(number, (0, 0))[1]:
            fields[number] = fields[number][0], fields[number][1] + further


def _read_footer(content: bytes) -> Fields:
    """Read a footer, whatever its fields are: those of later versions are passed on."""
    from thrift.protocol.TCompactProtocol import TCompactProtocol
    from thrift.transport.TTransport import TMemoryBuffer

    fields: Fields = _read(TCompactProtocol(TMemoryBuffer(content)), _STRUCT)
    return fields


def _footer(about: Fields) -> bytes:
    from thrift.protocol.TCompactProtocol import TCompactProtocol
    from thrift.transport.TTransport import TMemoryBuffer

    buffer = TMemoryBuffer()
    _write(TCompactProtocol(buffer), _STRUCT, about)
    content: bytes = buffer.getvalue()
    return content


# Types of thrift, `thrift.Thrift.TType`.
_BOOL, _BYTE, _DOUBLE, _I16, _I32, _I64, _STRING, _STRUCT, _SET, _LIST = 2, 3, 4, 6, 8, 10, 11, 12, 14, 15
_SCALARS = {
    _BOOL: "Bool", _BYTE: "Byte", _DOUBLE: "Double", _I16: "I16", _I32: "I32", _I64: "I64",
    _STRING: "Binary",
}  # fmt: skip


def _read(protocol: Any, kind: int) -> Any:
    """Read a value: a struct as its `Fields`, a list as the type of its elements and these."""
    if kind in _SCALARS:
        return getattr(protocol, f"read{_SCALARS[kind]}")()
    if kind == _STRUCT:
        return dict(_read_fields(protocol))
    if kind in (_LIST, _SET):
        of, size = protocol.readListBegin()
        values = [_read(protocol, of) for _ in range(size)]
        protocol.readListEnd()
        return of, values
    raise ValueError(f"parquet footers have no field of the type {kind}")


def _read_fields(protocol: Any) -> Iterator[tuple[int, tuple[int, Any]]]:
    protocol.readStructBegin()
    while True:
        _, kind, number = protocol.readFieldBegin()
        if kind == 0:
            break
        yield number, (kind, _read(protocol, kind))
        protocol.readFieldEnd()
    protocol.readStructEnd()


def _write(protocol: Any, kind: int, value: Any) -> None:
    """Write what `_read` returns."""
    if kind in _SCALARS:
        getattr(protocol, f"write{_SCALARS[kind]}")(value)
    elif kind == _STRUCT:
        protocol.writeStructBegin("")
        for number, (of, inner) in sorted(value.items()):
            protocol.writeFieldBegin("", of, number)
            _write(protocol, of, inner)
            protocol.writeFieldEnd()
        protocol.writeFieldStop()
        protocol.writeStructEnd()
    else:
        of, values = value
        protocol.writeListBegin(of, len(values))
        for inner in values:
            _write(protocol, of, inner)
        protocol.writeListEnd()
