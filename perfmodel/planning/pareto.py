"""Throughput against latency: what no other configuration beats in both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.planning.price import Grid, sweep

__all__ = ["EVERYTHING", "PLAIN", "Front", "pareto", "price_fronts"]

FloatArray = NDArray[np.float64]
EVERYTHING = "everything"
PLAIN = "plain decoding"


@dataclass(frozen=True)
class Front:
    """Configurations that no other of the same label beats in both, latency rising.

    tpot : seconds per output token of one sequence [s]. throughput : output tokens per second and GPU
    [tokens/s]. batch, gamma, kv_budget : what they are. [sequences], [tokens], [tokens]
    """

    label: str
    tpot: FloatArray
    throughput: FloatArray
    batch: FloatArray
    gamma: FloatArray
    kv_budget: FloatArray

    def nondominated(self) -> Front:
        """The same without the configurations that another one beats."""
        kept = pareto(self.tpot, self.throughput)
        return Front(
            self.label,
            self.tpot[kept],
            self.throughput[kept],
            self.batch[kept],
            self.gamma[kept],
            self.kv_budget[kept],
        )


def pareto(tpot: FloatArray, throughput: FloatArray) -> NDArray[np.intp]:
    """Indices of the points that no other beats in both, `tpot` rising; of equal points the first."""
    order = np.lexsort((-throughput, tpot))
    reached = np.maximum.accumulate(np.concatenate([[-np.inf], throughput[order][:-1]]))
    kept: NDArray[np.intp] = order[throughput[order] > reached]
    return kept


def price_fronts(grid: Grid) -> list[Front]:
    """Price every configuration of a grid that fits; return each drafter's front and last that of all.

    Plain decoding is a drafter of None. Throughput is per GPU, so several hardware profiles and tensor
    parallelisms compare.

    Raises
    ------
    SpecError
        When the grid holds more than one context length: latencies at different contexts do not compare.
    InfeasibleError
        When nothing fits.
    """
    if len(grid.workload.context_lens) != 1:
        raise SpecError.single(
            "request",
            "context_lens",
            f"holds {len(grid.workload.context_lens)} lengths",
            "a front is drawn for one",
        )
    found: dict[str, list[FloatArray]] = {}
    for block in sweep(grid):
        fits = block.column("fits").ravel()
        axes = np.meshgrid(
            block.batch_sizes, block.context_lens, block.kv_budgets, block.gammas, indexing="ij"
        )
        columns = (
            block.column("tpot_s"),
            block.column("throughput_tokens_per_s") / block.tensor_parallel,
            axes[0],
            axes[3],
            axes[2],
        )
        label = block.drafter.label if block.drafter else PLAIN
        found.setdefault(label, []).append(np.stack([column.ravel()[fits] for column in columns]))
    joined = {label: np.concatenate(parts, axis=1) for label, parts in found.items()}
    joined[EVERYTHING] = np.concatenate(list(joined.values()), axis=1)
    if not joined[EVERYTHING].size:
        raise InfeasibleError({"does not fit in memory": grid.size}, "nothing fits at this context")
    return [Front(label, *rows).nondominated() for label, rows in joined.items() if rows.size]
