"""The planned cells as a full grid of batch and context ranges, as engines with both axes read one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from perfmodel.planning.plan import Plan
from perfmodel.planning.schedule import midpoints, nearest_cells

__all__ = ["INFINITY", "Grid", "grid_of", "narrowed"]

INFINITY = 2**31 - 1
"""Where the last context range ends: what vLLM's PR 48944 and SGLang's PR 31716 call infinite. [tokens]"""

Range = tuple[int, int]


class Grid(NamedTuple):
    """Every batch range has the same context ranges.

    Attributes
    ----------
    batches : first and last batch size of every row, both included, from 1 without gaps. [sequences]
    contexts : first and last running context of every column, from 1 without gaps to infinity. [tokens]
    lengths : the plan's length of every row and column. [tokens]
    """

    batches: tuple[Range, ...]
    contexts: tuple[Range, ...]
    lengths: tuple[tuple[int, ...], ...]

    def length(self, batch_size: int, context_len: int) -> int:
        """Return the length of a batch size and a running context; the last row reaches on. [tokens]"""
        row = max(index for index, (first, _) in enumerate(self.batches) if first <= max(batch_size, 1))
        column = max(index for index, (first, _) in enumerate(self.contexts) if first <= max(context_len, 1))
        return self.lengths[row][column]


def narrowed(plan: Plan, contexts: Range | None) -> Plan:
    """Return the plan of the contexts from the first to the second alone; all where None. [tokens]"""
    if contexts is None:
        return plan
    low, high = contexts
    return replace(plan, cells=tuple(cell for cell in plan.cells if low <= cell.context_len <= high))


def grid_of(plan: Plan, last_batch: int) -> Grid:
    """Return the ranges in which each planned cell is the nearest, on a logarithmic scale.

    A running context has the prompt and half of the output in the mean, which is where a cell was priced.

    Parameters
    ----------
    plan : its cells.
    last_batch : where the last batch range ends. [sequences]
    """
    batches, contexts, rows = nearest_cells(plan)
    batch_ranges = [pair for pair in _ranges(batches, last_batch) if pair[0] <= pair[1]]
    running = [context + plan.half_way for context in contexts]
    lengths = tuple(tuple(cell.gamma for cell in row) for row in rows[: len(batch_ranges)])
    return Grid(tuple(batch_ranges), tuple(_ranges(running, INFINITY)), lengths)


def _ranges(values: Sequence[float], last: int) -> list[Range]:
    """Return the whole numbers nearest to each value, from 1 to `last`; those above it are empty."""
    firsts = [1, *(math.ceil(middle) for middle in midpoints(values))]
    stops = [*(first - 1 for first in firsts[1:]), last]
    return [(first, min(stop, last)) for first, stop in zip(firsts, stops, strict=True)]
