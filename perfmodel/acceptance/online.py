"""What a running engine teaches: how far acceptance is from what was believed, how long rounds take."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perfmodel.acceptance.inverse import solve_rising
from perfmodel.acceptance.odds import expit, logit
from perfmodel.acceptance.tokens import tokens_from_first_rest
from perfmodel.acceptance.tree import tokens_from_tree
from perfmodel.files.numbers import FloatArray, Numeric
from strategies.base import Tree

__all__ = ["Learner", "move_rate", "moved_tokens"]

NEARLY = 1e-3
"""How far from certain a rate is taken to be once anything was observed. [1]"""

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
        """How much longer than planned a round takes, relative to a plain step; None until both were seen."""
        if min(self.steps) < FEWEST_STEPS:
            return None
        return math.exp(self.step_bias[1] - self.step_bias[0])

    def shift(self, believed: Mapping[tuple[int, int], tuple[float, float]]) -> float:
        """Return the one shift at which as many accepted drafts are expected as were counted. [logit]

        What is believed joins as `PRIOR_ROUNDS` rounds, spread as the counted ones are. Sums are matched, not
        single trials, so rounds that were counted together estimate without bias.

        Parameters
        ----------
        believed : (row, column) of the plan -> acceptance of the first draft, and of every later one. [0..1]
        """
        with self._lock:
            total = sum(counts[0] for counts in self.rounds.values())
            if total > MOST_ROUNDS:
                for counts in self.rounds.values():
                    counts[:] = [count * MOST_ROUNDS / total for count in counts]
                total = MOST_ROUNDS
            terms = [
                (*believed[row, column], gamma, *counts)
                for (row, column, gamma), counts in sorted(self.rounds.items())
                if (row, column) in believed
            ]
        if not terms:
            return 0.0
        first, rest, gammas, rounds, accepted = np.array(terms, dtype=float).T
        weight = PRIOR_ROUNDS / total
        expected = rounds * (moved_tokens(first, rest, gammas, 0.0) - 1.0)
        wanted = float((accepted + weight * expected).sum())

        def excess(shift: float) -> float:
            drafts = moved_tokens(first, rest, gammas, shift) - 1.0
            return float(((1.0 + weight) * rounds * drafts).sum()) - wanted

        return float(solve_rising(excess, -FARTHEST, FARTHEST))


def move_rate(alpha: Numeric, shift: float) -> Numeric:
    """Return a rate moved by `shift` logits; one of exactly 0 or 1 becomes 0.001 or 0.999 first. [0..1]"""
    if shift == 0.0:
        return alpha
    return expit(logit(np.clip(alpha, NEARLY, 1.0 - NEARLY)) + shift)


def moved_tokens(
    first: Numeric, rest: Numeric, gammas: Numeric, shift: float, tree: Tree | None = None
) -> FloatArray:
    """Return the tokens per round where both rates are moved by `shift` logits, bonus token included."""
    rates = move_rate(first, shift), move_rate(rest, shift)
    if tree is not None:
        return np.asarray(tokens_from_tree(*rates, tree, gammas))
    return np.asarray(tokens_from_first_rest(*rates, gammas))
