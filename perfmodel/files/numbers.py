"""The types of every equation: a number that may be an array, and an array."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["FloatArray", "Numeric", "as_floats", "distinct_values", "keep_memory", "repeated"]

FloatArray: TypeAlias = NDArray[np.float64]
Numeric: TypeAlias = float | FloatArray


def as_floats(*values: Numeric) -> tuple[Numeric, ...]:
    """Return numbers and arrays of any dtype in double precision, where no product of counts overflows."""
    return tuple(value if type(value) is float else np.asarray(value, dtype=float)[()] for value in values)


def distinct_values(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values of an array, each once, rising; `numpy.unique` alone would load masked arrays."""
    return np.unique(values, return_index=True)[0]


def repeated(chance: Numeric, times: Numeric) -> Numeric:
    """Return ``chance ** times``: of so many in a row, 0 where that is below the smallest number. [0..1]"""
    with np.errstate(under="ignore"):
        return np.power(chance, times)


def keep_memory() -> None:
    """Let the process keep the memory of arrays that come and go, up to 64 MB, in place of asking anew.

    glibc maps large arrays one by one, and each page of a new one costs more than the arithmetic on it. After
    an array of almost 32 MB was freed it takes those up to that size from its heap ("dynamic mmap threshold",
    mallopt(3)). Nothing is touched; elsewhere it is without effect.
    """
    np.empty(31 << 20, dtype=np.uint8)
