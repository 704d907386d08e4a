"""What curves and maps are drawn from: drafting at its best in every cell of the (batch, context) plane."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.planning.choose import Constraints, Search
from perfmodel.planning.explain import inflection_context, nearest_miss
from perfmodel.planning.intervals import DRAWS, draw, interval, price_draws
from perfmodel.planning.plan import Plan
from perfmodel.planning.price import Grid
from perfmodel.speculation import Configuration, price_round

__all__ = ["Surface", "deployment", "price_surface", "surface_of"]

FloatArray = NDArray[np.float64]
ALLOWED = Constraints()


@dataclass(frozen=True)
class Surface:
    """The best allowed configuration of every cell; arrays have the axes (batch, context), NaN where none is.

    Attributes
    ----------
    label, deployment : what drafts, and what runs on what, in words.
    batch_sizes, context_lens : the axes. [sequences], [tokens]
    kv_budget, gamma : what was chosen; an infinite budget reads everything. [tokens]
    speedup, tpot, throughput : of the choice. [1], [s], [tokens/s] speedup_low, speedup_high : what 80 % of
        the drawn worlds lie between. [1]
    draft_ratio, verify_ratio : T_D / T_T and T_V / T_T. [1]
    inflection_context_len : beyond it a larger batch makes speculation pay more; infinite where none is
        long enough. [tokens]
    """

    label: str
    deployment: str
    batch_sizes: FloatArray
    context_lens: FloatArray
    kv_budget: FloatArray
    gamma: FloatArray
    speedup: FloatArray
    speedup_low: FloatArray
    speedup_high: FloatArray
    tpot: FloatArray
    throughput: FloatArray
    draft_ratio: FloatArray
    verify_ratio: FloatArray
    inflection_context_len: float

    @property
    def gammas(self) -> list[int]:
        """The speculation lengths that were chosen anywhere, rising. [tokens]"""
        return [int(gamma) for gamma in np.unique(self.gamma[np.isfinite(self.gamma)])]


def deployment(model: str, tensor_parallel: int, hardware: str, engine: str) -> str:
    """Return what runs on what, for a title."""
    return f"{model} on {tensor_parallel} x {hardware}, engine {engine}"


def price_surface(
    grid: Grid, *, constraints: Constraints = ALLOWED, draws: int = DRAWS, seed: int = 0
) -> Surface:
    """Price one drafter's best allowed budget and speculation length in every cell of a grid.

    The choice is the planner's own, among the speculation lengths of the grid: without 0 among them the
    drafter drafts even where it does not pay, and the speedup is below one.

    Parameters
    ----------
    grid : one hardware profile, one tensor parallelism, one drafter.
    draws : possible worlds for the intervals; 0 leaves these as wide as the value.

    Raises
    ------
    SpecError
        When the grid holds more than one deployment or drafter.
    InfeasibleError
        When nothing is allowed in any cell.
    """
    if (len(grid.hardware), len(grid.tensor_parallel), len(grid.drafters)) != (1, 1, 1):
        raise SpecError.single(
            "request",
            "hardware, tensor_parallel, drafters",
            f"hold {len(grid.hardware)}, {len(grid.tensor_parallel)} and {len(grid.drafters)}",
            "a curve is drawn for one of each",
        )
    hardware, drafter, width = grid.hardware[0], grid.drafters[0], grid.tensor_parallel[0]
    search = Search(grid, constraints)
    best = search.bests[0]
    if not np.isfinite(best.tpot).any():
        reach = nearest_miss(
            grid.hardware, grid.target, grid.engine, grid.workload, [width], constraints.tpot
        )
        raise InfeasibleError(dict(search.fallen), reach)
    batches = np.asarray(grid.workload.batch_sizes, dtype=float)
    contexts = np.asarray(grid.workload.context_lens, dtype=float)
    shape = (batches.size, contexts.size)
    allowed = np.isfinite(best.tpot).reshape(shape)
    configuration: Configuration = {
        "batch": np.broadcast_to(batches[:, None], shape),
        "context_len": np.broadcast_to(contexts, shape),
        "kv_budget": best.kv_budget.reshape(shape),
        "gamma": best.gamma.reshape(shape),
        "tensor_parallel": float(width),
    }
    priced = price_round(hardware, grid.target, grid.engine, drafter, alpha=grid.alpha, **configuration)
    low = high = np.asarray(priced.speedup)
    if draws:
        worlds = draw(hardware, grid.engine, count=draws, seed=seed)
        drawn = price_draws(worlds, grid.target, drafter, configuration, alpha=grid.alpha)
        low, high = interval(np.broadcast_to(drawn.speedup, (*shape, draws)))
    columns = {
        "kv_budget": configuration["kv_budget"],
        "gamma": configuration["gamma"],
        "speedup": priced.speedup,
        "speedup_low": low,
        "speedup_high": high,
        "tpot": priced.tpot,
        "throughput": priced.throughput,
        "draft_ratio": priced.draft_ratio,
        "verify_ratio": priced.verify_ratio,
    }
    lengths = [gamma for gamma in grid.gammas if gamma > 0]
    return Surface(
        label=drafter.label if drafter else "plain decoding",
        deployment=deployment(grid.target.name, width, str(hardware.name), grid.engine.name),
        batch_sizes=batches,
        context_lens=contexts,
        inflection_context_len=inflection_context(
            hardware,
            grid.target,
            grid.engine,
            gamma=lengths[0] if len(lengths) == 1 else 3,
            tensor_parallel=width,
        ),
        **{name: np.where(allowed, value, np.nan) for name, value in columns.items()},
    )


def surface_of(plan: Plan) -> Surface:
    """Return a plan's recommendations as a surface; cells that the plan leaves out are NaN."""
    batches = np.array(sorted({cell.batch_size for cell in plan.cells}), dtype=float)
    contexts = np.array(sorted({cell.context_len for cell in plan.cells}), dtype=float)
    names = {
        "tpot": "tpot_s",
        "throughput": "throughput_tokens_per_s",
        **{name: name for name in _ARRAYS if name not in ("tpot", "throughput")},
    }
    arrays = {name: np.full((batches.size, contexts.size), np.nan) for name in names}
    for cell in plan.cells:
        place = np.searchsorted(batches, cell.batch_size), np.searchsorted(contexts, cell.context_len)
        for name, source in names.items():
            value = getattr(cell, source)
            if value is None:
                value = np.inf if name == "kv_budget" else cell.speedup
            arrays[name][place] = value
    inflection = plan.inflection_context_len
    return Surface(
        label="the best of every strategy",
        deployment=deployment(plan.model, plan.tensor_parallel, plan.hardware, plan.engine),
        batch_sizes=batches,
        context_lens=contexts,
        inflection_context_len=np.inf if inflection is None else inflection,
        **arrays,
    )


_ARRAYS = [
    field.name
    for field in fields(Surface)
    if field.name not in ("label", "deployment", "batch_sizes", "context_lens", "inflection_context_len")
]
