"""The compiled table of a policy: (batch, sum of contexts) -> the lengths that are good there."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsFloat, TypeAlias, TypeVar

import numpy as np

__all__ = [
    "IDLE", "MOST_AT_ONCE", "MOST_BATCH", "MOST_CONTEXT", "MOST_ROWS", "Decision", "Entry", "Table",
    "bordered", "whole",
]  # fmt: skip

T = TypeVar("T")
MOST_ROWS = 8_192
"""Batch sizes that have a row of their own; those above are looked up, which takes microseconds. [1]"""
MOST_BATCH = 10**9
"""Most sequences that are believed to decode together. [1]"""
MOST_CONTEXT = 10**9
"""Longest mean context of a batch that is believed. [tokens]"""
MOST_AT_ONCE = 10**9
"""Rounds that one observation may speak of. [rounds]"""


class Decision(NamedTuple):
    """What to do in the next round of a batch."""

    gamma: int
    kv_budget: int | None
    expected_speedup: float
    reason: str


IDLE = Decision(0, None, 1.0, "nothing decodes")

# Plain tuples, which unpack three times as fast as named ones.

Entry: TypeAlias = tuple[int, tuple["Decision | None", ...]]
"""One place of the compiled table: the index of the best gamma, and the decisions of those that are nearly as
good by index of gamma; None where it is not, and at the end, where index -1 finds it."""

_Row: TypeAlias = tuple[
    tuple[int, ...], tuple[Entry, ...], list[list[int]], tuple[list["list[float] | None"], ...]
]
"""The answers of one batch size, with a border for contexts that the plan does not cover: sums of contexts
from which on the next place answers [tokens], the last of them beyond belief, where no place is; the places;
how often each of their lengths was decided; what the learner counted there by gamma from 0, or None."""


class Table(dict[int, _Row]):
    """Batch size -> its row, made when it is first asked for; replaced whole when something was learned.

    It pickles without its rows, and without `seen`, which fills again from the learner's counts.

    Parameters
    ----------
    batch_bounds, context_bounds : from where on the next cell answers; the border lies below the first and
        from the last on.
    entries : the places of every row of the plan, borders included.
    decided : the same, how often each length was decided.
    longest : speculation length. [tokens]
    seen : what the learner counted at each place, by length.
    """

    def __init__(
        self,
        batch_bounds: tuple[float, ...],
        context_bounds: tuple[float, ...],
        entries: list[tuple[Entry, ...]],
        decided: list[list[list[int]]],
        longest: int,
        seen: list[tuple[list[list[float] | None], ...]] | None = None,
    ) -> None:
        super().__init__()
        self.batch_bounds, self.context_bounds = batch_bounds, context_bounds
        self.entries, self.decided, self.longest = entries, decided, longest
        self.seen = seen or bordered(
            [tuple(bordered([[None] * (longest + 1) for _ in row[1:-1]])) for row in entries[1:-1]]
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Table, (self.batch_bounds, self.context_bounds, self.entries, self.decided, self.longest)

    def __missing__(self, n_decode: int) -> _Row:
        n_decode = whole(n_decode)
        if not 0 < n_decode <= MOST_BATCH:
            raise ValueError(n_decode)
        place = bisect_right(self.batch_bounds, n_decode)
        bounds = *(math.ceil(bound * n_decode) for bound in self.context_bounds), MOST_CONTEXT * n_decode + 1
        row = bounds, self.entries[place], self.decided[place], self.seen[place]
        if len(self) < MOST_ROWS:
            self[n_decode] = row
        return row

    def place_of(self, context: int) -> int:
        """The place of one sequence's context; ValueError if it is none."""
        if not 0 <= whole(context) <= MOST_CONTEXT:
            raise ValueError(context)
        return bisect_right(self.context_bounds, context)

    def near(self, n_decode: float, place: int) -> tuple[int, int]:
        """Row and column of the plan that answer at a place of a row."""
        row = bisect_right(self.batch_bounds, n_decode) - 1
        return (
            min(max(row, 0), len(self.entries) - 3),
            min(max(place - 1, 0), len(self.entries[0]) - 3),
        )


def whole(value: SupportsFloat) -> int:
    """Return a whole number of any type as an int; TypeError, ValueError or OverflowError if it is none.

    A truth value or a text is no number.
    """
    if type(value) is int:
        return value
    if isinstance(value, (bool, np.bool_, str, bytes)):
        raise TypeError(value)
    number = int(value)  # type: ignore[call-overload]
    if not number == value:
        raise ValueError(value)
    return int(number)


def bordered(places: Sequence[T]) -> list[T]:
    """Places with the first and the last once more, for what lies beyond them."""
    return [places[0], *places, places[-1]]
