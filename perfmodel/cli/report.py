"""`draftplan report`: the recommendation as one page to read, try and copy from."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import typer

from perfmodel.cli.ask.flag import command, flag, takes
from perfmodel.cli.ask.flags import QuestionFlags
from perfmodel.cli.tell.output import note, remark
from perfmodel.cli.tell.progress import working

__all__ = ["report"]


@dataclass(frozen=True, kw_only=True)
class ReportFlags(QuestionFlags):
    """What `report` takes."""

    output: str = flag("--output", "-o", "FILE.html", required=True,
        help="The page: one file that fetches nothing.")


@command("report", 12)
@takes(ReportFlags)
def report(ctx: typer.Context, flags: ReportFlags) -> None:
    """Write the recommendation as one HTML file: a map to explore, time by cause, what was assumed.

    It opens from disk, needs no server and no network, prints, and holds the engines' configurations to copy.

    Example: draftplan report --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8 --engine vllm-h100
    --context 1k:128k:x2 -b 1:256:x2 -o report.html
    """
    from perfmodel.cli.ask.question import read_question
    from perfmodel.files.quoting import shell_line
    from perfmodel.planning.planner import Constraints
    from perfmodel.report import file_ending, report_content, write_report

    file_ending(flags.output)
    question = read_question(ctx, flags)
    question.only_deployment()
    note(question.remarks)
    with working(f"pricing {question.cells} cells"):
        content = report_content(
            question.hardware[0],
            question.target,
            question.engine,
            question.workload,
            drafters=question.drafters,
            kv_budgets=question.kv_budgets,
            gammas=question.gammas,
            tensor_parallel=question.tensor_parallel[0],
            **question.layout,
            alpha=question.alpha,
            constraints=Constraints(tpot=question.tpot),
            command=shell_line(["draftplan", *sys.argv[1:]]),
        )
        write_report(content, flags.output)
    remark(f"wrote {flags.output}")
