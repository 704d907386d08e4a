"""Default laws of acceptance over KV budget and context, by strategy, models and task, with their spread."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from perfmodel.acceptance.odds import expit, logit
from perfmodel.acceptance.published import head_rates, level_of, pair_rate
from perfmodel.acceptance.rates import Acceptance
from perfmodel.files.numbers import Numeric
from strategies.base import AcceptanceLaw, Drafter, DraftStrategy, Figure, Kind

__all__ = ["Conditions", "acceptance_rate", "budget_shape", "matches", "missed"]


@dataclass(frozen=True)
class Conditions:
    """What acceptance depends on besides strategy, models, budget and context.

    Attributes
    ----------
    temperature : of sampling; 0 is greedy.
    far_share : share of tokens that need content from anywhere in the context, as in retrieval [0..1].
    trained_length : entries that a head was trained to read [tokens]; the strategy's default where None.
    match_share : share of rounds that draft at all, of strategies that may find nothing [0..1]; the
        strategy's default where None.
    """

    temperature: float = 0.0
    far_share: float = 0.0
    trained_length: float | None = None
    match_share: float | None = None


def budget_shape(eta: Numeric, context_len: Numeric, kv_budget: Numeric, level_budget: float) -> Numeric:
    """Return how the loss depends on budget and context: ``(B0 / B)**eta L / (1 + L)``, ``L = ln(S / B)``.

    It falls in the budget, rises in the context and levels off; 0 where the budget covers the context.
    Source: chosen by leave-one-out error over 27 published window points, see
    ``perfmodel.acceptance.fit.fit_budget_law``.

    Parameters
    ----------
    eta : exponent of the budget.
    context_len, kv_budget, level_budget : ``S``, ``B`` and ``B0`` [tokens].
    """
    log_budget = np.log(np.clip(kv_budget, 1.0, 1e30))
    depth = np.maximum(np.log(np.maximum(context_len, 1.0)) - log_budget, 0.0)
    shape: Numeric = np.exp(eta * (np.log(level_budget) - log_budget)) * (depth / (1.0 + depth))
    return shape


def missed(
    level: Numeric, eta: Numeric, context_len: Numeric, kv_budget: Numeric, level_budget: float
) -> Numeric:
    """Return the share of acceptance that is lost by reading ``kv_budget`` of ``context_len`` entries [0..1].

    Parameters
    ----------
    level : what a budget of ``level_budget`` loses in an endless context; the rest as in ``budget_shape``.
    """
    return np.minimum(level * budget_shape(eta, context_len, kv_budget, level_budget), 1.0)


def acceptance_rate(
    strategy: DraftStrategy,
    *,
    drafter: Drafter,
    context_len: Numeric,
    kv_budget: Numeric,
    target_name: str = "",
    draft_name: str = "",
    size_ratio: float | None = None,
    temperature: float = 0.0,
    far_share: Numeric = 0.0,
    trained_length: float | None = None,
    match_share: float | None = None,
) -> Acceptance:
    """Return the default acceptance of a strategy at each context and KV budget.

    Parameters
    ----------
    strategy : its ``acceptance`` holds the parameters.
    drafter : self, draft, head or none.
    context_len, kv_budget : [tokens]; they broadcast, and an infinite budget reads everything.
    target_name, draft_name : select published figures; other names get the general ones, with a wider spread.
    size_ratio : parameters of the draft model over those of the target, for pairs without a published rate.
    temperature : of sampling; 0 is greedy.
    far_share : share of tokens that need content from anywhere in the context, as in retrieval [0..1];
        broadcasts.
    trained_length : entries that a head was trained to read [tokens]; the strategy's default where None.
    match_share : share of rounds that draft at all [0..1]; the strategy's default where None.
    """
    law = strategy.acceptance
    match = matches(law, match_share)
    level, unseen = level_of(law, target_name)
    first, rest, slope = law.first, law.rest, law.temperature_slope
    if drafter == "draft":
        first = rest = pair_rate(target_name, draft_name, size_ratio)
        level = replace(level, value=level.value * DRAFT_SHARE.value, sd=level.value * DRAFT_SHARE.sd)
        slope, unseen = DRAFT_TEMPERATURE, 0.0
    elif drafter == "head":
        own = head_rates(strategy.name, target_name)
        first, rest = own or (_of_other_models(first), _of_other_models(rest))

    read = np.minimum(kv_budget, context_len)
    limit = (
        law.trained_length if trained_length is None else Figure(trained_length, 0.0, "published", "given")
    )
    unsure = law.trained_range if trained_length is None else 1.0
    outside, outside_sd = _outside(law.transition, read / limit.value, unsure)
    miss = missed(level.value, law.eta.value, context_len, kv_budget, law.level_budget)
    covered = np.divide(read, np.maximum(context_len, 1.0))
    far = law.far.value + (1.0 - law.far.value) * covered
    kept = (1.0 - far_share) * (1.0 - miss) + far_share * far

    first_inside, rest_inside = (_warm(full.value, slope.value * temperature) for full in (first, rest))
    first_full = first_inside + outside * (law.beyond.value - first_inside)
    rest_full = rest_inside + outside * (law.beyond.value - rest_inside)
    full_sd = np.hypot(
        (1.0 - outside) * 0.5 * (first.sd + rest.sd) + outside * law.beyond.sd,
        (0.5 * (first_inside + rest_inside) - law.beyond.value) * outside_sd,
    )
    middle = 0.5 * (first_full + rest_full)
    bell = middle * kept * (1.0 - middle * kept)
    sd = np.sqrt(
        (full_sd * kept) ** 2
        + ((1.0 - far_share) * middle * _miss_sd(law, level, miss, read)) ** 2
        + (far_share * (1.0 - covered) * middle * law.far.sd) ** 2
        + (bell * slope.sd * temperature) ** 2
        + bell / BELL_AT_POINT_EIGHT * (law.scatter**2 + unseen**2)
    )
    figures = [first, rest, match, *([level, law.eta] if np.any(miss > 0.0) else [])]
    if np.any(outside > 0.0):
        figures += [law.beyond, limit, law.transition]
    return Acceptance(
        first=first_full * kept,
        rest=rest_full * kept,
        sd=sd,
        kind=_weakest(figures),
        source=_sources(figures),
        match=match.value,
        match_sd=match.sd,
    )


def matches(law: AcceptanceLaw, match_share: float | None) -> Figure:
    """Return the match share of a law; what is stated holds for strategies that may find nothing. [0..1]"""
    if match_share is None or law.match.value == 1.0:
        return law.match
    return Figure(match_share, 0.0, "published", "given")


_Z90 = 1.2815515655446008
"""90th percentile of the standard normal distribution. [1]"""

BELL_AT_POINT_EIGHT = 0.8 * (1.0 - 0.8)
DRAFT_SHARE = Figure(
    0.15,
    0.10,
    "published",
    "MagicDec Tables 3a and 7: a window costs a draft model 1 to 3 %, the target itself 20 %",
)
DRAFT_TEMPERATURE = Figure(
    -0.70,
    0.15,
    "published",
    "TriForce Table 2 JF68M .465 to .266 for T = 0 to 1.2; SPIRe small draft .798 to .663 for 0 to 1",
)


def _of_other_models(figure: Figure) -> Figure:
    """Return a figure that was published for others, as what it is for this model: an assumption."""
    return replace(figure, kind="assumed", source=f"of other models: {figure.source}")


def _miss_sd(law: AcceptanceLaw, level: Figure, miss: Numeric, read: Numeric) -> Numeric:
    if not level.value:
        return 0.0
    stretch = np.log(law.level_budget) - np.log(np.maximum(read, 1.0))
    spread: Numeric = miss * np.hypot(level.sd / level.value, stretch * law.eta.sd)
    return spread


def _outside(transition: Figure, length: Numeric, unsure: float) -> tuple[Numeric, Numeric]:
    """Return how far a head has left what it was trained to read, and its standard deviation [0..1].

    ``w = x^2 (3 - 2 x)``, ``x = ln(length unsure) / ln(transition unsure^2)`` between 0 and 1: no edge on
    either side.

    Parameters
    ----------
    transition : its figure in the law.
    length : entries read over those that it was trained to read [1].
    unsure : by what factor these may be off, either way, in 80 % of cases [1].
    """
    span = np.log(transition.value * unsure**2)
    gone = np.minimum(np.log(np.maximum(length * unsure, 1.0)) / span, 1.0)
    slope = 6.0 * gone * (1.0 - gone) / span
    of_length = np.log(unsure) / _Z90
    spread = slope * np.hypot(gone * transition.sd / transition.value, of_length)
    return gone**2 * (3.0 - 2.0 * gone), spread


def _warm(alpha: float, logits: float) -> float:
    return alpha if alpha >= 1.0 else float(expit(logit(alpha) + logits))


def _weakest(figures: list[Figure]) -> Kind:
    kinds = {figure.kind for figure in figures}
    return "assumed" if "assumed" in kinds else "published" if "published" in kinds else "measured"


def _sources(figures: list[Figure]) -> str:
    return "; ".join(
        dict.fromkeys(figure.source for figure in figures if figure.value != 1.0 and figure.source)
    )
