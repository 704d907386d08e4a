"""What curves and maps are drawn from: drafting at its best in every cell of the (batch, context) plane."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields

import numpy as np

from perfmodel.deployment import Deployment
from perfmodel.errors import InfeasibleError
from perfmodel.files.numbers import FloatArray
from perfmodel.planning.choose import Choice, Constraints
from perfmodel.planning.explain import nearest_miss
from perfmodel.planning.inflection import inflection_context
from perfmodel.planning.plan import Plan
from perfmodel.planning.price import Priced, SearchSpace, price_drafters
from perfmodel.planning.uncertainty import DRAWS, draw, interval, price_draws
from perfmodel.speculation import Drafter
from perfmodel.workload import Workload

__all__ = ["Surface", "price_surface", "surface_of"]

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


def price_surface(
    deployment: Deployment,
    workload: Workload,
    drafter: Drafter | None,
    space: SearchSpace,
    *,
    constraints: Constraints = ALLOWED,
    draws: int = DRAWS,
    seed: int = 0,
) -> Surface:
    """Price one drafter's best allowed budget and speculation length in every cell of a workload.

    The choice is the planner's own, but the drafter drafts even where it does not pay, and the speedup is
    below one there.

    Parameters
    ----------
    space : lengths and budgets to choose among; its drafters do not count.
    draws, seed : possible worlds for the intervals, and their seed; 0 leaves these as wide as the value.

    Raises
    ------
    InfeasibleError
        When nothing is allowed in any cell.
    """
    fallen: Counter[str] = Counter()
    alone = SearchSpace([drafter], space.gammas, space.kv_budgets, space.alpha, space.deviations)
    (priced,) = price_drafters(deployment, workload, alone)
    choice = Choice.among(priced, constraints, fallen)
    if not np.isfinite(choice.tpot).any():
        raise InfeasibleError(dict(fallen), nearest_miss([deployment], workload, constraints.tpot))
    chosen = choice.at()
    low, high = _speedup_range(chosen, space, draws, seed)
    columns = {
        "kv_budget": chosen.kv_budget,
        "gamma": chosen.gamma,
        "speedup": chosen.round.speedup,
        "speedup_low": low,
        "speedup_high": high,
        "tpot": chosen.round.tpot,
        "throughput": chosen.round.throughput,
        "draft_ratio": chosen.round.draft_ratio,
        "verify_ratio": chosen.round.verify_ratio,
    }
    shape, allowed = priced.shape[:2], np.isfinite(choice.tpot)
    return Surface(
        label=drafter.label if drafter else "plain decoding",
        deployment=deployment.label + _followed(workload.output_tokens),
        batch_sizes=np.asarray(workload.batch_sizes, dtype=float),
        context_lens=np.asarray(workload.context_lens, dtype=float),
        inflection_context_len=inflection_context(deployment, workload, alone),
        **{name: np.where(allowed, value, np.nan).reshape(shape) for name, value in columns.items()},
    )


def _speedup_range(
    chosen: Priced, space: SearchSpace, draws: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Return what 80 % of the drawn worlds lie between. [1]"""
    if not draws:
        return (np.asarray(chosen.round.speedup),) * 2
    worlds = draw(chosen.deployment, count=draws, seed=seed)
    drawn = price_draws(worlds, chosen.drafter, chosen.configuration, alpha=space.alpha)
    return interval(np.broadcast_to(drawn.speedup, (*chosen.shape, draws)))


def _followed(output_tokens: float) -> str:
    """How many tokens follow each context, for a subtitle."""
    return f", {output_tokens:,.0f} output tokens" if output_tokens else ""


def surface_of(plan: Plan) -> Surface:
    """Return a plan's recommendations as a surface; cells that the plan leaves out are NaN."""
    batches = np.array(sorted({cell.batch_size for cell in plan.cells}), dtype=float)
    contexts = np.array(sorted({cell.context_len for cell in plan.cells}), dtype=float)
    sources = {"tpot": "tpot_s", "throughput": "throughput_tokens_per_s"}
    arrays = {name: np.full((batches.size, contexts.size), np.nan) for name in _ARRAYS}
    for cell in plan.cells:
        place = np.searchsorted(batches, cell.batch_size), np.searchsorted(contexts, cell.context_len)
        for name, array in arrays.items():
            value = getattr(cell, sources.get(name, name))
            missing = np.inf if name == "kv_budget" else cell.speedup
            array[place] = missing if value is None else value
    inflection = plan.inflection_context_len
    return Surface(
        label="the best of every strategy",
        deployment=f"{plan.model} on {plan.gpus} x {plan.hardware}{plan.layout}, engine {plan.engine}"
        + _followed(plan.output_tokens),
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
