"""How often drafted tokens are accepted: default laws over KV budget and context, with their spread."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance_tokens import tokens_from_first_rest, tokens_per_round
from strategies.base import AcceptanceLaw, Drafter, DraftStrategy, Figure

__all__ = ["Acceptance", "acceptance_rate", "expected_tokens", "tokens_from_first_rest", "tokens_per_round"]

Numeric = float | NDArray[np.float64]
Kind = Literal["measured", "published", "assumed"]


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """The acceptance rate of one drafting configuration, or of an array of them.

    Attributes
    ----------
    first, rest : P(accept) of the first drafted token, and of each later one given all before it [0..1].
    sd : standard deviation of both, from the spread of what they rest on; broadcasts with them.
    kind : measured, published or assumed, the weakest of what they rest on. source : where they come from.
    tokens : tokens per round where these are given instead of rates, else None.
    """

    first: Numeric
    rest: Numeric
    sd: Numeric = 0.0
    kind: Kind = "assumed"
    source: str = ""
    tokens: Numeric | None = None

    @classmethod
    def given(cls, alpha: Numeric, sd: Numeric = 0.0, source: str = "given") -> Acceptance:
        """Return the acceptance that a user states as one rate ``alpha`` [0..1]."""
        return cls(first=alpha, rest=alpha, sd=sd, source=source)

    @classmethod
    def given_tokens(cls, tokens: Numeric, source: str = "given") -> Acceptance:
        """Return the acceptance that a user states as ``tokens`` per round, bonus token included."""
        return cls(first=np.nan, rest=np.nan, source=source, tokens=tokens)

    def shifted(self, deviations: Numeric) -> Acceptance:
        """Return the acceptance ``deviations`` standard deviations up, taken on the logit scale so that it stays in 0..1."""
        if self.tokens is not None:
            return self
        return replace(
            self, first=_shift(self.first, self.sd, deviations), rest=_shift(self.rest, self.sd, deviations), sd=0.0
        )

    def quantile(self, probability: float) -> Acceptance:
        """Return the acceptance that is exceeded with probability ``1 - probability``."""
        return self.shifted(NormalDist().inv_cdf(probability))

    def draws(self, count: int, seed: int) -> Acceptance:
        """Return ``count`` draws on a new last axis; all cells share each draw, so comparisons between them are paired."""
        deviations = np.random.default_rng(seed).standard_normal(count)
        wide = replace(
            self,
            first=np.asarray(self.first)[..., None],
            rest=np.asarray(self.rest)[..., None],
            sd=np.asarray(self.sd)[..., None],
            tokens=None if self.tokens is None else np.asarray(self.tokens)[..., None],
        )
        return wide.shifted(deviations)


def _shift(alpha: Numeric, sd: Numeric, deviations: Numeric) -> Numeric:
    inside = np.clip(alpha, 1e-9, 1.0 - 1e-9)
    slope = np.minimum(np.divide(sd, inside * (1.0 - inside)), 10.0)
    moved = _expit(np.log(inside / (1.0 - inside)) + slope * deviations)
    return np.where(np.multiply(sd, np.ones_like(moved)) > 0.0, moved, alpha)[()]


def _expit(logit: Numeric) -> Numeric:
    return 0.5 * (1.0 + np.tanh(np.multiply(logit, 0.5)))


def expected_tokens(acceptance: Acceptance, gamma: Numeric) -> Numeric:
    """Return the tokens per round of ``acceptance`` at speculation length ``gamma``, bonus token included [1..gamma+1]."""
    if acceptance.tokens is not None:
        return np.clip(acceptance.tokens, 1.0, np.add(gamma, 1.0))
    return tokens_from_first_rest(acceptance.first, acceptance.rest, gamma)


def missed(law: AcceptanceLaw, level: Numeric, context_len: Numeric, kv_budget: Numeric) -> Numeric:
    """Return the share of acceptance lost by reading ``kv_budget`` of ``context_len`` entries [0..1].

    ``level (B0 / B)**eta (1 - (B / S)**kappa)``, at most 1, and 0 where the budget covers the context.
    Source: fitted to published points, see ``fit_budget_law``.
    """
    budget = np.maximum(np.minimum(kv_budget, context_len), 1.0)
    share = budget / np.maximum(context_len, 1.0)
    loss = level * (law.level_budget / budget) ** law.eta.value * -np.expm1(law.kappa.value * np.log(share))
    return np.minimum(loss, 1.0)


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
    trained_length: Numeric | None = None,
) -> Acceptance:
    """Return the default acceptance of a strategy, drafter and pair of models at each context and budget.

    Parameters
    ----------
    strategy : its ``acceptance`` holds the law's parameters.
    drafter : self, draft, head or none.
    context_len, kv_budget : [tokens]; they broadcast, and an infinite budget reads everything.
    target_name, draft_name : choose published levels; unknown names get general ones with a wider spread.
    size_ratio : parameters of the draft model over those of the target, for pairs without a published rate.
    temperature : of sampling.
    far_share : share of the tokens that need content from anywhere in the context (retrieval) [0..1].
    trained_length : context that a head was trained for [tokens]; the strategy's default where None.
    
    Returns
    -------
    rates with the shape that context, budget and far share broadcast to, greedy rates adjusted to the temperature.
    """
    law = strategy.acceptance
    level, widened = _level(law, target_name)
    full_first, full_rest = (law.first, law.rest)
    slope = law.temperature_slope
    if drafter == "draft":
        full_first = full_rest = _pair(target_name, draft_name, size_ratio)
        level = replace(level, value=level.value * DRAFT_SHARE.value, sd=level.sd * DRAFT_SHARE.value)
        slope, widened = DRAFT_TEMPERATURE, 0.0

    longest = law.trained_length if trained_length is None else trained_length
    inside = np.less_equal(context_len, longest)
    miss = missed(law, level.value, context_len, kv_budget)
    covered = np.minimum(np.divide(kv_budget, context_len), 1.0)
    far = law.far.value + (1.0 - law.far.value) * covered

    def rate(full: Figure) -> tuple[Numeric, Numeric]:
        reached = np.where(inside, _warm(full.value, slope.value, temperature), law.beyond.value)
        near = reached * (1.0 - miss)
        alpha = (1.0 - far_share) * near + np.multiply(far_share, reached * far)
        spread = np.where(inside, full.sd, law.beyond.sd) * (1.0 - miss)
        return alpha, spread

    first, first_sd = rate(full_first)
    rest, rest_sd = rate(full_rest)
    mean = 0.5 * np.add(first, rest)
    bell = mean * (1.0 - mean)
    relative = level.sd / level.value if level.value else 0.0
    stretch = np.log(law.level_budget / np.maximum(np.minimum(kv_budget, context_len), 1.0)) * law.eta.sd
    shape = miss * np.hypot(relative, stretch)
    run = np.sqrt(bell) * 2.5 * np.hypot(law.scatter, widened)
    heat = bell * slope.sd * temperature
    sd = np.sqrt(np.square(0.5 * np.add(first_sd, rest_sd)) + shape**2 + run**2 + heat**2)
    figures = [full_first, full_rest, level] if level.value else [full_first, full_rest]
    kind: Kind = "assumed" if any(figure.kind == "assumed" for figure in figures) else "published"
    source = "; ".join(dict.fromkeys(figure.source for figure in figures if figure.value != 1.0))
    return Acceptance(first=first, rest=rest, sd=sd, kind=kind, source=source)


DRAFT_SHARE = Figure(
    0.15, 0.10, "published", "MagicDec Tables 3a and 7: a window costs a draft model 1 to 3 %, self-speculation 20 %"
)
DRAFT_TEMPERATURE = Figure(
    -0.70, 0.15, "published", "TriForce Table 2 JF68M .465 to .266 for T = 0 to 1.2; SPIRe small draft .798 to .663 for 0 to 1"
)


def _warm(alpha: float, slope: float, temperature: float) -> Numeric:
    if alpha >= 1.0:
        return alpha
    return _expit(np.log(alpha / (1.0 - alpha)) + slope * temperature)


def plain_name(name: str) -> str:
    """Return a model's name without owner, case and punctuation, so that spellings of one model compare equal."""
    return re.sub(r"[^a-z0-9]", "", name.rsplit("/", 1)[-1].lower())


def _level(law: AcceptanceLaw, target_name: str) -> tuple[Figure, float]:
    plain = plain_name(target_name)
    for name, figure in law.levels.items():
        if plain_name(name) in plain:
            return figure, 0.0
    return law.level, law.unseen


@cache
def _pairs() -> tuple[dict[str, str], ...]:
    text = (files("perfmodel") / "data" / "acceptance" / "pairs.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def _pair(target_name: str, draft_name: str, size_ratio: float | None) -> Figure:
    """Return the rate of a pair with the draft's whole cache, greedy: published, or by size."""
    target, draft = plain_name(target_name), plain_name(draft_name)
    for row in _pairs():
        if plain_name(row["target"]) in target and plain_name(row["draft"]) in draft:
            kind: Kind = "published" if row["kind"] == "published" else "assumed"
            return Figure(float(row["alpha"]), float(row["sd"]), kind, row["source"])
    ratio = 0.1 if size_ratio is None else size_ratio
    alpha = float(_expit(1.56 + 0.37 * np.log(ratio)))
    return Figure(alpha, 0.08, "assumed", f"by size, draft/target = {ratio:.3g}: logit = 1.56 + .37 ln ratio over 4 pairs")
