"""A plan for people: one row a cell, why, and what it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from perfmodel.cli.tell.tables import (
    Column,
    draw,
    gain,
    heading,
    left,
    line,
    lines,
    milliseconds,
    section,
    to_paste,
    tokens,
)  # fmt: skip
from perfmodel.files.quoting import shell_line
from perfmodel.files.units import format_bytes
from perfmodel.planning.choose import describe
from perfmodel.planning.columns import NO_DRAFT, titled
from perfmodel.planning.columns import gain as show_gain
from perfmodel.planning.decision import headline

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.export import Exported
    from perfmodel.planning.lossy import LossyAlternative
    from perfmodel.planning.plan import Cell, Plan
    from perfmodel.planning.sensitivity import Influence

__all__ = ["draw_assumed", "draw_header", "draw_plan", "draw_worth"]

_MOST_ASSUMED = 100
_LOSSY = (
    Column("batch", lambda change: change.batch_size),
    Column("context", lambda change: tokens(change.context_len)),
    left("change", lambda change: f"{change.change} (lossy)"),
    Column("plain TPOT ms", lambda change: milliseconds(change.plain_tpot_s)),
    Column("speedup", lambda change: gain(change.speedup)),
    left(
        "best speculation on top",
        lambda change: "none"
        if change.strategy == NO_DRAFT
        else describe(change.strategy, change.kv_budget, change.gamma),
    ),
    Column("its TPOT ms", lambda change: milliseconds(change.speculating_tpot_s)),
    Column("its speedup", lambda change: gain(change.speculating_speedup)),
)


def draw_plan(
    console: Console,
    plan: Plan,
    alternatives: Sequence[LossyAlternative] = (),
    *,
    doubts: Sequence[Influence] = (),
    doubted: Cell | None = None,
    runs: Exported | None = None,
    most: int | None = 3,
) -> None:
    """Draw a plan: the decision, one row per cell, why, what could change it, lossy alternatives.

    Parameters
    ----------
    doubts, doubted : figures that could change the decision of a cell, the first first, and that cell.
    runs : the plan in the words of the software that serves, where it can be told.
    most : of how many cells it is said why, None for all with everything that is assumed; 0: nothing but the
        decision and the rows.
    """
    heading(console, headline(plan))
    draw_header(console, plan)
    coloured = Column("speedup", lambda cell: gain(cell.speedup))
    draw(console, [coloured if column.name == "speedup" else column for column in titled(plan)], plan.cells)
    if most != 0:
        _draw_why(console, plan, most)
        _draw_doubts(console, doubts, doubted)
        draw_worth(console, plan)
        draw_software(console, plan)
        _draw_runs(console, plan, runs)
    if alternatives:
        section(
            console,
            "Lossy alternatives (they change the output, are never chosen; speedup over the unchanged model)",
        )
        cells = sorted(alternatives, key=lambda change: (change.batch_size, change.context_len))
        draw(console, _LOSSY, cells)
    if most is None:
        draw_assumed(console, plan.assumed)
    elif most and plan.assumed:
        things = "1 thing is" if len(plan.assumed) == 1 else f"{len(plan.assumed)} things are"
        line(console, f"{things} assumed: --explain lists all, and says why of every row.")


def _draw_why(console: Console, plan: Plan, most: int | None) -> None:
    """Say why of the cells, or of some: the first of each drafter, and the one that gains most."""
    heading(console, "Why")
    many = len(set(plan.columns.listed("context_len"))) > 1
    cells: Sequence[Cell] = plan.cells
    if most is not None and len(cells) > most:
        first = [*plan.columns.first_of_each("draft_model", "strategy")]
        best = plan.columns[int(np.argmax(plan.columns.numbers("speedup")))]
        chosen = {(cell.batch_size, cell.context_len) for cell in [best, *first][:most]}
        cells = [cell for cell in cells if (cell.batch_size, cell.context_len) in chosen]
    lines(console, (f"{_place(cell, many)}: {cell.why}{_beside(cell)}" for cell in cells))


def _draw_doubts(console: Console, doubts: Sequence[Influence], cell: Cell | None) -> None:
    """Draw the figures that could change a decision, each with what settles it."""
    if cell is None or not doubts:
        return
    heading(console, f"What could change it (batch {cell.batch_size}, context {tokens(cell.context_len)})")
    for doubt in doubts:
        line(console, f"  {doubt.name}, {_range(doubt)} ({doubt.kind}): {_effect(doubt, cell)}")
        to_paste(console, f"    {doubt.command}")


def _draw_runs(console: Console, plan: Plan, runs: Exported | None) -> None:
    """Draw what the software that serves is told, ready to be pasted."""
    if runs is None:
        return
    heading(console, f"Run it in {plan.software}")
    text = shell_line([runs.flag, runs.text.strip()]) if runs.flag else runs.text.rstrip()
    for each in text.splitlines():
        to_paste(console, f"  {each}")
    lines(console, (f"({note})" for note in runs.to_do))


def _range(doubt: Influence) -> str:
    """Say from where to where a figure may lie, its unit once."""
    low, _, unit = doubt.low.partition(" ")
    shared = unit and doubt.high.endswith(f" {unit}")
    return f"{low if shared else doubt.low} to {doubt.high}"


def _effect(doubt: Influence, cell: Cell) -> str:
    """Say what a figure does to the speedup, and what it would change the decision to."""
    low, high = show_gain(doubt.speedup_low), show_gain(doubt.speedup_high)
    parts = [] if low == high else [f"{'' if cell.speculates else 'the best draft '}{low} to {high}"]
    for end, instead, faster in (
        ("low", doubt.instead_low, doubt.gain_low), ("high", doubt.instead_high, doubt.gain_high)
    ):  # fmt: skip
        if instead:
            gained = f", {faster:.0%} faster" if math.isfinite(faster) else ", as this does not fit"
            parts.append(f"at its {end} end {instead}{gained}")
    return "; ".join(parts)


def draw_header(console: Console, plan: Plan) -> None:
    """Draw what a plan is for."""
    stored = ", ".join(
        f"{plan.request[key]} {what}"
        for key, what in (("weight_dtype", "weights"), ("kv_dtype", "KV"))
        if plan.request.get(key)
    )
    asked = plan.request.get("tensor_parallel") or sorted({cell.tensor_parallel for cell in plan.cells})
    gpus = [count * plan.pipeline_parallel * plan.data_parallel for count in asked]
    hardware = " or ".join(plan.hardware.split(", "))
    hardware += plan.layout
    risk = plan.request.get("risk")
    risk = "" if risk is None else f" at the {risk:.0%} quantile of acceptance"
    line(
        console,
        f"{plan.model} ({stored}) on {' or '.join(map(str, gpus))} x {hardware}, "
        f"engine {plan.engine}, best by {plan.objective}{risk}",
    )
    if output_tokens := plan.request.get("output_tokens"):
        line(console, f"Mean step of {tokens(output_tokens)} output tokens after each context.")
    if plan.inflection_context_len is not None:
        digits = 1 - len(str(int(plan.inflection_context_len)))  # of a grid that rises by a sixth
        beyond = f"about {tokens(round(plan.inflection_context_len, digits + 1))} tokens of context"
        line(console, f"Beyond {beyond} larger batches make speculation pay more.")


def draw_software(console: Console, plan: Plan) -> None:
    """Draw what another software would gain, or which can run the answer where any may."""
    if plan.elsewhere is not None:
        line(console, plan.elsewhere.sentence(plan.software))
    for drafter, labels in plan.runs_in.items():
        line(console, f"{drafter} runs in {', '.join(labels) or 'no software that is known'}.")


def draw_worth(console: Console, plan: Plan) -> None:
    """Draw what measuring acceptance would be worth, where that is material."""
    from perfmodel.planning.uncertainty import worth_of_measuring

    if (sentence := worth_of_measuring(plan.cells)) is not None:
        line(console, sentence)


def draw_assumed(console: Console, assumed: Iterable[str], most: int = _MOST_ASSUMED) -> None:
    """Draw what the answer rests on that is neither measured nor published."""
    sentences = list(assumed)
    if not sentences:
        return
    section(console, "Assumed")
    lines(console, sentences[:most])
    if len(sentences) > most:
        line(
            console,
            f"  and {len(sentences) - most} more: --format json or `draftplan explain` lists them all",
        )


def _place(cell: Cell, many: bool) -> str:
    """Say where a cell stands; its context where there are many."""
    return f"batch {cell.batch_size}" + (f", context {tokens(cell.context_len)}" if many else "")


def _beside(cell: Cell) -> str:
    """What else there is to know about a cell: its acceptance, how sure it is, what came second."""
    parts = []
    if cell.speculates and cell.alpha is not None and cell.alpha_kind:
        drafting = ""
        if cell.match_share is not None and cell.alpha_first is not None and cell.alpha_rest is not None:
            drafting = (
                f" over all rounds, {cell.alpha_first:.2f} first and {cell.alpha_rest:.2f} later in those "
                "that draft,"
            )
        parts.append(f"alpha {cell.alpha:.2f}{drafting} is {cell.alpha_kind}")
    if cell.speculates and cell.probability_beats_plain is not None:
        without = " without a drafter" if cell.speedup < 1.0 else ""
        parts.append(f"beats plain decoding{without} with probability {cell.probability_beats_plain:.2f}")
    if cell.runner_up:
        behind = cell.runner_up_behind
        step = f"{behind:.1%} slower" if behind >= 0.0 else f"{-behind:.1%} faster"
        better = cell.probability_runner_up_better
        sure = "" if better is None else f", the better one with probability {better:.2f}"
        parts.append(f"next best {cell.runner_up}, {step}{sure}")
    if cell.barely_fits:
        left, doubt = map(format_bytes, (cell.memory_left_bytes, cell.memory_in_doubt_bytes))
        parts.append(f"fits by {left} of each GPU, and engines were seen to keep up to {doubt} more")
    return "".join(f"; {part}" for part in parts)
