"""Expected tokens of one draft-verify round, the bonus token included.

Every function broadcasts its arguments. ``alpha`` is P(a drafted token is accepted, given that all before it
were); ``survival`` at position ``k`` is P(the first ``k`` drafted tokens are all accepted).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.files.numbers import Numeric

_TINY = 1e-300


def power_sum(alpha: Numeric, terms: Numeric) -> Numeric:
    """Return ``1 + alpha + ... + alpha**(terms - 1)``, exact at ``alpha = 0`` and ``alpha = 1``."""
    rejected = np.subtract(1.0, alpha)
    certain = rejected == 0.0
    power = np.expm1(np.multiply(terms, np.log(np.maximum(alpha, _TINY))))
    return np.where(certain, terms, -power / np.where(certain, 1.0, rejected))[()]


def tokens_per_round(alpha: Numeric, gamma: Numeric) -> Numeric:
    """Return the expected tokens of a round in which every draft is accepted with the same probability.

    ``(1 - alpha**(gamma + 1)) / (1 - alpha)``: from exactly 1 at ``gamma = 0`` to exactly ``gamma + 1`` at
    ``alpha = 1``. Source: Leviathan et al., arXiv 2211.17192, equation 1.

    Parameters
    ----------
    alpha : acceptance rate [0..1].
    gamma : speculation length [tokens], 0 or more.
    """
    return 1.0 + np.multiply(alpha, power_sum(alpha, gamma))


def tokens_from_first_rest(first: Numeric, rest: Numeric, gamma: Numeric) -> Numeric:
    """Return the expected tokens of a round whose first draft is accepted apart from the rest.

    ``1 + first (1 - rest**gamma) / (1 - rest)``; equal to ``tokens_per_round`` where the two rates are equal.

    Parameters
    ----------
    first, rest : acceptance rates [0..1].
    gamma : speculation length [tokens], 0 or more.
    """
    return 1.0 + np.multiply(first, power_sum(rest, gamma))


def survival(first: Numeric, rest: Numeric, gamma: int) -> NDArray[np.float64]:
    """Return P(the first k drafts are all accepted), ``first rest**(k - 1)``, last axis k = 1 .. gamma."""
    depth = np.arange(gamma, dtype=np.float64)
    return np.asarray(first)[..., None] * np.asarray(rest, dtype=np.float64)[..., None] ** depth
