"""The one rule that chooses: of the lengths that cost nearly least the shortest, there the best budget."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perfmodel.deployment import Deployment, Drafter
from perfmodel.files.numbers import FloatArray
from perfmodel.planning.plan import NO_DRAFT
from perfmodel.planning.price import Priced, SearchSpace, price_drafters, split
from perfmodel.speculation import idle_share
from perfmodel.workload import Workload

__all__ = [
    "NEAR_TIE", "Choice", "Constraints", "Place", "allowed_seconds", "choose", "choose_deployed", "describe",
    "shortest_near_best",
]  # fmt: skip

NEAR_TIE = 0.008
"""Speculation lengths whose cost is this close to the best count as equal, and the shortest is taken. [1]"""

Place: TypeAlias = tuple[NDArray[np.intp], ...]


@dataclass(frozen=True)
class Constraints:
    """What a recommendation must respect.

    Parameters
    ----------
    tpot : most seconds per output token; no limit where None. [s]
    fit_memory : refuse what does not fit in the GPUs' memory.
    near_tie : among a drafter's configurations this close to its best, the one that drafts least is taken.
        [1]
    """

    tpot: float | None = None
    fit_memory: bool = True
    near_tie: float = NEAR_TIE


def shortest_near_best(seconds: FloatArray, near_tie: float = NEAR_TIE) -> NDArray[np.intp]:
    """Return the first place on the last axis, lengths rising, that costs nearly what the best one does.

    Parameters
    ----------
    seconds : what each length costs; infinite where it is not allowed. [s]
    near_tie : by how much dearer than the best a length may be. [1]
    """
    nearly = seconds.min(axis=-1, keepdims=True) * (1.0 + near_tie)
    shortest: NDArray[np.intp] = np.argmax(seconds <= nearly, axis=-1)
    return shortest


def choose(seconds: FloatArray, near_tie: float = NEAR_TIE) -> Place:
    """Choose in every cell: of the lengths that cost nearly least the shortest, and there the best budget.

    Parameters
    ----------
    seconds : cost of every configuration, axes (..., kv_budget, gamma); infinite where it is not allowed. [s]
    near_tie : as in `shortest_near_best`. [1]

    Returns
    -------
    Where the choice stands in the arrays of the configurations: an index per axis, each of the cells' shape.
    """
    gamma = shortest_near_best(seconds.min(axis=-2), near_tie)
    of_gamma = np.take_along_axis(seconds, gamma[..., None, None], axis=-1)[..., 0]
    return (*np.indices(gamma.shape), np.argmin(of_gamma, axis=-1), gamma)


def allowed_seconds(priced: Priced, constraints: Constraints, fallen: Counter[str]) -> FloatArray:
    """Return the seconds per token of every configuration, infinite where a limit is not kept. [s]

    A drafter drafts: its length 0 is infinite too, plain decoding being a drafter of None.

    Parameters
    ----------
    fallen : counts the configurations that fell to each limit.
    """
    drafts = priced.gamma > 0 if priced.drafter else np.ones((), dtype=bool)
    seconds: FloatArray = np.where(drafts, priced.expand(priced.round.tpot), np.inf)
    if constraints.fit_memory:
        seconds = _drop(seconds, drafts & ~priced.round.memory.fits, "does not fit in memory", fallen)
    if constraints.tpot is not None:
        seconds = _drop(seconds, drafts & (seconds > constraints.tpot), "misses the TPOT limit", fallen)
    return seconds


def _drop(seconds: FloatArray, forbidden: NDArray[np.bool_], reason: str, fallen: Counter[str]) -> FloatArray:
    """Return the seconds with what is forbidden at infinity, counted under its reason. [s]"""
    forbidden = np.broadcast_to(forbidden, seconds.shape)
    if np.any(forbidden):
        fallen[reason] += int(np.count_nonzero(forbidden))
        seconds = np.where(forbidden, np.inf, seconds)
    return seconds


@dataclass(frozen=True)
class Choice:
    """One drafter's best allowed configuration of every cell: a place in its priced arrays.

    place : indices into `priced`, one element per cell in (batch, context) order.
    tpot : seconds per token of the choice, one per cell; infinite where nothing is allowed. [s]
    """

    priced: Priced
    place: Place
    tpot: FloatArray

    @classmethod
    def among(cls, priced: Priced, constraints: Constraints, fallen: Counter[str]) -> Choice:
        """Choose for every cell."""
        seconds = allowed_seconds(priced, constraints, fallen)
        place = tuple(index.ravel() for index in choose(seconds, constraints.near_tie))
        return cls(priced, place, seconds[place])

    @property
    def drafter(self) -> Drafter | None:
        """Who drafts."""
        return self.priced.drafter

    def at(self, cells: Any = slice(None)) -> Priced:
        """The configurations chosen in some cells, one element each."""
        return self.priced.at(tuple(index[cells] for index in self.place))

    def by_gamma(self, cells: Any = slice(None)) -> Priced:
        """Every speculation length of the chosen budgets in some cells, axes (cell, gamma)."""
        return self.priced.at((*(index[cells] for index in self.place[:-1]), slice(None)))

    def describe(self, cell: int) -> str:
        """Say in a few words what was chosen in one cell."""
        *_, budget, gamma = (int(index[cell]) for index in self.place)
        label = self.drafter.label if self.drafter else NO_DRAFT
        return describe(label, float(self.priced.kv_budget[budget, 0]), float(self.priced.gamma[gamma]))


def describe(label: str, kv_budget: float | None, gamma: float) -> str:
    """Say a configuration in a few words."""
    if label == NO_DRAFT:
        return "plain decoding"
    budget = f" budget {kv_budget:.0f}" if kv_budget is not None and np.isfinite(kv_budget) else ""
    return f"{label}{budget} gamma {gamma:.0f}"


def choose_deployed(
    deployment: Deployment, workload: Workload, space: SearchSpace, constraints: Constraints
) -> tuple[SearchSpace, str]:
    """Choose the one drafter and draft KV budget that serve a workload best, beside plain decoding.

    A cell's score is its best speedup over all lengths, at least that of a plain step with the drafter
    loaded; the pair with the highest weighted mean logarithm wins, unless it loses.

    Parameters
    ----------
    deployment : what serves.
    workload : the cells, whose weights are shares of time.
    space : what may be chosen; plain decoding is always among it.
    constraints : limits that every cell keeps.

    Returns
    -------
    The space of what is deployed, and why no drafter is where none serves the workload.
    """
    drafters = [drafter for drafter in space.drafters if drafter is not None]
    if not drafters:
        return space, ""
    by_drafter: list[list[FloatArray]] = [[] for _ in range(len(drafters) + 1)]
    for piece in split(workload, space):
        every = price_drafters(deployment, workload.part(*piece), replace(space, drafters=[None, *drafters]))
        for tpots, priced in zip(by_drafter, every, strict=True):
            by_budget = allowed_seconds(priced, constraints, Counter())[..., None, :]
            chosen = by_budget[choose(by_budget, constraints.near_tie)]
            tpots.append(chosen.reshape(-1, chosen.shape[-1]))
    plain, *drafted = (np.concatenate(tpots) for tpots in by_drafter)
    known = np.isfinite(plain[:, 0])
    idle = plain[known] * (1.0 + idle_share(deployment, plain[known]))
    shares = workload.shares.ravel()[known]
    best, winner, budgets = -np.inf, drafters[0], space.kv_budgets
    for drafter, tpot in zip(drafters, drafted, strict=True):
        means = shares @ np.log(plain[known] / np.minimum(tpot[known], idle))
        budget = int(np.argmax(means))
        if means[budget] > best:
            kept = float(space.budgets_of(drafter)[budget])
            best, winner, budgets = float(means[budget]), drafter, (kept,)
    if best < 0.0:
        return replace(space, drafters=[None]), (
            f"loading {winner.label} would make the whole workload {np.exp(best):.3f} times as fast, "
            "because plain steps take longer while it is loaded: leave it out"
        )
    return replace(space, drafters=[None, winner], kv_budgets=budgets), ""
