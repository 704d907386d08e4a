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

PRIOR_ROUNDS = 200.0
"""Rounds that the plan's own acceptance counts for, where what is counted is near it. [rounds]"""
NEAR = 0.5
"""How far from the plan its pull stops growing: farther off, what was counted decides. [logit]"""
NEARLY = 0.5 / (PRIOR_ROUNDS + 1.0)
"""Belief of as many rounds of one outcome, half a success and half a failure added: how near to 0 or 1 a rate
is taken to be once anything was observed. [1]"""
MOST_ROUNDS = 20_000.0
"""Rounds that are remembered; older ones fade as new ones come, so that a drift is followed. [rounds]"""
FEWEST_ROUNDS = 1e-9
"""What has faded below is forgotten. [rounds]"""
STEP_MEMORY = 0.02
"""Weight of the newest step time. [1]"""
FEWEST_STEPS = 20
"""Steps of either kind, plain and speculated, before their times count. [1]"""
FARTHEST = 30.0
"""Largest shift of acceptance: from any belief to 0 or 1 for all that can be counted. [logit]"""
MOST_GAMMA = 1024
"""Longest draft that is believed to be one. [tokens]"""

Place = tuple[int, int, int]


@dataclass
class Learner:
    """Counts in the loop, estimates off the hot path; any thread may call either. It pickles.

    The loop only adds to `rounds`; an estimate takes what came since the last one into a memory
    of its own, which fades, so nothing waits for a lock.

    rounds : (row, column, gamma) of the plan -> rounds and accepted drafts since the start; gamma 0 counts
        rounds that found nothing to draft.
    odd_drafts : drafted tokens since the start beyond gamma times rounds, where rounds that were counted
        together had no one length. [tokens]
    """

    rounds: dict[Place, list[float]] = field(default_factory=dict)
    odd_drafts: float = 0
    step_bias: list[float] = field(default_factory=lambda: [0.0, 0.0])
    steps: list[int] = field(default_factory=lambda: [0, 0])
    _memory: dict[Place, tuple[float, float]] = field(default_factory=dict, repr=False)
    _taken: dict[Place, tuple[float, float]] = field(default_factory=dict, repr=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = {name: value for name, value in self.__dict__.items() if name != "_lock"}
            rounds = {place: list(counts) for place, counts in list(self.rounds.items())}
            return {**state, "rounds": rounds, "_memory": {**self._memory}, "_taken": {**self._taken}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def counts(self, place: Place) -> list[float]:
        """The counts of (row, column, gamma), begun where there are none; ValueError if gamma is none."""
        row, column, gamma = place
        if not 0 <= gamma <= MOST_GAMMA or gamma != int(gamma):
            raise ValueError(gamma)
        return self.rounds.setdefault((row, column, int(gamma)), [0, 0])

    def count(self, place: Place, rounds: float, accepted: float) -> None:
        """Add rounds and their accepted drafts at (row, column, gamma)."""
        counts = self.counts(place)
        counts[0] += rounds
        counts[1] += accepted

    def count_step(self, speculated: bool, error: float) -> None:
        """Follow the logarithm of measured over planned seconds of one kind of step. [1]"""
        kind = int(speculated)
        self.steps[kind] += 1
        weight = max(STEP_MEMORY, 1.0 / self.steps[kind])
        self.step_bias[kind] += weight * (error - self.step_bias[kind])

    @property
    def slower(self) -> float | None:
        """How much longer than planned a round takes, relative to a plain step; None until both were seen."""
        if min(self.steps) < FEWEST_STEPS:
            return None
        return math.exp(self.step_bias[1] - self.step_bias[0])

    @property
    def totals(self) -> tuple[float, float, float, float]:
        """Since the start: rounds that drafted, that found nothing to draft, drafted and accepted tokens."""
        counts = [(place, tuple(counts)) for place, counts in list(self.rounds.items())]
        drafting = sum(rounds for (_, _, gamma), (rounds, _) in counts if gamma)
        idle = sum(rounds for (_, _, gamma), (rounds, _) in counts if not gamma)
        drafted = sum(gamma * rounds for (_, _, gamma), (rounds, _) in counts) + self.odd_drafts
        return drafting, idle, drafted, sum(accepted for _, (_, accepted) in counts)

    def shift(self, believed: Mapping[tuple[int, int], tuple[float, float]]) -> float:
        """Return the one shift at which as many accepted drafts are expected as were counted. [logit]

        Sums are matched, not single trials, so rounds that were counted together estimate without bias. The
        shift rises with what was accepted and stays within `FARTHEST`; what is believed counts as
        `PRIOR_ROUNDS` rounds within `NEAR` of it and no more beyond, so many rounds beat any belief.

        Parameters
        ----------
        believed : (row, column) of the plan -> acceptance of the first draft, and of every later one, in
            rounds that draft. [0..1]
        """
        terms = [
            (*believed[row, column], gamma, rounds, accepted)
            for (row, column, gamma), (rounds, accepted) in self._remembered()
            if gamma and (row, column) in believed
        ]
        if not terms:
            return 0.0
        first, rest, gammas, rounds, accepted = np.array(terms, dtype=float).T
        rates = uncertain(first), uncertain(rest)
        return _matched(
            lambda shift: moved_tokens(*rates, gammas, shift) - 1.0, rounds, float(np.sum(accepted))
        )

    def match_shift(self, believed: Mapping[tuple[int, int], float]) -> float:
        """Return the shift of the share of rounds that draft at all, as `shift` does for acceptance. [logit]

        It is 0 until a round that drafted nothing was counted: not every engine tells of them.

        Parameters
        ----------
        believed : (row, column) of the plan -> share of rounds that draft at all. [0..1]
        """
        counts: dict[tuple[int, int], list[float]] = {}
        for (row, column, gamma), (rounds, _) in self._remembered():
            if (row, column) in believed:
                place = counts.setdefault((row, column), [0.0, 0.0])
                place[0] += rounds
                place[1] += rounds if gamma else 0.0
        every, drafting = np.array([*counts.values()], dtype=float).reshape(-1, 2).T
        if not np.sum(drafting) < np.sum(every):
            return 0.0
        share = uncertain(np.array([believed[at] for at in counts], dtype=float))
        return _matched(lambda shift: move_rate(share, shift), every, float(np.sum(drafting)))

    def _remembered(self) -> list[tuple[Place, tuple[float, float]]]:
        """Take in what was counted since the last time; the older fades where there is more than enough."""
        with self._lock:
            for place, (rounds, accepted) in list(self.rounds.items()):
                before, now = self._taken.get(place, (0.0, 0.0)), (rounds, accepted)
                kept = self._memory.get(place, (0.0, 0.0))
                self._memory[place] = (kept[0] + (now[0] - before[0]), kept[1] + (now[1] - before[1]))
                self._taken[place] = now
            total = sum(rounds for rounds, _ in self._memory.values())
            fade = min(1.0, MOST_ROUNDS / total) if total > 0.0 else 1.0
            self._memory = {
                place: (rounds * fade, accepted * fade)
                for place, (rounds, accepted) in self._memory.items()
                if rounds > FEWEST_ROUNDS
            }
            return sorted((place, counts) for place, counts in self._memory.items() if counts[0] > 0.0)


def _matched(expected: Any, rounds: FloatArray, counted: float) -> float:
    """Return the shift at which rounds expect what was counted, less the pull of what is believed. [logit]

    On the logit scale the score of counts is counted minus expected, and that of a normal prior is linear in
    the shift. Its slope is here the information of `PRIOR_ROUNDS` rounds, and it is bent flat beyond `NEAR`
    as Huber does (Ann. Math. Stat. 35, 1964, https://doi.org/10.1214/aoms/1177703732), with a tanh.

    Parameters
    ----------
    expected : shift -> what one round of each kind holds on average; rises.
    rounds : how many of each kind there were. [rounds]
    counted : what all of them held together.
    """
    step = 1e-3
    slope = float((rounds * (expected(step) - expected(-step))).sum()) / (2.0 * step * float(rounds.sum()))

    def excess(shift: float) -> float:
        pull = PRIOR_ROUNDS * slope * NEAR * math.tanh(shift / NEAR)
        return float((rounds * expected(shift)).sum()) + pull - counted

    return float(solve_rising(excess, -FARTHEST, FARTHEST))


def uncertain(rate: Numeric) -> FloatArray:
    """Return a rate no nearer to 0 or 1 than belief can be. [0..1]"""
    return np.clip(rate, NEARLY, 1.0 - NEARLY)


def move_rate(alpha: Numeric, shift: float) -> Numeric:
    """Return a rate moved by `shift` logits, first made `uncertain` where it is moved at all. [0..1]"""
    if shift == 0.0:
        return alpha
    return expit(logit(uncertain(alpha)) + shift)


def moved_tokens(
    first: Numeric, rest: Numeric, gammas: Numeric, shift: float, tree: Tree | None = None
) -> FloatArray:
    """Return the tokens per round where both rates are moved by `shift` logits, bonus token included."""
    rates = move_rate(first, shift), move_rate(rest, shift)
    if tree is not None:
        return np.asarray(tokens_from_tree(*rates, tree, gammas))
    return np.asarray(tokens_from_first_rest(*rates, gammas))
