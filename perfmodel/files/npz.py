"""Long columns of an npz that come piece by piece, each piece packed where it was computed."""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
import zipfile
import zlib
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["pack", "write_columns"]

_ABOUT, _SUMS = "about", "sums"
"""Of a packed piece: names, types and whether deflated; the checksum and the length of each, unpacked."""
_LEVEL = 1
"""Of deflate: axes become hundredths of their size at once, and more takes longer. [1]"""
_LAST = b"\x03\x00"
"""An empty block that ends deflated bytes."""
_POLYNOMIAL = 0xEDB88320
"""Of the CRC of zip files, its highest power in the lowest bit."""


def pack(values: Mapping[str, NDArray[Any]], deflated: Container[str]) -> dict[str, NDArray[Any]]:
    """Return a piece of some columns as the bytes that the file will hold.

    Parameters
    ----------
    values : elements of each column, flat, in the order of the file.
    deflated : names of the columns that it makes shorter; digits of measured floats it does not.
    """
    packed: dict[str, NDArray[Any]] = {}
    about, sums = [], []
    for name, column in values.items():
        raw = np.ascontiguousarray(column).view(np.uint8)
        about.append((name, column.dtype.str, "deflated" if name in deflated else ""))
        sums.append((zlib.crc32(raw.data), raw.size))
        packed[name] = np.frombuffer(_deflated(raw.data), np.uint8) if name in deflated else raw
    return {**packed, _ABOUT: np.array(about), _SUMS: np.array(sums, dtype=np.int64)}


def write_columns(
    pieces: Iterator[Mapping[str, NDArray[Any]]], path: Path, size: int, short: Mapping[str, NDArray[Any]]
) -> None:
    """Write packed pieces as the columns of an npz, one after the other.

    Until all are there, the columns lie beside the file, where nothing else may be.

    Parameters
    ----------
    pieces : at least one, of the same columns.
    path : the file, made anew.
    size : elements of each column. [1]
    short : arrays that are written whole after the columns.

    Raises
    ------
    OSError
        Where that cannot be written.
    """
    columns: list[_Written] = []
    with contextlib.ExitStack() as opened:
        for piece in pieces:
            if not columns:
                for name, dtype, deflated in piece[_ABOUT].tolist():
                    stream = opened.enter_context(path.with_name(f"{name}.npy").open("wb"))
                    columns.append(_Written(path.with_name(f"{name}.npy"), bool(deflated), stream))
                    columns[-1].begin(np.dtype(dtype), size)
            for column, (crc, length) in zip(columns, piece[_SUMS].tolist(), strict=True):
                column.add(piece[column.name].data, crc, length)
        for column in columns:
            column.end()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for column in columns:
            _move(column, archive)
        for name, values in short.items():
            with archive.open(_entry(name, deflated=True), "w") as entry:
                np.lib.format.write_array(entry, values, allow_pickle=False)


@dataclass
class _Written:
    """A column that grows in a file of its own, as the bytes of its entry in the archive."""

    file: Path
    deflated: bool
    stream: IO[bytes]
    crc: int = 0
    length: int = 0

    @property
    def name(self) -> str:
        return self.file.stem

    def begin(self, dtype: np.dtype[Any], size: int) -> None:
        """Write what stands before the elements."""
        about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (size,)}
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, about)
        raw = head.getvalue()
        self.add(_deflated(raw) if self.deflated else raw, zlib.crc32(raw), len(raw))

    def add(self, content: bytes | memoryview, crc: int, length: int) -> None:
        self.stream.write(content)
        self.crc = _crc_of_both(self.crc, crc, length)
        self.length += length

    def end(self) -> None:
        if self.deflated:
            self.stream.write(_LAST)


def _move(column: _Written, archive: zipfile.ZipFile) -> None:
    """Copy a column into the archive and delete its file. What is deflated is copied as it is."""
    entry = _entry(column.name, deflated=False)
    with column.file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    column.file.unlink()
    if column.deflated:  # zipfile took the bytes for what is stored: say what they are
        entry.compress_type = zipfile.ZIP_DEFLATED
    entry.CRC, entry.file_size = column.crc, column.length
    stream = archive.fp
    assert stream is not None
    end = stream.tell()
    stream.seek(entry.header_offset)
    stream.write(entry.FileHeader(zip64=True))
    stream.seek(end)


def _entry(name: str, *, deflated: bool) -> zipfile.ZipInfo:
    """An entry without a time of its own, so that equal columns give equal files."""
    entry = zipfile.ZipInfo(f"{name}.npy")
    entry.compress_type = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    return entry


def _deflated(raw: Any) -> bytes:
    """Bytes that others may follow."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(raw) + packer.flush(zlib.Z_SYNC_FLUSH)


def _crc_of_both(first: int, second: int, length: int) -> int:
    """The CRC of some bytes and others after them, from the CRC of each; zlib's `crc32_combine`.

    Parameters
    ----------
    length : of the others. [bytes]
    """
    return _times(_power(8 * length), first) ^ second


@functools.lru_cache(maxsize=256)
def _power(exponent: int) -> int:
    """A power of x, modulo the polynomial of the CRC."""
    power, factor = 1 << 31, 1 << 30
    while exponent:
        if exponent & 1:
            power = _times(factor, power)
        factor = _times(factor, factor)
        exponent >>= 1
    return power


def _times(left: int, right: int) -> int:
    """The product of two polynomials over the bits, modulo that of the CRC."""
    product = 0
    for place in range(31, -1, -1):
        if left >> place & 1:
            product ^= right
        right = right >> 1 ^ (_POLYNOMIAL if right & 1 else 0)
    return product
