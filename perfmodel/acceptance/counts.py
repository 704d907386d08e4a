"""Counts of drafted and accepted tokens per request or window: the form that every log is brought to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perfmodel.files.numbers import FloatArray

__all__ = [
    "MOST_GAMMA", "RISES", "WHOLE", "AcceptanceCounts", "Unit", "counts_of_histograms", "counts_of_rounds",
    "first_impossible", "joined_counts", "within_bounds",
]  # fmt: skip

Unit = Literal["request", "window", "total"]

MOST_GAMMA = 1000
"""Longest draft that is believed: far beyond what engines are asked for. Assumed. [tokens]"""

ROUNDS_OF_A_REQUEST = 100.0
"""Rounds that a request is taken to have where a log counts none. Assumed."""

WHOLE = 0.995
"""Drafted tokens over those of rounds that all draft the longest, from which on all are taken to: at the end
of a request an engine drafts less. [1]"""


@dataclass(frozen=True, kw_only=True)
class AcceptanceCounts:
    """What a log holds, one row per unit in the order of the log.

    Attributes
    ----------
    unit : what a row is: one request, one window of time over all requests, or everything there was.
    rounds, drafted, accepted : rounds with at least one draft, tokens drafted and accepted in them, shape
        ``[units]``.
    gamma : longest draft of a row [tokens], shape ``[units]``.
    reached : rounds with at least k accepted, k = 1 .. K, shape ``[units, K]``; None where the log has no
        positions.
    tried : rounds in which position k was drafted and all before it accepted, shape ``[units, K]``; None
        where the log does not tell, as where drafts of different lengths are added up.
    halves : (accepted, tried) tokens of the earlier and later half of each request's rounds, shape ``[units,
        2, 2]``.
    idle : rounds that drafted nothing (no match, an early stop), shape ``[units]``, not among `rounds`; None
        where the log does not tell.
    requests : how many requests are behind the rows, where the log says it.
    remarks : what the log could not tell and what was taken instead.
    """

    unit: Unit
    rounds: FloatArray
    drafted: FloatArray
    accepted: FloatArray
    gamma: FloatArray
    reached: FloatArray | None = None
    tried: FloatArray | None = None
    halves: FloatArray | None = None
    idle: FloatArray | None = None
    requests: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def likely_requests(self) -> float:
        """Requests behind the rows: those that the log counts, else one for every so many rounds."""
        return self.requests or max(float(self.rounds.sum()) / ROUNDS_OF_A_REQUEST, 1.0)

    @property
    def units(self) -> int:
        """Number of rows."""
        return int(self.rounds.size)


def counts_of_rounds(
    request: Sequence[str], drafted: FloatArray, accepted: FloatArray, remarks: tuple[str, ...] = ()
) -> AcceptanceCounts:
    """Return the counts of single rounds; rounds without drafts are left out.

    Parameters
    ----------
    request : which request each round belongs to, in the order of its rounds; shape ``[rounds]``.
    drafted, accepted : tokens per round, shape ``[rounds]``.
    """
    used = np.asarray(drafted) > 0
    names, row = np.unique(np.asarray(request)[used], return_inverse=True)
    first_seen = np.full(names.size, row.size)
    np.minimum.at(first_seen, row, np.arange(row.size))
    rank = np.empty(names.size, dtype=np.int64)
    rank[np.argsort(first_seen, kind="stable")] = np.arange(names.size)
    row = rank[row]
    sent, kept = np.asarray(drafted)[used], np.asarray(accepted)[used]
    longest = int(sent.max()) if sent.size else 0

    def summed(values: FloatArray) -> FloatArray:
        return np.bincount(row, weights=values, minlength=names.size).astype(np.float64)

    def by_depth(tokens: FloatArray) -> FloatArray | None:
        if not longest:
            return None
        return np.stack([summed((tokens >= k).astype(np.float64)) for k in range(1, longest + 1)], axis=-1)

    tries = np.minimum(sent, kept + 1)
    rounds = summed(np.ones(row.size))
    later = _place_in_request(row) >= rounds[row] / 2.0
    gamma = np.zeros(names.size)
    np.maximum.at(gamma, row, sent)
    halves = [[summed(np.where(half, what, 0.0)) for what in (kept, tries)] for half in (~later, later)]
    return AcceptanceCounts(
        unit="request",
        rounds=rounds,
        drafted=summed(sent),
        accepted=summed(kept),
        gamma=gamma,
        reached=by_depth(kept),
        tried=by_depth(tries),
        halves=np.moveaxis(np.array(halves), -1, 0),
        requests=float(names.size),
        remarks=remarks,
    )


def _place_in_request(row: NDArray[np.int64]) -> FloatArray:
    order = np.argsort(row, kind="stable")
    starts = np.r_[0, np.flatnonzero(np.diff(row[order])) + 1]
    place = np.empty(row.size)
    place[order] = np.arange(row.size) - np.repeat(starts, np.diff(np.r_[starts, row.size]))
    return place


def counts_of_histograms(
    histograms: Sequence[Sequence[int]], drafted: FloatArray, unit: Unit = "request"
) -> AcceptanceCounts:
    """Return the counts of rounds sorted by how many tokens they accepted, 0 .. gamma, per unit.

    Where fewer tokens were drafted than ``gamma`` a round, which rounds were shorter is not known, and
    ``tried`` is None: ``fit_acceptance`` fits the lengths with the rates.

    Parameters
    ----------
    histograms : rounds that accepted exactly j = 0, 1, .. tokens, per unit.
    drafted : tokens drafted per unit, shape ``[units]``.
    """
    longest = max((len(histogram) for histogram in histograms), default=1)
    table = np.zeros((len(histograms), longest))
    for place, histogram in enumerate(histograms):
        table[place, : len(histogram)] = histogram
    at_least = np.cumsum(table[:, ::-1], axis=1)[:, ::-1]
    gamma = np.array([len(histogram) - 1.0 for histogram in histograms])
    possible = np.arange(1, longest) <= gamma[:, None]
    rounds = at_least[:, 0]
    sent = np.asarray(drafted, dtype=np.float64)
    whole = bool(np.all(sent >= WHOLE * rounds * gamma))
    return AcceptanceCounts(
        unit=unit,
        rounds=rounds,
        drafted=sent,
        accepted=table @ np.arange(longest),
        gamma=gamma,
        reached=at_least[:, 1:] * possible,
        tried=at_least[:, :-1] * possible if whole else None,
        requests=float(len(histograms)) if unit == "request" else None,
    )


RISES = "a later position is accepted more often than the one before"

_LAG, _LAG_SHARE = 64.0, 0.1
"""Tokens or rounds by which counters of one server may disagree, as they are not read at one instant, and the
share of all that there are where that is less. Assumed. [tokens], [1]"""
_SHORT_OF = 0.03
"""Share by which rounds that are estimated may be too few for the tokens drafted. Assumed. [1]"""


def first_impossible(counts: AcceptanceCounts) -> tuple[int, str, str] | None:
    """Return the first row whose counts cannot be, what is wrong and with which figure; None if all can.

    A round drafts 1 to ``gamma`` tokens and accepts at most those, so drafted tokens are at most ``rounds
    gamma``, accepted ones at most the drafted, and no position is accepted more often than the one before:
    counters of a server may lag by some tokens, single requests by one.
    """
    rounds, drafted, accepted, gamma = counts.rounds, counts.drafted, counts.accepted, counts.gamma
    share = 0.0 if counts.unit == "request" else _LAG_SHARE
    lag, lag_of_rounds = (1.0 + np.minimum(_LAG, share * most) for most in (rounds * gamma, rounds))
    columns = np.stack([rounds, drafted, accepted, gamma])
    with np.errstate(invalid="ignore"):
        laws = [
            (~np.all(np.isfinite(columns) & (columns >= 0.0), axis=0), "no counts: {}", "",),
            ((rounds > 0.0) & ~((gamma >= 1.0) & (gamma <= MOST_GAMMA)),
             f"{{gamma:g}} tokens drafted a round, where 1 to {MOST_GAMMA} are believed", "gamma"),
            (accepted > drafted + 1e-6, "{accepted:g} accepted of {drafted:g} drafted", "accepted"),
            (drafted > (1.0 + _SHORT_OF) * rounds * gamma + lag,
             "{drafted:.0f} drafted tokens are more than {rounds:.0f} rounds of {gamma:.0f}", "drafted"),
        ]  # fmt: skip
        if counts.reached is not None:
            before = np.concatenate([rounds[:, None], counts.reached[:, :-1]], axis=1)
            falls = counts.reached <= before + np.reshape(lag_of_rounds, (-1, 1))
            laws.append((~np.all(falls & (counts.reached >= 0.0), axis=1), RISES, "accepted by position"))
    broken = [(int(against.argmax()), problem, field) for against, problem, field in laws if against.any()]
    if not broken:
        return None
    row, problem, field = min(broken, key=lambda law: law[0])
    figures = {name: float(getattr(counts, name)[row]) for name in ("rounds", "drafted", "accepted", "gamma")}
    return row, problem.format(", ".join(f"{value:g}" for value in figures.values()), **figures), field


def within_bounds(counts: AcceptanceCounts) -> AcceptanceCounts:
    """Return counts without the lag of counters: at most ``rounds gamma`` accepted, positions that fall."""
    accepted = np.minimum(counts.accepted, np.minimum(counts.drafted, counts.rounds * counts.gamma))
    if counts.reached is None:
        return replace(counts, accepted=accepted)
    reached = np.minimum.accumulate(np.minimum(counts.reached, counts.rounds[:, None]), axis=1)
    return replace(counts, accepted=accepted, reached=reached)


def joined_counts(counts: Sequence[AcceptanceCounts]) -> AcceptanceCounts:
    """Return the counts of several logs as one; totals of several are windows.

    What only some of the logs tell, positions among it, is not told of all. The tries of those that tell them
    are made anew from their rounds, so rows of one length keep them.
    """
    if len(counts) == 1:
        return counts[0]
    units = {each.unit for each in counts}
    deepest = max((each.reached.shape[1] for each in counts if each.reached is not None), default=0)

    def beside(name: str) -> FloatArray | None:
        arrays = [getattr(each, name) for each in counts]
        if any(array is None for array in arrays):
            return None
        if arrays[0].ndim == 2:
            arrays = [np.pad(array, ((0, 0), (0, deepest - array.shape[1]))) for array in arrays]
        return np.concatenate(arrays)

    requests = [each.requests for each in counts]
    return AcceptanceCounts(
        unit="request" if units == {"request"} else "window",
        **{name: np.concatenate([getattr(each, name) for each in counts])
           for name in ("rounds", "drafted", "accepted", "gamma")},
        reached=beside("reached"),
        tried=beside("tried"),
        halves=beside("halves"),
        idle=beside("idle"),
        requests=None if None in requests else float(sum(filter(None, requests))),
        remarks=tuple(dict.fromkeys(remark for each in counts for remark in each.remarks)),
    )  # fmt: skip
