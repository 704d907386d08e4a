"""How far work is, shown on a terminal's stderr and nowhere else."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from perfmodel.cli.tell.output import is_terminal, note

if TYPE_CHECKING:
    from perfmodel.files.checkpoint import Parts

__all__ = ["progress_bar", "resuming", "share_bar", "working"]

PATIENCE = 2.0
"""Seconds without an answer after which a person at a terminal is told that something is going on. [s]"""


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal, after a moment, that work is going on."""
    if not is_terminal(sys.stderr):
        yield
        return
    from rich.console import Console

    status = Console(stderr=True).status(what)
    timer = threading.Timer(PATIENCE, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield what to call with (done, all), which draws a bar on a terminal; None where there is none."""
    if not is_terminal(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)


@contextlib.contextmanager
def share_bar(what: str) -> Iterator[Callable[[float, str], None]]:
    """Yield a function of (share that is done, a few words), which draws a bar."""
    if not is_terminal(sys.stderr):
        yield lambda share, words: None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share, words: bar.update(task, completed=share, description=words)


@contextlib.contextmanager
def resuming(parts: Parts | None, pieces: str) -> Iterator[None]:
    """Say how many pieces were done before, and how many are kept when the work ends early.

    Other processes are kept from them meanwhile: SpecError where one is at them.
    """
    if parts is None:
        yield
        return
    with parts.held():
        note(parts.remarks())
        if done := len(parts.done()):
            note([f"goes on after {done} of {parts.count} {pieces} found in {parts.folder.name}"])
        try:
            yield
        except BaseException:
            if kept := len(parts.done()):
                note([f"{kept} of {parts.count} {pieces} are kept; the same command goes on from there"])
            raise
