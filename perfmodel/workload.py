"""The (batch, context) cells that a deployment meets, and how often it meets each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from perfmodel.errors import SpecError
from perfmodel.files.numbers import FloatArray

MAX_BATCH = 1_000_000
MAX_CONTEXT = 100_000_000
MOST_GAMMA = 64
"""The longest draft that is asked about. [tokens]"""
MOST_GPUS = 1024
"""Most GPUs of one replica. [GPUs]"""


@dataclass(frozen=True)
class Workload:
    """Batch sizes [sequences] and context lengths [tokens] to answer for, as a grid.

    Parameters
    ----------
    batch_sizes, context_lens : whole numbers of at least one, sorted on construction. [1], [tokens]
    weights : time spent in each cell, shape (batch, context), sorted along and scaled to a sum of one; equal
        when absent. [1]
    output_tokens : tokens that every sequence generates after a context of that length: what is priced is the
        mean over them, what must fit is the end. 0 is a step at that very context. [tokens]

    Raises
    ------
    SpecError
        When a size is below one, absurd or not a whole number, or the weights do not match the grid.
    """

    batch_sizes: Sequence[int]
    context_lens: Sequence[int]
    weights: FloatArray | None = field(default=None, compare=False)
    output_tokens: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.output_tokens <= MAX_CONTEXT:
            raise _refusal("output_tokens", self.output_tokens, f"give a number from 0 to {MAX_CONTEXT}")
        order = []
        for name, limit in (("batch_sizes", MAX_BATCH), ("context_lens", MAX_CONTEXT)):
            given = np.atleast_1d(np.asarray(getattr(self, name), dtype=float))
            allowed = np.isfinite(given) & (given >= 1) & (given <= limit) & (given == np.round(given))
            if given.size == 0 or not np.all(allowed):
                raise _refusal(name, getattr(self, name), f"give whole numbers from 1 to {limit}")
            values, first = np.unique(given, return_index=True)
            if self.weights is not None and values.size < given.size:
                raise _refusal(name, getattr(self, name), "give every size once, so that each has one weight")
            object.__setattr__(self, name, tuple(values.astype(int).tolist()))
            order.append(first)
        if self.weights is not None:
            shape = (len(self.batch_sizes), len(self.context_lens))
            weights = np.asarray(self.weights, dtype=float)
            usable = weights.shape == shape and np.all(np.isfinite(weights)) and np.all(weights >= 0)
            if not usable or not weights.sum():
                raise _refusal("weights", weights, f"give non-negative weights of shape {shape}")
            object.__setattr__(self, "weights", weights[np.ix_(*order)] / weights.sum())

    @property
    def shares(self) -> FloatArray:
        """Share of time per cell, shape (batch, context), sums to one. [1]"""
        if self.weights is not None:
            return self.weights
        shape = (len(self.batch_sizes), len(self.context_lens))
        return np.full(shape, 1.0 / (shape[0] * shape[1]))

    def part(self, rows: slice, columns: slice) -> Workload:
        """Return the cells of some batch sizes and context lengths, weighted as equals."""
        return Workload(
            self.batch_sizes[rows], self.context_lens[columns], output_tokens=self.output_tokens
        )


def _refusal(name: str, given: object, remedy: str) -> SpecError:
    return SpecError.single("workload", name, f"found {given!r}"[:200], remedy)
