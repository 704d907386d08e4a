"""The types of every equation: a number that may be an array, and an array."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["FloatArray", "Numeric"]

FloatArray: TypeAlias = NDArray[np.float64]
Numeric: TypeAlias = float | FloatArray
