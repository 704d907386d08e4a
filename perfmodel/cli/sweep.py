"""`draftplan sweep`: every configuration of any axes, one row each."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import typer

from perfmodel.cli.flags import SweepFlags, takes
from perfmodel.cli.output import broken_pipe, remark

if TYPE_CHECKING:
    from perfmodel.sweep import Block

__all__ = ["sweep"]


@takes(SweepFlags)
def sweep(ctx: typer.Context, flags: SweepFlags) -> None:
    """Price every configuration of all axes and write one row each: a tidy table for your own analysis.

    Nothing is dropped: a column says what fits. Memory stays bounded however large the sweep is.

    Example: draftplan sweep --model llama-3.1-8b --hardware a100 --context 1k:64k:x2 -b 1:64:x2 -o all.csv
    """
    from perfmodel.cli.question import read_question
    from perfmodel.errors import SpecError
    from perfmodel.sweep import Grid, sweep
    from perfmodel.sweep_files import write_csv, write_sweep

    question = read_question(ctx, flags, most_cells=None)
    jobs = os.cpu_count() or 1 if flags.jobs == 0 else flags.jobs
    if question.tpot is not None:
        raise SpecError.single(
            "", "--tpot", "has no meaning for a sweep, which drops nothing", "Filter its column tpot_s"
        )
    grid = Grid(
        hardware=question.hardware,
        target=question.target,
        engine=question.engine,
        workload=question.workload,
        drafters=[None, *question.drafters],
        gammas=[gamma for gamma in question.gammas if gamma > 0] or [1],
        kv_budgets=question.kv_budgets,
        tensor_parallel=question.tensor_parallel,
        alpha=question.alpha,
    )
    for line in question.remarks:
        remark(f"note: {line}")
    with _workers(jobs) as workers:
        blocks = _shown(sweep(grid, executor=workers), grid.size)
        if flags.output is not None and flags.output != "-":
            write_sweep(blocks, flags.output, grid.size)
            remark(f"wrote {flags.output}: {grid.size} configurations")
            return
        with broken_pipe():
            write_csv(blocks, sys.stdout)
            sys.stdout.flush()


class _Bounded:
    """`map` on worker processes that never runs far ahead of whoever takes the results."""

    def __init__(self, pool: ProcessPoolExecutor, jobs: int) -> None:
        self._pool, self._ahead = pool, 2 * jobs

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        """Yield results in order."""
        waiting: deque[Future[Any]] = deque()
        for arguments in zip(*iterables, strict=True):
            waiting.append(self._pool.submit(fn, *arguments))
            if len(waiting) > self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextlib.contextmanager
def _workers(jobs: int) -> Iterator[_Bounded | None]:
    if jobs == 1:
        yield None
        return
    pool = ProcessPoolExecutor(jobs)
    try:
        yield _Bounded(pool, jobs)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _shown(blocks: Iterable[Block], size: int) -> Iterator[Block]:
    """Pass blocks on, with a progress bar on a terminal."""
    if not sys.stderr.isatty():
        yield from blocks
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("configurations"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("sweep", total=size)
        for block in blocks:
            yield block
            progress.advance(task, block.column("fits").size)
