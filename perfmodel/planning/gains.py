"""What every speculation length of a planned cell is worth: tokens per round and time per token."""

from __future__ import annotations

import math
from collections.abc import Sequence

from perfmodel.planning.plan import Cell

__all__ = ["expected_tokens", "logit", "speedups", "tokens_by_gamma"]


NEARLY = 1e-3
"""How far from certain a rate is taken to be once anything was observed. [1]"""


def logit(alpha: float) -> float:
    """Log odds of a rate, which is kept inside 1e-9 .. 1 - 1e-9."""
    inside = min(max(alpha, 1e-9), 1.0 - 1e-9)
    return math.log(inside / (1.0 - inside))


def tokens_by_gamma(cell: Cell, gammas: Sequence[int], shift: float = 0.0) -> list[float]:
    """Tokens per round of a cell's drafter at each of rising `gammas`, bonus token included. [tokens]

    The first draft is accepted with `alpha_first`, each later one with `alpha`, both moved by `shift` on the
    logit scale: ``1 + first (1 + rest + ... + rest^(gamma - 1))``.
    """
    if cell.alpha is None:
        return [1.0] * len(gammas)
    rest = _moved(cell.alpha, shift)
    reached = _moved(cell.alpha_first if cell.alpha_first is not None else cell.alpha, shift)
    total, done, found = 1.0, 0, []
    for gamma in gammas:
        for _ in range(gamma - done):
            total += reached
            reached *= rest
        done = max(done, gamma)
        found.append(total)
    return found


def expected_tokens(cell: Cell, gamma: int, shift: float = 0.0) -> float:
    """Tokens per round of a cell's drafter at `gamma`, acceptance moved by `shift` logits. [tokens]"""
    return tokens_by_gamma(cell, (gamma,), shift)[0]


def speedups(cell: Cell, gammas: Sequence[int], shift: float = 0.0, slower: float = 1.0) -> list[float]:
    """Speedup over decoding without a drafter at each of `gammas`; 0 where it was not priced. [1]

    `slower` is how many times longer than planned a round takes, relative to plain decoding. At gamma 0 it is
    1, or less in an engine whose plain steps take longer while the drafter is loaded.
    """
    ladder = cell.round_by_gamma_s
    tokens = tokens_by_gamma(cell, gammas, shift)
    return [
        cell.baseline_s * (tokens[index] if gamma else 1.0) / (ladder[index] * (slower if gamma else 1.0))
        if index < len(ladder)
        else 0.0
        for index, gamma in enumerate(gammas)
    ]


def _moved(alpha: float, shift: float) -> float:
    """A moved rate; one of exactly 0 or 1 becomes 0.001 or 0.999 first, so that it can move at all."""
    if shift == 0.0:
        return alpha
    odds = logit(min(max(alpha, NEARLY), 1.0 - NEARLY)) + shift
    return 1.0 / (1.0 + math.exp(-odds))
