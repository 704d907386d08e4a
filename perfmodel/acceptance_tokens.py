"""Expected tokens of one draft-verify round, the bonus token included, and the way back to an acceptance rate.

Every function broadcasts its arguments; ``alpha`` is P(a drafted token is accepted, given that all before it were).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numeric = float | NDArray[np.float64]

_TINY = 1e-300


def _power_sum(alpha: Numeric, terms: Numeric) -> Numeric:
    """Return ``1 + alpha + ... + alpha**(terms - 1)``, exact at ``alpha = 0`` and ``alpha = 1``."""
    rejected = np.subtract(1.0, alpha)
    certain = rejected == 0.0
    power = np.expm1(np.multiply(terms, np.log(np.maximum(alpha, _TINY))))
    return np.where(certain, terms, -power / np.where(certain, 1.0, rejected))[()]


def tokens_per_round(alpha: Numeric, gamma: Numeric) -> Numeric:
    """Return the expected tokens of a round in which every draft is accepted with the same probability.

    ``(1 - alpha**(gamma + 1)) / (1 - alpha)``, between 1 and ``gamma + 1``; exactly ``gamma + 1`` at ``alpha = 1``.
    Source: Leviathan et al., arXiv 2211.17192, equation 1.

    Parameters
    ----------
    alpha : acceptance rate [0..1]. gamma : speculation length [tokens], 0 or more.
    """
    return _power_sum(alpha, np.add(gamma, 1.0))


def tokens_from_first_rest(first: Numeric, rest: Numeric, gamma: Numeric) -> Numeric:
    """Return the expected tokens of a round whose first draft is accepted with ``first`` and every later one with ``rest``.

    ``1 + first (1 - rest**gamma) / (1 - rest)``; equal to ``tokens_per_round`` where the two rates are equal.

    Parameters
    ----------
    first, rest : acceptance rates [0..1]. gamma : speculation length [tokens], 0 or more.
    """
    return 1.0 + np.multiply(first, _power_sum(rest, gamma))
