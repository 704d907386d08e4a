"""Price every drafting configuration of a workload, drop what is not allowed, keep the best, and say why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

import strategies
from perfmodel._version import __version__
from perfmodel.engine import EngineOverhead
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.hardware import HardwareProfile
from perfmodel.explain import assumptions, explained_cells, inflection_context, nearest_miss
from perfmodel.model import ModelSpec
from perfmodel.plan import Cell, Plan
from perfmodel.speculation import Drafter, price_round
from perfmodel.sweep import Block, Grid, Task, price_task, tasks
from perfmodel.workload import Workload

OBJECTIVES = ("speedup", "throughput", "tpot", "cost")
DEFAULT_GAMMAS = tuple(range(17))


@dataclass(frozen=True)
class Constraints:
    """What a recommendation must respect."""

    tpot: float | None = None
    fit_memory: bool = True


@dataclass(frozen=True)
class _Best:
    """The best allowed configuration of one drafter per cell; infinite where none is. [tokens], [tokens], [s]"""

    drafter: Drafter | None
    kv_budget: np.ndarray
    gamma: np.ndarray
    tpot: np.ndarray

    @classmethod
    def nothing(cls, drafter: Drafter | None, shape: tuple[int, int]) -> _Best:
        """No answer yet for any cell."""
        return cls(drafter, np.zeros(shape), np.zeros(shape), np.full(shape, np.inf))

    def put(self, task: Task, kv_budget: np.ndarray, gamma: np.ndarray, tpot: np.ndarray) -> None:
        """Write the answers for the cells of one task."""
        for mine, found in ((self.kv_budget, kv_budget), (self.gamma, gamma), (self.tpot, tpot)):
            mine[task.rows, task.columns] = found

    def flat(self) -> _Best:
        """The same with one axis of cells, in (batch, context) order."""
        return _Best(self.drafter, self.kv_budget.ravel(), self.gamma.ravel(), self.tpot.ravel())

    def described(self, cell: int) -> tuple[str, float] | None:
        """Its name for people and its seconds per token in one cell, or None where nothing is allowed."""
        if not np.isfinite(self.tpot[cell]):
            return None
        if self.drafter is None:
            return "plain decoding", float(self.tpot[cell])
        budget = f" budget {self.kv_budget[cell]:.0f}" if np.isfinite(self.kv_budget[cell]) else ""
        return f"{self.drafter.label}{budget} gamma {self.gamma[cell]:.0f}", float(self.tpot[cell])


def default_drafters(target: ModelSpec, draft_models: Iterable[ModelSpec] = ()) -> list[Drafter]:
    """The drafters that a deployment can start as it is: self-speculation with a static cache, and the named models.

    Strategies that need something first (a trained head, kernels that select while drafting) are searched when named.
    """
    ready = [strategy for strategy in map(strategies.load, strategies.available()) if not strategy.needs]
    own = [Drafter(strategy) for strategy in ready if "self" in strategy.drafters]
    models = [
        Drafter(strategy, model)
        for model in draft_models
        for strategy in ready
        if "draft" in strategy.drafters
    ]
    return own + models


def plan(
    hardware: HardwareProfile | Sequence[HardwareProfile],
    target: ModelSpec,
    engine: EngineOverhead,
    workload: Workload,
    *,
    drafters: Sequence[Drafter] | None = None,
    kv_budgets: Sequence[int] | None = None,
    gammas: Sequence[int] = DEFAULT_GAMMAS,
    tensor_parallel: int | Sequence[int] = 1,
    alpha: float | None = None,
    objective: str = "speedup",
    constraints: Constraints = Constraints(),
) -> Plan:
    """Recommend a drafting configuration for every (batch, context) cell; the search is exhaustive and exact.

    Parameters
    ----------
    hardware, tensor_parallel : one, or several to choose among per cell.
    drafters : who may draft; `default_drafters` when absent.
    kv_budgets : draft KV budgets to try; each strategy's own when absent. [tokens]
    gammas : speculation lengths to try; 0, plain decoding, is always among them. [tokens]
    alpha : measured acceptance rate, replacing every strategy's law. [0..1]
    objective : ``speedup``, ``throughput``, ``tpot`` or ``cost`` (per million tokens). At one hardware and tensor
        parallelism they agree; they differ in what they prefer among several.

    Raises
    ------
    InfeasibleError
        When no configuration of any cell is allowed; it counts what fell to which constraint.
    SpecError
        When the request itself is wrong.
    """
    if objective not in OBJECTIVES:
        raise SpecError.single(
            "request", "objective", f"found {objective!r}", f"choose one of {', '.join(OBJECTIVES)}"
        )
    if alpha is not None and not 0.0 <= alpha <= 1.0:
        raise SpecError.single("request", "alpha", f"found {alpha!r}", "give an acceptance rate from 0 to 1")
    lengths = np.unique(np.concatenate([[0], np.asarray(list(gammas), dtype=int)]))
    if lengths[0] < 0 or lengths[-1] > 64:
        raise SpecError.single(
            "request", "gamma", f"found {list(gammas)!r}", "give speculation lengths from 0 to 64"
        )
    profiles = [hardware] if isinstance(hardware, HardwareProfile) else list(hardware)
    widths = [tensor_parallel] if isinstance(tensor_parallel, int) else list(tensor_parallel)
    searched = list(default_drafters(target) if drafters is None else drafters)

    speculative = [int(gamma) for gamma in lengths if gamma > 0]
    fallen: Counter[str] = Counter()
    options: list[list[Cell | None]] = []
    for profile in profiles:
        for width in widths:
            drafting = [None, *searched] if speculative else [None]
            grid = Grid(
                [profile], target, engine, workload, drafting, speculative, kv_budgets, (width,), alpha
            )
            search = _Search(grid, constraints)
            options.append(search.cells())
            fallen.update(search.fallen)
    cells = [_preferred(candidates, objective) for candidates in zip(*options, strict=True)]
    kept = tuple(cell for cell in cells if cell is not None)
    if not kept:
        raise InfeasibleError(
            dict(fallen), nearest_miss(profiles, target, engine, workload, widths, constraints.tpot)
        )
    first = profiles[0]
    return Plan(
        model=target.name,
        hardware=", ".join(str(profile.name) for profile in profiles),
        engine=engine.name,
        tensor_parallel=widths[0],
        objective=objective,
        cells=kept,
        assumed=assumptions(profiles, target, engine, workload, searched, alpha),
        inflection_context_len=inflection_context(first, target, engine, gamma=3, tensor_parallel=widths[0]),
        versions={"draftplan": __version__},
        request={
            "batch_sizes": list(workload.batch_sizes),
            "context_lens": list(workload.context_lens),
            "tensor_parallel": widths,
            "gammas": lengths.tolist(),
            "kv_budgets": None if kv_budgets is None else list(kv_budgets),
            "alpha": alpha,
            "tpot_limit_s": constraints.tpot,
            "weight_dtype": target.weight_dtype,
            "kv_dtype": target.kv_dtype,
        },
        infeasible=dict(fallen),
    )


class _Search:
    """One exhaustive search at one hardware and tensor parallelism."""

    def __init__(self, grid: Grid, constraints: Constraints) -> None:
        self.grid, self.constraints = grid, constraints
        self.hardware, self.tensor_parallel = grid.hardware[0], grid.tensor_parallel[0]
        self.fallen: Counter[str] = Counter()

    def cells(self) -> list[Cell | None]:
        """The best configuration of every cell in (batch, context) order, None where nothing is allowed."""
        bests = self._best_of_each_drafter()
        tpot = np.stack([best.tpot for best in bests])
        order = np.argsort(tpot, axis=0, kind="stable")
        found: list[Cell | None] = [None] * tpot.shape[1]
        for index, best in enumerate(bests):
            mine = np.flatnonzero((order[0] == index) & np.isfinite(best.tpot))
            if mine.size:
                runners_up = [
                    bests[order[1, cell]].described(cell) if len(bests) > 1 else None for cell in mine
                ]
                for cell, answer in zip(mine, self._explained(best, mine, runners_up), strict=True):
                    found[cell] = answer
        return found

    def _best_of_each_drafter(self) -> list[_Best]:
        """Every drafter's best allowed budget and gamma for every cell, over all blocks of the grid."""
        shape = (len(self.grid.workload.batch_sizes), len(self.grid.workload.context_lens))
        bests = [_Best.nothing(drafter, shape) for drafter in self.grid.drafters]
        for task in tasks(self.grid):
            for best, block in zip(bests, price_task(task), strict=True):
                best.put(task, *self._best_in(block))
        return [best.flat() for best in bests]

    def _best_in(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Best allowed budget, gamma and seconds per token of every cell of one block."""
        score = block.column("tpot_s")
        if self.constraints.fit_memory:
            score = self._without(~block.round.memory.fits, "does not fit in memory", score)
        if self.constraints.tpot is not None:
            score = self._without(score > self.constraints.tpot, "misses the TPOT limit", score)
        cells = score.reshape(*block.shape[:2], -1)
        best = np.argmin(cells, axis=2)
        tpot = np.take_along_axis(cells, best[..., None], axis=2)[..., 0]
        return block.kv_budgets[best // block.gammas.size], block.gammas[best % block.gammas.size], tpot

    def _without(self, forbidden: np.ndarray, reason: str, score: np.ndarray) -> np.ndarray:
        """The score with forbidden configurations at infinity, counted under their reason."""
        forbidden = np.broadcast_to(forbidden, score.shape)
        if not np.any(forbidden):
            return score
        self.fallen[reason] += int(np.count_nonzero(forbidden))
        return np.where(forbidden, np.inf, score)

    def _explained(
        self, best: _Best, mine: np.ndarray, runners_up: list[tuple[str, float] | None]
    ) -> list[Cell]:
        """Price the chosen configurations once more, element by element, and put what they rest on into words."""
        workload = self.grid.workload
        batches = np.repeat(np.asarray(workload.batch_sizes, dtype=float), len(workload.context_lens))[mine]
        contexts = np.tile(np.asarray(workload.context_lens, dtype=float), len(workload.batch_sizes))[mine]
        kv_budget, gamma = best.kv_budget[mine], best.gamma[mine]
        price = partial(
            price_round, self.hardware, self.grid.target, self.grid.engine, best.drafter,
            tensor_parallel=float(self.tensor_parallel), alpha=self.grid.alpha,
        )  # fmt: skip
        chosen = price(batch=batches, context_len=contexts, kv_budget=kv_budget, gamma=gamma)
        ladder = price(
            batch=batches[:, None],
            context_len=contexts[:, None],
            kv_budget=kv_budget[:, None],
            gamma=np.asarray([0, *self.grid.gammas], dtype=float),
        )
        return explained_cells(
            self.hardware,
            self.tensor_parallel,
            best.drafter,
            chosen,
            ladder,
            batches,
            contexts,
            kv_budget,
            gamma,
            runners_up,
        )


def _preferred(candidates: Sequence[Cell | None], objective: str) -> Cell | None:
    """The best of one cell's answers on several deployments."""
    found = [cell for cell in candidates if cell is not None]
    scores = {
        "speedup": lambda cell: -cell.speedup,
        "tpot": lambda cell: cell.tpot_s,
        "throughput": lambda cell: -cell.throughput_tokens_per_s,
        "cost": lambda cell: (
            np.inf if cell.cost_per_million_tokens_usd is None else cell.cost_per_million_tokens_usd
        ),
    }
    return min(found, key=scores[objective], default=None)
