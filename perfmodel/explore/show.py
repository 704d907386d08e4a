"""What the page shows of an answer: words, tables and drawings, with every number made here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perfmodel.errors import InfeasibleError, SpecError, printable
from perfmodel.explore.desk import Desk, Values
from perfmodel.explore.drawings import (
    draw_causes,
    draw_lengths,
    draw_map,
    table_causes,
    table_lengths,
)
from perfmodel.export import ExportOptions, load
from perfmodel.files.units import parse_list
from perfmodel.planning.decision import headline
from perfmodel.planning.plan import Cell, Plan
from perfmodel.report import report_content, report_html
from perfmodel.report.words import TIMES, TO, configuration, percent

__all__ = ["explored", "exported", "planned", "reported"]


def planned(desk: Desk, values: Values) -> dict[str, Any]:
    """Return the plan of a question with its headline and remarks."""
    answer = desk.plan(values)
    remarks = [*desk.ask(values).question.remarks]
    return {"headline": headline(answer), "remarks": remarks, "plan": answer.to_dict()}


def exported(desk: Desk, values: Values, name: str) -> dict[str, Any]:
    """Return the plan of a question as one deployment in an engine's words, or why it cannot be words."""
    exporter = load(name)
    answer = desk.plan({**values, "one_deployment": True})
    try:
        words = exporter.export(answer, ExportOptions())
    except SpecError as refusal:
        sentences = [" ".join(filter(None, (fault.problem, fault.remedy))) for fault in refusal.faults]
        return {"engine": exporter.name, "text": "", "notes": [], "refusal": printable(". ".join(sentences))}
    notes = [f"for {exporter.name} {exporter.checked_with}", *words.notes]
    return {"engine": exporter.name, "text": words.text, "notes": [*map(printable, notes)], "refusal": ""}


def reported(desk: Desk, values: Values) -> str:
    """Return the page of a report of a question."""
    asked = desk.ask(values)
    hardware, target, engine = asked.question.deployed
    arguments = {**asked.question.planned, "tensor_parallel": asked.question.planned["tensor_parallel"][0]}
    if len(asked.question.deployments) > 1:
        raise SpecError.single("", "hardware, tp", "name several deployments", "Name one of each")
    known = {key: value for key, value in values.items() if key not in ("objective", "one_deployment")}
    command = desk.command("report", known, "-o", "report.html")
    return report_html(
        report_content(hardware[0], target, engine, asked.question.workload, command=command, **arguments)
    )


def explored(desk: Desk, values: Values, batches: str, contexts: str) -> dict[str, Any]:
    """Return everything that the page shows of one cell and of the cells around it.

    Parameters
    ----------
    values : the question of one cell.
    batches, contexts : the axes of the map, as of --batch-size and --context; the cell is always on it.

    Raises
    ------
    InfeasibleError
        Where nothing is allowed in any cell.
    SpecError
        Where the question is wrong.
    """
    asked = desk.ask(values)
    workload = asked.question.workload
    for key, count in (("batch_size", len(workload.batch_sizes)), ("context", len(workload.context_lens))):
        if count > 1:
            raise SpecError.single("", key, f"names {count} values", "Name one; the map has axes of its own")
    batch, context = workload.batch_sizes[0], workload.context_lens[0]
    rows = _axis("batches", batches, batch)
    columns = _axis("contexts", contexts, context)
    around = desk.grid(values, rows, columns)
    deployment = asked.question.deployments[0]
    machine = f"{deployment.gpus} {TIMES} {deployment.hardware.name}"
    shown: dict[str, Any] = {
        "title": f"{deployment.model.name} on {machine}, {deployment.engine.label}",
        "cell": f"batch {batch}, context {context:,}",
        "remarks": [*map(printable, asked.question.remarks)],
        "command": desk.command("explain", {k: v for k, v in values.items() if k != "objective"}),
        "map": draw_map(around, rows, columns, batch, context),
    }
    try:
        behind = desk.break_down(values)
    except InfeasibleError as refusal:
        if not around:
            raise
        sentence = f"Nothing fits at batch {batch} with {context:,} tokens of context."
        nothing: dict[str, Any] = {"facts": [], "assumed": [], "causes": None, "lengths": None}
        return {**shown, **nothing, "headline": sentence, "why": printable(str(refusal))}
    cell = behind.cell
    return {
        **shown,
        "headline": headline(replace(behind.plan, assumed=())),
        "why": f"Why: {printable(cell.why)}.",
        "facts": _facts(cell, behind.plan),
        "assumed": [*map(printable, behind.plan.assumed)],
        "causes": {**draw_causes(behind), "table": table_causes(behind)},
        "lengths": {**draw_lengths(behind), "table": table_lengths(behind)},
    }


def _axis(key: str, text: str, own: int) -> tuple[int, ...]:
    """Return the values of one axis, rising, with the cell's own among them."""
    try:
        return tuple(sorted({*parse_list(text), own}))
    except SpecError as refusal:
        raise refusal.located("", None, key) from None


def _facts(cell: Cell, plan: Plan) -> list[Mapping[str, str]]:
    """Return the few numbers of a cell, each with its name and what it is compared with."""

    def between(low: float | None, high: float | None, show: str, scale: float = 1.0, unit: str = "") -> str:
        if low is None or high is None:
            return ""
        return f"80\u00a0% of the cases: {low * scale:{show}}{TO}{high * scale:{show}}{unit}"

    drafting = cell.speculates
    sure, cost = cell.probability_beats_plain, cell.cost_per_million_tokens_usd
    return [
        {
            "name": "Do", "value": configuration(cell),
            "note": f"next: {cell.runner_up}, {percent(cell.runner_up_behind, 1)} slower"
            if cell.runner_up else "",
        },
        {
            "name": "Speedup", "value": f"{cell.speedup:.2f}{TIMES}",
            "note": between(cell.speedup_low, cell.speedup_high, ".2f", unit=TIMES) if drafting else "",
        },
        {
            "name": "Time per token", "value": f"{cell.tpot_s * 1e3:.3g} ms",
            "note": "; ".join(filter(None, (
                f"plain {cell.baseline_s * 1e3:.3g} ms" if drafting else "",
                between(cell.tpot_low_s, cell.tpot_high_s, ".3g", 1e3, " ms"),
            ))),
        },
        {
            "name": "Cost of 1 M tokens", "value": "unknown" if cost is None else f"${cost:.3g}",
            "note": f"no rent of {cell.hardware} is known" if cost is None
            else f"{plan.gpus} GPUs, {cell.throughput_tokens_per_s:,.0f} tokens/s",
        },
        {
            "name": "Beats plain decoding",
            "value": TO if sure is None or not drafting else f"in {percent(sure)}",
            "note": "of the cases" if sure is not None and drafting else "plain decoding is the answer",
        },
    ]  # fmt: skip
