"""Who computes when: so many at once, so many waiting, nobody longer than agreed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["BusyError", "TooLongError", "Turns"]

T = TypeVar("T")


class BusyError(Exception):
    """Every worker works and every place to wait is taken."""


class TooLongError(Exception):
    """A computation was not done in time."""


class Turns:
    """Runs functions in a few threads.

    A computation that takes too long is answered for, and keeps its thread until it ends: nothing that was
    given up piles up, because it still counts among those at work.

    workers : how many compute at once. waiting : how many wait beyond them. [1]
    seconds : until a computation, waiting included, is given up. [s]
    """

    def __init__(self, workers: int, waiting: int, seconds: float) -> None:
        self.workers, self.waiting, self.seconds = workers, waiting, seconds
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="draftplan")
        self._lock = threading.Lock()
        self.taken = 0

    async def run(self, compute: Callable[[], T]) -> T:
        """Return what `compute` returns, computed in its turn.

        Raises
        ------
        BusyError
            Where there is no place to wait.
        TooLongError
            Where it is not done in time; one that had not begun never begins.
        """
        with self._lock:
            if self.taken >= self.workers + self.waiting:
                raise BusyError
            self.taken += 1
        future = self._pool.submit(compute)
        future.add_done_callback(self._leave)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.seconds)
        except asyncio.TimeoutError:
            future.cancel()
            raise TooLongError from None

    def _leave(self, _: object) -> None:
        with self._lock:
            self.taken -= 1

    def close(self) -> None:
        """Begin nothing more; what has begun goes on to its end."""
        with contextlib.suppress(RuntimeError):
            self._pool.shutdown(wait=False, cancel_futures=True)
