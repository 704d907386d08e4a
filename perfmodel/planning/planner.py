"""Price every drafting configuration of a workload, drop what is not allowed, keep the best, and say why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np

import strategies
from perfmodel._version import __version__
from perfmodel.acceptance import Acceptance
from perfmodel.engine import EngineOverhead
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.choose import Constraints, Search
from perfmodel.planning.explain import Choice, assumptions, explained_cells, inflection_context, nearest_miss
from perfmodel.planning.intervals import DRAWS, MOST_DRAWN, draw
from perfmodel.planning.plan import Cell, Plan
from perfmodel.planning.price import Grid
from perfmodel.planning.uncertainty import judgements
from perfmodel.speculation import Drafter, idles_slower
from perfmodel.workload import Workload

OBJECTIVES = ("speedup", "throughput", "tpot", "cost")
DEFAULT_GAMMAS = tuple(range(17))
NO_CONSTRAINTS = Constraints()

__all__ = ["DEFAULT_GAMMAS", "OBJECTIVES", "Constraints", "default_drafters", "plan"]


def default_drafters(target: ModelSpec, draft_models: Iterable[ModelSpec] = ()) -> list[Drafter]:
    """The drafters that a deployment can start as it is: the target with a static cache, and other models.

    Strategies that need something first (a trained head, kernels that select while drafting) are searched
    when they are named.
    """
    ready = [strategy for strategy in map(strategies.load, strategies.available()) if not strategy.needs]
    own = [Drafter(strategy) for strategy in ready if "self" in strategy.drafters]
    models = [
        Drafter(strategy, model)
        for model in draft_models
        if model.name != target.name
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
    alpha: float | Acceptance | None = None,
    objective: str = "speedup",
    risk: float | None = None,
    constraints: Constraints = NO_CONSTRAINTS,
    one_deployment: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> Plan:
    """Recommend a drafting configuration for every (batch, context) cell; the search is exhaustive and exact.

    Parameters
    ----------
    hardware, tensor_parallel : one, or several to choose among per cell.
    drafters : who may draft; `default_drafters` when absent.
    kv_budgets : draft KV budgets to try; each strategy's own when absent. [tokens]
    gammas : speculation lengths to try; 0, plain decoding, is always among them. [tokens]
    alpha : measured acceptance, a rate or a whole `Acceptance`, replacing every strategy's law. [0..1]
    objective : ``speedup``, ``throughput``, ``tpot`` or ``cost`` (per million tokens). At one hardware and
        tensor parallelism they agree; they differ in what they prefer among several.

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
    if isinstance(alpha, (int, float)) and not 0.0 <= alpha <= 1.0:
        raise SpecError.single("request", "alpha", f"found {alpha!r}", "give an acceptance rate from 0 to 1")
    if risk is not None and not 0.0 < risk < 1.0:
        raise SpecError.single("request", "risk", f"found {risk!r}", "give a quantile between 0 and 1")
    deviations = 0.0 if risk is None else NormalDist().inv_cdf(risk)
    lengths = np.unique(np.concatenate([[0], np.asarray(list(gammas), dtype=int)]))
    if lengths[0] < 0 or lengths[-1] > 64:
        raise SpecError.single(
            "request", "gamma", f"found {list(gammas)!r}", "give speculation lengths from 0 to 64"
        )
    profiles = [hardware] if isinstance(hardware, HardwareProfile) else list(hardware)
    widths = [int(width) for width in np.atleast_1d(tensor_parallel)]
    searched = list(default_drafters(target) if drafters is None else drafters)

    speculative = [int(gamma) for gamma in lengths if gamma > 0]
    fallen: Counter[str] = Counter()
    options: list[list[Cell | None]] = []
    for profile in profiles:
        for width in widths:
            drafting = [None, *searched] if speculative else [None]
            grid = Grid(
                [profile],
                target,
                engine,
                workload,
                drafting,
                speculative,
                kv_budgets,
                (width,),
                alpha,
                deviations,
            )
            search = Search(grid, constraints, one_deployment=one_deployment)
            options.append(_answers(search, draws=draws, seed=seed, one_deployment=one_deployment))
            fallen.update(search.fallen)
    cells = [_preferred(candidates, objective) for candidates in zip(*options, strict=True)]
    kept = tuple(cell for cell in cells if cell is not None)
    if not kept:
        raise InfeasibleError(
            dict(fallen), nearest_miss(profiles, target, engine, workload, widths, constraints.tpot)
        )
    inflection = inflection_context(profiles[0], target, engine, gamma=3, tensor_parallel=widths[0])
    return Plan(
        model=target.name,
        hardware=", ".join(str(profile.name) for profile in profiles),
        engine=engine.name,
        tensor_parallel=widths[0],
        objective=objective,
        cells=kept,
        gammas=(0, *speculative),
        assumed=assumptions(profiles, target, engine, workload, searched, alpha),
        inflection_context_len=inflection if np.isfinite(inflection) else None,
        versions={"draftplan": __version__},
        request={
            "batch_sizes": list(workload.batch_sizes),
            "context_lens": list(workload.context_lens),
            "tensor_parallel": widths,
            "kv_budgets": None if kv_budgets is None else list(kv_budgets),
            "alpha": alpha if isinstance(alpha, (int, float)) else None,
            "risk": risk,
            "one_deployment": one_deployment,
            "tpot_limit_s": constraints.tpot,
            "weight_dtype": target.weight_dtype,
            "kv_dtype": target.kv_dtype,
        },
        infeasible=dict(fallen),
    )


def _answers(search: Search, *, draws: int, seed: int, one_deployment: bool) -> list[Cell | None]:
    """The winner of every cell in (batch, context) order, explained; None where nothing is allowed."""
    grid, bests, order = search.grid, search.bests, search.order
    batches = np.repeat(np.asarray(grid.workload.batch_sizes, dtype=float), len(grid.workload.context_lens))
    contexts = np.tile(np.asarray(grid.workload.context_lens, dtype=float), len(grid.workload.batch_sizes))
    deployed = grid.drafters[-1] if one_deployment else None
    second = order[min(1, len(bests) - 1)]
    found: list[Cell | None] = [None] * batches.size
    worlds = draw(
        grid.hardware[0], grid.engine, count=int(np.clip(MOST_DRAWN // batches.size, 16, draws)), seed=seed
    )
    for index, best in enumerate(bests):
        mine = np.flatnonzero((order[0] == index) & np.isfinite(best.tpot))
        if not mine.size:
            continue
        rivals_tpot = np.stack([rival.tpot for rival in bests])[second[mine], mine]
        others = np.isfinite(rivals_tpot) & (second[mine] != index)
        behind = np.where(others, rivals_tpot / best.tpot[mine] - 1.0, np.nan)
        names = [
            bests[rival].described(cell) if other else ""
            for rival, cell, other in zip(second[mine], mine, others, strict=True)
        ]
        choice, *rivals = (
            Choice(
                chosen.drafter,
                batches[mine],
                contexts[mine],
                chosen.kv_budget[mine],
                chosen.gamma[mine],
                names,
                behind,
            )
            for chosen in (best, *bests)
        )
        running = choice
        if best.drafter is None and deployed is not None and idles_slower(grid.engine):
            budget = np.full(mine.size, grid.budgets_of(deployed)[0])
            running = replace(choice, drafter=deployed, kv_budget=budget)
        judged = judgements(grid, worlds, running, rivals, second[mine]) if draws else {}
        for place, cell in zip(mine, explained_cells(grid, choice, deployed, judged), strict=True):
            found[place] = replace(cell, why=f"{cell.why}; {search.left_out}") if search.left_out else cell
    return found


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
