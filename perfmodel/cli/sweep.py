"""`draftplan sweep`: every configuration of any axes, one row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from perfmodel.cli.ask.flag import ALLOW_CODE, command, flag, takes
from perfmodel.cli.ask.flags import EXECUTOR, JOBS, QuestionFlags
from perfmodel.cli.tell.output import broken_pipe, note, remark
from perfmodel.cli.tell.progress import progress_bar, resuming

if TYPE_CHECKING:
    from perfmodel.planning.sweep import Sweep

__all__ = ["sweep"]


@dataclass(frozen=True, kw_only=True)
class SweepFlags(QuestionFlags):
    """What `sweep` takes."""

    output: str | None = flag("--output", "-o", "FILE", panel="Answer",
        help="Write to a file that ends on .csv, .csv.gz, .npz or .parquet; CSV to stdout where absent.")
    jobs: int = JOBS
    executor: str | None = EXECUTOR
    allow_code: bool = ALLOW_CODE


@command("sweep", 5)
@takes(SweepFlags)
def sweep(ctx: typer.Context, flags: SweepFlags) -> None:
    """Price every configuration of all axes and write one row each: a tidy table for your own analysis.

    Nothing is dropped: a column says what fits. Memory stays bounded however large the sweep is. With -o,
    what is done lies beside the file until that is whole, and the same command goes on where it stopped;
    `draftplan parts` lists and removes what other commands left.

    Example: draftplan sweep --model llama-3.1-8b --hardware a100 --context 1k:64k:x2 -b 1:64:x2 -o all.csv
    """
    from perfmodel.planning.executors import begin_workers

    where = flags.executor or f"local:{flags.jobs}"
    begin_workers(where)
    from perfmodel.cli.ask.executor import opened_executor
    from perfmodel.cli.ask.question import read_question
    from perfmodel.errors import SpecError
    from perfmodel.planning.price import SearchSpace
    from perfmodel.planning.sweep import Sweep, sweep_text

    question = read_question(ctx, flags, most_cells=None)
    if question.tpot is not None:
        raise SpecError.single(
            "", "--tpot", "has no meaning for a sweep, which drops nothing", "Filter its column tpot_s"
        )
    gammas = question.speculative_gammas
    drafters = [None, *question.drafters] if gammas else [None]
    space = SearchSpace(drafters, gammas or [1], question.kv_budgets, question.alpha)
    asked = Sweep(question.deployments, question.workload, space)
    note(question.remarks)
    if flags.output is not None and flags.output != "-":
        _to_file(asked, flags.output, where, allow_code=flags.allow_code)
        return
    with (
        opened_executor(where, remark, allow_code=flags.allow_code) as executor,
        progress_bar("configurations") as progress,
        broken_pipe() as stdout,
    ):
        for text in sweep_text(asked, executor=executor, progress=progress):
            stdout.write(text)
        stdout.flush()


def _to_file(sweep: Sweep, output: str, executor: str, *, allow_code: bool) -> None:
    """Write a sweep, and say what was found done and what is kept when it ends early.

    Workers end before that is said, so that nothing comes to it later.
    """
    from perfmodel.cli.ask.executor import opened_executor
    from perfmodel.planning.sweep import sweep_parts, sweep_to_file

    parts = sweep_parts(sweep, output)
    with (
        resuming(parts, "pieces"),
        opened_executor(executor, remark, allow_code=allow_code) as workers,
        progress_bar("configurations") as progress,
    ):
        sweep_to_file(sweep, output, executor=workers, progress=progress)
    remark(f"wrote {output}: {sweep.size} configurations")
