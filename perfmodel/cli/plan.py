"""`draftplan plan`: the recommendation for every batch size and context length."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from perfmodel.cli.ask.flag import command, takes
from perfmodel.cli.ask.flags import PlanFlags
from perfmodel.cli.ask.format import Format, read_format
from perfmodel.cli.export import write_for
from perfmodel.cli.tell.output import remark, tell, working

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.cli.ask.question import Question
    from perfmodel.errors import InfeasibleError
    from perfmodel.model import ModelSpec
    from perfmodel.planning.lossy import LossyAlternative
    from perfmodel.planning.plan import Plan

__all__ = ["plan"]


@command("plan", 1)
@takes(PlanFlags)
def plan(ctx: typer.Context, flags: PlanFlags) -> None:
    """Recommend a drafting strategy, draft KV budget and speculation length for every batch size and context.

    Every configuration is priced; the answer is the best of them, and says what it rests on. Plain decoding
    is always among the choices.

    Example: draftplan plan --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8 --context 32k -b 32,64,128
    """
    from perfmodel.cli.ask.question import read_objective, read_question, read_shares
    from perfmodel.errors import InfeasibleError
    from perfmodel.planning.lossy import lossy_alternatives

    question = read_question(ctx, flags)
    objective, risk = read_objective(ctx, flags.objective)
    wanted, engine = _format(flags)
    together = flags.one_deployment or engine is not None
    search = partial(_searched, question, objective=objective, risk=risk, one_deployment=together)
    shares = read_shares(ctx, flags.pruned) if flags.lossy else []
    answer: Plan | None = None
    refusal: InfeasibleError | None = None
    alternatives: tuple[LossyAlternative, ...] = ()
    with working(f"pricing {question.cells} cells"):
        try:
            answer = search(question.target)
        except InfeasibleError as failure:
            refusal = failure
        if flags.lossy:
            alternatives = lossy_alternatives(
                question.target,
                answer,
                search,
                shares=shares,
            )
    for line in question.remarks:
        remark(f"note: {line}")
    if answer is not None:
        if engine is None:
            _tell(answer, alternatives, wanted, flags)
        else:
            write_for(engine, answer, flags.output)
        _say_what_is_missing(question, answer)
    if refusal is not None:
        for one in alternatives:
            remark(
                f"note: {one.change} (lossy), batch {one.batch_size} at context {one.context_len} is feasible"
            )
        raise refusal


def _format(flags: PlanFlags) -> tuple[Format, str | None]:
    """How to write the plan, and for which engine."""
    from perfmodel.cli.ask.completion import plan_formats
    from perfmodel.errors import SpecError, nearest_name

    if flags.format is None:
        return read_format(None, flags.output), None
    name = flags.format.strip().lower()
    if name in [one.value for one in Format]:
        return Format(name), None
    engine, known = name.replace("-", "_"), plan_formats()
    if engine not in known:
        raise SpecError.single(
            "", "--format", f"found {flags.format!r}", f"Choose one of {', '.join(known)}",
            nearest_name(engine, known),
        )  # fmt: skip
    return Format.TABLE, engine


def _searched(
    question: Question, target: ModelSpec, *, objective: str, risk: float | None, one_deployment: bool
) -> Plan:
    from perfmodel.planning import planner

    return planner.plan(
        question.hardware,
        target,
        question.engine,
        question.workload,
        objective=objective,
        risk=risk,
        one_deployment=one_deployment,
        **question.planned,
    )


def _tell(
    answer: Plan, alternatives: tuple[LossyAlternative, ...], wanted: Format, flags: PlanFlags
) -> None:
    def body() -> dict[str, Any]:
        lossy = {"lossy_alternatives": [asdict(change) for change in alternatives]} if flags.lossy else {}
        return answer.to_dict() | lossy

    def table(console: Console) -> None:
        from perfmodel.cli.tell.tables import draw_plan

        draw_plan(console, answer, alternatives)

    def rows() -> list[dict[str, Any]]:
        unchanged = {"change": ""} if alternatives else {}
        return [*(unchanged | row for row in answer.rows), *(change.row for change in alternatives)]

    tell(wanted, body, table=table, rows=rows, output=flags.output, no_color=flags.no_color)


def _say_what_is_missing(question: Question, answer: Plan) -> None:
    """Name the cells without an answer, and why."""
    answered = {(cell.batch_size, cell.context_len) for cell in answer.cells}
    missing = [
        f"batch {batch} at context {context}"
        for batch in question.workload.batch_sizes
        for context in question.workload.context_lens
        if (batch, context) not in answered
    ]
    if missing:
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        reasons = ", ".join(
            f"{count} configurations: {reason}" for reason, count in answer.infeasible.items()
        )
        remark(f"note: nothing is feasible for {', '.join(missing[:8])}{more} ({reasons})")
