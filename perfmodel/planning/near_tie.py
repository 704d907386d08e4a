"""What costs nearly the least counts as equal, and the shortest of it is taken."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.files.numbers import FloatArray

__all__ = ["NEAR_TIE", "shortest_near_best"]

NEAR_TIE = 0.008
"""Lengths whose cost is this close to the best count as equal; the shortest is taken, 0 among them. [1]"""


def shortest_near_best(seconds: FloatArray, near_tie: float = NEAR_TIE) -> NDArray[np.intp]:
    """Return the first place on the last axis, lengths rising, that costs nearly what the best one does.

    Parameters
    ----------
    seconds : what each length costs; infinite where it is not allowed. [s]
    near_tie : by how much dearer than the best a length may be. [1]
    """
    nearly = seconds.min(axis=-1, keepdims=True) * (1.0 + near_tie)
    shortest: NDArray[np.intp] = np.argmax(seconds <= nearly, axis=-1)
    return shortest
