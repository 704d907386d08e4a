"""The one rule that chooses: nothing is drafted for a near tie, and no length is longer than it need be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perfmodel.deployment import Deployment, Drafter
from perfmodel.files.numbers import FloatArray
from perfmodel.planning.near_tie import NEAR_TIE, shortest_near_best
from perfmodel.planning.packed import Coded, coded, distinct
from perfmodel.planning.plan import NO_DRAFT
from perfmodel.planning.price import Priced, SearchSpace, price_pieces
from perfmodel.speculation import elements
from perfmodel.workload import Workload

__all__ = [
    "DOES_NOT_FIT", "MISSES_LIMIT", "Choice", "Constraints", "Place", "allowed_seconds", "choose",
    "choose_deployed", "describe", "rank",
]  # fmt: skip

DOES_NOT_FIT = "does not fit in memory"
MISSES_LIMIT = "misses the TPOT limit"

Place: TypeAlias = tuple[NDArray[np.intp], ...]


@dataclass(frozen=True)
class Constraints:
    """What a recommendation must respect.

    Parameters
    ----------
    tpot : most seconds per output token; no limit where None. [s]
    fit_memory : refuse what does not fit in the GPUs' memory.
    near_tie : among configurations this close to the best the one that drafts least is taken, plain decoding
        if it is among them. [1]
    """

    tpot: float | None = None
    fit_memory: bool = True
    near_tie: float = NEAR_TIE


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


def allowed_seconds(
    priced: Priced,
    constraints: Constraints,
    fallen: Counter[str],
    lengths: NDArray[np.bool_] | bool = True,
) -> FloatArray:
    """Return the seconds per token of every configuration, infinite where a limit is not kept. [s]

    Parameters
    ----------
    fallen : counts the configurations that fell to each limit.
    lengths : which speculation lengths may be chosen at all; broadcasts.
    """
    seconds: FloatArray = np.where(lengths, priced.expand(priced.round.tpot), np.inf)
    if constraints.fit_memory:
        seconds = _drop(seconds, lengths & ~priced.round.memory.fits, DOES_NOT_FIT, fallen)
    if constraints.tpot is not None:
        late = np.isfinite(seconds) & (seconds > constraints.tpot)
        seconds = _drop(seconds, late, MISSES_LIMIT, fallen)
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
    least : the fewest seconds per token of any allowed configuration. [s]
    fits : whether any of its configurations fits in memory, per cell.
    drafts : whether it drafts; else it is plain decoding, without a drafter or with an idle one loaded.
    """

    priced: Priced
    place: Place
    tpot: FloatArray
    least: FloatArray
    fits: NDArray[np.bool_]
    drafts: bool

    @classmethod
    def among(
        cls, priced: Priced, constraints: Constraints, fallen: Counter[str], *, idle: bool = False
    ) -> Choice:
        """Choose for every cell among the lengths that draft, or where `idle` take the length 0."""
        drafts = priced.drafter is not None and not idle
        lengths = priced.gamma == 0
        if priced.drafter is not None and drafts:
            lengths = priced.drafter.may_draft(priced.gamma)
        seconds = allowed_seconds(priced, constraints, fallen, lengths)
        place = tuple(index.ravel() for index in choose(seconds, constraints.near_tie))
        fits = np.any(priced.expand(lengths & priced.round.memory.fits), axis=(-2, -1)).ravel()
        return cls(priced, place, seconds[place], seconds.min(axis=(-2, -1)).ravel(), fits, drafts)

    @property
    def drafter(self) -> Drafter | None:
        """Who drafts, or is loaded."""
        return self.priced.drafter

    def at(self, cells: Any = slice(None)) -> Priced:
        """The configurations chosen in some cells, one element each."""
        return self.priced.at(tuple(index[cells] for index in self.place))

    def gamma(self, cells: Any = slice(None)) -> FloatArray:
        """The speculation lengths chosen in some cells. [tokens]"""
        place = tuple(index[cells] for index in self.place)
        return elements(self.priced.gamma, self.priced.shape, place)  # type: ignore[no-any-return]

    def by_gamma(self, cells: Any = slice(None)) -> Priced:
        """Every speculation length of the chosen budgets in some cells, axes (cell, gamma)."""
        return self.priced.at((*(index[cells] for index in self.place[:-1]), slice(None)))

    def describe(self, cells: NDArray[np.intp]) -> Coded:
        """Say in a few words what was chosen in some cells."""
        budget, gamma = (index[cells] for index in self.place[-2:])
        codes, each = distinct(budget * self.priced.gamma.size + gamma)
        return coded(codes, [self._describe(*divmod(int(code), self.priced.gamma.size)) for code in each])

    def _describe(self, budget: int, gamma: int) -> str:
        label = self.drafter.label if self.drafter and self.drafts else NO_DRAFT
        if self.drafter and not self.drafts:
            return f"{describe(label, None, 0.0)} with the drafter loaded"
        length = None if self.drafter and self.drafter.tree else float(self.priced.gamma[gamma])
        return describe(label, float(self.priced.kv_budget[budget, 0]), length)


def rank(choices: Sequence[Choice], near_tie: float) -> NDArray[np.intp]:
    """Rank the choices in every cell, the recommended one first, axes (rank, cell).

    Drafters are compared by their least seconds per token, which the near tie inside one does not move;
    plain decoding comes before every drafter that it nearly equals.

    Parameters
    ----------
    near_tie : by how much dearer than the best drafter plain decoding may be. [1]
    """
    least = [choice.least / (1.0 if choice.drafts else 1.0 + near_tie) for choice in choices]
    order: NDArray[np.intp] = np.argsort(np.stack(least), axis=0, kind="stable")
    return order


def describe(label: str, kv_budget: float | None, gamma: float | None) -> str:
    """Say a configuration in a few words; the label of a tree says its length."""
    if label == NO_DRAFT:
        return "plain decoding"
    budget = f" budget {kv_budget:.0f}" if kv_budget is not None and np.isfinite(kv_budget) else ""
    return f"{label}{budget}" + ("" if gamma is None else f" gamma {gamma:.0f}")


def choose_deployed(
    deployment: Deployment, workload: Workload, space: SearchSpace, constraints: Constraints
) -> tuple[SearchSpace, str]:
    """Choose the one drafter and draft KV budget that serve a workload best, plain steps included.

    While the drafter is loaded plain decoding is its length 0: with its memory, and with what the engine
    charges. A cell's score is the logarithm of its best speedup over plain decoding without a drafter, 0
    where nothing is allowed; the pair with the highest weighted mean is deployed if that is above 0.

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
    by_drafter: list[list[FloatArray]] = [[] for _ in drafters]
    fits = False
    for _, every in price_pieces(deployment, workload, replace(space, drafters=drafters)):
        for gains, priced in zip(by_drafter, every, strict=True):
            lengths = (priced.gamma == 0) | priced.drafter.may_draft(priced.gamma)  # type: ignore[union-attr]
            by_budget = allowed_seconds(priced, constraints, Counter(), lengths)[..., None, :]
            tpot = by_budget[choose(by_budget, constraints.near_tie)]
            fits |= bool(np.any((priced.gamma > 0) & priced.round.memory.fits)) or not constraints.fit_memory
            plain = np.broadcast_to(priced.round.baseline.total, priced.shape)[..., 0]
            gain = np.log(plain / np.where(np.isfinite(tpot), tpot, plain))
            gains.append(gain.reshape(-1, gain.shape[-1]))
    shares = workload.shares.ravel()
    best, winner, budgets = -np.inf, drafters[0], space.kv_budgets
    for drafter, gains in zip(drafters, by_drafter, strict=True):
        means = shares @ np.concatenate(gains)
        budget = int(np.argmax(means))
        if means[budget] > best:
            kept = float(space.budgets_of(drafter, deployment.model)[budget])
            best, winner, budgets = float(means[budget]), drafter, (kept,)
    if best < 0.0:
        return replace(space, drafters=[None]), (
            f"loading {winner.label} would make the whole workload {np.exp(best):.3f} times as fast, "
            "because plain steps take longer while it is loaded: leave it out"
        )
    if best == 0.0:
        why = "loading a drafter would gain nothing" if fits else "no drafter fits beside the model in memory"
        return replace(space, drafters=[None]), f"{why}: leave it out"
    return replace(space, drafters=[winner], kv_budgets=budgets), ""
