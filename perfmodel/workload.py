"""The (batch, context) cells that a deployment meets, and how often it meets each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from perfmodel.errors import SpecError

MAX_BATCH = 1_000_000
MAX_CONTEXT = 100_000_000


@dataclass(frozen=True)
class Workload:
    """Batch sizes [sequences] and context lengths [tokens] to answer for, as a grid.

    Parameters
    ----------
    batch_sizes, context_lens : sorted on construction; whole numbers of at least one. [1], [tokens]
    weights : share of time spent in each cell, shape (batch, context); equal when absent. [1]

    Raises
    ------
    SpecError
        When a size is below one, absurd or not a whole number, or the weights do not match the grid.
    """

    batch_sizes: Sequence[int]
    context_lens: Sequence[int]
    weights: np.ndarray | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name, limit in (("batch_sizes", MAX_BATCH), ("context_lens", MAX_CONTEXT)):
            values = np.atleast_1d(np.asarray(getattr(self, name), dtype=float))
            if (
                values.size == 0
                or not np.all(np.isfinite(values))
                or np.any(values < 1)
                or np.any(values > limit)
            ):
                raise SpecError.single(
                    "workload",
                    name,
                    f"found {getattr(self, name)!r}",
                    f"give whole numbers from 1 to {limit}",
                )
            if np.any(values != np.round(values)):
                raise SpecError.single(
                    "workload", name, f"found {getattr(self, name)!r}", "give whole numbers"
                )
            if self.weights is None:
                values = np.unique(values)
            object.__setattr__(self, name, tuple(int(value) for value in values))
        if self.weights is not None:
            shape = (len(self.batch_sizes), len(self.context_lens))
            weights = np.asarray(self.weights, dtype=float)
            if (
                weights.shape != shape
                or not np.all(np.isfinite(weights))
                or np.any(weights < 0)
                or not weights.sum()
            ):
                raise SpecError.single(
                    "workload",
                    "weights",
                    f"found shape {weights.shape}",
                    f"give non-negative weights of shape {shape}",
                )
            object.__setattr__(self, "weights", weights / weights.sum())

    @property
    def shares(self) -> np.ndarray:
        """Share of time per cell, shape (batch, context), sums to one. [1]"""
        if self.weights is not None:
            return self.weights
        shape = (len(self.batch_sizes), len(self.context_lens))
        return np.full(shape, 1.0 / (shape[0] * shape[1]))
