"""What a running engine teaches a plan: how far acceptance is from it, and how much longer a round takes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from perfmodel.planning.gains import tokens_by_gamma
from perfmodel.planning.plan import Cell

__all__ = ["Learner"]

PRIOR_ROUNDS = 200.0
"""Rounds that the plan's own acceptance counts for. [rounds]"""
MOST_ROUNDS = 20_000.0
"""Rounds that are remembered; older ones fade as new ones come, so that a drift is followed. [rounds]"""
STEP_MEMORY = 0.02
"""Weight of the newest step time. [1]"""
FEWEST_STEPS = 20
"""Steps of either kind, plain and speculated, before their times count. [1]"""
FARTHEST = 30.0
"""Largest shift of acceptance. [logit]"""


@dataclass
class Learner:
    """Counts in the loop, estimates off the hot path; any thread may call either. It pickles.

    rounds : (row, column, gamma) of the plan -> number of rounds and accepted drafts.
    """

    rounds: dict[tuple[int, int, int], list[float]] = field(default_factory=dict)
    step_bias: list[float] = field(default_factory=lambda: [0.0, 0.0])
    steps: list[int] = field(default_factory=lambda: [0, 0])
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def count(self, place: tuple[int, int, int], rounds: float, accepted: float) -> None:
        """Add rounds and their accepted drafts at (row, column, gamma)."""
        with self._lock:
            counts = self.rounds.setdefault(place, [0.0, 0.0])
            counts[0] += rounds
            counts[1] += accepted

    def count_step(self, speculated: bool, error: float) -> None:
        """Follow the logarithm of measured over planned seconds of one kind of step. [1]"""
        kind = int(speculated)
        with self._lock:
            self.steps[kind] += 1
            weight = max(STEP_MEMORY, 1.0 / self.steps[kind])
            self.step_bias[kind] += weight * (error - self.step_bias[kind])

    @property
    def slower(self) -> float | None:
        """How many times longer than planned a round takes, relative to a plain step; None until both were
        seen.
        """
        if min(self.steps) < FEWEST_STEPS:
            return None
        return math.exp(self.step_bias[1] - self.step_bias[0])

    def shift(self, cells: tuple[tuple[Cell, ...], ...]) -> float:
        """The one shift at which the plan expects as many accepted drafts as were counted. [logit]

        The plan's own expectation joins as `PRIOR_ROUNDS` rounds, spread as the counted ones are. Sums are
        matched, not single trials, so rounds that were counted together estimate without bias.
        """
        with self._lock:
            total = sum(counts[0] for counts in self.rounds.values())
            if total > MOST_ROUNDS:
                for counts in self.rounds.values():
                    counts[:] = [count * MOST_ROUNDS / total for count in counts]
                total = MOST_ROUNDS
            terms = [
                (cells[row][column], gamma, counts[0], counts[1])
                for (row, column, gamma), counts in sorted(self.rounds.items())
                if cells[row][column].alpha is not None
            ]
        if not terms:
            return 0.0
        prior = [
            (cell, gamma, own, own * _accepted(cell, gamma, 0.0))
            for cell, gamma, rounds, _ in terms
            if (own := PRIOR_ROUNDS * rounds / total) > 0.0
        ]

        def excess(shift: float) -> float:
            return sum(
                rounds * _accepted(cell, gamma, shift) - accepted
                for cell, gamma, rounds, accepted in terms + prior
            )

        return _root(excess, -FARTHEST, FARTHEST)


def _accepted(cell: Cell, gamma: int, shift: float) -> float:
    """Accepted drafts per round that the plan expects, without the bonus token. [tokens]"""
    return tokens_by_gamma(cell, (gamma,), shift)[0] - 1.0


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function crosses zero, or the nearer end; 60 halvings, the same on every rank."""
    for _ in range(60):
        middle = 0.5 * (low + high)
        if rising(middle) > 0.0:
            high = middle
        else:
            low = middle
    return 0.5 * (low + high)
