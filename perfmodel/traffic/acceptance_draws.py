"""Which drafted tokens the target would accept, drawn per request and position before any policy acts."""

from __future__ import annotations

from collections.abc import Iterator

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

_AT_ONCE = 4_000_000
"""Positions that are drawn at once. [tokens]"""


class AcceptanceDraws:
    """The drafts of every request: at each position, how many tokens drafted from there would be accepted.

    The draws depend on the trace and the seed alone, so two policies meet the same luck, and what differs is
    theirs. A round that starts at a position accepts ``min(run, gamma)`` of its drafts and one bonus token.
    """

    def __init__(self, first: FloatArray, rest: FloatArray, output_tokens: IntArray, *, seed: int) -> None:
        self.start = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(output_tokens + 1)])
        self._runs = np.zeros(self.start[-1], dtype=np.uint8)
        random = np.random.default_rng([seed, 2])
        for begin, end in _slices(output_tokens + 1):
            owner = np.repeat(np.arange(begin, end), output_tokens[begin:end] + 1)
            drawn = random.random(owner.size)
            hit = drawn < rest[owner]
            hit[self.start[begin + 1 : end + 1] - 1 - self.start[begin]] = False  # nothing beyond the last
            place = np.arange(owner.size)
            miss = np.where(hit, owner.size, place)
            next_miss = np.minimum.accumulate(miss[::-1])[::-1]
            run_after = np.append(next_miss[1:], owner.size) - place - 1
            runs = np.where(drawn < first[owner], 1 + run_after, 0)
            self._runs[self.start[begin] : self.start[end]] = np.minimum(runs, 255)

    def tokens(self, index: IntArray, generated: IntArray, gamma: int) -> IntArray:
        """Tokens that a round of each request commits after so many generated, bonus token included."""
        accepted = np.minimum(self._runs[self.start[index] + generated], gamma)
        return accepted.astype(np.int64) + 1


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
    nothing = np.zeros(len(trace))
    if replica.drafter is None:
        return nothing, nothing
    if alpha is None:
        contexts = trace.prompt_tokens + trace.output_tokens / 2.0
        target = replica.deployment.model
        selector, generated = replica.drafter.strategy.selector, trace.output_tokens / 2.0
        kept = budget_after(selector, replica.kv_budget, generated)
        alpha = replica.drafter.acceptance(target, context_len=contexts, kv_budget=kept)
    law = replica.drafter.given(alpha, replica.deployment.model)
    if law.tokens is not None:
        raise SpecError.single(
            "simulation",
            "alpha",
            "is given as tokens per round",
            "Give a rate: the simulator draws every token",
        )
    first, rest = (
        np.array(np.broadcast_to(rate, nothing.shape), dtype=float)
        for rate in (np.multiply(law.match, law.first), law.rest)
    )
    if not all(rate.min() >= 0.0 and rate.max() <= 1.0 for rate in (first, rest)):
        raise SpecError.single("simulation", "alpha", f"found {alpha}", "Give a rate from 0 to 1")
    varied = (rest > 0.0) & (rest < 1.0)
    if spread <= 0.0 or not varied.any():
        return first, rest
    inside = np.clip(rest, 1e-3, 1.0 - 1e-3)
    weight = np.maximum(inside * (1.0 - inside) / spread**2 - 1.0, 0.5)
    drawn = np.random.default_rng([seed, 1]).beta(inside * weight, (1.0 - inside) * weight)
    drawn = np.clip(drawn, 1e-9, 1.0 - 1e-9)
    odds = first / np.maximum(1.0 - first, 1e-12) * (drawn / (1.0 - drawn)) * ((1.0 - inside) / inside)
    return np.where(varied & (first < 1.0), odds / (1.0 + odds), first), np.where(varied, drawn, rest)


def _slices(lengths: IntArray) -> Iterator[tuple[int, int]]:
    """Consecutive requests of about `_AT_ONCE` positions together."""
    begin = 0
    reached = np.cumsum(lengths)
    while begin < lengths.size:
        before = reached[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(reached, before + _AT_ONCE, side="right")))
        yield begin, end
        begin = end
