"""An executor of somebody else: only what the same draftplan computed is believed, its end is reported."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Any

from perfmodel.errors import SpecError
from perfmodel.files.build import build_here
from perfmodel.planning.replies import answer, believed, shown_failure

__all__ = ["AnyExecutor"]


class AnyExecutor:
    """An executor of somebody else, of which only what the same build computed is believed.

    Parameters
    ----------
    executor : any one; it is shut down by whoever made it.
    name : what to call it in a refusal.
    """

    def __init__(self, executor: Executor, name: str) -> None:
        self._executor, self._name = executor, name

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        """Start on all of it, and yield the results in order as they come."""
        here = build_here()
        with self._losses():
            replies = iter(self._executor.map(partial(answer, here, fn), *iterables))
        return (believed(reply, here) for reply in self._replies(replies))

    def _replies(self, replies: Iterator[Any]) -> Iterator[Any]:
        with self._losses():
            yield from replies

    @contextlib.contextmanager
    def _losses(self) -> Iterator[None]:
        try:
            yield
        except (Exception, asyncio.CancelledError) as failure:
            raise SpecError.single(
                "", "--executor", f"{self._name} lost a piece of work: {shown_failure(failure)}",
                "See that its workers live and have draftplan; with -o, what is done is kept",
            ) from None  # fmt: skip
