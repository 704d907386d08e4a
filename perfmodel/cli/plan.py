"""`draftplan plan`: the recommendation for every batch size and context length."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import typer

from perfmodel.cli.ask.flags import PlanFlags, takes
from perfmodel.cli.export import write_for
from perfmodel.cli.tell.output import Format, dumped, emit, format_for, remark, rendered, working

if TYPE_CHECKING:
    from perfmodel.cli.ask.question import Question
    from perfmodel.errors import InfeasibleError
    from perfmodel.model import ModelSpec
    from perfmodel.planning.lossy import LossyAlternative
    from perfmodel.planning.plan import Plan

__all__ = ["plan"]


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
            emit(_written(answer, alternatives, wanted, flags), flags.output)
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
        return format_for(None, flags.output), None
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
        drafters=question.drafters,
        kv_budgets=question.kv_budgets,
        gammas=question.gammas,
        tensor_parallel=question.tensor_parallel,
        alpha=question.alpha,
        objective=objective,
        risk=risk,
        one_deployment=one_deployment,
        constraints=planner.Constraints(tpot=question.tpot),
    )


def _written(
    answer: Plan, alternatives: tuple[LossyAlternative, ...], wanted: Format, flags: PlanFlags
) -> str:
    if wanted is Format.TABLE:
        from perfmodel.cli.tell.tables import draw_plan

        return rendered(
            lambda console: draw_plan(console, answer, alternatives),
            no_color=flags.no_color,
            output=flags.output,
        )
    if wanted is Format.CSV:
        return _csv(answer, alternatives)
    body = answer.to_dict()
    if flags.lossy:
        body["lossy_alternatives"] = [asdict(one) for one in alternatives]
    return dumped(body, wanted)


def _csv(answer: Plan, alternatives: tuple[LossyAlternative, ...]) -> str:
    """One row per cell, seconds and tokens; lossy alternatives follow as rows with what they change."""
    one_number = {
        key for key, value in asdict(answer.cells[0]).items() if not isinstance(value, (list, tuple))
    }
    rows: list[dict[str, object]] = [
        {"change": "", **{key: value for key, value in asdict(cell).items() if key in one_number}}
        for cell in answer.cells
    ]
    columns = list(rows[0])
    for one in alternatives:
        baseline = None if one.speedup is None else one.speedup * one.plain_tpot_s
        rows.append(
            {
                "change": f"{one.change} (lossy)",
                "batch_size": one.batch_size,
                "context_len": one.context_len,
                "strategy": one.strategy,
                "kv_budget": one.kv_budget,
                "gamma": one.gamma,
                "tpot_s": one.speculating_tpot_s,
                "baseline_s": baseline,
                "speedup": one.speculating_speedup,
            }
        )
    if not alternatives:
        columns.remove("change")
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


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
