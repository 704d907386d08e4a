"""The acceptance that drafting needs to pay, beside the acceptance that is believed, with its interval."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.deployment import Deployment
from perfmodel.errors import InfeasibleError
from perfmodel.files.numbers import FloatArray
from perfmodel.planning.choose import Choice, Constraints
from perfmodel.planning.columns import Cell, columns_of
from perfmodel.planning.explain import nearest_miss
from perfmodel.planning.packed import pack
from perfmodel.planning.price import Priced, SearchSpace, price_drafters
from perfmodel.planning.uncertainty import LEVEL
from perfmodel.speculation import price
from perfmodel.workload import Workload

__all__ = ["Needed", "price_needed"]


@dataclass(frozen=True)
class Needed:
    """One drafter at its best in every cell, whether it pays or not; axes (batch, context), nan for none.

    Attributes
    ----------
    label : what drafts.
    batch_sizes, context_lens : the axes. [sequences], [tokens]
    gamma, kv_budget : what was chosen. [tokens]
    needed : the rate of every drafted token at which a round costs what plain decoding does. [0..1]
    known : the rate that is believed. low, high : what 80 % of that belief lies between. [0..1]
    speedup : over plain decoding, as believed. [1]
    """

    label: str
    batch_sizes: FloatArray
    context_lens: FloatArray
    gamma: FloatArray
    kv_budget: FloatArray
    needed: FloatArray
    known: FloatArray
    low: FloatArray
    high: FloatArray
    speedup: FloatArray

    @property
    def pays(self) -> NDArray[np.bool_]:
        """Where drafting pays as believed."""
        return np.asarray(self.known > self.needed)

    @property
    def surely_pays(self) -> NDArray[np.bool_]:
        """Where it pays even at the low end of what is believed."""
        return np.asarray(self.low > self.needed)


def price_needed(
    deployment: Deployment, workload: Workload, space: SearchSpace, constraints: Constraints
) -> list[Needed]:
    """Return what every drafter needs and has, those that gain most first.

    Each drafts at the budget and the length that the planner would choose for it alone. The rates are those
    of a plan's cells: one rate for all drafts that yields the tokens of a round.

    Raises
    ------
    InfeasibleError
        When no drafter is allowed in any cell.
    """
    fallen: Counter[str] = Counter()
    drafting = replace(space, drafters=[drafter for drafter in space.drafters if drafter is not None])
    every = []
    for priced in price_drafters(deployment, workload, drafting):
        choice = Choice.among(priced, constraints, fallen)
        if np.isfinite(choice.tpot).any():
            every.append(_needed(choice, workload, space))
    if not every:
        raise InfeasibleError(dict(fallen), nearest_miss([deployment], workload, constraints.tpot))
    return sorted(every, key=lambda each: -np.nanmax(each.speedup))


def _needed(choice: Choice, workload: Workload, space: SearchSpace) -> Needed:
    """Read one drafter's choices as the columns of a plan read them, and at the ends of its belief."""
    runs, drafter = choice.at(), choice.drafter
    assert drafter is not None
    shape = len(workload.batch_sizes), len(workload.context_lens)
    allowed = np.isfinite(choice.tpot)

    def cells(name: str, of: Priced = runs) -> FloatArray:
        [declared] = [column for column in columns_of(Cell) if column.name == name]
        values: Any = pack(declared.value(of), runs.shape[0]).floats()
        return np.where(allowed, values, np.nan).reshape(shape)

    def at(deviations: float) -> Priced:
        asked = runs.configuration
        round_ = price(runs.deployment, drafter, **asked, alpha=space.alpha, deviations=deviations)
        return replace(runs, round=round_)

    away = NormalDist().inv_cdf(0.5 + LEVEL / 2.0)
    budget = np.where(allowed, runs.kv_budget, np.nan).reshape(shape)
    return Needed(
        label=drafter.label,
        batch_sizes=np.asarray(workload.batch_sizes, dtype=float),
        context_lens=np.asarray(workload.context_lens, dtype=float),
        gamma=cells("gamma"),
        kv_budget=budget,
        needed=cells("break_even_alpha"),
        known=cells("alpha"),
        low=cells("alpha", at(-away)),
        high=cells("alpha", at(away)),
        speedup=cells("speedup"),
    )
