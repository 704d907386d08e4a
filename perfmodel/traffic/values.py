"""Long columns that grow by a few at a time: the end in memory, what comes before it on disk."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.files.numbers import FloatArray
from perfmodel.files.writing import Scratch

__all__ = ["Values", "parts_of", "total"]

KEPT = 1 << 23
"""Most bytes of a column that are in memory. [B]"""
LEAF = 1 << 16
"""Numbers that numpy adds at once; what is longer it adds in two halves. [1]"""


class Values:
    """Numbers, or rows of a table, one after the other. Nothing is left on the disk when the process ends.

    Parameters
    ----------
    first : those that it begins with.
    dtype : of each.
    """

    def __init__(self, first: NDArray[Any] | None = None, dtype: Any = float) -> None:
        self._type = np.dtype(dtype)
        self._end = bytearray()
        self._disk: Scratch | None = None
        if first is not None:
            for begin in range(0, first.size, LEAF):
                self.extend(first[begin : begin + LEAF])

    def __len__(self) -> int:
        on_disk = self._disk.size if self._disk else 0
        return (on_disk + len(self._end)) // int(self._type.itemsize)

    def extend(self, more: Sequence[float] | NDArray[Any]) -> None:
        """Append some; a sequence is of floats. Raises SpecError where the disk is full."""
        if isinstance(more, np.ndarray):
            self._end += more.astype(self._type, copy=False).tobytes()
        else:
            self._end += array("d", more)
        if len(self._end) >= KEPT:
            self._spill()

    def _spill(self) -> Scratch:
        """Have all of them on the disk."""
        if self._disk is None:
            self._disk = Scratch()
        if self._end:
            self._disk.append(self._end)
            self._end = bytearray()
        return self._disk

    def array(self) -> NDArray[Any]:
        """All of them, mapped from the disk where they lie there; shape (values,)."""
        if self._disk is None:
            return np.frombuffer(bytes(self._end), dtype=self._type)
        return self._spill().mapped(self._type)

    def pieces(self, most: int = LEAF) -> Iterator[NDArray[Any]]:
        """Yield all of them in order, so many at once and fewer at the end."""
        each = most * self._type.itemsize
        if self._disk is not None:
            for begin in range(0, self._disk.size, each):
                yield np.frombuffer(self._disk.read(begin, each), dtype=self._type)
        for begin in range(0, len(self._end), each):
            yield np.frombuffer(bytes(self._end[begin : begin + each]), dtype=self._type)


def parts_of(pieces: Iterable[NDArray[Any]], sizes: Iterable[int]) -> Iterator[NDArray[Any]]:
    """Yield what comes in pieces of any size in parts of these sizes."""
    source = iter(pieces)
    at_hand: list[NDArray[Any]] = []
    for size in sizes:
        there = sum(piece.size for piece in at_hand)
        while there < size:
            at_hand.append(next(source))
            there += at_hand[-1].size
        joined = at_hand[0] if len(at_hand) == 1 else np.concatenate(at_hand or [np.empty(0)])
        yield joined[:size]
        at_hand = [joined[size:]] if there > size else []


def total(pieces: Iterable[FloatArray], size: int) -> float:
    """The sum of so many numbers that come in pieces of any size: to the bit that of numpy, which halves."""
    taken = parts_of(pieces, _leaves(size))

    def summed(size: int) -> float:
        if size <= LEAF:
            return float(next(taken).sum())
        half = _half(size)
        return summed(half) + summed(size - half)

    return summed(size)


def _half(size: int) -> int:
    """Where numpy divides so many numbers to add them."""
    half = size // 2
    return half - half % 8


def _leaves(size: int) -> Iterator[int]:
    """The sizes that so many numbers are added in, in order."""
    if size <= LEAF:
        yield size
        return
    half = _half(size)
    yield from _leaves(half)
    yield from _leaves(size - half)
