"""What was computed lately, by the text of its question."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Remembered"]

T = TypeVar("T")


class Remembered(Generic[T]):
    """The answers that were asked for last; any thread may ask, and two that ask at once may both compute.

    most : answers that are kept. hits, misses : how often one was there, and was not. [1]
    """

    def __init__(self, most: int) -> None:
        self.most, self.hits, self.misses = most, 0, 0
        self._kept: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, compute: Callable[[], T]) -> T:
        """Return the answer of that key; what `compute` raises is not remembered."""
        with self._lock:
            if key in self._kept:
                self.hits += 1
                self._kept.move_to_end(key)
                return self._kept[key]
            self.misses += 1
        answer = compute()
        with self._lock:
            self._kept[key] = answer
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        return answer
