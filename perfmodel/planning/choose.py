"""The exhaustive search at one deployment: every drafter's best configuration per cell, and who wins."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perfmodel.planning.plan import NEAR_TIE
from perfmodel.planning.price import Block, Grid, Task, price_task, tasks
from perfmodel.speculation import Drafter, idle_share

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Constraints:
    """What a recommendation must respect.

    tpot : most seconds per output token. [s]
    fit_memory : refuse what does not fit in the GPUs' memory.
    near_tie : among a drafter's configurations this close to its best, the one that drafts least is taken.
        [1]
    """

    tpot: float | None = None
    fit_memory: bool = True
    near_tie: float = NEAR_TIE


@dataclass(frozen=True)
class Best:
    """The best allowed configuration of one drafter, one element per cell; infinite where none is allowed."""

    drafter: Drafter | None
    kv_budget: FloatArray
    gamma: FloatArray
    tpot: FloatArray

    @classmethod
    def nothing(cls, drafter: Drafter | None, shape: tuple[int, int]) -> Best:
        """No answer yet for any cell."""
        return cls(drafter, np.zeros(shape), np.zeros(shape), np.full(shape, np.inf))

    def put(self, task: Task, found: tuple[FloatArray, FloatArray, FloatArray]) -> None:
        """Write the budget, gamma and seconds per token found for the cells of one task."""
        for mine, values in zip((self.kv_budget, self.gamma, self.tpot), found, strict=True):
            mine[task.rows, task.columns] = values

    def flat(self) -> Best:
        """The same with one axis of cells, in (batch, context) order."""
        return Best(self.drafter, self.kv_budget.ravel(), self.gamma.ravel(), self.tpot.ravel())

    def described(self, cell: int) -> str:
        """Its configuration in one cell, for people."""
        if self.drafter is None:
            return "plain decoding"
        budget = f" budget {self.kv_budget[cell]:.0f}" if np.isfinite(self.kv_budget[cell]) else ""
        return f"{self.drafter.label}{budget} gamma {self.gamma[cell]:.0f}"


class Search:
    """One exhaustive search at one hardware and tensor parallelism.

    `bests` has one `Best` per drafter of the grid, `order` the ranking of drafters per cell, shape
    (drafters, cells), and `fallen` counts the configurations that fell to each constraint. `left_out` says
    why no drafter is loaded where one deployment was asked for and none serves it best.
    """

    def __init__(self, grid: Grid, constraints: Constraints, *, one_deployment: bool = False) -> None:
        self.grid, self.constraints = grid, constraints
        self.fallen: Counter[str] = Counter()
        self.left_out = ""
        if one_deployment:
            self.grid = grid = self._deployed(grid)
        self.bests = self._best_of_each_drafter(grid)
        if one_deployment:
            self.bests = [self._with_drafter_loaded(best) for best in self.bests]
        self.order = np.argsort(np.stack([best.tpot for best in self.bests]), axis=0, kind="stable")

    def _best_of_each_drafter(self, grid: Grid) -> list[Best]:
        """Every drafter's best allowed budget and gamma for every cell, over all blocks of the grid."""
        shape = (len(grid.workload.batch_sizes), len(grid.workload.context_lens))
        bests = [Best.nothing(drafter, shape) for drafter in grid.drafters]
        for task in tasks(grid):
            for best, block in zip(bests, price_task(task), strict=True):
                best.put(task, self._best_in(block))
        return [best.flat() for best in bests]

    def _best_in(self, block: Block) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Best allowed budget, gamma and seconds per token of every cell of one block."""
        score = block.column("tpot_s")
        if self.constraints.fit_memory:
            score = self._without(~block.round.memory.fits, "does not fit in memory", score)
        if self.constraints.tpot is not None:
            score = self._without(score > self.constraints.tpot, "misses the TPOT limit", score)
        by_gamma = score.min(axis=2)  # (batch, context, gamma)
        near = by_gamma <= by_gamma.min(axis=2, keepdims=True) * (1.0 + self.constraints.near_tie)
        gamma = np.argmax(near, axis=2)  # the first, so the smallest
        of_gamma = np.take_along_axis(score, gamma[..., None, None], axis=3)[..., 0]
        budget = np.argmin(of_gamma, axis=2)
        tpot = np.take_along_axis(of_gamma, budget[..., None], axis=2)[..., 0]
        return block.kv_budgets[budget], block.gammas[gamma], tpot

    def _without(self, forbidden: NDArray[np.bool_], reason: str, score: FloatArray) -> FloatArray:
        """The score with forbidden configurations at infinity, counted under their reason."""
        forbidden = np.broadcast_to(forbidden, score.shape)
        if not np.any(forbidden):
            return score
        self.fallen[reason] += int(np.count_nonzero(forbidden))
        return np.where(forbidden, np.inf, score)

    def _deployed(self, grid: Grid) -> Grid:
        """The grid of the one drafter and draft KV budget that serve the workload best, and plain decoding.

        A cell's score is its best speedup over all gammas, at least that of a plain step with the drafter
        loaded; the deployment with the highest weighted mean logarithm wins, unless none gains.
        """
        shares = grid.workload.shares.ravel()
        best_plain = self._best_of_each_drafter(grid.only([None]))[0]
        plain = best_plain.tpot
        idle = plain * (1.0 + idle_share(grid.engine, grid.target.num_layers, plain))
        scored: list[tuple[float, Drafter, int | None]] = []
        for drafter in grid.drafters:
            if drafter is None:
                continue
            for budget in grid.budgets_of(drafter):
                budgets = (int(budget),) if np.isfinite(budget) else None
                tpot = self._best_of_each_drafter(grid.only([drafter], budgets))[0].tpot
                known = np.isfinite(plain)
                gain = np.log(plain[known] / np.minimum(tpot[known], idle[known]))
                scored.append((float(gain @ shares[known]), drafter, budgets[0] if budgets else None))
        self.fallen.clear()
        if not scored:
            return grid
        mean, drafter, budget = max(scored, key=lambda entry: entry[0])
        if mean < 0.0:
            self.left_out = (
                f"loading {drafter.label} would make the whole workload {np.exp(mean):.3f} times as fast, "
                "because plain steps take longer while it is loaded: leave it out"
            )
            return grid.only([None])
        return grid.only([None, drafter], None if budget is None else (budget,))

    def _with_drafter_loaded(self, best: Best) -> Best:
        """Plain decoding as it is in a deployment that has a drafter loaded; others as they are."""
        if best.drafter is not None or self.grid.drafters[-1] is None:
            return best
        longer = 1.0 + idle_share(self.grid.engine, self.grid.target.num_layers, best.tpot)
        tpot: FloatArray = best.tpot * longer
        limit = np.inf if self.constraints.tpot is None else self.constraints.tpot
        return replace(best, tpot=np.where(tpot > limit, np.inf, tpot))
