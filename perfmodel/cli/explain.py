"""`draftplan explain`: one cell in depth."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from perfmodel.cli.ask.flag import command, takes
from perfmodel.cli.ask.flags import QuestionFlags
from perfmodel.cli.ask.format import OutputFlags, refuse_csv
from perfmodel.cli.tell.output import note, tell

__all__ = ["explain"]


@dataclass(frozen=True, kw_only=True)
class ExplainFlags(OutputFlags, QuestionFlags):
    """What `explain` takes."""


@command("explain", 2)
@takes(ExplainFlags)
def explain(ctx: typer.Context, flags: ExplainFlags) -> None:
    """Explain one cell: time by cause, memory, every speculation length, every other strategy.

    Name --strategy, --draft-budget or --gamma to look at a configuration of your own.

    Example: draftplan explain --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8 --context 32k -b 64
    """
    from perfmodel.cli.ask.question import read_question
    from perfmodel.cli.tell.explain import draw_breakdown
    from perfmodel.errors import SpecError
    from perfmodel.planning.breakdown import break_down

    question = read_question(ctx, flags)
    if question.cells > 1:
        raise SpecError.single(
            "", "--batch-size, --context", f"ask for {question.cells} cells",
            "Name one of each, or use `draftplan plan`",
        )  # fmt: skip
    refuse_csv(flags)
    breakdown = break_down(
        *question.deployed,
        batch_size=question.workload.batch_sizes[0],
        context_len=question.workload.context_lens[0],
        output_tokens=question.workload.output_tokens,
        **question.planned,
    )
    note(question.remarks)

    tell(breakdown.to_dict, flags, table=lambda console: draw_breakdown(console, breakdown))
