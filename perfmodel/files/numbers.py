"""The types of every equation: a number that may be an array, and an array."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FloatArray", "Numeric", "as_floats", "distinct_values", "keep_memory", "medians",
    "quantile", "repeated",
]  # fmt: skip

FloatArray: TypeAlias = NDArray[np.float64]
Numeric: TypeAlias = float | FloatArray


def as_floats(*values: Numeric) -> tuple[Numeric, ...]:
    """Return numbers and arrays of any dtype in double precision, where no product of counts overflows."""
    return tuple(value if type(value) is float else np.asarray(value, dtype=float)[()] for value in values)


def distinct_values(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values of an array, each once, rising; `numpy.unique` alone would load masked arrays."""
    return np.unique(values, return_index=True)[0]


def medians(values: Numeric) -> FloatArray:
    """Return the medians over the last axis, which stays; `numpy.median` would load masked arrays."""
    size = np.shape(values)[-1]
    least, most = (size - 1) // 2, size // 2
    parted = np.partition(np.asarray(values), (least, most, -1), axis=-1)  # nan comes last
    middle = parted[..., least : most + 1].mean(axis=-1, keepdims=True)
    return np.where(np.isnan(parted[..., -1:]), np.nan, middle)


def quantile(values: FloatArray, share: float) -> FloatArray:
    """Return what a share of the values on the last axis lies below, by Weibull's rule, as `numpy.quantile`.

    That would load masked arrays.
    """
    last = values.shape[-1] - 1
    place = (last + 1) * share + share - 1.0
    below = int(min(max(place, 0.0), last))
    above, beyond = (below + 1, place - below) if 0.0 <= place < last else (below, 0.0)
    parted = np.partition(values, (below, above, -1), axis=-1)  # nan comes last
    low, high = parted[..., below], parted[..., above]
    with np.errstate(invalid="ignore"):
        between = high - low
        value = high - between * (1.0 - beyond) if beyond >= 0.5 else low + between * beyond
    return np.where(np.isnan(parted[..., -1]), np.nan, value)


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
