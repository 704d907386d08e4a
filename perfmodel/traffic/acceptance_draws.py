"""Which drafted tokens the target would accept, drawn per request and position before any policy acts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance
from perfmodel.errors import SpecError
from perfmodel.files.numbers import FloatArray
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.trace import Trace
from strategies.base import budget_after

__all__ = ["AcceptanceDraws", "request_acceptance"]

IntArray = NDArray[np.int64]

_AT_ONCE = 1 << 18
"""Positions that are drawn at once. [tokens]"""
_TOGETHER = 1 << 16
"""Requests whose rates are computed together. [1]"""
_ALONE = 16
"""Requests up to which one after the other is quicker than all at once."""


class AcceptanceDraws:
    """The drafts of every request: at each position, how many tokens drafted from there would be accepted.

    The draws depend on the trace and the seed alone, so two policies meet the same luck, and what differs is
    theirs. A round that starts at a position accepts ``min(run, gamma)`` of its drafts and one bonus token.

    Requests are drawn in order when they are first asked for, many together, and kept until `forget`.
    """

    def __init__(self, first: FloatArray, rest: FloatArray, output_tokens: IntArray, *, seed: int) -> None:
        self._first, self._rest, self._outputs = first, rest, output_tokens
        self._start = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(output_tokens + 1)])
        self._random = np.random.default_rng([seed, 2])
        self._runs = np.zeros(0, dtype=np.uint8)
        self._upto = self._wanted = self._dropped = 0

    def tokens(self, index: IntArray, generated: IntArray, gamma: int) -> IntArray:
        """Tokens that a round of each request commits after so many generated, bonus token included."""
        if index.size and (last := int(index.max())) >= self._upto:
            self._draw(last)
        accepted = np.minimum(self._runs[self._start[index] - self._dropped + generated], gamma)
        return accepted.astype(np.int64) + 1

    def rounds(self, index: int, generated: int, gamma: int) -> NDArray[np.uint8]:
        """Tokens of each round of one request to its end, all of which draft as many; shape (rounds,)."""
        if index >= self._upto:
            self._draw(index)
        begin = int(self._start[index]) - self._dropped
        output = int(self._outputs[index])
        runs = self._runs[begin : begin + output].tolist()
        given = []
        while generated < output:
            tokens = min(runs[generated], gamma) + 1
            given.append(tokens)
            generated += tokens
        return np.array(given, dtype=np.uint8)

    def first_rounds(self, index: int, gamma: int) -> tuple[range, NDArray[np.uint8], IntArray]:
        """What `rounds` gives after one token for this request and the next ones, whose draws are there.

        Returns
        -------
        The requests, the tokens of the rounds of all of them, request after request, and where each one's
        begin and the last one's end; shapes (rounds,) and (requests + 1,).
        """
        if index >= self._upto:
            self._draw(index)
        begin = self._start[index : self._upto] - self._dropped
        outputs = self._outputs[index : self._upto]
        going, generated = np.flatnonzero(outputs > 1), np.ones(begin.size, dtype=np.int64)
        each = []
        counts = np.zeros(begin.size, dtype=np.int64)
        while going.size > _ALONE:
            tokens = np.minimum(self._runs[begin[going] + generated[going]], gamma) + np.uint8(1)
            each.append((going, tokens))
            counts[going] += 1
            generated[going] += tokens
            going = going[generated[going] < outputs[going]]
        tails = [self.rounds(index + each, int(generated[each]), gamma) for each in going.tolist()]
        starts = counts[going]
        counts[going] += np.array([tail.size for tail in tails], dtype=np.int64)
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
        given = np.empty(offsets[-1], dtype=np.uint8)
        for number, (requests, tokens) in enumerate(each):
            given[offsets[requests] + number] = tokens
        for begins, tail in zip((offsets[going] + starts).tolist(), tails, strict=True):
            given[begins : begins + tail.size] = tail
        return range(index, self._upto), given, offsets

    def forget(self, before: int) -> None:
        """Let go of the draws of requests before this one, which are not asked for again."""
        self._wanted = max(self._wanted, before)
        gone = int(self._start[min(before, self._upto)])
        if gone - self._dropped > _AT_ONCE:
            self._runs = self._runs[gone - self._dropped :].copy()
            self._dropped = gone

    def _draw(self, last: int) -> None:
        """Draw requests up to this one, and those that are drawn together with it."""
        drawn = [self._runs]
        while self._upto <= last:
            begin = self._upto
            reached = self._start[begin] + _AT_ONCE
            end = max(begin + 1, int(np.searchsorted(self._start, reached, side="right")) - 1)
            drawn.append(self._runs_of(begin, end))
            if end <= self._wanted:
                self._dropped = int(self._start[end])
                drawn = []
            self._upto = end
        self._runs = np.concatenate(drawn)

    def _runs_of(self, begin: int, end: int) -> NDArray[np.uint8]:
        """The run of accepted tokens at each position of some requests, one after the other."""
        lengths = self._outputs[begin:end] + 1
        first, rest = (np.repeat(rates[begin:end], lengths) for rates in (self._first, self._rest))
        drawn = self._random.random(rest.size)
        hit = drawn < rest
        hit[np.cumsum(lengths) - 1] = False  # nothing beyond the last
        place = np.arange(rest.size, dtype=np.int32 if rest.size < 1 << 31 else np.int64)
        miss = np.where(hit, place[-1], place)  # the last one is a miss
        next_miss = np.minimum.accumulate(miss[::-1])[::-1]
        accepted = np.zeros_like(place)
        accepted[:-1] = next_miss[1:] - place[:-1]
        return np.minimum(np.where(drawn < first, accepted, 0), 255).astype(np.uint8)


def request_acceptance(
    replica: Replica, trace: Trace, *, alpha: float | Acceptance | None, spread: float, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Acceptance of the first and of every later drafted token, one element per request. [0..1]

    A round that finds nothing to draft yields what one whose first draft is refused does: the first rate is
    times the match share.

    Parameters
    ----------
    alpha : what replaces the drafter's law at the middle of each request's context.
    spread : standard deviation of the later tokens' acceptance between requests, which is a Beta; the first
        token's moves along on the logit scale. [1]
    """
    first, rest = np.zeros(len(trace)), np.zeros(len(trace))
    if replica.drafter is None:
        return first, rest
    stated = None if alpha is None else replica.drafter.given(alpha, replica.deployment.model)
    windows = [slice(begin, begin + _TOGETHER) for begin in range(0, len(trace), _TOGETHER)]
    for some in windows:
        law = _believed(replica, trace, some) if stated is None else stated
        if law.tokens is not None:
            raise SpecError.single(
                "simulation",
                "alpha",
                "is given as tokens per round",
                "Give a rate: the simulator draws every token",
            )
        for rates, rate in ((first, np.multiply(law.match, law.first)), (rest, law.rest)):
            rates[some] = rate if stated is None else np.broadcast_to(rate, rates.shape)[some]
    if not all(rate.min() >= 0.0 and rate.max() <= 1.0 for rate in (first, rest)):
        raise SpecError.single("simulation", "alpha", f"found {alpha}", "Give a rate from 0 to 1")
    if spread <= 0.0 or not np.any((rest > 0.0) & (rest < 1.0)):
        return first, rest
    random = np.random.default_rng([seed, 1])
    for some in windows:
        first[some], rest[some] = _spread(first[some], rest[some], spread, random)
    return first, rest


def _believed(replica: Replica, trace: Trace, some: slice) -> Acceptance:
    """The law of a replica's drafter at the middle of the contexts of some requests."""
    assert replica.drafter is not None
    half = trace.output_tokens[some] / 2.0
    target = replica.deployment.model
    kept = budget_after(replica.drafter.strategy.selector, replica.kv_budget, half)
    law = replica.drafter.acceptance(target, context_len=trace.prompt_tokens[some] + half, kv_budget=kept)
    return replica.drafter.given(law, target)


def _spread(
    first: FloatArray, rest: FloatArray, spread: float, random: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw the rates of requests around those of all, as `request_acceptance` has it. [0..1]"""
    varied = (rest > 0.0) & (rest < 1.0)
    inside = np.clip(rest, 1e-3, 1.0 - 1e-3)
    weight = np.maximum(inside * (1.0 - inside) / spread**2 - 1.0, 0.5)
    drawn = random.beta(inside * weight, (1.0 - inside) * weight)
    drawn = np.clip(drawn, 1e-9, 1.0 - 1e-9)
    odds = first / np.maximum(1.0 - first, 1e-12) * (drawn / (1.0 - drawn)) * ((1.0 - inside) / inside)
    return np.where(varied & (first < 1.0), odds / (1.0 + odds), first), np.where(varied, drawn, rest)
