"""The cheapest accelerators, GPUs, replicas and strategy that serve some traffic, confirmed by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from perfmodel.acceptance import Acceptance
from perfmodel.errors import InfeasibleError
from perfmodel.planning.executors import Mapper, in_order
from perfmodel.planning.planner import Constraints, plan
from perfmodel.traffic.mixed_steps import FAVOURS
from perfmodel.traffic.policies import FixedLength, Scheduled, ServingPolicy
from perfmodel.traffic.simulate import simulate
from perfmodel.traffic.sizing import Choices, Offer, Targets, offers
from perfmodel.traffic.steady_state import Load
from perfmodel.traffic.step_times import StepTable
from perfmodel.traffic.synthetic import synthetic_trace
from perfmodel.traffic.trace import Trace
from perfmodel.workload import Workload

__all__ = ["Confirmed", "Sizing", "size"]

TOGETHER = 4
"""Offers that are simulated at a time. [1]"""
MOST_SIMULATED = 16
FEWEST_REQUESTS, MOST_REQUESTS = 256, 2000
SURE = 0.9
"""An offer is simulated while this share of what it may cost is less than the cheapest confirmed. [1]"""
STRIDE, MOST_TIMES = 1.2, 2.5
"""Ratio of numbers of replicas that are tried, and how many times the steady state's number at most. [1]"""
AT_LEAST = 4
"""Offers that are confirmed even where none of them can be the cheapest. [1]"""
FASTER = (1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5, 1.75, 2.0, 2.5, 3.0)
_WARM, _LAST = 0.2, 0.9


@dataclass(frozen=True)
class Confirmed:
    """An offer with as many replicas as simulated traffic needs to meet its targets.

    met : share of the simulated requests that met both targets. ttft, tpot : what the share of requests that
    has to meet them saw at most. [s]. margin : how much more traffic the replicas stand, as far as `FASTER`
    was tried; 0 where it was not tried. [1]
    """

    offer: Offer
    replicas: int
    met: float
    ttft: float
    tpot: float
    policy: ServingPolicy
    margin: float = 0.0

    @property
    def cost(self) -> float:
        """Rent of all replicas. [USD/h]"""
        return self.offer.cost(self.replicas)

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return self.replicas * self.offer.replica.tensor_parallel


@dataclass(frozen=True)
class Sizing:
    """What serves the load at the least rent, and what comes after it.

    refuted : offers of the steady state that no simulated number of replicas bore out.
    """

    load: Load
    targets: Targets
    best: Confirmed
    runners_up: tuple[Confirmed, ...]
    refuted: tuple[Offer, ...]


@dataclass(frozen=True)
class Question:
    """One offer to confirm, and how many times the steady state's replicas others have needed."""

    offer: Offer
    load: Load
    targets: Targets
    alpha: float | Acceptance | None
    seed: int
    ratio: float = 1.0


def size(
    choices: Choices,
    load: Load,
    targets: Targets,
    *,
    seed: int = 0,
    executor: Mapper | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sizing:
    """Find the cheapest deployment that serves a load within its targets.

    The steady state ranks every accelerator, number of GPUs and drafter; the cheapest are simulated with
    their share of the traffic, until all that are left are dearer than the cheapest confirmed.

    Parameters
    ----------
    executor : anything with ``Executor.map``; this process when absent.
    progress : called with (offers simulated, those that may be).

    Raises
    ------
    InfeasibleError
        When nothing meets the targets in the steady state, or none of it does when simulated.
    """
    ranked = offers(choices, load, targets)[:MOST_SIMULATED]
    confirmed: list[Confirmed] = []
    refuted: list[Offer] = []
    for start in range(0, len(ranked), TOGETHER):
        if progress is not None:
            progress(start, len(ranked))
        least = min((one.cost for one in confirmed), default=np.inf)
        ratios = [one.replicas / one.offer.replicas(load.qps) for one in confirmed] or [1.0]
        wave = [
            Question(offer, load, targets, choices.alpha, seed, float(np.median(ratios)))
            for offer in ranked[start : start + TOGETHER]
            if SURE * min(ratios) * offer.cost(offer.replicas(load.qps)) < least or len(confirmed) < AT_LEAST
        ]
        for question, answer in zip(wave, in_order(executor, confirm, wave), strict=True):
            if answer is None:
                refuted.append(question.offer)
            else:
                confirmed.append(answer)
    if not confirmed:
        nearest = ranked[0]
        raise InfeasibleError(
            {"misses the targets when simulated": len(refuted)},
            f"{nearest.replicas(load.qps)} replicas of {nearest.replica.tensor_parallel} x "
            f"{nearest.replica.hardware.name} meet them in the steady state only",
        )
    confirmed.sort(key=lambda one: (one.cost, -one.met))
    cheapest = confirmed[0]
    trial = _Trial(Question(cheapest.offer, load, targets, choices.alpha, seed), [cheapest.policy])
    best = replace(cheapest, margin=trial.margin(cheapest.replicas))
    return Sizing(load, targets, best, tuple(confirmed[1:]), tuple(refuted))


def confirm(question: Question) -> Confirmed | None:
    """Simulate one replica with its share of the traffic; find the fewest replicas that meet the targets."""
    first = question.offer.replicas(question.load.qps)
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
    return trial.found[enough]


class _Trial:
    """Simulations of one offer with one number of replicas or another."""

    def __init__(self, question: Question, policies: Sequence[ServingPolicy] = ()) -> None:
        self.question = question
        self.policies = policies or _policies(question.offer, question.load, question.alpha)
        self.found: dict[float, Confirmed | None] = {}
        gammas = sorted({gamma for policy in self.policies for gamma in (0, *policy.gammas)})
        longest = self.trace(1.0).longest
        needed = float(
            question.offer.replica.kv_bytes(np.array([longest + question.offer.replica.look_ahead]))[0]
        )
        self.fits = needed <= question.offer.replica.cache_bytes
        self.table = StepTable(question.offer.replica, gammas, longest)

    def trace(self, replicas: float) -> Trace:
        """What one of so many replicas sees: enough requests to fill it several times."""
        offer, load = self.question.offer, self.question.load
        return synthetic_trace(
            requests=int(np.clip(8 * offer.batch, FEWEST_REQUESTS, MOST_REQUESTS)),
            qps=load.qps / replicas,
            prompt_tokens=load.prompt_tokens,
            output_tokens=load.output_tokens,
            spread=load.spread,
            burstiness=load.burstiness,
            seed=self.question.seed,
        )

    def meets(self, replicas: float) -> bool:
        """Whether the targets are met under some policy; what does it is remembered."""
        if replicas not in self.found:
            self.found[replicas] = self._served(replicas) if self.fits else None
        return self.found[replicas] is not None

    def _served(self, replicas: float) -> Confirmed | None:
        """What is seen under the policy; the first time all are tried, and the best is kept."""
        tried = [self._under(policy, replicas) for policy in self.policies]
        best = max(tried, key=lambda one: one.met)
        self.policies = [best.policy]
        return best if best.met >= self.question.targets.share else None

    def _under(self, policy: ServingPolicy, replicas: float) -> Confirmed:
        question, trace = self.question, self.trace(replicas)
        targets = question.targets
        window = slice(int(_WARM * len(trace)), int(_LAST * len(trace)) + 1)
        outcome = simulate(
            question.offer.replica, trace, policy, alpha=question.alpha, seed=question.seed, table=self.table
        )
        met = float(outcome.meets(ttft=targets.ttft, tpot=targets.tpot)[window].mean())
        ttft, tpot = (
            float(np.quantile(values[window], targets.share)) for values in (outcome.ttft, outcome.tpot)
        )
        return Confirmed(question.offer, math.ceil(replicas), met, ttft, tpot, policy)

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


def _policies(offer: Offer, load: Load, alpha: float | Acceptance | None) -> list[ServingPolicy]:
    """Plain batching, or the schedules of the offer's drafter."""
    replica = offer.replica
    if replica.drafter is None:
        return [FixedLength(0)]
    batches = _around(offer.batch, replica.max_batch)
    contexts = _around(load.prompt_tokens + load.output_tokens // 2, None)
    answer = plan(
        replica.hardware,
        replica.target,
        replica.engine,
        Workload(batches, contexts),
        drafters=[replica.drafter],
        kv_budgets=None if np.isinf(replica.kv_budget) else [int(replica.kv_budget)],
        gammas=range(replica.max_gamma + 1),
        tensor_parallel=replica.tensor_parallel,
        alpha=alpha,
        constraints=Constraints(near_tie=0.0, fit_memory=False),
        one_deployment=True,
        draws=0,
    )
    return [Scheduled(answer, favour=favour) for favour in FAVOURS]


def _around(middle: int, most: int | None) -> list[int]:
    """Whole numbers from an eighth to eight times the middle, each 1.4 times the one before."""
    values = np.rint(middle * np.sqrt(2.0) ** np.arange(-6, 7))
    return [int(value) for value in np.unique(np.clip(values, 1, most))]
