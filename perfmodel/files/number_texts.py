"""Numbers as text, many at once: what ``f"{value:.10g}"`` writes, as columns of bytes."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.files.numbers import FloatArray

__all__ = ["DIGITS", "WIDTH", "number_signs"]

DIGITS = 10
"""Significant digits."""
WIDTH = 17
"""Bytes of the longest text: ``-1.234567891e-100``."""
_LEAST, _MOST = -4, DIGITS - 1
"""Powers of ten between which numbers are written at once, without an exponent."""
_NEAR = 1e-4
"""How near a half what is behind the last digit is left to Python to round: products err by 1e-6."""
_HALF, _PER_HALF = DIGITS // 2, 10 ** (DIGITS // 2)
_AHEAD = 1 - _LEAST
"""Bytes of ``0.000``, which stand before the digits of the least number."""


def number_signs(values: FloatArray) -> NDArray[np.uint8]:
    """Return the texts of numbers as ASCII, one a row of `WIDTH` bytes among which zeros stand for nothing.

    The digits of a number between 1e-4 and 1e9 are those of one whole number, as long as a power of ten times
    the value rounds to it whichever way the product erred. All others are written one by one.

    Parameters
    ----------
    values : shape (n,).
    """
    usual = (values >= 10.0**_LEAST) & (values < 10.0**_MOST)
    safe = np.where(usual, values, 1.0)
    power = np.floor(np.log10(safe)).astype(np.int8)
    scaled = safe * _powers()[_MOST - power]
    whole = np.rint(scaled)
    usual &= (np.abs(np.abs(scaled - whole) - 0.5) > _NEAR) & (whole >= 10.0**_MOST) & (whole < 10.0**DIGITS)
    signs = _written(np.where(usual, whole, 10.0**_MOST).astype(np.int64), power)
    for place in np.flatnonzero(~usual):
        text = f"{values[place]:.{DIGITS}g}".encode()
        signs[place] = 0
        signs[place, : len(text)] = np.frombuffer(text, dtype=np.uint8)
    return signs


def _written(whole: NDArray[np.int64], power: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return whole numbers of `DIGITS` digits with the point behind that of the power 0, as `number_signs`.

    Zeros that end what is behind the point are left out, and the point where nothing is left behind it.
    """
    tables = _tables()
    high, low = np.divmod(whole, _PER_HALF)
    digits = np.zeros((whole.size, DIGITS + 1), dtype=np.uint8)
    digits[:, :_HALF] = np.take(tables.halves, high + (low == 0) * _PER_HALF, axis=0)
    digits[:, _HALF:DIGITS] = np.take(tables.halves, low + _PER_HALF, axis=0)
    behind = np.zeros_like(digits)  # a place further on where the point stands before them
    behind[:, 1:] = digits[:, :-1]
    small = np.flatnonzero(power < 0)
    behind[small] = digits[small]
    rows, point = np.arange(whole.size), np.maximum(power + 1, 0)
    behind[rows, point] = np.where(power < 0, behind[:, 0], ord(".") * (digits[rows, point] > 0))
    ahead = np.maximum(digits, ord("0"))
    signs = np.zeros((whole.size, WIDTH), dtype=np.uint8)
    signs[:, :_AHEAD] = np.take(tables.before, power - _LEAST, axis=0)
    is_ahead = np.take(tables.ahead, power - _LEAST, axis=0)
    signs[:, _AHEAD : _AHEAD + DIGITS + 1] = behind ^ ((behind ^ ahead) & is_ahead)
    return signs


@cache
def _powers() -> FloatArray:
    """Return the powers of ten from 0 on that are exact."""
    return np.array([float(10**power) for power in range(_MOST - _LEAST + 1)])


class _Tables(NamedTuple):
    """Bytes that are looked up.

    halves : the digits of every half of a number, and from `_PER_HALF` on less the zeros that end it.
    before, ahead : by power, what stands before the first digit, and all bits for digits up to the power 0.
    """

    halves: NDArray[np.uint8]
    before: NDArray[np.uint8]
    ahead: NDArray[np.uint8]


@cache
def _tables() -> _Tables:
    halves = [f"{half:0{_HALF}d}" for half in range(_PER_HALF)]
    halves += [half.rstrip("0") for half in halves]
    powers = np.arange(_LEAST, _MOST + 1)
    before = ["0." + "0" * (-power - 1) if power < 0 else "" for power in powers]
    ahead = np.where(np.arange(DIGITS + 1) <= powers[:, None], 0xFF, 0).astype(np.uint8)
    return _Tables(_bytes(halves, _HALF), _bytes(before, _AHEAD), ahead)


def _bytes(texts: list[str], width: int) -> NDArray[np.uint8]:
    return np.array(texts, dtype=f"S{width}").view(np.uint8).reshape(len(texts), width)
