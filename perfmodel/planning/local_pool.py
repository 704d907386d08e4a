"""Worker processes on this machine, which end with this one and whose work is done again when one is lost."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any

from perfmodel.errors import SpecError
from perfmodel.planning.common import Arrived, Common, Counter, at_counter, given, shelf

__all__ = ["LocalPool", "start_importing"]

_Begun = tuple["Future[Any]", ProcessPoolExecutor]

_ATTEMPTS = 4
_IMPORTED = ("perfmodel.planning.answers", "perfmodel.planning.sweep", "perfmodel.traffic.runs")
"""What is imported once for all workers, where a system lets processes be copied."""


class LocalPool:
    """Worker processes on this machine; work that a lost worker had is done again, up to three times.

    Parameters
    ----------
    workers : how many processes there are at most.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._counter: Counter | None = None
        self._shelf = shelf()

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        """Start on all of it, and yield the results in order as they come."""
        work = list(zip(*iterables, strict=True))
        return self._results(fn, work, [self._submit(fn, arguments) for arguments in work])

    def map_common(self, common: Common, fn: Callable[..., Any], pieces: Iterable[Any]) -> Iterator[Any]:
        """As `map`, where `fn` takes what all pieces have in common before the piece."""
        self._shelf[common.key] = common
        return self.map(partial(given, fn, Arrived(common.key)), pieces)

    def _results(
        self, fn: Callable[..., Any], work: list[tuple[Any, ...]], begun: list[_Begun]
    ) -> Iterator[Any]:
        from perfmodel.files.build import build_here
        from perfmodel.planning.replies import believed

        for index in range(len(work)):
            for attempt in range(1, _ATTEMPTS + 1):
                future, pool = begun[index]
                try:
                    reply = future.result()
                    break
                except (BrokenProcessPool, CancelledError):
                    if attempt == _ATTEMPTS:
                        raise SpecError.single(
                            "", "--executor", f"worker processes were killed {_ATTEMPTS} times in a row",
                            "Use fewer workers if memory is short; with -o, what is done is kept",
                        ) from None  # fmt: skip
                    self._give_up(pool)
                    begun[index:] = [
                        started if _answered(started[0]) else self._submit(fn, work[later])
                        for later, started in enumerate(begun[index:], start=index)
                    ]
            yield believed(reply, build_here())

    def _submit(self, fn: Callable[..., Any], arguments: tuple[Any, ...]) -> _Begun:
        from perfmodel.files.build import build_here
        from perfmodel.planning.replies import answer

        if self._pool is None:
            context = start_importing()
            self._counter = Counter(context, self._shelf)
            self._pool = ProcessPoolExecutor(
                self.workers, mp_context=context, initializer=_attend, initargs=self._counter.place
            )
        try:
            with _interrupts_held():
                return self._pool.submit(answer, build_here(), fn, *arguments), self._pool
        except BrokenProcessPool:
            self._give_up(self._pool)
            return self._submit(fn, arguments)

    def _give_up(self, pool: ProcessPoolExecutor) -> None:
        """Leave a pool that lost a worker, if an earlier piece of work has not already done so."""
        if self._pool is pool:
            self._leave()
        pool.shutdown(wait=False, cancel_futures=True)

    def _leave(self) -> None:
        self._pool = None
        if self._counter is not None:
            self._counter.close()

    def close(self) -> None:
        """End the processes; what they have not begun is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._leave()


def start_importing() -> BaseContext:
    """Return how workers are started, and begin what they import, beside what this process does meanwhile.

    On Linux one process imports and is copied for every worker (``forkserver``); elsewhere each imports for
    itself (``spawn``).
    """
    _track_quietly()
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    with _interrupts_held():
        forkserver.ensure_running()
    return context


def _track_quietly() -> None:
    """Start what removes the semaphores of a killed command, such that it does so without a word."""
    if os.name != "posix":
        return
    quiet = f"ignore::UserWarning:{resource_tracker.__name__}"
    sys.warnoptions.append(quiet)
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(quiet)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep an interrupt from processes that are started inside, until they `_attend`, and for later here."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _attend(theirs: Connection, turn: Any) -> None:
    """Leave an interrupt to the process that started this one, and end with it however it ends.

    Parameters
    ----------
    theirs, turn : of the counter of its pool.
    """
    at_counter(theirs, turn)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def follow() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _answered(future: Future[Any]) -> bool:
    """Whether it has a result, or a failure of its own."""
    return future.done() and not future.cancelled() and not isinstance(future.exception(), BrokenProcessPool)
