"""Rates as log odds, where errors add up, and back."""

from __future__ import annotations

import numpy as np

from perfmodel.files.numbers import Numeric

__all__ = ["expit", "logit"]


def logit(rate: Numeric) -> Numeric:
    """Return ``ln(rate / (1 - rate))`` of a rate inside 0..1."""
    odds: Numeric = np.log(np.divide(rate, np.subtract(1.0, rate)))
    return odds


def expit(logit: Numeric) -> Numeric:
    """Return ``1 / (1 + exp(-logit))``, without overflow [0..1]."""
    return 0.5 * (1.0 + np.tanh(np.multiply(logit, 0.5)))
