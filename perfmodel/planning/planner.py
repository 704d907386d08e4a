"""Price every drafting configuration of a workload, drop what is not allowed, keep the best, and say why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

import strategies
from perfmodel._version import __version__
from perfmodel.acceptance import Acceptance
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.answers import answer_cells, best_answers
from perfmodel.planning.cells import Cells
from perfmodel.planning.choose import Constraints, choose_deployed
from perfmodel.planning.drafters import (
    applicable,
    check_drafters,
    ships,
)
from perfmodel.planning.elsewhere import gained_elsewhere, unbound
from perfmodel.planning.executors import Mapper
from perfmodel.planning.explain import assumptions, nearest_miss
from perfmodel.planning.inflection import bear_out, inflection_context
from perfmodel.planning.parallelism import check_parallelism
from perfmodel.planning.plan import OBJECTIVES, Cell, Elsewhere, Plan
from perfmodel.planning.price import SearchSpace
from perfmodel.planning.served import check_served, runs_in, serve, served_drafters, why_not_served
from perfmodel.planning.uncertainty import DRAWS
from perfmodel.speculation import Drafter
from perfmodel.workload import MOST_GAMMA, Workload

DEFAULT_GAMMAS = tuple(range(17))
NO_CONSTRAINTS = Constraints()

__all__ = [
    "DEFAULT_GAMMAS", "MOST_GAMMA", "OBJECTIVES", "Constraints", "default_drafters", "deviations_at", "plan",
    "read_gammas", "search_drafters", "search_space", "usual_drafters",
]  # fmt: skip


def default_drafters(
    target: ModelSpec, draft_models: Iterable[ModelSpec] = (), engine: EngineOverhead | None = None
) -> list[Drafter]:
    """The drafters that are searched where none is named.

    Of an engine that names its software they are all that this software can run for the target: what needs
    something first (a trained head) says so in the answer. Otherwise they are those that a deployment can
    start as it is: the target with a static cache, other models, and layers for predicting further tokens
    where the target ships some. Where only draft heads are named, these alone are.

    Parameters
    ----------
    target : the model that verifies.
    draft_models : small models that may draft, and heads; the target itself is not one of them.
    engine : what serves.
    """
    return search_drafters(target, draft_models, engine)[0]


def usual_drafters(target: ModelSpec, engine: EngineOverhead, pipeline_parallel: int) -> Sequence[Drafter]:
    """The drafters that `plan` searches where none are given: nobody drafts over several stages. [1]"""
    return () if pipeline_parallel > 1 else default_drafters(target, engine=engine)


def search_drafters(
    target: ModelSpec,
    draft_models: Iterable[ModelSpec] = (),
    engine: EngineOverhead | None = None,
    kv_budgets: Sequence[float] | None = None,
) -> tuple[list[Drafter], list[str]]:
    """Return `default_drafters`, and a remark for each reason why others were left out.

    Parameters
    ----------
    kv_budgets : draft KV budgets that are asked for: drafters that cannot keep them are left out. [tokens]
    """
    models = [model for model in draft_models if model.name != target.name]
    heads = [Drafter(strategies.load(model.drafts.strategy), model) for model in models if model.drafts]
    check_drafters(heads, target)
    served_by = engine.served_by if engine else None
    if engine and heads:
        heads = check_served(heads, engine, kv_budgets)
    if heads and len(heads) == len(models):
        return heads, []
    if engine and served_by:
        unaided = [model for model in models if model.drafts is None]
        apply, remarks = applicable(served_drafters(target, unaided, heads, served_by), target)
        run, left_out = serve(apply, engine, kv_budgets)
        names = ", ".join(drafter.label for drafter in run + heads) or "nothing"
        more = "" if unaided else "; a draft model where --draft-model names one"
        searched = f"searched is what {served_by.label} can run: {names}{more}"
        return run + heads, [*remarks, *left_out, searched]
    known = [strategies.load(name) for name in strategies.available()]
    ready = [strategy for strategy in known if not strategy.needs]
    own = [Drafter(strategy) for strategy in ready if "self" in strategy.drafters]
    own += [Drafter(strategy) for strategy in known if ships(target, strategy)]
    small = [
        Drafter(strategy, model)
        for model in models
        if model.drafts is None
        for strategy in ready
        if "draft" in strategy.drafters
    ]
    apply, remarks = applicable(own + small, target)
    return apply + heads, remarks


def plan(
    hardware: HardwareProfile | Sequence[HardwareProfile],
    target: ModelSpec,
    engine: EngineOverhead,
    workload: Workload,
    *,
    drafters: Sequence[Drafter] | None = None,
    kv_budgets: Sequence[float] | None = None,
    gammas: Sequence[int] = DEFAULT_GAMMAS,
    tensor_parallel: int | Sequence[int] = 1,
    alpha: float | Acceptance | None = None,
    objective: str | None = None,
    risk: float | None = None,
    constraints: Constraints = NO_CONSTRAINTS,
    one_deployment: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
    expert_parallel: bool = False,
    pipeline_parallel: int = 1,
    data_parallel: int = 1,
    executor: Mapper | None = None,
) -> Plan:
    """Recommend a drafting configuration for every (batch, context) cell; the search is exhaustive and exact.

    Parameters
    ----------
    hardware, tensor_parallel : one, or several to choose among per cell. [GPUs]
    target, engine : what runs, and under which software.
    workload : the cells to answer for.
    drafters : who may draft; `default_drafters` when absent.
    kv_budgets : draft KV budgets to try, infinite for the whole cache; each strategy's own when absent.
        [tokens]
    gammas : speculation lengths to try; 0, plain decoding, is always among them, and so are the steps of a
        drafter's tree, which drafts at these alone. [tokens]
    alpha : measured acceptance, a rate or a whole `Acceptance`, replacing every strategy's law. [0..1]
    objective : one of `OBJECTIVES`; what decides among several machines. Least cost per token where
        `constraints` limit the TPOT, else least time per token, where absent or ``speedup``, which orders
        drafters on one machine only. No answer is both slower and dearer than another machine's.
    risk : quantile of acceptance at which configurations are chosen; its expectation when absent. [0..1]
    constraints : what a recommendation must respect.
    one_deployment : one drafter and draft KV budget for all cells, as a running engine has.
    draws, seed : possible worlds for the intervals, none for 0, and what they are drawn with.
    expert_parallel : whether the GPUs deal out the experts whole, in place of a slice of each to every GPU.
    pipeline_parallel, data_parallel : stages of layers, and groups of sequences that share the experts, as in
        `Deployment`. Nobody drafts over several stages unless `drafters` say so, which is refused. [1]
    executor : anything with ``Executor.map``, where the cells are answered, piece by piece and to the same
        bits; this process when absent.

    Raises
    ------
    InfeasibleError
        When no configuration of any cell is allowed; it counts what fell to which constraint.
    SpecError
        When the request itself is wrong: among others where the GPUs do not divide a draft model.
    """
    _check_request(objective, alpha, risk)
    profiles = [hardware] if isinstance(hardware, HardwareProfile) else list(hardware)
    gpus = [int(count) for count in np.atleast_1d(tensor_parallel)]
    searched = list(usual_drafters(target, engine, pipeline_parallel) if drafters is None else drafters)
    lengths = lengths_of(searched, gammas)
    check_drafters(searched, target, lengths)
    searched = check_served(searched, engine, kv_budgets, gpus)
    deployments = [
        Deployment(profile, target, engine, count, expert_parallel, pipeline_parallel, data_parallel)
        for profile in profiles
        for count in gpus
    ]
    check_parallelism(deployments, searched if len(lengths) > 1 else ())
    space = search_space(searched, gammas, kv_budgets, alpha, risk)
    spaces, left_out = [space] * len(deployments), [""] * len(deployments)
    if one_deployment:
        chosen_for = [choose_deployed(each, workload, space, constraints) for each in deployments]
        spaces, left_out = [list(part) for part in zip(*chosen_for, strict=True)]
    answers = [
        answer_cells(
            deployment, workload, searched_here, constraints, why, draws=draws, seed=seed, executor=executor
        )
        for deployment, searched_here, why in zip(deployments, spaces, left_out, strict=True)
    ]
    if len(deployments) > 1 and objective in (None, "speedup"):
        objective = "tpot" if constraints.tpot is None else "cost"
    objective = objective or "speedup"
    fallen = sum((answered.fallen for answered in answers), Counter[str]())
    cells = best_answers(answers, objective)
    del answers
    if not cells:
        raise InfeasibleError(dict(fallen), nearest_miss(deployments, workload, constraints.tpot))
    each = cells.first_of_each("hardware", "tensor_parallel")
    machines = set(zip(each.listed("hardware"), each.listed("tensor_parallel"), strict=True))
    chosen = [
        deployment
        for deployment in deployments
        if (str(deployment.hardware.name), deployment.tensor_parallel) in machines
    ]
    inflection = np.inf
    if len(chosen) == 1:
        inflection = inflection_context(chosen[0], workload, spaces[deployments.index(chosen[0])])
    if not bear_out(inflection, cells):
        inflection = np.inf
    outside: Elsewhere | None = None
    others = _run_elsewhere(searched, target, engine) if len(lengths) > 1 and alpha is None else []
    for deployment in chosen if others else ():
        machine = str(deployment.hardware.name), deployment.tensor_parallel
        most = gained_elsewhere(
            deployment, workload, replace(space, drafters=others, deviations=0.0), constraints,
            cells.where(hardware=machine[0], tensor_parallel=machine[1]),
            one_deployment=one_deployment,
        )  # fmt: skip
        outside = max((each for each in (outside, most) if each), key=lambda each: each.gain, default=None)
    return Plan(
        model=target.name,
        hardware=", ".join(str(profile.name) for profile in profiles),
        engine=engine.label,
        tensor_parallel=int(chosen[0].tensor_parallel),
        objective=objective,
        cells=cells,
        gammas=tuple(lengths),
        assumed=assumptions(deployments, workload, searched, alpha),
        inflection_context_len=inflection if np.isfinite(inflection) else None,
        versions={"draftplan": __version__},
        request={
            "batch_sizes": list(workload.batch_sizes),
            "context_lens": list(workload.context_lens),
            "output_tokens": workload.output_tokens,
            "tensor_parallel": gpus,
            "kv_budgets": None
            if kv_budgets is None
            else [budget if np.isfinite(budget) else None for budget in kv_budgets],
            "alpha": alpha if isinstance(alpha, (int, float)) else None,
            "risk": risk,
            "one_deployment": one_deployment,
            "tpot_limit_s": constraints.tpot,
            "weight_dtype": target.weight_dtype,
            "kv_dtype": target.kv_dtype,
        },
        infeasible=dict(fallen),
        expert_parallel=bool(expert_parallel),
        pipeline_parallel=pipeline_parallel,
        data_parallel=data_parallel,
        software=engine.served_by.label if engine.served_by else "",
        elsewhere=outside,
        runs_in={} if engine.served_by else _run_in(cells, searched),
    )


def _run_elsewhere(
    searched: Sequence[Drafter], target: ModelSpec, engine: EngineOverhead
) -> list[Drafter]:
    """Return what an engine's software cannot run, or not at all budgets, and another could as it is."""
    if engine.served_by is None or not searched:
        return []
    named = [drafter.draft_model for drafter in searched if drafter.draft_model and drafter.head is None]
    every = [
        replace(drafter, measured=searched[0].measured, conditions=searched[0].conditions)
        for drafter in default_drafters(target, {model.name: model for model in named}.values())
    ]
    bound = [drafter for drafter in searched if drafter.whole_cache and drafter.default_budgets]
    return [each for each in every if why_not_served(each, engine.served_by)] + unbound(bound)


def _run_in(cells: Cells[Cell], searched: Sequence[Drafter]) -> dict[str, tuple[str, ...]]:
    """Return the software that can run each drafter of some cells, by the drafter's label."""
    budgets: dict[str, tuple[Drafter, set[float | None]]] = {}
    for cell in cells.first_of_each("gamma", "strategy", "draft_model", "topk", "nodes", "kv_budget"):
        for drafter in searched:
            if cell.speculates and drafter.plays(cell.strategy, cell.draft_model, cell.tree):
                budgets.setdefault(drafter.label, (drafter, set()))[1].add(cell.kv_budget)
    return {label: runs_in(drafter, named) for label, (drafter, named) in budgets.items()}


def read_gammas(gammas: Iterable[int]) -> list[int]:
    """Return the speculation lengths, rising, with 0 among them; SpecError where one cannot be. [tokens]"""
    lengths = sorted({0, *map(int, gammas)})
    if lengths[0] < 0 or lengths[-1] > MOST_GAMMA:
        raise SpecError.single(
            "request", "gamma", f"found {list(gammas)!r}", f"give speculation lengths from 0 to {MOST_GAMMA}"
        )
    return lengths


def lengths_of(drafters: Sequence[Drafter], gammas: Sequence[int]) -> list[int]:
    """Return the speculation lengths that `plan` tries: 0, those asked for, the steps of trees. [tokens]"""
    return read_gammas([*gammas, *(drafter.tree.steps for drafter in drafters if drafter.tree)])


def search_space(
    drafters: Sequence[Drafter],
    gammas: Sequence[int],
    kv_budgets: Sequence[float] | None,
    alpha: float | Acceptance | None,
    risk: float | None = None,
) -> SearchSpace:
    """Return what `plan` searches for arguments of its own; plain decoding is always among it."""
    lengths = lengths_of(drafters, gammas)
    drafting = [None, *drafters] if len(lengths) > 1 else [None]
    return SearchSpace(drafting, lengths, kv_budgets, alpha, deviations_at(risk))


def deviations_at(risk: float | None) -> float:
    """Standard deviations of acceptance at a quantile; 0 at its expectation. [standard deviations]"""
    if risk is None:
        return 0.0
    from statistics import NormalDist  # here, so that a plan without one begins sooner

    return NormalDist().inv_cdf(risk)


def _check_request(objective: str | None, alpha: object, risk: float | None) -> None:
    """Refuse an objective, a rate or a quantile that cannot be."""
    if objective is not None and objective not in OBJECTIVES:
        raise SpecError.single(
            "request", "objective", f"found {objective!r}", f"choose one of {', '.join(OBJECTIVES)}"
        )
    if isinstance(alpha, (int, float)) and not 0.0 <= alpha <= 1.0:
        raise SpecError.single("request", "alpha", f"found {alpha!r}", "give an acceptance rate from 0 to 1")
    if risk is not None and not 0.0 < risk < 1.0:
        raise SpecError.single("request", "risk", f"found {risk!r}", "give a quantile between 0 and 1")
