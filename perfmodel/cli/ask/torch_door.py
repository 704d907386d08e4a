"""Commands that run the reference decoder: what they need, and how they show that time passes."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["device_asked", "need_torch", "progress"]


def need_torch(command: str) -> None:
    """Raise SpecError, saying what to install, where PyTorch is missing."""
    from perfmodel.errors import SpecError

    try:
        found = importlib.util.find_spec("torch") is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        remedy = (
            "pip install 'draftplan[reference]'; a CPU build alone is at https://download.pytorch.org/whl/cpu"
        )
        raise SpecError.single("", command, "needs PyTorch, which is not installed", remedy)


def device_asked(name: str) -> Any:
    """Return torch's device of that name. Raises SpecError where there is none."""
    from perfmodel.reference.timing.stopwatch import device_named

    return device_named(name)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[float, str], None]]:
    """Yield a function of (share that is done, a few words) that draws a bar on a terminal's stderr."""
    if not sys.stderr.isatty():
        yield lambda share, words: None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share, words: bar.update(task, completed=share, description=words)
