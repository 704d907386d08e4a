"""How far work is, shown on a terminal's stderr and nowhere else."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from perfmodel.cli.tell.output import is_terminal, note
from perfmodel.errors import printable

if TYPE_CHECKING:
    from rich.progress import TextColumn

    from perfmodel.files.checkpoint import Parts

__all__ = ["progress_bar", "reading", "resuming", "share_bar", "working"]

PATIENCE = 2.0
"""Seconds without an answer after which a person at a terminal is told that something is going on. [s]"""


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal, after a moment, that work is going on."""
    if not is_terminal(sys.stderr):
        yield
        return
    from rich.console import Console
    from rich.text import Text

    status = Console(stderr=True).status(Text(printable(what)))
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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (_words(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(printable(what), total=None)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)


@contextlib.contextmanager
def share_bar(what: str) -> Iterator[Callable[[float, str], None]]:
    """Yield a function of (share that is done, a few words), which draws a bar."""
    if not is_terminal(sys.stderr):
        yield lambda share, words: None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (_words(), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(what), total=1.0)
        yield lambda share, words: bar.update(task, completed=share, description=printable(words))


def _words() -> TextColumn:
    """The column of a bar that says what is going on, as it is written."""
    from rich.progress import TextColumn

    return TextColumn("{task.description}", markup=False)


@contextlib.contextmanager
def reading(file: str) -> Iterator[Callable[[int], None] | None]:
    """Yield what to call with how many characters of a file were read: after a moment it draws a bar."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    whole = None
    with contextlib.suppress(OSError, ValueError):
        whole = os.stat(file).st_size or None
    columns = (_words(), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task, begun = bar.add_task(printable(f"reading {file}"), total=whole), time.monotonic()

    def tell(characters: int) -> None:
        if time.monotonic() - begun > PATIENCE:
            bar.start()
            bar.update(task, completed=characters)

    try:
        yield tell
    finally:
        bar.stop()


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
