"""Where work runs: in this process, in processes beside it, or on a Dask cluster."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from perfmodel.errors import SpecError, nearest_name

__all__ = ["Mapper", "begin_workers", "in_order", "open_executor"]

WorkT = TypeVar("WorkT")
DoneT = TypeVar("DoneT")

IN_FLIGHT = 32
"""Pieces of work that an executor is given ahead of what is consumed, at least. [1]"""
MOST_WORKERS = 1024
_KINDS = ("local", "dask")


class Mapper(Protocol):
    """Anything with ``Executor.map``: a process pool, a Dask client's executor."""

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]: ...


def begin_workers(text: str | None) -> None:
    """Let the processes of ``local:N`` begin to import, while this one reads what is asked of them."""
    kind, _, place = (text or "").partition(":")
    if kind == "local" and place.isdecimal() and int(place) != 1:
        from perfmodel.planning.local_pool import start_importing

        start_importing()


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
        from perfmodel.planning.local_pool import LocalPool

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
            "Write local:4 (processes), local:0 (one a core), dask:tcp://host:8786 or package.module:name",
            nearest_name(kind, _KINDS),
        )  # fmt: skip


def in_order(
    executor: Mapper | None,
    fn: Callable[..., DoneT],
    work: Sequence[WorkT],
    *,
    common: Any = None,
    in_flight: int | None = None,
) -> Iterator[DoneT]:
    """Do the work and yield its results in order.

    Parameters
    ----------
    executor : anything with a ``map``; None works here.
    fn : what is done to each piece; it must be importable where the executor works.
    work : the pieces.
    common : what all pieces need: `fn` takes it before the piece. It travels once to each worker of a
        `LocalPool` or a Dask cluster and with every piece to other executors; a process unpickles it once.
    in_flight : how many pieces are asked for ahead; what the executor says where absent, `IN_FLIGHT` where
        it says nothing. [1]
    """
    if executor is None:
        yield from map(fn if common is None else partial(fn, common), work)
        return
    begin = _beginning(executor, fn, common)
    most: int = in_flight if in_flight is not None else getattr(executor, "in_flight", IN_FLIGHT)
    size = max(1, most // 2)
    ahead: Iterator[DoneT] = iter(())
    for start in range(0, len(work), size):
        coming = begin(work[start : start + size])
        yield from ahead
        ahead = coming
    yield from ahead


def _beginning(
    executor: Mapper, fn: Callable[..., DoneT], value: Any
) -> Callable[[Sequence[Any]], Iterator[DoneT]]:
    """How an executor is given some pieces."""
    if value is None:
        return partial(executor.map, fn)
    from perfmodel.planning.common import Common, given

    common = Common(value)
    if (map_common := getattr(executor, "map_common", None)) is not None:
        return partial(map_common, common, fn)
    return partial(executor.map, partial(given, fn, common))


def _workers(text: str, place: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", place) or int(place) > MOST_WORKERS:
        raise SpecError.single(
            "", "--executor", f"found {text!r}", f"Write local:N with N from 0 (one a core) to {MOST_WORKERS}"
        )
    return int(place) or os.cpu_count() or 1
