"""The posterior that measured acceptance makes of a law, at any budget and context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perfmodel.acceptance.file import MeasuredAcceptance
from perfmodel.acceptance.intervals import trials_behind
from perfmodel.acceptance.inverse import solve_rising
from perfmodel.acceptance.laws import acceptance_rate
from perfmodel.acceptance.odds import expit, logit
from perfmodel.acceptance.rates import Acceptance
from perfmodel.files.numbers import FloatArray, Numeric
from strategies.base import Drafter, DraftStrategy, Figure

__all__ = ["posterior_acceptance", "posterior_share"]

CORRELATION_LENGTH = 2.0
"""Distance in ln(context) or ln(budget) over which a measured deviation from the law fades to 1/e. It fades
smoothly: what was measured holds for contexts a tenth longer, and most of it for twice as long. Assumed."""

SURPRISE = 2.0
"""Standard deviations from the law beyond which measurements widen its spread: tasks differ more than runs of
one, .10 against .025."""

MOVED = 0.5
"""Share of the variance of belief that measurements must have taken away for it to be called measured."""

FARTHEST = 14.0
"""Log odds of the rates nearest to 0 and 1 that are told apart from them: one in a million."""

_STEPS = 129
_ROUNDS = 12


@dataclass(frozen=True)
class _Evidence:
    """Observed rates, shape ``[entries]``: trials where they were counted (else nan), standard errors."""

    rate: FloatArray
    trials: FloatArray
    se: FloatArray

    @classmethod
    def of(cls, seen: Sequence[tuple[float, float, float | None]]) -> _Evidence:
        rate, se = (np.array([row[place] for row in seen], dtype=np.float64) for place in (0, 1))
        counted = [np.nan if trials is None else trials for _, _, trials in seen]
        return cls(rate, np.array(counted, dtype=np.float64), se)

    def behind(self, rate: Numeric) -> FloatArray:
        """Return the independent trials that the observations are worth where the truth is ``rate``."""
        return np.where(np.isnan(self.trials), rate * np.subtract(1.0, rate) / self.se**2, self.trials)

    @property
    def odds(self) -> FloatArray:
        """The observed log odds, half a success and half a failure added."""
        trials = np.where(np.isnan(self.trials), trials_behind(self.rate, self.se), self.trials)
        smoothed = (self.rate * trials + 0.5) / (trials + 1.0)
        return np.asarray(logit(smoothed))

    def likelihood(self, odds: FloatArray) -> FloatArray:
        """Return the log likelihood of log odds, shape ``[..., entries, any]``: binomial, or of a rate."""
        rate, se, trials = self.rate[:, None], self.se[:, None], self.trials[:, None]
        counted = trials * (rate * odds - np.logaddexp(0.0, odds))
        return np.where(np.isnan(trials), -0.5 * ((rate - expit(odds)) / se) ** 2, counted)

    def response(self, odds: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return (log odds, variance) of the normal observation that says the same near ``odds``.

        ``y = x + (p - s) / (s (1 - s))`` and ``1 / (n s (1 - s))`` with ``s = expit(x)``: iteratively
        reweighted least squares (McCullagh and Nelder, Generalized Linear Models, section 2.5).
        """
        believed = np.asarray(expit(odds))
        bell = np.maximum(believed * (1.0 - believed), 1e-12)
        return odds + (self.rate - believed) / bell, 1.0 / np.maximum(self.behind(believed) * bell, 1e-12)

    def peak(self, law: FloatArray, variance: FloatArray) -> FloatArray:
        """Return the log odds of the highest posterior of each entry alone, shape ``[..., entries]``.

        It lies between the law and the observation, and rises with what was observed: the mixed derivative
        of the log posterior by log odds and observed rate is the trials behind it, which are positive.
        """
        seen = np.clip(logit(np.clip(self.rate, 1e-9, 1.0 - 1e-9)), -FARTHEST, FARTHEST)
        reach = (np.asarray(seen) - law)[..., None]

        def at(part: FloatArray) -> FloatArray:
            odds = law[..., None] + part * reach
            return self.likelihood(odds) - 0.5 * (part * reach) ** 2 / np.maximum(variance, 1e-12)[..., None]

        parts = np.linspace(0.0, 1.0, _STEPS)
        width = 1.0 / (_STEPS - 1.0)
        best = parts[at(np.broadcast_to(parts, (*law.shape, _STEPS))).argmax(axis=-1)][..., None]
        low, high = np.maximum(best - width, 0.0), np.minimum(best + width, 1.0)

        def falls(part: FloatArray) -> FloatArray:
            return at(part - 1e-6) - at(part + 1e-6)

        part = np.asarray(solve_rising(falls, low, high))[..., 0]
        return law + part * reach[..., 0]


def posterior_acceptance(
    measured: Sequence[MeasuredAcceptance],
    strategy: DraftStrategy,
    *,
    drafter: Drafter,
    context_len: Numeric,
    kv_budget: Numeric,
    target_name: str = "",
    draft_name: str = "",
    **law: Any,
) -> Acceptance:
    """Return the acceptance after measurements: the strategy's law is the prior, and keeps its limits.

    The deviation of the truth from the law, on the logit scale, is a Gaussian process over ln(context) +
    ln(budget) with the law's own spread; each entry observes it by the trials behind it (by its standard
    error where it holds no trials). So ten rounds hardly move what a thousand say, many rounds win over any
    law, a measured rate of 0 or 1 counts for what its trials say, a measurement counts for less the further
    away it was taken, and a budget that covers the context still accepts everything. Where sure measurements
    contradict the law, its spread is widened until they do so by no more than `SURPRISE`. It is called
    measured where the measurements have taken away at least `MOVED` of its variance.

    Parameters
    ----------
    measured : entries; those about other strategies, drafters or models are passed over.
    strategy, drafter, context_len, kv_budget, target_name, draft_name, law : as for ``acceptance_rate``.
    """

    def at(context: Numeric, budget: Numeric) -> Acceptance:
        return acceptance_rate(
            strategy,
            drafter=drafter,
            context_len=context,
            kv_budget=budget,
            target_name=target_name,
            draft_name=draft_name,
            **law,
        )

    prior = at(context_len, kv_budget)
    entries = [entry for entry in measured if entry.is_about(strategy.name, drafter, target_name, draft_name)]
    if not entries:
        return prior
    contexts = [context_len if entry.context_len is None else entry.context_len for entry in entries]
    budgets = [kv_budget if entry.kv_budget is None else entry.kv_budget for entry in entries]
    laws = [at(context, budget) for context, budget in zip(contexts, budgets, strict=True)]
    where = zip([context_len, *contexts], [kv_budget, *budgets], strict=True)
    places = [_place(context, budget) for context, budget in where]
    laws = [prior, *laws]
    arrays = [law.first for law in laws] + [part for place in places for part in place]
    near = _correlation(places, np.broadcast_shapes(*(np.shape(array) for array in arrays)))
    firsts, rests, spreads = ([getattr(law, name) for law in laws] for name in ("first", "rest", "sd"))
    first, first_sd, moved_by = _updated(
        firsts, spreads, [(entry.alpha1, entry.alpha1_se, entry.alpha1_trials) for entry in entries], near
    )
    rest, rest_sd, _ = _updated(
        rests, spreads, [(entry.alpha2, entry.alpha2_se, entry.alpha2_trials) for entry in entries], near
    )
    origins = "; ".join(
        dict.fromkeys(f"{entry.source or 'measured'} ({entry.rounds} rounds)" for entry in entries)
    )
    moved = bool(np.all(moved_by >= MOVED))
    share = posterior_share(
        measured, strategy, drafter=drafter, target_name=target_name, draft_name=draft_name,
        match_share=law.get("match_share"),
    )  # fmt: skip
    return Acceptance(
        first=first,
        rest=rest,
        sd=first_sd,
        rest_sd=rest_sd,
        kind="measured" if moved else prior.kind,
        source=origins if moved else f"{prior.source}; hardly moved by {origins}",
        match=prior.match if share is None else share.value,
        match_sd=prior.match_sd if share is None else share.sd,
    )


def posterior_share(
    measured: Sequence[MeasuredAcceptance],
    strategy: DraftStrategy,
    *,
    drafter: Drafter,
    target_name: str = "",
    draft_name: str = "",
    match_share: float | None = None,
) -> Figure | None:
    """Return the match share after measurements that counted the rounds without a draft, else None. [0..1]

    Only strategies that may find nothing to draft have one; a share that is stated overrides what was
    counted.

    Parameters
    ----------
    measured, strategy, drafter, target_name, draft_name : as for ``posterior_acceptance``.
    match_share : what is stated, or None.
    """
    law = strategy.acceptance.match
    shares = [
        (entry.draft_share, entry.draft_share_se, entry.draft_share_trials)
        for entry in measured
        if entry.draft_share is not None
        and entry.draft_share_se is not None
        and entry.is_about(strategy.name, drafter, target_name, draft_name)
    ]
    if not shares or match_share is not None or law.value == 1.0:
        return None
    near = np.ones((len(shares) + 1, len(shares) + 1))
    ends = [law.value] * (len(shares) + 1), [law.sd] * (len(shares) + 1)
    value, sd, moved_by = _updated(*ends, shares, near)
    return Figure(
        float(value), float(sd),
        "measured" if moved_by >= MOVED else law.kind,
        "counted beside the acceptance" if moved_by >= MOVED else law.source,
    )  # fmt: skip


def _place(context: Numeric, budget: Numeric) -> tuple[FloatArray, FloatArray]:
    read = np.maximum(np.minimum(budget, context), 1.0)
    return np.log(np.maximum(context, 1.0)), np.log(read)


def _correlation(places: list[tuple[FloatArray, FloatArray]], shape: tuple[int, ...]) -> FloatArray:
    """Return the correlation between all places, the asked one first, shape ``[..., places, places]``."""
    spots = np.stack(
        [np.stack([np.broadcast_to(part, shape) for part in place], axis=-1) for place in places], axis=-2
    )
    square = ((spots[..., :, None, :] - spots[..., None, :, :]) ** 2).sum(axis=-1)
    return np.asarray(np.exp(-square / CORRELATION_LENGTH**2))


def _updated(
    law: Sequence[Numeric],
    law_sd: Sequence[Numeric],
    seen: Sequence[tuple[float, float, float | None]],
    near: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return rate, deviation and share of the variance taken away at the first place, after all others.

    Parameters
    ----------
    law, law_sd : rate and standard deviation of the law at every place, the asked one first. [0..1]
    seen : (rate, standard error, trials or None) at the other places.
    near : correlation of the deviation between places, shape ``[..., places, places]``.
    """
    shape = near.shape[:-2]
    rates = np.stack([np.broadcast_to(rate, shape) for rate in law], axis=-1)
    spreads = np.stack([np.broadcast_to(sd, shape) for sd in law_sd], axis=-1)
    inside = np.clip(rates, 1e-6, 1.0 - 1e-6)
    bell = inside * (1.0 - inside)
    tau = np.where(rates < 1.0, spreads / bell, 0.0)
    kernel = near * tau[..., :, None] * tau[..., None, :]
    prior = np.asarray(logit(inside))
    evidence = _Evidence.of(seen)
    open_to_doubt = tau[..., 1:] > 0.0
    offset = np.where(open_to_doubt, evidence.odds - prior[..., 1:], 0.0)
    noise = 1.0 / np.maximum(evidence.behind(inside[..., 1:]) * bell[..., 1:], 1e-12)
    misfit = (offset * _solved(kernel[..., 1:, 1:], noise, offset)).mean(axis=-1)
    kernel = kernel * np.maximum(misfit / SURPRISE**2, 1.0)[..., None, None]
    between, own = kernel[..., 1:, 1:], prior[..., 1:]
    odds = evidence.peak(own, np.diagonal(between, axis1=-2, axis2=-1))
    ends = np.concatenate([own, np.broadcast_to(evidence.odds, own.shape), odds], axis=-1)
    for _ in range(_ROUNDS if len(seen) > 1 else 0):
        response, noise = evidence.response(odds)
        joint = own + (between @ _solved(between, noise, response - own)[..., None])[..., 0]
        joint = np.clip(joint, ends.min(axis=-1, keepdims=True), ends.max(axis=-1, keepdims=True))
        odds = 0.5 * (odds + joint)
    response, noise = evidence.response(odds)
    weight = _solved(between, noise, kernel[..., 1:, 0])
    moved = prior[..., 0] + (weight * (response - own)).sum(axis=-1)
    before = kernel[..., 0, 0]
    variance = np.maximum(before - (weight * kernel[..., 0, 1:]).sum(axis=-1), 0.0)
    rate = np.where(tau[..., 0] > 0.0, expit(moved), rates[..., 0])
    moved_by = 1.0 - variance / np.where(before > 0.0, before, np.inf)
    return rate, np.sqrt(variance) * rate * (1.0 - rate), np.where(before > 0.0, moved_by, 0.0)


def _solved(kernel: FloatArray, noise: FloatArray, vector: FloatArray) -> FloatArray:
    """Return ``(kernel + diag(noise))^-1 vector``, shape ``[..., entries]``."""
    matrix = kernel + noise[..., :, None] * np.eye(noise.shape[-1])
    return np.asarray(np.linalg.solve(matrix, vector[..., None])[..., 0])
