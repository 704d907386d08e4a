"""`draftplan plan`: the recommendation for every batch size and context length."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import typer

from perfmodel.cli.ask.completion import plan_formats
from perfmodel.cli.ask.config import read_config
from perfmodel.cli.ask.flag import ALLOW_CODE, command, flag, takes
from perfmodel.cli.ask.flags import JOBS, QuestionFlags
from perfmodel.cli.ask.format import Format, OutputFlags
from perfmodel.cli.tell.output import note, remark, tell, tell_exported
from perfmodel.cli.tell.progress import working
from perfmodel.planning.plan import OBJECTIVES

if TYPE_CHECKING:
    from perfmodel.cli.ask.question import Question
    from perfmodel.errors import InfeasibleError
    from perfmodel.export import Exported
    from perfmodel.model import ModelSpec
    from perfmodel.planning.executors import Mapper
    from perfmodel.planning.lossy import LossyAlternative
    from perfmodel.planning.plan import Plan

__all__ = ["plan"]

_ANSWER = "Answer"
_MOST_SAID = 3
"""Cells of which it is said why."""
_MOST_DOUBTS = 3
"""Figures that could change the decision that are told."""
_MOST_NAMED = 8
"""Cells without an answer that are named."""


@dataclass(frozen=True, kw_only=True)
class PlanFlags(OutputFlags, QuestionFlags):
    """What `plan` takes."""

    format: str | None = flag("--format", "table|json|yaml|csv|ENGINE", complete=plan_formats, panel=_ANSWER,
        help="How to write it; a table, or as -o ends. An engine (vllm, sglang, ...): one deployment, in "
        "that engine's own words.")  # type: ignore[assignment]  # fmt: skip
    objective: str | None = flag("--objective", "WHAT,RISK", panel=_ANSWER,
        help=f"What decides among GPUs and their number ({', '.join(sorted(OBJECTIVES, reverse=True))}): "
        "least cost where --tpot limits the time, else least tpot; speedup orders drafters on one machine "
        "only. And at which acceptance: expected, quantile:0.2, or worst (quantile:0.05).")
    one_deployment: bool = flag("--one-deployment", default=False, panel=_ANSWER,
        help="One drafter and draft KV budget for all cells, as a running engine has; gamma may vary.")
    lossy: bool = flag("--lossy", default=False, panel=_ANSWER,
        help="Price lossy alternatives beside it: quantised weights or KV, pruned weights. Never chosen.")
    pruned: str = flag("--pruned", "SHARE,...", default="50%", panel=_ANSWER,
        help="Shares of the weights that pruning takes away, for --lossy: 25%,50%.")
    explain: bool = flag("--explain", default=False, panel=_ANSWER,
        help="Say why of every row, and everything that is assumed.")
    quiet: bool = flag("--quiet", "-q", default=False, panel=_ANSWER,
        help="The decision and the table only, without remarks.")
    config: str | None = flag("--config", "FILE", is_eager=True, callback=read_config, panel=_ANSWER,
        help="YAML file of these flags, such as batch_size: [32, 64] or gamma: '1:8:1'. Flags given win.")
    jobs: int = JOBS
    executor: str | None = flag("--executor", "local:N|dask:ADDRESS|MODULE:NAME", panel=_ANSWER,
        help="Worker processes (local:4; local:0 is one a core), a Dask scheduler (dask:tcp://host:8786) or "
        "what makes an executor (package.module:name).")
    allow_code: bool = ALLOW_CODE


@command("plan", 1)
@takes(PlanFlags)
def plan(ctx: typer.Context, flags: PlanFlags) -> None:
    """Recommend a drafting strategy, draft KV budget and speculation length for every batch size and context.

    Every configuration is priced; the answer is the best of them, and says what it rests on. Plain decoding
    is always among the choices.

    Example: draftplan plan --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8 --context 32k -b 32,64,128
    """
    from perfmodel.planning.executors import begin_workers

    where = flags.executor or f"local:{flags.jobs}"
    begin_workers(where)
    from perfmodel.cli.ask.question import read_objective, read_question, read_shares
    from perfmodel.cli.tell.plan import draw_plan
    from perfmodel.errors import InfeasibleError
    from perfmodel.planning.planner import plan as plan_deployments

    flags, engine = _read_engine(flags)
    question = read_question(ctx, flags)
    objective, risk = read_objective(ctx, flags.objective)
    if objective == "speedup" and len(question.deployments) > 1:
        question.remarks.append(
            "speedup orders drafters on one machine; among several "
            + ("least time per token decides" if question.tpot is None else "least cost decides")
        )
    shares = read_shares(ctx, flags.pruned) if flags.lossy else []

    def search(target: ModelSpec, executor: Mapper | None) -> Plan:
        return plan_deployments(
            question.hardware, target, question.engine, question.workload, objective=objective, risk=risk,
            one_deployment=flags.one_deployment or engine is not None, executor=executor, **question.planned,
        )  # fmt: skip

    answer: Plan | None = None
    refusal: InfeasibleError | None = None
    alternatives: tuple[LossyAlternative, ...] = ()
    with _workers(where, allow_code=flags.allow_code) as executor, working(f"pricing {question.cells} cells"):
        try:
            answer = search(question.target, executor)
        except InfeasibleError as failure:
            refusal = failure
        if flags.lossy:
            from perfmodel.planning.lossy import lossy_alternatives

            alternatives = lossy_alternatives(
                question.target, answer, partial(search, executor=executor), shares=shares
            )
    if answer is not None:
        if engine is None:
            most = None if flags.explain else 0 if flags.quiet else _MOST_SAID
            changes = [asdict(change) for change in alternatives]
            lossy = {"lossy_alternatives": changes} if flags.lossy else {}
            unchanged = {"change": ""} if alternatives else {}
            tell(
                lambda: answer.to_dict() | lossy,
                flags,
                table=lambda console: draw_plan(
                    console, answer, alternatives, most=most, runs=_run_it(question, answer),
                    **_doubts(question, answer, most),
                ),
                rows=lambda: chain(
                    (unchanged | row for row in answer.each_row()), (change.row for change in alternatives)
                ),
                parts=lambda encode: answer.json_texts(encode, lossy),
                mappings=lambda: answer.mappings(lossy),
            )  # fmt: skip
        else:
            from perfmodel.export import export, load

            tell_exported(load(engine), export(answer, engine), flags.output)
    note(question.warnings if flags.quiet else question.remarks)
    if answer is not None:
        _say_what_is_missing(question, answer)
    if refusal is not None:
        note(
            f"{change.change} (lossy), batch {change.batch_size} at context {change.context_len} is feasible"
            for change in alternatives
        )
        raise refusal


def _doubts(question: Question, answer: Plan, most: int | None) -> dict[str, Any]:
    """Return what could change the decision in the cell that gains most, with that cell, for `draw_plan`."""
    import numpy as np

    from perfmodel.planning.sensitivity import influences, telling

    if most == 0:
        return {}
    cell = answer.columns[int(np.argmax(answer.columns.numbers("speedup")))]
    deployment = next(
        each for each in question.deployments
        if (each.hardware.name, each.tensor_parallel) == (cell.hardware, cell.tensor_parallel)
    )
    every = influences(deployment, question.workload, question.space, question.constraints, cell)
    return {"doubts": telling(every, _MOST_DOUBTS), "doubted": cell}


def _run_it(question: Question, answer: Plan) -> Exported | None:
    """Return the answer in the words of the software that serves; None where it has none for such a plan."""
    from perfmodel.errors import SpecError
    from perfmodel.export import export

    served_by = question.engine.served_by
    if served_by is None or not any(cell.speculates for cell in answer.cells):
        return None
    try:
        return export(answer, served_by.name)
    except SpecError:  # such as several drafters: --one-deployment plans for one
        return None


def _workers(where: str, *, allow_code: bool) -> contextlib.AbstractContextManager[Mapper | None]:
    """Open what --executor or --jobs names; one process is this one, and loads nothing for it."""
    if where == "local:1":
        return contextlib.nullcontext()
    from perfmodel.cli.ask.executor import opened_executor

    return opened_executor(where, remark, allow_code=allow_code)


def _read_engine(flags: PlanFlags) -> tuple[PlanFlags, str | None]:
    """Return the flags with a format that every answer has, and the engine to write for, if one was named."""
    from perfmodel.engine import EngineOverhead
    from perfmodel.errors import SpecError, nearest_name

    if flags.format is None:
        return flags, None
    name = flags.format.strip().lower()
    if name in [form.value for form in Format]:
        return replace(flags, format=Format(name)), None
    engine, known = name.replace("-", "_"), plan_formats()
    if engine not in known:
        raise SpecError.single(
            "", "--format", f"found {flags.format!r}", f"Choose one of {', '.join(known)}",
            nearest_name(engine, known),
        )  # fmt: skip
    if flags.engine is None:  # what is written for an engine is planned for it
        presets = {preset.replace("-", "_"): preset for preset in EngineOverhead.available()}
        flags = replace(flags, engine=presets.get(engine))
    return flags, engine


def _say_what_is_missing(question: Question, answer: Plan) -> None:
    """Name the cells without an answer, and why."""
    if len(answer.cells) == question.cells:
        return
    columns = answer.columns
    answered = set(zip(columns.listed("batch_size"), columns.listed("context_len"), strict=True))
    missing = [
        f"batch {batch} at context {context}"
        for batch in question.workload.batch_sizes
        for context in question.workload.context_lens
        if (batch, context) not in answered
    ]
    if missing:
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        reasons = ", ".join(
            f"{count} configurations: {reason}" for reason, count in answer.infeasible.items()
        )
        place = ", ".join(missing[:_MOST_NAMED]) + more
        drafter = next((cell.strategy for cell in answer.cells if cell.speculates), None)
        if answer.request.get("one_deployment") and drafter:
            place += f" while {drafter} is loaded; --gamma 0 says what plain decoding can do there"
        note([f"nothing is feasible for {place} ({reasons})"])
