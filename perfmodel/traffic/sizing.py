"""The cheapest accelerators, GPUs, replicas and strategy that serve some traffic, confirmed by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from perfmodel.acceptance import Acceptance
from perfmodel.deployment import Deployment
from perfmodel.errors import InfeasibleError
from perfmodel.files.numbers import FloatArray
from perfmodel.planning.columns import NO_DRAFT
from perfmodel.planning.executors import Mapper, in_order
from perfmodel.planning.planner import Constraints, plan
from perfmodel.planning.price import SearchSpace
from perfmodel.traffic.mixed_steps import FAVOURS
from perfmodel.traffic.policies import FixedGamma, FollowPlan, ServingPolicy
from perfmodel.traffic.prefill_apart import ready_times
from perfmodel.traffic.simulate import simulate
from perfmodel.traffic.steady_state import Candidate, Load, Targets, rank_candidates
from perfmodel.traffic.step_times import StepTimes
from perfmodel.traffic.synthetic import synthetic_trace
from perfmodel.traffic.trace import Trace
from perfmodel.workload import Workload

__all__ = ["Confirmed", "Question", "Sizing", "confirm", "size"]

SCHEMA = "draftplan/size/1"
TOGETHER = 4
"""Candidates that are simulated at a time. [1]"""
MOST_SIMULATED = 16
FEWEST_REQUESTS, MOST_REQUESTS = 256, 2000
SURE = 0.9
"""A candidate is simulated while this share of what it may cost is less than the cheapest confirmed. [1]"""
STRIDE, MOST_TIMES = 1.2, 2.5
"""Ratio of numbers of replicas that are tried, and how many times the steady state's number at most. [1]"""
AT_LEAST = 4
"""Candidates that are confirmed even where none of them can be the cheapest. [1]"""
FASTER = (1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5, 1.75, 2.0, 2.5, 3.0)
_WARM, _LAST = 0.2, 0.9


@dataclass(frozen=True)
class Confirmed:
    """A candidate with as many replicas as simulated traffic needs to meet its targets.

    met : share of the simulated requests that met both targets. ttft, tpot : what the share of requests that
    has to meet them saw at most. [s]. margin : how much more traffic the replicas stand, as far as `FASTER`
    was tried; 0 where it was not tried [1]. prefill : replicas on top that prefill for all of them.
    """

    candidate: Candidate
    replicas: int
    met: float
    ttft: float
    tpot: float
    policy: ServingPolicy
    margin: float = 0.0
    prefill: int = 0

    @property
    def hardware(self) -> str:
        """The accelerator that it runs on."""
        return _hardware(self.candidate)

    @property
    def cost(self) -> float:
        """Rent of all replicas. [USD/h]"""
        return self.candidate.cost(self.replicas, self.prefill)

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return (self.replicas + self.prefill) * self.candidate.replica.gpus

    def row(self, load: Load) -> dict[str, Any]:
        """What serves the load, in plain numbers."""
        candidate, replica = self.candidate, self.candidate.replica
        drafter = replica.drafter
        reads_all = drafter is None or math.isinf(replica.kv_budget)
        tokens_per_hour = load.qps * load.output_tokens * 3600.0
        return {
            "hardware": str(replica.deployment.hardware.name),
            "tensor_parallel": int(replica.deployment.tensor_parallel),
            "pipeline_parallel": int(replica.deployment.pipeline_parallel),
            "data_parallel": int(replica.deployment.data_parallel),
            "replicas": self.replicas,
            "prefill_replicas": self.prefill,
            "gpus": self.gpus,
            "strategy": drafter.strategy.name if drafter else NO_DRAFT,
            "draft_model": drafter.draft_model.name if drafter and drafter.draft_model else None,
            "kv_budget": None if reads_all else replica.kv_budget,
            "gamma": candidate.gamma,
            "batch_size": candidate.batch,
            "usd_per_hour": self.cost,
            "usd_per_million_tokens": self.cost / tokens_per_hour * 1e6,
            "ttft_s": self.ttft,
            "tpot_s": self.tpot,
            "share_meeting_targets": self.met,
            "steady_state_replicas": candidate.replicas(load.qps),
        }


@dataclass(frozen=True)
class Sizing:
    """What serves the load at the least rent, and what comes after it.

    refuted : candidates of the steady state that no simulated number of replicas bore out.
    without : why each of the other accelerators that were asked about is not among these.
    """

    load: Load
    targets: Targets
    best: Confirmed
    runners_up: tuple[Confirmed, ...]
    refuted: tuple[Candidate, ...]
    without: Mapping[str, str] = field(default_factory=dict)

    def confirmed(self, most: int) -> tuple[Confirmed, ...]:
        """Return the best and so many of those that come after it."""
        return (self.best, *self.runners_up[:most])

    @property
    def apart(self) -> bool:
        """Whether replicas of their own prefill."""
        return self.best.candidate.apart

    @property
    def assumed(self) -> list[str]:
        """The rents that nobody quoted."""
        rents = {}
        for confirmed in self.confirmed(len(self.runners_up)):
            hardware = confirmed.candidate.replica.deployment.hardware
            price = hardware.quantities.get("price")
            if price is None or (price.kind == "assumed" and price.source != "--price"):
                rents[str(hardware.name)] = f"{float(hardware.price_per_hour):g} USD/h for {hardware.name}"
        return [f"assumed: {', '.join(rents.values())}; say yours with --price"] if rents else []

    def to_dict(self, most: int) -> dict[str, Any]:
        """The answer as plain numbers, strings, lists and dicts, with so many runners-up."""
        best, *others = (confirmed.row(self.load) for confirmed in self.confirmed(most))
        deployment = self.best.candidate.replica.deployment
        return {
            "schema": SCHEMA,
            "model": deployment.model.name,
            "engine": deployment.engine.label,
            "load": asdict(self.load),
            "targets": asdict(self.targets),
            "best": best | {"margin": self.best.margin},
            "runners_up": others,
            "refuted_by_simulation": [
                f"{candidate.replica.machine} {candidate.label}" for candidate in self.refuted
            ],
            "assumed": self.assumed,
            "without": dict(self.without),
        }


@dataclass(frozen=True)
class Question:
    """One candidate to confirm, and how many times the steady state's replicas others have needed."""

    candidate: Candidate
    load: Load
    targets: Targets
    alpha: float | Acceptance | None
    seed: int
    ratio: float = 1.0


def size(
    deployments: Sequence[Deployment],
    space: SearchSpace,
    load: Load,
    targets: Targets,
    *,
    max_batch: int | None = None,
    max_step_tokens: int | None = None,
    prefill_apart: bool = False,
    scheduler: str = "",
    seed: int = 0,
    executor: Mapper | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sizing:
    """Find the cheapest deployment that serves a load within its targets.

    The steady state ranks every accelerator, number of GPUs and drafter; the cheapest are simulated with
    their share of the traffic, until all that are left are dearer than the cheapest confirmed.

    Parameters
    ----------
    deployments, space, load, targets, max_batch, max_step_tokens, prefill_apart, scheduler : as in
        `rank_candidates`.
    seed : of the simulated traffic.
    executor : anything with ``Executor.map``; this process when absent.
    progress : called with (candidates simulated, those that may be).

    Raises
    ------
    InfeasibleError
        When nothing meets the targets in the steady state, or none of it does when simulated.
    """
    without: dict[str, str] = {}
    every = rank_candidates(
        deployments, space, load, targets, max_batch=max_batch, max_step_tokens=max_step_tokens,
        prefill_apart=prefill_apart, scheduler=scheduler, refusals=without,
    )  # fmt: skip
    ranked = every[:MOST_SIMULATED]
    confirmed: list[Confirmed] = []
    refuted: list[Candidate] = []
    for start in range(0, len(ranked), TOGETHER):
        if progress is not None:
            progress(start, len(ranked))
        least = min((answer.cost for answer in confirmed), default=np.inf)
        ratios = [answer.replicas / answer.candidate.replicas(load.qps) for answer in confirmed] or [1.0]
        wave = [
            Question(candidate, load, targets, space.alpha, seed, float(np.median(ratios)))
            for candidate in ranked[start : start + TOGETHER]
            if len(confirmed) < AT_LEAST
            or SURE * min(ratios) * candidate.cost(
                candidate.replicas(load.qps), candidate.prefill_replicas(load.qps)
            ) < least
        ]
        for question, answer in zip(wave, in_order(executor, confirm, wave), strict=True):
            if answer is None:
                refuted.append(question.candidate)
            else:
                confirmed.append(answer)
    if not confirmed:
        nearest = ranked[0]
        raise InfeasibleError(
            {"misses the targets when simulated": len(refuted)},
            f"{nearest.replicas(load.qps)} replicas of {nearest.replica.machine} meet them in the steady "
            "state only",
        )
    confirmed.sort(key=lambda answer: (answer.cost, -answer.met))
    cheapest = confirmed[0]
    trial = _Trial(Question(cheapest.candidate, load, targets, space.alpha, seed), [cheapest.policy])
    best = replace(cheapest, margin=trial.margin(cheapest.replicas))
    tried = [*(answer.candidate for answer in confirmed), *refuted]
    there = {_hardware(candidate) for candidate in tried}
    for candidate in every:
        if (name := _hardware(candidate)) not in there:
            replicas, prefill = candidate.replicas(load.qps), candidate.prefill_replicas(load.qps)
            cost = f"{candidate.cost(replicas, prefill):.2f} USD/h"
            machines = f"{replicas} x {candidate.replica.machine}"
            without.setdefault(name, f"{machines} would do for {cost}: dearer, and not simulated")
    return Sizing(load, targets, best, tuple(confirmed[1:]), tuple(refuted), without)


def _hardware(candidate: Candidate) -> str:
    return str(candidate.replica.deployment.hardware.name)


def confirm(question: Question) -> Confirmed | None:
    """Simulate one replica with its share of the traffic; find the fewest replicas that meet the targets."""
    first = question.candidate.replicas(question.load.qps)
    trial = _Trial(question)
    guess = max(1, round(first * question.ratio))
    too_few, enough = (0, guess) if trial.meets(guess) else (guess, None)
    while enough is None:
        more = max(too_few + 1, math.ceil(too_few * STRIDE))
        if more > MOST_TIMES * first + 1:
            return None
        too_few, enough = (too_few, more) if trial.meets(more) else (more, None)
    while enough - too_few > 1:
        fewer = (too_few + enough) // 2 if too_few else min(enough - 1, math.floor(enough / STRIDE))
        too_few, enough = (too_few, fewer) if trial.meets(fewer) else (fewer, enough)
    return trial.answers[enough]


class _Trial:
    """Simulations of one candidate with one number of replicas or another."""

    def __init__(self, question: Question, policies: Sequence[ServingPolicy] = ()) -> None:
        self.question = question
        self.policies = policies or _policies(question.candidate, question.load, question.alpha)
        self.answers: dict[float, Confirmed | None] = {}
        gammas = sorted({gamma for policy in self.policies for gamma in (0, *policy.gammas)})
        trace, replica = self.trace(1.0), question.candidate.replica
        longest = trace.longest
        needed = float(replica.kv_bytes(longest + replica.look_ahead, trace.output_tokens).max())
        self.fits = needed <= replica.group_bytes
        self.table = StepTimes(replica, gammas, longest)

    def trace(self, replicas: float) -> Trace:
        """What one of so many replicas sees: enough requests to fill it several times."""
        candidate, load = self.question.candidate, self.question.load
        return synthetic_trace(
            requests=int(np.clip(8 * candidate.batch, FEWEST_REQUESTS, MOST_REQUESTS)),
            qps=load.qps / replicas,
            prompt_tokens=load.prompt_tokens,
            output_tokens=load.output_tokens,
            spread=load.spread,
            burstiness=load.burstiness,
            seed=self.question.seed,
        )

    def meets(self, replicas: float) -> bool:
        """Whether the targets are met under some policy; what does it is remembered."""
        if replicas not in self.answers:
            self.answers[replicas] = self._serve(replicas) if self.fits else None
        return self.answers[replicas] is not None

    def _serve(self, replicas: float) -> Confirmed | None:
        """What is seen under the policy; the first time all are tried, and the best is kept."""
        tried = [self._serve_under(policy, replicas) for policy in self.policies]
        best = max(tried, key=lambda answer: answer.met)
        self.policies = [best.policy]
        return best if best.met >= self.question.targets.share else None

    def _serve_under(self, policy: ServingPolicy, replicas: float) -> Confirmed:
        question, trace = self.question, self.trace(replicas)
        targets = question.targets
        window = slice(int(_WARM * len(trace)), int(_LAST * len(trace)) + 1)
        candidate = question.candidate
        prefill = candidate.prefill_replicas(question.load.qps, replicas)
        run = partial(
            simulate, candidate.replica, policy=policy, alpha=question.alpha, seed=question.seed,
            table=self.table,
        )  # fmt: skip
        if candidate.apart:
            arrival, ready = self._prefilled(replicas, prefill)
            metrics = run(ready, prefilled=True)
            late = metrics.first_token - arrival
        else:
            metrics = run(trace)
            late = metrics.ttft
        met = float(((late <= targets.ttft) & (metrics.tpot <= targets.tpot))[window].mean())
        ttft, tpot = (float(np.quantile(values[window], targets.share)) for values in (late, metrics.tpot))
        return Confirmed(candidate, math.ceil(replicas), met, ttft, tpot, policy, prefill=prefill)

    def _prefilled(self, replicas: float, prefill: int) -> tuple[FloatArray, Trace]:
        """What one decoding replica sees of all the traffic: when its requests came and their caches do.

        All prompts wait for the same prefill replicas; each decoding replica takes every so manieth of them.
        """
        together, each = math.ceil(replicas - 1e-9), self.trace(replicas)
        load = self.question.load
        arrival = synthetic_trace(
            requests=len(each) * together, qps=load.qps * together / replicas, prompt_tokens=1,
            output_tokens=2, spread=0.0, burstiness=load.burstiness, seed=self.question.seed,
        ).arrival  # fmt: skip
        prompts, outputs = (
            np.repeat(lengths, together) for lengths in (each.prompt_tokens, each.output_tokens)
        )
        ready = ready_times(self.table, Trace(each.name, arrival, prompts, outputs), prefill)
        own = np.argsort(ready, kind="stable")[::together]
        return arrival[own], Trace(each.name, ready[own], prompts[own], outputs[own])

    def margin(self, replicas: int) -> float:
        """How much more traffic so many replicas stand, of what `FASTER` tries. [1]"""
        low, high = -1, len(FASTER)
        while high - low > 1:
            middle = (low + high) // 2
            if self.meets(replicas / FASTER[middle]):
                low = middle
            else:
                high = middle
        return FASTER[low] - 1.0 if low >= 0 else 0.0


def _policies(candidate: Candidate, load: Load, alpha: float | Acceptance | None) -> list[ServingPolicy]:
    """Plain batching, or the schedules of the candidate's drafter."""
    replica = candidate.replica
    if replica.drafter is None:
        return [FixedGamma(0)]
    batches = _around(candidate.batch, replica.max_batch)
    contexts = _around(load.prompt_tokens, None)
    runs = replica.deployment
    answer = plan(
        runs.hardware,
        runs.model,
        runs.engine,
        Workload(batches, contexts, output_tokens=load.output_tokens),
        drafters=[replica.drafter],
        kv_budgets=[replica.kv_budget],
        gammas=range(replica.max_gamma + 1),
        tensor_parallel=int(runs.tensor_parallel),
        alpha=alpha,
        constraints=Constraints(near_tie=0.0, fit_memory=False),
        one_deployment=True,
        draws=0,
        expert_parallel=bool(runs.expert_parallel),
        pipeline_parallel=int(runs.pipeline_parallel),
        data_parallel=int(runs.data_parallel),
    )
    return [FollowPlan(answer, favour=favour) for favour in FAVOURS]


def _around(middle: int, most: int | None) -> list[int]:
    """Whole numbers from an eighth to eight times the middle, each 1.4 times the one before."""
    values = np.rint(middle * np.sqrt(2.0) ** np.arange(-6, 7))
    return [int(value) for value in np.unique(np.clip(values, 1, most))]
