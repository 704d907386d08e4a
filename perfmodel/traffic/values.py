"""A long column of numbers that grows by a few at a time."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from perfmodel.files.numbers import FloatArray

__all__ = ["Values"]


class Values:
    """Numbers one after the other, eight bytes each.

    Parameters
    ----------
    first : those that it begins with.
    """

    def __init__(self, first: FloatArray | None = None) -> None:
        self._values = array("d")
        if first is not None:
            self.extend(first)

    def extend(self, more: Sequence[float] | FloatArray) -> None:
        """Append some."""
        if isinstance(more, np.ndarray):
            self._values.frombytes(np.ascontiguousarray(more, dtype=float).tobytes())
        else:
            self._values.extend(more)

    def array(self) -> FloatArray:
        """All of them; shape (values,)."""
        return np.array(self._values, dtype=float)
