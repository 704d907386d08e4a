"""Acceptance rates from what engines print, each function named for the number it inverts.

Engines print three different numbers under one name. At ``alpha = .8`` and ``gamma = 4`` they are: mean
length 3.36 (vLLM, SGLang: bonus token included), mean accepted 2.36 (without it), rate .59 (accepted over
drafted).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance.tokens import tokens_per_round
from perfmodel.errors import SpecError
from perfmodel.files.numbers import Numeric

_HALVINGS = 60


def alpha_from_mean_length(mean_length_with_bonus: Numeric, gamma: Numeric) -> Numeric:
    """Return the rate that gives ``mean_length_with_bonus``: the exact inverse of ``tokens_per_round``.

    Parameters
    ----------
    mean_length_with_bonus : tokens per round, 1 .. gamma + 1.
    gamma : speculation length [tokens], at least 1.

    Raises
    ------
    SpecError : a length that no rate can give, or no drafts.
    """
    length = np.asarray(mean_length_with_bonus, dtype=np.float64)
    if not np.all(np.greater_equal(gamma, 1.0)):
        raise SpecError.single(
            "", "gamma", "without drafted tokens nothing says how many are accepted", "give 1 or more"
        )
    wrong = ~((length >= 1.0) & (length <= np.add(gamma, 1.0) * (1.0 + 1e-12)))
    if np.any(wrong):
        value = float(np.broadcast_to(length, wrong.shape)[wrong][0])
        raise SpecError.single(
            "",
            "mean_length_with_bonus",
            f"{value:g} is not between 1 and gamma + 1",
            "the bonus token counts: add 1 if it is left out",
        )
    alpha = solve_rising(
        lambda alpha: tokens_per_round(alpha, gamma) - length, np.zeros(wrong.shape), np.ones(wrong.shape)
    )
    return np.where(length >= np.add(gamma, 1.0), 1.0, alpha)[()]


def solve_rising(excess: Callable[[Any], Numeric], low: Numeric, high: Numeric) -> Numeric:
    """Return where a rising function crosses zero, or the nearer end; 60 halvings, the same on every rank.

    All elements at once, where the ends are arrays.
    """
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        short = np.less_equal(excess(middle), 0.0)
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.asarray(0.5 * (low + high))[()]


def alpha_from_mean_accepted(mean_accepted_without_bonus: Numeric, gamma: Numeric) -> Numeric:
    """Return the rate behind a mean number of accepted drafts per round, 0 .. gamma, bonus token not counted.

    Raises
    ------
    SpecError : a number that no rate can give, or no drafts.
    """
    return alpha_from_mean_length(np.add(mean_accepted_without_bonus, 1.0), gamma)


def alpha_from_engine_rate(rate: Numeric, gamma: Numeric) -> Numeric:
    """Return the rate behind an engine's "draft acceptance rate", accepted over drafted tokens.

    The engine's figure is ``(tokens - 1) / gamma``.

    Raises
    ------
    SpecError : outside 0 .. 1, or no drafts.
    """
    return alpha_from_mean_length(1.0 + np.multiply(rate, gamma), gamma)


def alpha_from_survival(survival: NDArray[np.float64]) -> Numeric:
    """Return the one rate of highest likelihood given cumulative acceptance per position, as vLLM prints it.

    Accepted over tried tokens, ``(S_1 + .. + S_K) / (1 + S_1 + .. + S_{K-1})``.

    Parameters
    ----------
    survival : S_k on the last axis, not increasing, 0 .. 1.

    Raises
    ------
    SpecError : not such a series.
    """
    reached = _checked_survival(survival)
    alpha: Numeric = (reached.sum(axis=-1) / (1.0 + reached[..., :-1].sum(axis=-1)))[()]
    return alpha


def first_rest_from_survival(survival: NDArray[np.float64]) -> tuple[Numeric, Numeric]:
    """Return the rates (first, rest) of highest likelihood given cumulative acceptance per position.

    ``S_1`` and ``(S_2 + .. + S_K) / (S_1 + .. + S_{K-1})``; ``rest`` equals ``first`` where there is nothing
    to tell it from.

    Raises
    ------
    SpecError : not a series of probabilities that does not increase.
    """
    reached = _checked_survival(survival)
    first = reached[..., 0]
    tried = reached[..., :-1].sum(axis=-1)
    rest = np.where(tried > 0.0, reached[..., 1:].sum(axis=-1) / np.where(tried > 0.0, tried, 1.0), first)
    return first[()], rest[()]


def _checked_survival(survival: NDArray[np.float64]) -> NDArray[np.float64]:
    reached = np.asarray(survival, dtype=np.float64)
    if reached.ndim == 0 or reached.shape[-1] == 0:
        raise SpecError.single("", "survival", "holds no position", "give one number per drafted position")
    if not (
        np.all(reached >= 0.0)
        and np.all(reached[..., 0] <= 1.0)
        and np.all(np.diff(reached, axis=-1) <= 1e-12)
    ):
        raise SpecError.single(
            "",
            "survival",
            "is not a series of probabilities that never rises",
            "rates given all before: multiply them up first",
        )
    return reached
