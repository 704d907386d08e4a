"""Long work on the command line: where it runs, and how far it is."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from perfmodel.cli.ask.flag import flag

__all__ = ["ExecutorFlags", "progress_bar"]


@dataclass(frozen=True, kw_only=True)
class ExecutorFlags:
    """Where the work runs."""

    executor: str | None = flag("--executor", "local:N|dask:ADDRESS", panel="Answer",
        help="Worker processes (local:4; local:0 is one a core) or a Dask scheduler "
        "(dask:tcp://host:8786). With -o, what is done survives any end, and the same command goes "
        "on.")


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield what to call with (done, all), which draws a bar on a terminal; None where there is none."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)
