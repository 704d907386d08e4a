"""Estimate acceptance rates from counts, with intervals that respect that requests differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perfmodel.acceptance.checks import between_rows, decay_chance, drift_along
from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.intervals import (
    BETWEEN_REQUESTS,
    HALF_WIDTH,
    WITHIN_A_TASK,
    Rate,
    assumed_spread_rate,
    clustered_rate,
    independent_se,
    logit_interval,
    requests_for,
    windowed_rate,
)
from perfmodel.acceptance.inverse import solve_rising
from perfmodel.acceptance.mixture import bound_alpha, drafts_mixed_lengths, fit_mixture, with_known_tries
from perfmodel.acceptance.tokens import tokens_per_round
from perfmodel.errors import SpecError
from perfmodel.files.numbers import FloatArray

__all__ = ["AcceptanceFit", "fit_acceptance"]


NOTABLE = 0.01
TELLING = 8


@dataclass(frozen=True, kw_only=True)
class AcceptanceFit:
    """What a log says about acceptance.

    Attributes
    ----------
    alpha : the one rate that fits all positions best, given all before it accepted.
    first, rest : the same for the first drafted token, and for all later ones; None where positions are not
        known.
    survival : P(the first k drafts are all accepted), k = 1 .. gamma.
    tokens : tokens per round, bonus token included.
    requests, rounds, gamma : behind the estimate; ``requests`` is None where the log does not say.
    method : how rate and interval came about.
    between_sd : standard deviation of the rate between requests or windows beyond chance, None where not
        told.
    decay_p, drift_p : chance of such unequal positions, or of such a trend along the log, if there were none.
    drift : change of the rate from the first to the second half of the log.
    further_requests : how many more requests narrow the interval to +-.02; None where the log has no
        requests.
    warnings : sentences for a person.
    engine_rate : accepted over drafted tokens, which most engines print as a rate [0..1].
    draft_share : share of rounds that drafted at all; None where rounds without a draft were not counted.
    lengths : share of the rounds of each length, where lengths were fitted; empty where they are known.
    """

    alpha: Rate
    first: Rate | None
    rest: Rate | None
    survival: tuple[float, ...]
    tokens: float
    requests: float | None
    rounds: float
    gamma: int
    method: str
    between_sd: float | None
    decay_p: float | None
    drift_p: float | None
    drift: float | None
    further_requests: int | None
    warnings: tuple[str, ...]
    engine_rate: float
    draft_share: Rate | None = None
    lengths: dict[int, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures under the names that ``--json`` prints."""
        first, rest = self.first or self.alpha, self.rest or self.alpha
        return {
            "alpha": self.alpha.value,
            "alpha_low": self.alpha.low,
            "alpha_high": self.alpha.high,
            "alpha1": first.value,
            "alpha2": rest.value,
            "survival": list(self.survival),
            "tokens_per_round": self.tokens,
            "engine_rate": self.engine_rate,
            "draft_share": self.draft_share.value if self.draft_share else None,
            "lengths": {str(length): share for length, share in self.lengths.items()},
            "requests": None if self.requests is None else int(self.requests),
            "rounds": round(self.rounds),
            "gamma": self.gamma,
            "method": self.method,
            "between_sd": self.between_sd,
            "decay_p": self.decay_p,
            "drift_p": self.drift_p,
            "drift": self.drift,
            "further_requests": self.further_requests,
            "warnings": list(self.warnings),
        }


def _rate(counts: AcceptanceCounts, accepted: FloatArray, tried: FloatArray) -> tuple[Rate, str]:
    used = tried > 0.0
    kept, tries = accepted[used], tried[used]
    if counts.unit == "request" and kept.size > 1:
        return clustered_rate(kept, tries), "clustered by request"
    if counts.unit == "window" and kept.size > 1:
        return windowed_rate(kept, tries), "Beta-binomial over windows"
    return assumed_spread_rate(
        float(kept.sum()), float(tries.sum()), counts.likely_requests
    ), "assumed spread between requests"


def fit_acceptance(counts: AcceptanceCounts, lengths: Sequence[int] = ()) -> AcceptanceFit:
    """Return the rates behind counts, their 95 % intervals, and what to beware of.

    One rate is the maximum of the truncated geometric likelihood, accepted over tried tokens; where the log
    has only totals it is the rate that gives the tokens per round. Where rounds drafted different lengths and
    the log adds them up, their shares are fitted with the rates; of totals alone, the interval holds every
    rate that some shares allow.

    Parameters
    ----------
    counts : what a log holds.
    lengths : lengths that the engine could draft, as of the plan that it ran; any where empty. [tokens]

    Raises
    ------
    SpecError : no round with a draft.
    """
    rounds = float(counts.rounds.sum())
    if rounds <= 0.0:
        raise SpecError.single(
            "", "rounds", "no round drafted a token", "Give a log of an engine that speculates"
        )
    gamma = int(counts.gamma.max())
    tokens = 1.0 + float(counts.accepted.sum()) / rounds
    warnings = list(counts.remarks)
    first = rest = None
    decay_p = drift_p = drift = None
    shares: dict[int, float] = {}
    able, remark = _possible(counts, lengths)
    if counts.tried is None and counts.reached is not None:
        filled, known = with_known_tries(counts, able)
        counts = filled if known.all() else counts
    if drafts_mixed_lengths(counts):
        warnings += [remark] if remark else []
        if counts.reached is not None:
            mixture = fit_mixture(counts, able)
            alpha, first, rest, shares = mixture.alpha, mixture.first, mixture.rest, mixture.shares
            pooled = counts.reached.sum(axis=0) / np.maximum(mixture.tried, 1.0)
            survival = np.cumprod(np.minimum(pooled, 1.0))
            method = "rates and shares of the lengths by likelihood"
            kept, tries = counts.reached[:, 0], counts.rounds
        else:
            alpha, method = _bounded(counts, able)
            survival = alpha.value ** np.arange(1, gamma + 1)
            kept = tries = np.zeros(counts.units)
            warnings.append(BOUNDS)
    elif counts.reached is not None and counts.tried is not None:
        kept, tries = counts.reached.sum(axis=1), counts.tried.sum(axis=1)
        alpha, method = _rate(counts, kept, tries)
        first, _ = _rate(counts, counts.reached[:, 0], counts.tried[:, 0])
        if counts.tried[:, 1:].sum() > 0.0:
            rest, _ = _rate(counts, counts.reached[:, 1:].sum(axis=1), counts.tried[:, 1:].sum(axis=1))
        pooled = counts.reached.sum(axis=0) / np.maximum(counts.tried.sum(axis=0), 1.0)
        survival = np.cumprod(np.minimum(pooled, 1.0))
        decay_p = decay_chance(counts, alpha.value)
        if decay_p is not None and decay_p < NOTABLE:
            rises = rest is not None and first is not None and rest.value > first.value
            warnings.append(
                f"later positions are accepted {'more' if rises else 'less'} often than the first: "
                "use alpha1 and alpha2, not one alpha, for other speculation lengths"
            )
    else:
        alpha, method = _from_totals(counts)
        survival = alpha.value ** np.arange(1, gamma + 1)
        tries = counts.rounds * np.asarray(tokens_per_round(alpha.value, counts.gamma - 1.0))
        surplus = counts.accepted / counts.rounds - _accepted(alpha.value, counts.gamma)
        kept = tries * (alpha.value + surplus / _slope(alpha.value, counts.gamma))
    seen = drift_along(counts, kept, tries)
    if seen is not None:
        drift, drift_p = seen
        if drift_p < NOTABLE:
            warnings.append(
                f"the rate drifts along the log, {drift:+.3f} from first to second half: fit the recent part"
            )
    further = _further(counts, alpha)
    more = further if counts.unit != "window" else _more(counts.units, alpha)
    if more and (alpha.high - alpha.low) / 2.0 > HALF_WIDTH:
        warnings.append(
            f"the interval is +-{(alpha.high - alpha.low) / 2:.3f}; about {more} more "
            f"{'requests' if further else 'windows like these'} narrow it to +-{HALF_WIDTH}"
        )
    if counts.unit == "window" and counts.units > 1:
        warnings.append(
            "windows share requests: where one request lasts many windows the interval is too narrow "
            "(per-request data are exact)"
        )
    if method.startswith("assumed"):
        warnings.append(
            f"the log does not tell requests apart: their rates are taken to spread by {BETWEEN_REQUESTS} "
            "(give per-request data, or several scrapes, for an interval of your own traffic)"
        )
    return AcceptanceFit(
        alpha=alpha,
        first=first,
        rest=rest,
        survival=tuple(float(share) for share in np.pad(survival, (0, gamma - survival.size))),
        tokens=tokens,
        requests=counts.requests,
        rounds=rounds,
        gamma=gamma,
        method=method,
        between_sd=between_rows(kept, tries) if counts.units > 1 and tries.sum() > 0.0 else None,
        decay_p=decay_p,
        drift_p=drift_p,
        drift=drift,
        further_requests=further,
        warnings=tuple(warnings),
        engine_rate=float(counts.accepted.sum()) / max(float(counts.drafted.sum()), 1.0),
        draft_share=_draft_share(counts),
        lengths=shares,
    )


BOUNDS = (
    "rounds drafted different lengths, and the log tells neither which nor the positions: the interval holds "
    "every rate that some lengths allow. Counts per position narrow it (the engine's /metrics), a log of "
    "every round is exact (vLLM: --per-request-spec-decode-metrics detailed), and --plan says which lengths "
    "there were"
)


def _possible(counts: AcceptanceCounts, lengths: Sequence[int]) -> tuple[list[int], str]:
    """Return the lengths that rounds may have had, in rising order, and what to say of it.

    Lengths that the drafted tokens contradict are not believed.
    """
    longest = int(counts.gamma.max())
    every = list(range(1, longest + 1))
    able = sorted({int(length) for length in lengths if 1 <= length <= longest})
    if not able:
        return every, ANY_LENGTH.format(longest)
    mean = float(counts.drafted.sum() / counts.rounds.sum())
    if not able[0] - 0.005 <= mean <= able[-1] + 0.005:
        named = ", ".join(map(str, able))
        return every, f"rounds drafted {mean:.2f} tokens on average, which the lengths {named} cannot give"
    if bool(np.any(counts.drafted > counts.rounds * able[-1] * 1.001)):
        return every, f"some rounds drafted more than the longest length given, {able[-1]}"
    if counts.reached is not None and counts.reached[:, able[-1]:].any():
        last = int(np.flatnonzero(counts.reached.any(axis=0))[-1]) + 1
        return every, (
            f"position {last} was accepted, which the longest length given, {able[-1]}, cannot draft: this "
            f"log is of another plan, and any length from 1 to {longest} is taken to be possible"
        )
    return able, ""


ANY_LENGTH = (
    "some rounds drafted less than the longest, and the log does not say which: any length from 1 to {} is "
    "taken to be possible; --plan says which lengths there were, a log of every round is exact (vLLM: "
    "--per-request-spec-decode-metrics detailed)"
)


def _bounded(counts: AcceptanceCounts, lengths: Sequence[int]) -> tuple[Rate, str]:
    """Return the middle of all rates that some shares of the lengths allow, and an interval around all."""
    least, greatest = bound_alpha(counts, lengths)
    tried = max(float(counts.accepted.sum()) / max(greatest, 1e-9), float(counts.rounds.sum()))
    requests = counts.likely_requests
    low, high = (assumed_spread_rate(rate * tried, tried, requests) for rate in (least, greatest))
    middle = 0.5 * (least + greatest)
    se = float(np.hypot(0.5 * (greatest - least) / 1.96, max(low.se, high.se)))
    return Rate(middle, se, low.low, high.high), "bounds over all lengths that rounds may have had"


def _draft_share(counts: AcceptanceCounts) -> Rate | None:
    """Return the share of rounds that drafted, over requests or windows, where idle rounds were counted."""
    if counts.idle is None:
        return None
    return _rate(counts, counts.rounds, counts.rounds + counts.idle)[0]


def _from_totals(counts: AcceptanceCounts) -> tuple[Rate, str]:
    """Return the rate that explains the tokens per round, its error carried over from them."""
    total = counts.accepted.sum()
    value = 0.0  # halving never reaches it, and the interval at 0 is one of its own
    if total > 0.0:
        value = float(
            solve_rising(lambda alpha: counts.rounds @ _accepted(alpha, counts.gamma) - total, 0.0, 1.0)
        )
    slope = float(counts.rounds @ _slope(value, counts.gamma))
    tried = float(counts.rounds @ np.asarray(tokens_per_round(value, counts.gamma - 1.0)))
    if counts.units > 1:
        error = counts.accepted - counts.rounds * _accepted(value, counts.gamma)
        se = float(np.sqrt(counts.units / (counts.units - 1.0) * (error @ error)) / slope)
        se = max(se, independent_se(value, tried))
        return logit_interval(
            value, se, counts.units - 1.0
        ), f"tokens per round inverted, clustered by {counts.unit}"
    return assumed_spread_rate(
        value * tried, tried, counts.likely_requests
    ), "assumed spread between requests, tokens per round inverted"


def _further(counts: AcceptanceCounts, alpha: Rate) -> int | None:
    return None if counts.requests is None or counts.unit == "window" else _more(counts.requests, alpha)


def _more(units: float, alpha: Rate) -> int:
    """Return how many units, on top of so many, narrow the interval to HALF_WIDTH.

    Fewer than `TELLING` units say too little of how far they spread: they are not taken to be more alike than
    the requests of one task are.
    """
    spread = alpha.se * float(np.sqrt(units))
    if units < TELLING:
        spread = max(spread, WITHIN_A_TASK)
    return max(requests_for(HALF_WIDTH, between_sd=spread) - int(units), 0)


def _accepted(alpha: float, gamma: FloatArray) -> FloatArray:
    return np.asarray(tokens_per_round(alpha, gamma)) - 1.0


def _slope(alpha: float, gamma: FloatArray) -> FloatArray:
    """Return the change of accepted tokens per round with the rate."""
    below, above = max(alpha - 1e-5, 0.0), min(alpha + 1e-5, 1.0)
    return (_accepted(above, gamma) - _accepted(below, gamma)) / (above - below)
