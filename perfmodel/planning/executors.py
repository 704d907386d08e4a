"""Where work runs: in this process, in processes beside it, or on a Dask cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import resource_tracker
from typing import Any, Protocol, TypeVar

from perfmodel.errors import SpecError, nearest_name

__all__ = ["LocalPool", "Mapper", "in_order", "open_executor"]

_Begun = tuple["Future[Any]", ProcessPoolExecutor]
WorkT = TypeVar("WorkT")
DoneT = TypeVar("DoneT")

IN_FLIGHT = 32
"""Pieces of work that an executor is given ahead of what is consumed. [1]"""
MOST_WORKERS = 1024
_ATTEMPTS = 4
_KINDS = ("local", "dask")


class Mapper(Protocol):
    """Anything with ``Executor.map``: a process pool, a Dask client's executor."""

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]: ...


class LocalPool:
    """Worker processes on this machine; work that a lost worker had is done again, up to three times."""

    same_disk = True
    """Whether workers can write where this process can."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        """Start on all of it, and yield the results in order as they come."""
        work = list(zip(*iterables, strict=True))
        return self._results(fn, work, [self._submit(fn, arguments) for arguments in work])

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
            _track_quietly()
            self._pool = ProcessPoolExecutor(
                self.workers, mp_context=multiprocessing.get_context("spawn"), initializer=_attend
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
            self._pool = None
        pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """End the processes; what they have not begun is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


@contextlib.contextmanager
def open_executor(text: str | None) -> Iterator[Mapper | None]:
    """Open what ``local:N`` or ``dask:ADDRESS`` names, and close it again; None is this process.

    ``local:0`` is one process a core. A Dask scheduler gives the work of lost workers to others; when it is
    lost itself, what it had not answered is lost with it.

    Raises
    ------
    SpecError
        When the text names no executor, dask is not installed, the scheduler does not answer or is lost, or
        a worker has another version.
    """
    kind, _, place = (text or "local:1").partition(":")
    if kind == "local":
        workers = _workers(text or "local:1", place)
        if workers == 1:
            yield None
            return
        pool = LocalPool(workers)
        try:
            yield pool
        finally:
            pool.close()
    elif kind == "dask" and place:
        from perfmodel.planning.cluster import open_cluster

        with open_cluster(place) as cluster:
            yield cluster
    else:
        raise SpecError.single(
            "", "--executor", f"found {text!r}",
            "Write local:4 (processes), local:0 (one a core) or dask:tcp://host:8786",
            nearest_name(kind, _KINDS),
        )  # fmt: skip


def in_order(
    executor: Mapper | None,
    fn: Callable[..., DoneT],
    work: Sequence[WorkT],
    *,
    common: Any = None,
    in_flight: int = IN_FLIGHT,
) -> Iterator[DoneT]:
    """Do the work and yield its results in order.

    Parameters
    ----------
    executor : anything with a ``map``; None works here.
    fn : what is done to each piece; it must be importable where the executor works.
    work : the pieces.
    common : what all pieces need, sent once to where they are done: `fn` takes it before the piece.
    in_flight : how many pieces are asked for ahead. [1]
    """
    if common is not None:
        fn = partial(fn, common)
    if executor is None:
        yield from map(fn, work)
        return
    size = max(1, in_flight // 2)
    ahead: Iterator[DoneT] = iter(())
    for start in range(0, len(work), size):
        coming = executor.map(fn, work[start : start + size])
        yield from ahead
        ahead = coming
    yield from ahead


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


def _attend() -> None:
    """Leave an interrupt to the process that started this one, and end with it however it ends."""
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


def _workers(text: str, place: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", place) or int(place) > MOST_WORKERS:
        raise SpecError.single(
            "", "--executor", f"found {text!r}", f"Write local:N with N from 0 (one a core) to {MOST_WORKERS}"
        )
    return int(place) or os.cpu_count() or 1
