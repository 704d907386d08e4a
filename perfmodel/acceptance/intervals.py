"""Rates with 95 % intervals: over requests, over windows, and over independent trials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.acceptance.odds import expit, logit
from perfmodel.files.numbers import FloatArray

__all__ = [
    "BETWEEN_REQUESTS", "HALF_WIDTH", "WITHIN_A_TASK", "Rate", "assumed_spread_rate",
    "clustered_rate", "independent_se", "logit_interval", "requests_for", "spread_between", "trials_behind",
    "windowed_rate",
]  # fmt: skip


BETWEEN_REQUESTS = 0.10
"""Standard deviation of the rate between requests of mixed traffic where nothing tells it. Source: .080 over
9 tasks of Gemma-4 DFlash, .082 over 9 prompts of llama.cpp MTP, .096 over 11 domains of MiniMax-M3 EAGLE-3,
.101 over 7 tasks of Kimi K3 DSpark, .114 over 7 data sets of SpecForge EAGLE-3 (median of 35 runs). [1]"""

WITHIN_A_TASK = 0.08
"""Spread of the rate between requests of one kind: .077 to .082 over prompts of llama.cpp MTP, Gemma 4 DFlash
and Kimi K3 DSpark at 32K."""

HALF_WIDTH = 0.02
"""Half of the 95 % interval that is narrow enough to plan with: identical published runs scatter by .02."""


CONCENTRATION = 15.0
"""Of the Beta distribution of a rate of .8 that spreads by BETWEEN_REQUESTS: what the spread cannot exceed
near 0 and 1. Assumed to be the same at every rate. [1]"""


BEYOND = 3.0
"""Half of a 95 % interval, in log odds, from which on a rate is too near to 0 or 1 for them to be normal."""


@dataclass(frozen=True)
class Rate:
    """An acceptance rate with its standard error and 95 % interval [0..1].

    ``freedom`` are the degrees of freedom behind the standard error; infinite where it is known.
    """

    value: float
    se: float
    low: float
    high: float
    freedom: float = np.inf

    @property
    def trials(self) -> float:
        """Independent trials that would know the rate as well: fewer where the error itself is a guess."""
        doubt = (_reach(np.inf) / _reach(self.freedom)) ** 2
        return float(trials_behind(np.array(self.value), np.array(self.se))) * doubt


def trials_behind(value: FloatArray, se: FloatArray) -> FloatArray:
    """Return the independent trials n behind a rate and its standard error; they broadcast.

    ``p (1 - p) / n = se**2`` with half a success and half a failure added, ``p = (value n + 1/2) / (n + 1)``:
    rates of exactly 0 and 1 have trials behind them too.
    """
    low, high = (np.full(np.broadcast(value, se).shape, end) for end in (-12.0, 30.0))
    for _ in range(80):
        middle = 0.5 * (low + high)
        trials = np.exp(middle)
        smoothed = (value * trials + 0.5) / (trials + 1.0)
        fewer = smoothed * (1.0 - smoothed) / trials > np.maximum(se, 1e-6) ** 2
        low, high = np.where(fewer, middle, low), np.where(fewer, high, middle)
    return np.asarray(np.exp(0.5 * (low + high)))


def _reach(freedom: float) -> float:
    """Return the standard errors on either side that hold 95 %, by Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def logit_interval(value: float, se: float, freedom: float) -> Rate:
    """Return the 95 % t interval, taken on the logit scale where that keeps it inside 0..1.

    Near 0 and 1, where the standard error reaches past them, it is Jeffreys' interval, of the trials behind
    the standard error with half a success and half a failure. Source: Brown, Cai and DasGupta, Statistical
    Science 16 (2001), section 3.1.
    """
    reach = _reach(freedom) * se
    bell = value * (1.0 - value)
    if reach > BEYOND * bell and reach < 0.5:
        from scipy.special import betaincinv

        trials = Rate(value, se, value, value, freedom).trials
        shape = value * trials + 0.5, (1.0 - value) * trials + 0.5
        low, high = (float(betaincinv(*shape, end)) for end in (0.025, 0.975))
        low, high = (0.0 if value <= 0.0 else low), (1.0 if value >= 1.0 else high)
        return Rate(value, se, min(low, value), max(high, value), freedom)
    if reach >= 0.5:
        return Rate(value, se, max(value - reach, 0.0), min(value + reach, 1.0), freedom)
    low, high = (float(expit(logit(value) + side * reach / bell)) for side in (-1.0, 1.0))
    return Rate(value, se, low, high, freedom)


def clustered_rate(accepted: FloatArray, tried: FloatArray) -> Rate:
    """Return the pooled rate with an interval over requests: the linearised ratio estimator.

    ``se = sqrt(n / (n - 1) sum (A_i - p T_i)**2) / sum T_i`` with t on ``n - 1`` degrees of freedom, never
    less than that of independent trials: requests that agree better than chance agree by chance.

    Parameters
    ----------
    accepted, tried : tokens per request, shape ``[requests]``, at least two requests.
    """
    kept, tries = np.asarray(accepted, dtype=np.float64), np.asarray(tried, dtype=np.float64)
    n = float(np.count_nonzero(tries))
    value = float(kept.sum() / tries.sum())
    if not 0.0 < value < 1.0:  # rows that all agree say nothing of how far they spread
        return assumed_spread_rate(float(kept.sum()), float(tries.sum()), n)
    error = kept - value * tries
    se = float(np.sqrt(n / (n - 1.0) * (error @ error))) / float(tries.sum())
    return logit_interval(value, max(se, independent_se(value, float(tries.sum()))), n - 1.0)


def independent_se(value: float, tried: float) -> float:
    """Return the standard error of independent trials; at 0 and 1 as if half a trial went the other way."""
    if not 0.0 < value < 1.0:
        value = (value * tried + 0.5) / (tried + 1.0)
    return float(np.sqrt(value * (1.0 - value) / tried))


def assumed_spread_rate(accepted: float, tried: float, requests: float) -> Rate:
    """Return the rate of a total over ``requests`` whose rates are taken to spread by BETWEEN_REQUESTS.

    Near 0 and 1 they spread less, as a Beta distribution of the same CONCENTRATION does.
    """
    value = accepted / tried
    chance = independent_se(value, tried) ** 2
    error = float(np.sqrt(chance + spread_between(value, tried) / max(requests, 1.0)))
    return logit_interval(value, error, np.inf)


def spread_between(value: float, tried: float) -> float:
    """Return the variance of the rate between requests that is taken where nothing tells it. [1]"""
    smoothed = (value * tried + 0.5) / (tried + 1.0)
    return min(BETWEEN_REQUESTS**2, smoothed * (1.0 - smoothed) / (CONCENTRATION + 1.0))


def windowed_rate(accepted: FloatArray, tried: FloatArray) -> Rate:
    """Return the rate of Beta-binomial counts: the rates of windows differ beyond chance.

    The correlation rho inside a window is fitted by likelihood; that of neighbours, which share requests, is
    their lag-one correlation f: ``se**2 = p (1 - p) sum T (1 + (T - 1) rho) / (sum T)**2 (1 + f) / (1 - f)``.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import betaln

    value = float(accepted.sum() / tried.sum())
    if not 0.0 < value < 1.0:
        return clustered_rate(accepted, tried)

    def misfit(log_strength: float) -> float:
        p, q = value * np.exp(log_strength), (1.0 - value) * np.exp(log_strength)
        return -float((betaln(accepted + p, tried - accepted + q) - betaln(p, q)).sum())

    strength = float(np.exp(minimize_scalar(misfit, bounds=(-1.0, 14.0), method="bounded").x))
    inflated = tried * (1.0 + (tried - 1.0) / (1.0 + strength))
    variance = value * (1.0 - value) * float(inflated.sum()) * _persistence(accepted, tried)
    return logit_interval(value, float(np.sqrt(variance) / tried.sum()), float(tried.size - 1))


def requests_for(
    half_width: float, *, known_sd: float | None = None, between_sd: float = WITHIN_A_TASK
) -> int:
    """Return how many requests narrow the 95 % interval of their mean rate to ``half_width``.

    ``between_sd**2 ((1.96 / half_width)**2 - 1 / known_sd**2)``: 62 at .02 where nothing is known before.

    Parameters
    ----------
    known_sd : standard deviation of what is believed of the rate already; nothing where None.
    between_sd : standard deviation of the rate between requests, however long they are.
    """
    already = 0.0 if known_sd is None else 1.0 / max(known_sd, 1e-9) ** 2
    return max(int(np.ceil(between_sd**2 * ((1.96 / half_width) ** 2 - already))), 0)


def _persistence(accepted: FloatArray, tried: FloatArray) -> float:
    """Return by how much neighbouring windows that notably move together inflate the variance, 1 .. 19."""
    n = float(tried.size)
    error = accepted - accepted.sum() / tried.sum() * tried
    lag = float(error[1:] @ error[:-1]) / max(float(error @ error), 1e-12)
    if n < 8.0 or lag + 1.0 / n < 1.64 / np.sqrt(n):
        return 1.0
    unbiased = min((n * lag + 1.0) / (n - 3.0), 0.9)
    return (1.0 + unbiased) / (1.0 - unbiased)
