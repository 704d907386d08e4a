"""The acceptance rate behind a mean number of tokens per round.

Engines print three different numbers under one name. At ``alpha = .8`` and ``gamma = 4`` they are: mean
length 3.36 (vLLM, SGLang: bonus token included), mean accepted 2.36 (without it), rate .59 (accepted over
drafted).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from perfmodel.acceptance.tokens import tokens_per_round
from perfmodel.acceptance.tree import tokens_from_tree
from perfmodel.errors import SpecError
from perfmodel.files.numbers import Numeric
from strategies.base import Tree

_HALVINGS = 60


def alpha_from_mean_length(
    mean_length_with_bonus: Numeric, gamma: Numeric, tree: Tree | None = None
) -> Numeric:
    """Return the rate that gives ``mean_length_with_bonus``: the exact inverse of ``tokens_per_round``.

    Parameters
    ----------
    mean_length_with_bonus : tokens per round, 1 .. gamma + 1.
    gamma : speculation length [tokens], at least 1.
    tree : shape of a draft that branches, whose best candidate has that rate; a chain where None.

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

    def tokens(alpha: Numeric) -> Numeric:
        return tokens_per_round(alpha, gamma) if tree is None else tokens_from_tree(alpha, alpha, tree, gamma)

    alpha = solve_rising(
        lambda alpha: tokens(alpha) - length, np.zeros(wrong.shape), np.ones(wrong.shape)
    )
    return np.where(length >= np.add(gamma, 1.0), 1.0, alpha)[()]


def solve_rising(
    excess: Callable[[Any], Numeric], low: Numeric, high: Numeric, halvings: int = _HALVINGS
) -> Numeric:
    """Return where a rising function crosses zero, or the nearer end; 60 halvings, the same on every rank.

    All elements at once, where the ends are arrays.
    """
    for _ in range(halvings):
        middle = 0.5 * (low + high)
        short = np.less_equal(excess(middle), 0.0)
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.asarray(0.5 * (low + high))[()]
