"""Exact percentiles of weighted numbers that are too many to be sorted, in a few passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.files.numbers import FloatArray

__all__ = ["Weighted", "percentiles"]

Weighted = tuple[FloatArray, NDArray[np.int64]]
"""Numbers from 0 on, and the weight of each, above 0."""

_SORTED = 1 << 20
"""Numbers that are sorted at once. [1]"""
_BITS = 16
"""Of a number's bits, so many are told apart in a pass."""


class _Span(NamedTuple):
    """Numbers whose leading bits are the same: all but so many; the weight of what is smaller, how many they
    are, and which percentiles lie there."""

    low: int
    bits: int
    below: int
    numbers: int
    places: list[int]


def percentiles(
    pieces: Callable[[], Iterator[Weighted]], wanted: Sequence[float], *, count: int, weight: int
) -> FloatArray:
    """The least numbers up to which at least these percentages of the weight lie; zeros where there are none.

    Parameters
    ----------
    pieces : begins to yield all numbers anew whenever it is called.
    wanted : such as 50 and 99.
    count, weight : of all numbers. [1]
    """
    shares = np.asarray(wanted, dtype=float) / 100.0
    values = np.zeros(shares.size)
    spans = [_Span(0, 63, 0, count, list(range(shares.size)))] if count else []
    while spans:
        narrower = _looked_through(pieces, spans, shares, weight, values)
        spans = [span for within in narrower for span in within]
    return values


def _looked_through(
    pieces: Callable[[], Iterator[Weighted]],
    spans: Sequence[_Span],
    shares: FloatArray,
    weight: int,
    values: FloatArray,
) -> Iterator[list[_Span]]:
    """Read everything once: fill in the values of spans that are short, and narrow the others."""
    looks = [(_Sorted if span.numbers <= _SORTED else _Counted)(span) for span in spans]
    for numbers, weights in pieces():
        keys = numbers.view(np.int64)  # in the order of the numbers, as none is negative
        for look in looks:
            offset = keys - look.span.low
            inside = offset >> look.span.bits == 0
            if inside.any():
                look.add(offset[inside], weights[inside])
    for look in looks:
        yield look.ended(shares, weight, values)


class _Sorted:
    """A span that is sorted."""

    def __init__(self, span: _Span) -> None:
        self.span = span
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def add(self, offsets: NDArray[np.int64], weights: NDArray[np.int64]) -> None:
        """Take in some of its numbers."""
        self._parts.append((offsets, weights))

    def ended(self, shares: FloatArray, weight: int, values: FloatArray) -> list[_Span]:
        """Fill in the values of its percentiles; nothing is left to look for."""
        offsets, weights = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        order = np.argsort(offsets)
        reached = (self.span.below + np.cumsum(weights[order])) / weight
        places = np.searchsorted(reached, shares[self.span.places]).clip(max=offsets.size - 1)
        values[self.span.places] = (offsets[order][places] + self.span.low).view(float)
        return []


class _Counted:
    """A span whose weight is counted in narrower ones."""

    def __init__(self, span: _Span) -> None:
        self.span = span
        self._shift = max(span.bits - _BITS, 0)
        self._weights = np.zeros(1 << (span.bits - self._shift))
        self._counts = np.zeros(self._weights.size, dtype=np.int64)

    def add(self, offsets: NDArray[np.int64], weights: NDArray[np.int64]) -> None:
        """Take in some of its numbers."""
        bins = offsets >> self._shift
        self._weights += np.bincount(bins, weights, self._weights.size)  # whole numbers: exact up to 2^53
        self._counts += np.bincount(bins, minlength=self._weights.size)

    def ended(self, shares: FloatArray, weight: int, values: FloatArray) -> list[_Span]:
        """The narrower spans in which its percentiles lie; their values where a span is one number."""
        upto = self.span.below + np.cumsum(self._weights)
        filled = np.flatnonzero(self._counts)
        narrower: dict[int, list[int]] = {}
        for place in self.span.places:
            reached = np.searchsorted(upto[filled] / weight, shares[place])
            which = int(filled[min(int(reached), filled.size - 1)])
            narrower.setdefault(which, []).append(place)
        spans = []
        for which, places in narrower.items():
            low = self.span.low + (which << self._shift)
            if self._shift:
                below = int(upto[which] - self._weights[which])
                spans.append(_Span(low, self._shift, below, int(self._counts[which]), places))
            else:
                values[places] = np.int64(low).view(np.float64)
        return spans
