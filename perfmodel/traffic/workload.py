"""The plan of one deployment for the traffic of a trace, weighted by where plain batching spends its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.files.numbers import FloatArray
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.plan import Plan
from perfmodel.planning.planner import Constraints, plan
from perfmodel.planning.schedule import planned_drafter
from perfmodel.speculation import Drafter
from perfmodel.traffic.metrics import Metrics
from perfmodel.traffic.mixed_steps import FAVOURS
from perfmodel.traffic.policies import FixedGamma, FollowPlan, ServingPolicy
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.simulate import simulate
from perfmodel.traffic.trace import Trace
from perfmodel.traffic.values import total
from perfmodel.workload import Workload

__all__ = [
    "PlannedTraffic", "deployed_by", "equipped", "ladder", "plan_for_traffic", "traffic_workload", "tuned",
]  # fmt: skip


STEP = np.sqrt(2.0)
"""Ratio of neighbouring batch sizes and contexts of a schedule. [1]"""
TUNED_ON = 1000
"""Requests that a schedule is tuned on. [1]"""
SINGLE = 0.005
"""By how much more goodput one length has to serve to take the place of a length for every batch. [1]"""
_SHORTEST = 256
_EVERYWHERE = 1e-3


@dataclass(frozen=True)
class PlannedTraffic:
    """A plan of one deployment, and the drafter and draft KV budget that it deploys.

    Where the plan never drafts, these are what it would deploy first. `plain` is what plain batching saw, of
    which the plan was made; None where it was made of cells.
    """

    plan: Plan
    drafter: Drafter
    kv_budget: float
    plain: Metrics | None = field(default=None, compare=False, repr=False)


def traffic_workload(outcome: Metrics, max_batch: int) -> Workload:
    """Return the batch sizes and contexts of a served trace, weighted by the time that was spent there.

    A context is that of the prompt; the mean step of its generation comes half an output later.
    """
    batches = ladder(1, max_batch)
    contexts = ladder(min(_SHORTEST, outcome.trace.longest), outcome.trace.longest)
    outputs = outcome.trace.output_tokens.astype(float)
    output_tokens = float((outputs**2).sum() / outputs.sum())  # as a token sees it
    weights = np.full((len(batches), len(contexts)), _EVERYWHERE / (len(batches) * len(contexts)))
    busy = sum(int(np.count_nonzero(rows["decoding"])) for rows in outcome.rows())
    spent = total((rows["lasted"][rows["decoding"] > 0] for rows in outcome.rows()), busy)
    for rows in outcome.rows():
        decoding = rows[rows["decoding"] > 0]
        places = (
            _nearest(batches, decoding["decoding"]),
            _nearest(contexts, np.maximum(decoding["context"] - output_tokens / 2.0, 1.0)),
        )
        np.add.at(weights, places, decoding["lasted"] / max(spent, 1e-12))
    return Workload(batches, contexts, weights, output_tokens)


def plan_for_traffic(
    hardware: HardwareProfile,
    target: ModelSpec,
    engine: EngineOverhead,
    trace: Trace,
    *,
    drafters: Sequence[Drafter],
    kv_budgets: Sequence[float] | None = None,
    gammas: Sequence[int] = tuple(range(17)),
    tensor_parallel: int = 1,
    alpha: float | Acceptance | None = None,
    max_batch: int | None = None,
    max_step_tokens: int | None = None,
    scheduler: str = "",
    concurrency: int | None = None,
    workload: Workload | None = None,
    expert_parallel: bool = False,
    pipeline_parallel: int = 1,
    data_parallel: int = 1,
) -> PlannedTraffic:
    """Choose the drafter and budget that serve a trace best, and a length for every batch and context.

    Parameters
    ----------
    max_batch, max_step_tokens, scheduler : as in `Replica.of`.
    concurrency : as in `perfmodel.traffic.simulate.simulate`.
    workload : cells to plan for; `traffic_workload` of the trace under plain batching when absent. Others as
        in `perfmodel.planning.planner.plan`.

    Raises
    ------
    InfeasibleError
        When the model leaves no room for the trace's longest request, even without a drafter.
    """
    outcome = None
    if workload is None:
        runs = Deployment(
            hardware, target, engine, tensor_parallel, expert_parallel, pipeline_parallel, data_parallel
        )
        plain = Replica.of(runs, scheduler, max_batch, max_step_tokens)
        outcome = simulate(plain, trace, FixedGamma(0), concurrency=concurrency)
        workload = traffic_workload(outcome, plain.max_batch)
    answer = plan(
        hardware,
        target,
        engine,
        workload,
        drafters=drafters,
        kv_budgets=kv_budgets,
        gammas=gammas,
        tensor_parallel=tensor_parallel,
        alpha=alpha,
        constraints=Constraints(near_tie=0.0),
        one_deployment=True,
        draws=0,
        expert_parallel=expert_parallel,
        pipeline_parallel=pipeline_parallel,
        data_parallel=data_parallel,
    )
    return replace(deployed_by(answer, drafters, kv_budgets), plain=outcome)


def deployed_by(
    answer: Plan, drafters: Sequence[Drafter], kv_budgets: Sequence[float] | None = None
) -> PlannedTraffic:
    """Return what a plan of one deployment deploys, among the drafters that it was made for.

    Parameters
    ----------
    answer : made with `one_deployment`.
    drafters : those that the plan chose among.
    kv_budgets : the draft KV budgets that it chose among; each strategy's own where None. [tokens]

    Raises
    ------
    SpecError
        When its cells do not agree on one deployment, or its drafter is not among them.
    """
    deployed = planned_drafter(answer)
    if not any(cell.speculates for cell in answer.cells):
        first = drafters[0]
        own = first.default_budgets
        budgets = kv_budgets if kv_budgets and own else own
        return PlannedTraffic(answer, first, float(budgets[len(budgets) // 2]) if budgets else np.inf)
    for drafter in drafters:
        tree = drafter.tree
        shape = (tree.topk, tree.nodes) if tree else (None, None)
        if drafter.plays(deployed.strategy, deployed.draft_model, tree) and shape == deployed.shape:
            budget = np.inf if deployed.kv_budget is None else float(deployed.kv_budget)
            return PlannedTraffic(answer, drafter, budget)
    raise SpecError.single(
        "plan", "strategy", f"deploys {deployed.strategy} {deployed.draft_model or ''}".rstrip(),
        "Name it with --strategy, and its model with --draft-model",
    )  # fmt: skip


def tuned(
    scheduled: FollowPlan,
    replica: Replica,
    trace: Trace,
    *,
    ttft: float | None = None,
    tpot: float | None = None,
    beside: Sequence[int] = (),
    **drawn: Any,
) -> FollowPlan:
    """Return a schedule that favours, in steps with prefill, what serves a trace best under its targets.

    Decided by simulating the first `TUNED_ON` requests each way: by goodput, then throughput. Where one of
    its lengths, or of those `beside`, or no drafting, everywhere serves better by more than `SINGLE`, that is
    the schedule: a plan prices steps, and sees neither what requests wait for nor a drafter's prefills.

    Parameters
    ----------
    scheduled : the plan's schedule.
    replica : what serves, with its drafter.
    trace : what is served.
    ttft, tpot : targets that a good request meets; none where None. [s]
    beside : further lengths, those that it is compared with. [tokens]
    drawn : as in `perfmodel.traffic.simulate.simulate`.
    """
    some = trace.first(TUNED_ON)

    def served(policy: FollowPlan) -> tuple[float, float]:
        outcome = simulate(equipped(replica, policy), some, policy, **drawn)
        summary = outcome.summary(ttft=ttft, tpot=tpot)
        return summary["goodput_tokens_per_s"], summary["throughput_tokens_per_s"]

    def best(policies: Sequence[FollowPlan]) -> tuple[FollowPlan, float]:
        outcomes = [served(policy) for policy in policies]
        place = max(range(len(policies)), key=outcomes.__getitem__)
        return policies[place], outcomes[place][0]

    by_plan, goodput = best([replace(scheduled, favour=favour) for favour in FAVOURS])
    if scheduled.adaptive:
        return by_plan
    lengths = sorted({0, *(cell.gamma for cell in scheduled.plan.cells), *beside})
    single, alone = best([replace(scheduled, only=length) for length in lengths])
    return single if alone > (1.0 + SINGLE) * goodput else by_plan


def equipped(replica: Replica, policy: ServingPolicy) -> Replica:
    """Return a replica whose drafter is loaded as far as a policy drafts, and not where it never does."""
    longest = max(policy.gammas)
    if longest:
        return replace(replica, max_gamma=longest)
    return replace(replica, max_gamma=0, drafter=None, kv_budget=np.inf)


def ladder(least: int, most: int) -> tuple[int, ...]:
    """Whole numbers from `least` to `most`, each about `STEP` times the one before."""
    steps = max(1, int(np.ceil(np.log(most / least) / np.log(STEP))))
    return tuple(int(value) for value in np.unique(np.rint(np.geomspace(least, most, steps + 1))))


def _nearest(ladder: Sequence[int], values: FloatArray) -> NDArray[np.intp]:
    """Which rung is nearest, on a logarithmic scale."""
    rungs = np.asarray(ladder, dtype=float)
    return np.searchsorted(np.sqrt(rungs[:-1] * rungs[1:]), values)
