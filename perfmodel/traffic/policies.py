"""How many tokens a simulated engine drafts in its next round: always as many, or what a plan says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from perfmodel.errors import SpecError
from perfmodel.planning.plan import Plan
from perfmodel.policy import HYSTERESIS, SpeculationPolicy
from perfmodel.traffic.mixed_steps import Favour, MixedSteps, StepCosts

__all__ = ["Chooser", "FixedGamma", "FollowPlan", "ServingPolicy"]

REFRESH = 4096
"""Rounds of single sequences after which an adaptive policy renews its table. [rounds]"""


class Chooser(Protocol):
    """A policy at work in one engine."""

    def length(self, n_decode: int, sum_context: int, joined: bool) -> int:
        """Return the tokens to draft in the next round. [tokens]

        Parameters
        ----------
        n_decode : sequences that decode. [sequences]
        sum_context : their contexts together. [tokens]
        joined : whether prompts are prefilled in the same step.
        """
        ...

    def learn(self, gamma: int, accepted: int, rounds: int, n_decode: int, sum_context: int) -> None:
        """Take note of what rounds accepted, and where.

        Parameters
        ----------
        gamma : tokens that each round drafted. [tokens]
        accepted : drafted tokens accepted by all of them. [tokens]
        rounds : rounds of single sequences. [1]
        n_decode, sum_context : as for `length`.
        """
        ...


class ServingPolicy(Protocol):
    """What an engine is configured with; it holds no state, so every simulation starts afresh."""

    @property
    def name(self) -> str: ...

    @property
    def gammas(self) -> tuple[int, ...]: ...

    def begin(self, costs: StepCosts) -> Chooser:
        """Return the policy at work, having seen nothing yet; `costs` as in `MixedSteps`."""
        ...


@dataclass(frozen=True)
class FixedGamma:
    """One speculation length for every step; 0 is plain continuous batching."""

    gamma: int

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 64:
            raise SpecError.single("policy", "gamma", f"found {self.gamma}", "Give 0 to 64")

    @property
    def name(self) -> str:
        """What people call it."""
        return f"fixed:{self.gamma}" if self.gamma else "none"

    @property
    def gammas(self) -> tuple[int, ...]:
        """The lengths it may choose, 0 among them. [tokens]"""
        return (0, self.gamma) if self.gamma else (0,)

    def begin(self, costs: StepCosts) -> Chooser:  # noqa: ARG002
        """Return itself: there is nothing to learn."""
        return self

    def length(self, n_decode: int, sum_context: int, joined: bool) -> int:  # noqa: ARG002
        """Tokens to draft in the next round."""
        return self.gamma

    def learn(self, gamma: int, accepted: int, rounds: int, n_decode: int, sum_context: int) -> None:
        """Learn nothing."""


@dataclass(frozen=True)
class FollowPlan:
    """A compiled plan of one deployment; an adaptive one learns acceptance as it goes.

    `favour` says what the lengths of steps that prefill joins are chosen for, one of `FAVOURS`: ``alone`` is
    what the plan says of a step without prefill. `only` is one length everywhere, in place of the plan's.
    """

    plan: Plan
    adaptive: bool = False
    hysteresis: float = HYSTERESIS
    favour: Favour = "tokens"
    only: int | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return "adaptive" if self.adaptive else "schedule"

    @property
    def gammas(self) -> tuple[int, ...]:
        """The lengths it may choose: up to the longest of the plan, all where it may learn. [tokens]"""
        if self.only is not None:
            return FixedGamma(self.only).gammas
        longest = max(cell.gamma for cell in self.plan.cells)
        return tuple(gamma for gamma in self.plan.gammas if self.adaptive or gamma <= longest)

    def begin(self, costs: StepCosts) -> Chooser:
        """Compile the plan for one engine."""
        if self.only is not None:
            return FixedGamma(self.only)
        return _AtWork(self, costs)


class _AtWork:
    """A plan's table, and beside it the lengths of steps that prefill joins."""

    def __init__(self, scheduled: FollowPlan, costs: StepCosts) -> None:
        self.scheduled, self.costs = scheduled, costs
        self.policy = SpeculationPolicy.from_plan(scheduled.plan, hysteresis=scheduled.hysteresis)
        self.joined = self._joined(0.0)
        self.rounds = 0

    def _joined(self, shift: float) -> MixedSteps | None:
        scheduled = self.scheduled
        if scheduled.favour == "alone":
            return None
        return MixedSteps(scheduled.plan, scheduled.gammas, self.costs, shift=shift)

    def length(self, n_decode: int, sum_context: int, joined: bool) -> int:
        if joined and self.joined is not None:
            return self.joined.length(n_decode, sum_context / n_decode)
        return self.policy.decide(n_decode, sum_context).gamma

    def learn(self, gamma: int, accepted: int, rounds: int, n_decode: int, sum_context: int) -> None:
        if not self.scheduled.adaptive or gamma == 0:
            return
        self.policy.observe(gamma * rounds, accepted, rounds, n_decode, sum_context)
        self.rounds += rounds
        if self.rounds >= REFRESH:
            self.joined = self._joined(self.policy.refresh())
            self.rounds = 0
