"""Rates behind counts of rounds that drafted different lengths, which the counters add up.

A round of length g reaches position k <= g with chance ``first rest**(k - 1)``. Which rounds had which length
is not counted; drafted tokens are. Shares of rounds per length and rates are fitted together, by likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance.counts import WHOLE, AcceptanceCounts
from perfmodel.acceptance.intervals import Rate, independent_se, logit_interval, spread_between
from perfmodel.acceptance.inverse import solve_rising
from perfmodel.acceptance.odds import expit, logit
from perfmodel.acceptance.tokens import power_sum, survival
from perfmodel.errors import SpecError
from perfmodel.files.numbers import FloatArray

__all__ = ["Mixture", "bound_alpha", "drafts_mixed_lengths", "fit_mixture", "with_known_tries"]

BLOCKS = 20
_CLOSE = 1e-9
_EDGE = 1e-6
_FAINT = 1e-12
_LEAST_VARIANCE = 0.25
_HALVINGS = 10
_HALF_CHI_SQUARE = 0.5 * 1.96**2
_DOUBT = 4.0
"""Information that is had of every share and rate before any count: they lie within 0..1. [1]"""


@dataclass(frozen=True)
class Mixture:
    """Rates of every drafted token, the first and the later ones (None: none was tried), and how often.

    ``tried`` are the tries of every position, shape ``[K]``; ``shares`` the share of rounds of each length.
    """

    alpha: Rate
    first: Rate
    rest: Rate | None
    tried: FloatArray
    shares: dict[int, float]


def drafts_mixed_lengths(counts: AcceptanceCounts) -> bool:
    """Return whether some rounds drafted less than the longest, and which ones is not known."""
    return counts.tried is None and bool(np.any(counts.drafted < WHOLE * counts.rounds * counts.gamma))


def with_known_tries(
    counts: AcceptanceCounts, lengths: Sequence[int] = ()
) -> tuple[AcceptanceCounts, NDArray[np.bool_]]:
    """Return counts with the tries of rows that tell them, and which rows do, shape ``[units]``.

    A row tells them where all its rounds have one length, which its drafted tokens show, and where everything
    that was drafted was accepted. Tries of other rows are zero.
    """
    if counts.reached is None:
        return counts, np.zeros(counts.units, dtype=bool)
    rounds, drafted, positions = counts.rounds, counts.drafted, np.arange(1, counts.reached.shape[1] + 1)
    longest = counts.gamma if not lengths else np.minimum(counts.gamma, max(lengths))
    shortest = np.minimum(min(lengths, default=1), longest)
    whole = counts.accepted >= drafted
    full = drafted >= np.where(longest == counts.gamma, WHOLE, 1.0) * rounds * longest
    least = drafted <= rounds * shortest * (1.0 + 1e-9)
    length = np.where(full, longest, np.where(least, shortest, 0.0))
    before = np.column_stack([rounds, counts.reached[:, :-1]])
    tried = np.where(whole[:, None], counts.reached, before * (positions <= length[:, None]))
    tried = np.maximum(tried, counts.reached * (tried > 0.0))
    known = whole | full | least
    return replace(counts, tried=tried * known[:, None]), known


def fit_mixture(counts: AcceptanceCounts, lengths: Sequence[int]) -> Mixture:
    """Return the rates of rounds of unknown lengths, whose positions are counted, with 95 % intervals.

    The rates are the same in all rows; rows that tell their lengths by themselves are taken at them, the
    others have one mixture. Errors come from leaving out a twentieth of the rows at a time, and are never
    less than those of independent rounds; of a single row, from these and the assumed spread between
    requests.

    Parameters
    ----------
    lengths : lengths that rounds may have, in rising order; a mean length outside them is refused. [tokens]

    Raises
    ------
    SpecError : the drafted tokens do not fit the lengths.
    """
    counts, known = with_known_tries(counts, lengths)
    fit = _Fit.of(counts, known, lengths)
    chance = fit.covariance()
    low, high = fit.likely()
    chance[1, 1] = max(chance[1, 1], ((high - low) / 3.92) ** 2)
    weight = fit.tried[0] / max(float(fit.tried.sum()), 1e-9)
    blend = np.array([weight, 1.0 - weight])
    alone = np.sqrt([blend @ chance @ blend, chance[0, 0], chance[1, 1]])
    values = fit.values
    tries = np.array([fit.tried.sum(), fit.tried[0], max(float(fit.tried[1:].sum()), 1.0)])
    pairs = list(zip(values.tolist(), np.maximum(tries, 1.0).tolist(), strict=True))
    floor = [independent_se(value, tried) for value, tried in pairs]
    alone = np.maximum(alone, floor)
    if counts.unit != "total" and counts.units > 1:
        blocks = np.array_split(np.arange(counts.units), min(counts.units, BLOCKS))
        without = [
            _Fit.of(_rows(counts, kept), known[kept], lengths, fit).values
            for block in blocks
            for kept in (np.setdiff1d(np.arange(counts.units), block),)
            if counts.rounds[kept].sum() > 0.0
        ]
        freedom = float(len(without) - 1)
        spread = np.array(without) - np.mean(without, axis=0)
        errors = np.maximum(np.sqrt(freedom / len(without) * (spread**2).sum(axis=0)), alone)
    else:
        freedom = np.inf
        requests = counts.requests or max(float(counts.rounds.sum()) / 100.0, 1.0)
        spreads = [spread_between(value, tried) for value, tried in pairs]
        errors = np.sqrt(alone**2 + np.array(spreads) / max(requests, 1.0))
    alpha, first, rest = (
        logit_interval(float(value), float(error), freedom)
        for value, error in zip(values, errors, strict=True)
    )
    later = rest if fit.tried[1:].sum() >= 0.5 else None
    return Mixture(alpha, first, later, fit.tried, fit.shares)


def _rows(counts: AcceptanceCounts, kept: NDArray[np.int64]) -> AcceptanceCounts:
    assert counts.reached is not None and counts.tried is not None
    return replace(
        counts,
        rounds=counts.rounds[kept], drafted=counts.drafted[kept], accepted=counts.accepted[kept],
        gamma=counts.gamma[kept], reached=counts.reached[kept], tried=counts.tried[kept],
        halves=None, idle=None,
    )  # fmt: skip


@dataclass(frozen=True)
class _Fit:
    """One fit: rounds that accepted 0 .. K tokens, shares of the lengths, rates, tries of every position."""

    likelihood: _Likelihood
    share: FloatArray
    first: float
    rest: float
    tried: FloatArray
    known_tried: FloatArray
    reached: FloatArray
    whole: dict[int, float]

    @classmethod
    def of(
        cls,
        counts: AcceptanceCounts,
        known: NDArray[np.bool_],
        lengths: Sequence[int],
        start: _Fit | None = None,
    ) -> _Fit:
        assert counts.reached is not None and counts.tried is not None
        deepest = counts.reached.shape[1]
        mixed = ~known
        rounds, drafted = float(counts.rounds[mixed].sum()), float(counts.drafted[mixed].sum())
        at_least = np.r_[rounds, counts.reached[mixed].sum(axis=0), 0.0]
        histogram = np.maximum(at_least[:-1] - at_least[1:], 0.0)
        own = np.array([length for length in lengths if length <= deepest], dtype=np.float64)
        mean = drafted / rounds if rounds else float(own[-1])
        if rounds and not own[0] - _CLOSE <= mean <= own[-1] + _CLOSE:
            raise SpecError.single(
                "", "lengths",
                f"rounds drafted {mean:.2f} tokens on average, outside {own[0]:g} to {own[-1]:g}",
                "Give the plan that the engine ran, or none",
            )  # fmt: skip
        tried_known, reached_known = counts.tried.sum(axis=0), counts.reached[~mixed].sum(axis=0)
        reached = at_least[1:-1] + reached_known
        everything = float(counts.rounds.sum())
        first = float(reached[0] / everything)
        known_later = float(tried_known[1:].sum()), float(reached_known[1:].sum())
        likelihood = _Likelihood(histogram, own, drafted, known_later)
        before = (start.share, start.rest) if start else (_mixed(own, mean), min(max(first, 0.05), 0.95))
        share, rest, _ = likelihood.greatest(*before)
        tried = _tries(histogram, own, share, rest) + tried_known
        later = float(tried[1:].sum())
        rest = min(float(reached[1:].sum()) / later, 1.0) if later > 0.0 else rest
        length = np.rint(counts.tried.astype(bool).sum(axis=1))
        whole = {
            int(each): float(counts.rounds[~mixed & (length == each)].sum())
            for each in np.unique(length[~mixed])
        }
        return cls(likelihood, share, first, rest, tried, tried_known, reached, whole)

    @property
    def values(self) -> FloatArray:
        """Rates of every drafted token that was tried, of the first, of later ones."""
        kept, tries = float(self.reached.sum()), float(self.tried.sum())
        return np.array([min(kept / tries, 1.0), self.first, self.rest])

    @property
    def shares(self) -> dict[int, float]:
        """Share of the rounds of each length."""
        rounds = float(self.likelihood.histogram.sum())
        total = rounds + sum(self.whole.values())
        pairs = zip(self.likelihood.lengths.astype(int).tolist(), (self.share * rounds).tolist(), strict=True)
        counted = {length: number + self.whole.get(length, 0.0) for length, number in pairs}
        return {length: number / total for length, number in counted.items() if number / total > 5e-4}

    def likely(self) -> tuple[float, float]:
        """Return the 95 % interval of the rate of later drafts, by likelihood ratio over all shares."""
        share, rest, most = self.likelihood.greatest(self.share, self.rest)
        peak = float(logit(min(max(rest, _EDGE), 1.0 - _EDGE)))

        def beyond(odds: float) -> float:
            return most - self.likelihood.greatest(share, rest, float(expit(odds)))[2] - _HALF_CHI_SQUARE

        edge = float(logit(1.0 - _EDGE))
        low = solve_rising(lambda step: beyond(peak - step), 0.0, peak + edge, _HALVINGS)
        high = solve_rising(lambda step: beyond(peak + step), 0.0, edge - peak, _HALVINGS)
        return float(expit(peak - low)), float(expit(peak + high))

    def covariance(self) -> FloatArray:
        """Return the covariance of both rates with the shares unknown: of the Fisher information."""
        likelihood, first = self.likelihood, float(np.clip(self.first, 1e-4, 1.0 - 1e-4))
        rest, rounds = float(np.clip(self.rest, 1e-4, 1.0 - 1e-4)), float(likelihood.histogram.sum())
        (chance, *_), slopes, _ = likelihood.moments(self.share, rest)
        free = np.linalg.svd(np.ones((1, self.share.size)))[2][1:]
        free = free * (self.share > 1e-6)
        turn = np.zeros((1 + len(free), self.share.size + 1))
        turn[0, -1] = 1.0
        turn[1:, :-1] = free
        by_count = (turn @ slopes[0])[:, 1:]
        _, variance, by_drafts, _ = likelihood.drafts(self.share, rest)
        inner = rounds * first * (by_count / np.maximum(chance[1:], 1e-9)) @ by_count.T
        inner += np.outer(turn @ by_drafts, turn @ by_drafts) / variance
        inner[0, 0] += self.known_tried[1:].sum() / (rest * (1.0 - rest))
        known = rounds + self.known_tried[0]
        later = np.linalg.inv(inner + _DOUBT * np.eye(len(inner)))[0, 0]
        return np.diag([first * (1.0 - first) / max(known, 1.0), later])


def _chances(first: float, rest: float, lengths: FloatArray, deepest: int) -> FloatArray:
    """Return P(exactly j accepted) of every length, shape ``[lengths, K + 1]``."""
    reach = np.r_[1.0, survival(first, rest, deepest), 0.0]
    possible = np.arange(deepest + 2) <= lengths[:, None]
    at_least = reach * possible
    return np.asarray(at_least[:, :-1] - at_least[:, 1:])


@dataclass(frozen=True)
class _Likelihood:
    """Log likelihood of what a mixed row holds, but for the first draft's rate, which is apart from it.

    Rounds that accepted j >= 1 tokens are multinomial; the drafted tokens, given these, are a sum over
    rounds, so normal: a round that accepted j has the mean and variance of the lengths that can have ended
    there.

    Attributes
    ----------
    histogram : rounds that accepted exactly 0 .. K tokens.
    lengths : what a round may draft. [tokens]
    drafted : tokens of all rounds.
    known : (tries, accepted) of later drafts in rounds whose length is known.
    """

    histogram: FloatArray
    lengths: FloatArray
    drafted: float
    known: tuple[float, float]

    def moments(self, share: FloatArray, rest: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return P(j accepted), mean and mean square length times it, and slopes by shares and rate.

        Shape ``[3, K + 1]`` and ``[3, lengths + 1, K + 1]``, with P(0) as 1 for every length.
        """
        size = self.histogram.size - 1
        chances, above = (_chances(1.0, rate, self.lengths, size) for rate in (rest, rest + 1e-7))
        chances[:, 0] = above[:, 0] = 1.0
        powers = self.lengths ** np.arange(3.0)[:, None]
        by_share = powers[:, :, None] * chances
        by_rest = np.einsum("pg,gj->pj", powers * share, (above - chances) / 1e-7)
        values = np.einsum("pg,gj->pj", powers * share, chances)
        return values, np.concatenate([by_share, by_rest[:, None]], axis=1), chances

    def drafts(self, share: FloatArray, rest: float) -> tuple[float, float, FloatArray, FloatArray]:
        """Return mean and variance of the drafted tokens given what was accepted, and the slopes of both."""
        (chance, first, second), slopes, _ = self.moments(share, rest)
        chance = np.maximum(chance, _FAINT)
        mean, square = first / chance, second / chance
        mean_slope = (slopes[1] - mean * slopes[0]) / chance
        square_slope = (slopes[2] - square * slopes[0]) / chance
        spread = np.maximum(square - mean**2, 0.0)
        rounds = self.histogram
        return (
            float(rounds @ mean),
            float(rounds @ spread) + _LEAST_VARIANCE,
            mean_slope @ rounds,
            (square_slope - 2.0 * mean * mean_slope) @ rounds,
        )

    def __call__(self, share: FloatArray, rest: float) -> tuple[float, FloatArray]:
        (chance, *_), slopes, _ = self.moments(share, rest)
        chance = np.maximum(chance, _FAINT)
        pull = self.histogram / chance
        pull[0] = 0.0
        tries, kept = self.known
        value = float(self.histogram[1:] @ np.log(chance[1:]))
        value += kept * np.log(rest) + (tries - kept) * np.log(1.0 - rest)
        slope = slopes[0] @ pull
        slope[-1] += kept / rest - (tries - kept) / (1.0 - rest)
        mean, variance, mean_slope, variance_slope = self.drafts(share, rest)
        away = self.drafted - mean
        value -= 0.5 * (np.log(variance) + away**2 / variance)
        slope += away / variance * mean_slope
        slope += 0.5 * (away**2 / variance - 1.0) / variance * variance_slope
        return value, slope

    def greatest(
        self, share: FloatArray, rest: float, at: float | None = None
    ) -> tuple[FloatArray, float, float]:
        """Return shares, later drafts' rate and the log likelihood where that is greatest.

        Parameters
        ----------
        share, rest : where to begin.
        at : the rate where only the shares are sought.
        """
        from scipy.optimize import LinearConstraint, minimize

        total = max(float(self.histogram.sum()) + self.known[0], 1.0)

        def loss(point: FloatArray) -> tuple[float, FloatArray]:
            value, slope = self(np.clip(point[:-1], 0.0, 1.0), float(point[-1]))
            return -value / total, -slope / total

        ends = (_EDGE, 1.0 - _EDGE) if at is None else (at, at)
        weights = np.r_[np.ones(share.size), 0.0]
        best = minimize(
            loss,
            np.r_[share, np.clip(rest, *ends)],
            jac=True,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * share.size + [ends],
            constraints=LinearConstraint(weights[None], 1.0, 1.0),
            options={"maxiter": 150, "ftol": 1e-11},
        )
        share = np.clip(best.x[:-1], 0.0, 1.0)
        return share / share.sum(), float(best.x[-1]), -float(best.fun) * total


def _mixed(lengths: FloatArray, mean: float) -> FloatArray:
    """Return shares of all lengths that have about a mean: half of the nearest two, half of the ends."""
    above = min(int(np.searchsorted(lengths, mean)), lengths.size - 1)
    share = np.full(lengths.size, 0.02 / lengths.size)
    for low, high in ((max(above - 1, 0), above), (0, lengths.size - 1)):
        part = (mean - lengths[low]) / (lengths[high] - lengths[low]) if high > low else 1.0
        share[low] += 0.49 * (1.0 - part)
        share[high] += 0.49 * part
    share = np.clip(share, 0.0, 1.0)
    return np.asarray(share / share.sum())


def _tries(histogram: FloatArray, lengths: FloatArray, share: FloatArray, rest: float) -> FloatArray:
    """Return the expected tries of every position.

    A round that accepted j tokens had drafted j with chance ``s_j / (s_j + (1 - rest) l_j)``, of the share
    s_j of rounds of that length and l_j of longer ones; else it tried one more.
    """
    deepest = histogram.size - 1
    at = np.zeros(deepest + 1)
    at[lengths.astype(np.int64)] = share
    longer = at[::-1].cumsum()[::-1] - at
    refused = (1.0 - rest) * longer
    refused[0] = 1.0
    both = at + refused
    stopped = histogram * np.divide(refused, both, out=np.zeros(deepest + 1), where=both > 0.0)
    at_least = histogram[::-1].cumsum()[::-1]
    return np.asarray(at_least[1:] + stopped[:-1])


def bound_alpha(counts: AcceptanceCounts, lengths: Sequence[int]) -> tuple[float, float]:
    """Return the least and greatest one rate that gives the accepted tokens, whatever the lengths were.

    Of a mean length, the accepted tokens of a round ``a + a**2 + .. + a**g`` are most where all rounds have
    the nearest two lengths, and least where they have the shortest and the longest: the sum is concave in g.

    Parameters
    ----------
    lengths : lengths that rounds may have, in rising order. [tokens]
    """
    rounds, total = counts.rounds, float(counts.accepted.sum())
    if total >= float(counts.drafted.sum()):
        return 1.0, 1.0
    allowed = np.array(lengths, dtype=np.float64)
    mean = np.clip(counts.drafted / np.maximum(rounds, 1e-9), allowed[0], allowed[-1])
    above = allowed[np.clip(np.searchsorted(allowed, mean), 0, allowed.size - 1)]
    below = allowed[np.clip(np.searchsorted(allowed, mean, side="right") - 1, 0, allowed.size - 1)]
    highest = np.maximum(np.minimum(counts.gamma, allowed[-1]), above)
    ends = [(below, above), (np.full(mean.size, allowed[0]), highest)]

    def rate(low: FloatArray, high: FloatArray) -> float:
        part = np.divide(mean - low, high - low, out=np.zeros(mean.size), where=high > low)

        def excess(alpha: float) -> float:
            each = (1.0 - part) * alpha * power_sum(alpha, low) + part * alpha * power_sum(alpha, high)
            return float(rounds @ each) - total

        return float(solve_rising(excess, 0.0, 1.0))

    least, greatest = (rate(low, high) for low, high in ends)
    return least, greatest
