"""Several simulations, here or on other machines, kept as they finish, and what sets them apart."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from perfmodel.acceptance import Acceptance
from perfmodel.acceptance.intervals import BETWEEN_REQUESTS
from perfmodel.files.checkpoint import Arrays, Parts, fingerprint
from perfmodel.planning.executors import Mapper, in_order
from perfmodel.traffic.metrics import NO_WARM_UP, Metrics, WarmUp
from perfmodel.traffic.policies import FixedGamma, FollowPlan, ServingPolicy
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.simulate import simulate
from perfmodel.traffic.trace import Trace
from perfmodel.traffic.workload import PlannedTraffic, equipped, tuned

__all__ = [
    "Case", "Comparison", "ahead_of_fixed", "case_for", "known_of", "outcomes_of", "parts_of", "run_case",
]  # fmt: skip

SCHEMA = "draftplan/simulation/1"
FOLLOWING = ("schedule", "adaptive")
"""Policies that follow a plan."""


@dataclass(frozen=True)
class Case:
    """One simulation: the arguments of `perfmodel.traffic.simulate.simulate`."""

    replica: Replica
    trace: Trace
    policy: ServingPolicy
    alpha: float | Acceptance | None = None
    spread: float = BETWEEN_REQUESTS
    seed: int = 0
    concurrency: int | None = None


def case_for(
    policy: tuple[str, int],
    replica: Replica,
    trace: Trace,
    deployed: PlannedTraffic | None,
    *,
    ttft: float | None = None,
    tpot: float | None = None,
    beside: Sequence[int] = (),
    **drawn: Any,
) -> Case:
    """Return the simulation of a policy: its replica drafts as far as the policy does, its schedule is tuned.

    Parameters
    ----------
    policy : its name and its length, such as ``("fixed:3", 3)``; those of `FOLLOWING` follow a plan.
    replica : what serves, without a drafter.
    deployed : who drafts, and the plan that a schedule follows; None where none does.
    ttft, tpot : the targets [s] that a schedule is tuned to.
    beside : the lengths that a schedule is compared with. [tokens]
    drawn : alpha, spread, seed and concurrency, as of `Case`.
    """
    name, gamma = policy
    follows = FollowPlan(deployed.plan, name == "adaptive") if deployed and name in FOLLOWING else None
    serving: ServingPolicy = follows or FixedGamma(gamma)
    if deployed is not None:
        replica = replace(replica, drafter=deployed.drafter, kv_budget=deployed.kv_budget)
    if follows is not None:
        serving = tuned(follows, replica, trace, ttft=ttft, tpot=tpot, beside=beside, **drawn)
    return Case(equipped(replica, serving), trace, serving, **drawn)


def run_case(case: Case, progress: Callable[[int, int], None] | None = None) -> Metrics:
    """Simulate one case."""
    return simulate(
        case.replica,
        case.trace,
        case.policy,
        alpha=case.alpha,
        spread=case.spread,
        seed=case.seed,
        concurrency=case.concurrency,
        progress=progress,
    )


def known_of(cases: Sequence[Case], plain: Metrics | None) -> dict[int, Metrics]:
    """Return the outcomes of those cases that plain batching was simulated for already, by their places.

    Parameters
    ----------
    plain : what a trace saw without drafts, in a loop as open or closed as the cases'; None where unknown.
    """
    if plain is None:
        return {}
    return {
        place: replace(plain, trace=case.trace, replica=case.replica)
        for place, case in enumerate(cases)
        if case.policy == FixedGamma(0)
        and replace(case.replica, max_gamma=0) == replace(plain.replica, max_gamma=0)
        and case.trace.is_same(plain.trace)
    }


def outcomes_of(
    cases: Sequence[Case],
    *,
    known: Mapping[int, Metrics] | None = None,
    executor: Mapper | None = None,
    output: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Metrics]:
    """Simulate all cases; the outcomes are the same, bit for bit, whatever simulates them.

    Parameters
    ----------
    known : outcomes that are there already, by the places of their cases.
    executor : anything with ``Executor.map``; this process when absent.
    output : file beside which finished simulations are kept until `parts_of` says to remove them.
    progress : called with (requests served, all of them).

    Raises
    ------
    InfeasibleError, SpecError
        As `simulate`; and when pieces cannot be written, or the executor is lost.
    """
    parts = parts_of(cases, output) if output is not None else None
    with parts.held() if parts else contextlib.nullcontext():
        done = _outcomes(cases, known or {}, executor, parts, progress)
    return [done[index] for index in range(len(cases))]


def _outcomes(
    cases: Sequence[Case],
    known: Mapping[int, Metrics],
    executor: Mapper | None,
    parts: Parts | None,
    progress: Callable[[int, int], None] | None,
) -> dict[int, Metrics]:
    """Simulate what was not simulated before; returns what all of it gave."""
    done: dict[int, Metrics] = dict(known)

    def keep(index: int, arrays: Arrays) -> None:
        done[index] = Metrics.from_arrays(arrays, cases[index].trace, cases[index].replica)

    if parts is not None:
        kept = parts.done()
        for index in sorted(kept - known.keys()):
            if (arrays := parts.read(index)) is not None:
                keep(index, arrays)
        for index in known.keys() - kept:
            parts.write(index, known[index].to_arrays())
    everything = sum(len(case.trace) for case in cases)
    served = sum(len(cases[index].trace) for index in done)

    def tell(more: int = 0, of: int = 0) -> None:
        del of
        if progress is not None:
            progress(served + more, everything)

    tell()
    missing = [index for index in range(len(cases)) if index not in done]
    wanted = [cases[index] for index in missing]
    if executor is not None:
        finished = in_order(executor, _run_of, range(len(wanted)), common=wanted)
    for index in missing:
        if executor is None:
            done[index] = run_case(cases[index], tell)
            if parts is not None:
                parts.write(index, done[index].to_arrays())
        else:
            outcome = next(finished)
            if parts is not None:
                parts.write(index, outcome)
            keep(index, outcome)
        served += len(cases[index].trace)
        tell()
    return done


def _run_of(cases: Sequence[Case], index: int) -> Arrays:
    """Simulate one of several cases: they have the trace in common, and travel together."""
    return run_case(cases[index]).to_arrays()


def parts_of(cases: Sequence[Case], output: str | os.PathLike[str]) -> Parts:
    """Return where the finished simulations of an output lie."""
    return Parts(output, fingerprint("simulate", list(cases)), len(cases))


def ahead_of_fixed(
    summaries: Mapping[str, Mapping[str, float]], name: str, figure: str
) -> tuple[str, float] | None:
    """How far one policy's figure is above that of the best single length, 0 among them; None without any.

    Returns
    -------
    The name of the best single length, and the ratio less one. [1]
    """
    fixed = {
        other: summary[figure]
        for other, summary in summaries.items()
        if other == "none" or other.startswith("fixed:")
    }
    if not fixed or name in fixed:
        return None
    best = max(fixed, key=lambda other: fixed[other])
    if fixed[best] <= 0.0:
        return None
    return best, summaries[name][figure] / fixed[best] - 1.0


@dataclass(frozen=True)
class Comparison:
    """The outcomes of several policies, each at a speed of arrivals, under the same targets.

    Parameters
    ----------
    outcomes, speeds : one of each a simulation.
    ttft, tpot : the targets [s]; None where every token counts as good.
    deployed : who drafts under the policies that draft; None where none does.
    concurrency : requests in flight at most; None in an open loop.
    warm_up : what is left out of the figures.
    """

    outcomes: Sequence[Metrics]
    speeds: Sequence[float]
    ttft: float | None
    tpot: float | None
    deployed: PlannedTraffic | None
    concurrency: int | None = None
    warm_up: WarmUp = NO_WARM_UP

    @property
    def several_speeds(self) -> bool:
        """Whether a policy alone does not name a simulation."""
        return len(set(self.speeds)) > 1

    @property
    def names(self) -> list[str]:
        """The policies, with the speed where there are several."""
        pairs = zip(self.outcomes, self.speeds, strict=True)
        return [
            f"{outcome.name} x{speed:g}" if self.several_speeds else outcome.name for outcome, speed in pairs
        ]

    @property
    def kv_budget(self) -> float | None:
        """Cache entries that drafts read; None where they read all, or nothing drafts. [tokens]"""
        budget = self.deployed.kv_budget if self.deployed else math.inf
        return budget if math.isfinite(budget) else None

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Every figure of every outcome: one row a policy and speed."""
        return [
            {
                "policy": outcome.name, "speed": speed,
                **outcome.summary(ttft=self.ttft, tpot=self.tpot, warm_up=self.warm_up),
            }
            for outcome, speed in zip(self.outcomes, self.speeds, strict=True)
        ]  # fmt: skip

    def ahead(self) -> list[dict[str, Any]]:
        """How far every schedule is ahead of the best single length at the same speed."""
        leads = []
        for speed in dict.fromkeys(self.speeds):
            summaries = {row["policy"]: row for row in self.rows if row["speed"] == speed}
            for name in summaries:
                for figure in ("throughput", "goodput"):
                    lead = ahead_of_fixed(summaries, name, f"{figure}_tokens_per_s")
                    if lead is not None:
                        place = {"policy": name, "speed": speed, "figure": figure}
                        leads.append(place | {"best_single_length": lead[0], "ahead": lead[1]})
        return leads

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain numbers, strings, lists and dicts."""
        trace, replica = self.outcomes[0].trace, self.outcomes[0].replica
        return {
            "schema": SCHEMA,
            "model": replica.deployment.model.name,
            "hardware": str(replica.deployment.hardware.name),
            "tensor_parallel": int(replica.deployment.tensor_parallel),
            "engine": replica.deployment.engine.name,
            "max_batch": replica.max_batch,
            "max_step_tokens": replica.max_step_tokens,
            "scheduler": replica.schedules,
            "drafter": self.deployed.drafter.label if self.deployed else None,
            "kv_budget": self.kv_budget,
            "trace": {
                "name": trace.name, "requests": len(trace), "prompt_tokens": int(trace.prompt_tokens.sum()),
                "output_tokens": int(trace.output_tokens.sum()), "requests_per_s": trace.qps,
            },
            "concurrency": self.concurrency,
            "ttft_target_s": self.ttft,
            "tpot_target_s": self.tpot,
            "policies": self.rows,
            "ahead_of_best_single_length": self.ahead(),
        }  # fmt: skip
