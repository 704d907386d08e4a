"""`draftplan sweep`: every configuration of any axes, one row each."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from perfmodel.cli.ask.flag import command, takes
from perfmodel.cli.ask.flags import SweepFlags
from perfmodel.cli.ask.work import ExecutorFlags, progress_bar
from perfmodel.cli.tell.output import broken_pipe, remark

if TYPE_CHECKING:
    from perfmodel.planning.executors import Mapper
    from perfmodel.planning.price import Priced
    from perfmodel.planning.sweep import Sweep

__all__ = ["sweep"]


@dataclass(frozen=True, kw_only=True)
class _Flags(ExecutorFlags, SweepFlags):
    """What `sweep` takes."""


@command("sweep", 5)
@takes(_Flags)
def sweep(ctx: typer.Context, flags: _Flags) -> None:
    """Price every configuration of all axes and write one row each: a tidy table for your own analysis.

    Nothing is dropped: a column says what fits. Memory stays bounded however large the sweep is. With -o,
    what is done lies beside the file until that is whole, and the same command goes on where it stopped.

    Example: draftplan sweep --model llama-3.1-8b --hardware a100 --context 1k:64k:x2 -b 1:64:x2 -o all.csv
    """
    from perfmodel.cli.ask.question import read_question
    from perfmodel.errors import SpecError
    from perfmodel.planning.executors import open_executor
    from perfmodel.planning.price import SearchSpace
    from perfmodel.planning.price import sweep as price_sweep
    from perfmodel.planning.sweep import Sweep, rows_of, write_csv

    question = read_question(ctx, flags, most_cells=None)
    if question.tpot is not None:
        raise SpecError.single(
            "", "--tpot", "has no meaning for a sweep, which drops nothing", "Filter its column tpot_s"
        )
    space = SearchSpace(
        [None, *question.drafters], question.speculative_gammas or [1], question.kv_budgets, question.alpha
    )
    asked = Sweep(question.deployments, question.workload, space)
    for line in question.remarks:
        remark(f"note: {line}")
    with (
        open_executor(flags.executor or f"local:{flags.jobs}") as executor,
        progress_bar("configurations") as tell,
    ):
        if flags.output is not None and flags.output != "-":
            _to_file(asked, flags.output, executor, tell)
            return
        with broken_pipe():
            priced = price_sweep(asked.deployments, asked.workload, space, executor=executor)
            write_csv(map(rows_of, _count(priced, asked.size, tell)), sys.stdout)
            sys.stdout.flush()


def _to_file(
    sweep: Sweep, output: str, executor: Mapper | None, tell: Callable[[int, int], None] | None
) -> None:
    """Write a sweep, and say what was found done and what is kept when it ends early."""
    from perfmodel.planning.sweep import sweep_parts, sweep_to_file

    parts = sweep_parts(sweep, output)
    found = len(parts.done())
    if found:
        remark(f"note: goes on after {found} of {parts.count} pieces found in {parts.folder.name}")
    for other in parts.others():
        remark(f"note: {other} holds pieces of another sweep to {output}; delete it if that is not wanted")
    try:
        sweep_to_file(sweep, output, executor=executor, progress=tell)
    except BaseException:
        kept = len(parts.done())
        if kept:
            remark(f"note: {kept} of {parts.count} pieces are kept; the same command goes on from there")
        raise
    remark(f"wrote {output}: {sweep.size} configurations")


def _count(
    every: Iterable[Priced], size: int, tell: Callable[[int, int], None] | None
) -> Iterator[Priced]:
    """Pass on what is priced, and tell how many configurations have passed."""
    done = 0
    for priced in every:
        yield priced
        done += math.prod(priced.shape)
        if tell is not None:
            tell(done, size)
