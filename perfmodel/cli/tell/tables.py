"""Answers drawn for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from perfmodel.planning import columns
from perfmodel.planning.choose import describe
from perfmodel.planning.columns import number, tokens
from perfmodel.planning.plan import NO_DRAFT

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.planning.lossy import LossyAlternative
    from perfmodel.planning.plan import Cell, Plan

__all__ = [
    "draw", "draw_assumed", "draw_plan", "draw_worth", "gain", "grid", "heading", "line", "number", "tokens",
]  # fmt: skip

_MOST_ASSUMED = 8
_NARROWEST_FOLD = 24
_UNBOUNDED = 100_000


def draw_plan(console: Console, plan: Plan, alternatives: Sequence[LossyAlternative] = ()) -> None:
    """Draw a plan: what it is for, one row per cell, why, lossy alternatives, what was assumed."""
    draw_header(console, plan)
    draw(console, _cells(plan))
    heading(console, "Why")
    for cell in plan.cells:
        line(console, f"  {_place(cell, plan)}: {cell.why}{_beside(cell)}")
    draw_worth(console, plan)
    if alternatives:
        console.print()
        heading(
            console,
            "Lossy alternatives (they change the output, are never chosen; speedup over the unchanged model)",
        )
        draw(console, _lossy(alternatives))
    draw_assumed(console, plan.assumed)


def draw_header(console: Console, plan: Plan) -> None:
    """Draw what a plan is for."""
    stored = ", ".join(
        f"{plan.request[key]} {what}"
        for key, what in (("weight_dtype", "weights"), ("kv_dtype", "KV"))
        if plan.request.get(key)
    )
    widths = plan.request.get("tensor_parallel") or sorted({cell.tensor_parallel for cell in plan.cells})
    heading(
        console,
        f"{plan.model} ({stored}) on {_any(widths)} x {_any(plan.hardware.split(', '))}, "
        f"engine {plan.engine}, best by {plan.objective}",
    )
    inflection = plan.inflection_context_len
    if inflection is not None and math.isfinite(inflection):
        line(
            console,
            f"Beyond about {tokens(inflection)} tokens of context larger batches make speculation pay more.",
        )
    elif inflection is not None:
        line(console, "At no context do larger batches make speculation pay more.")


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
    console.print()
    heading(console, "Assumed")
    for sentence in sentences[:most]:
        line(console, f"  {sentence}")
    if len(sentences) > most:
        line(
            console,
            f"  and {len(sentences) - most} more: --format json or `draftplan explain` lists them all",
        )


def grid(titles: Mapping[str, str], rows: Iterable[Sequence[str | Text]], *, folds: bool = False) -> Table:
    """Return a plain table; `titles` maps titles to ``left`` or ``right``; the last may fold."""
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), show_edge=False, header_style="bold")
    deep = any("\n" in title for title in titles)
    for place, (title, side) in enumerate(titles.items()):
        lines = title.split("\n")
        needed = max([*(cell_len(line) for line in lines), *(row[place].cell_len for row in cells)])
        foldable = folds and place == len(titles) - 1
        table.add_column(
            f"\n{title}" if deep and len(lines) == 1 else title,
            justify="right" if side == "right" else "left",
            no_wrap=not foldable,
            overflow="fold",
            min_width=min(needed, _NARROWEST_FOLD) if foldable else needed,
        )
    for row in cells:
        table.add_row(*row)
    return table


def draw(console: Console, table: Table) -> None:
    """Print a table as wide as it has to be: a narrower terminal breaks its lines, and nothing is lost."""
    terminal = console.width
    needed = Measurement.get(console, console.options.update(max_width=_UNBOUNDED), table)
    console.width = max(terminal, needed.minimum)
    console.print(table, crop=False)
    console.width = terminal


def heading(console: Console, text: str) -> None:
    """Print a line in bold."""
    console.print(Text(text, style="bold"), soft_wrap=True)


def line(console: Console, text: str) -> None:
    """Print a line as it is, never broken."""
    console.print(Text(text), soft_wrap=True)


def gain(value: float | None) -> Text:
    """Return a speedup, coloured by whether it is one."""
    shade = "" if value is None else "green" if value > 1.005 else "red" if value < 0.995 else ""
    return Text(columns.gain(value), style=shade)


def _any(choices: Iterable[object]) -> str:
    return " or ".join(map(str, choices))


def _cells(plan: Plan) -> Table:
    """Return a plan's table: its titled columns, a row a cell, the speedup coloured."""
    printed = columns.titled(plan)
    return grid(
        {column.title: "left" if column.left else "right" for column in printed},
        (
            [gain(cell.speedup) if column.name == "speedup" else column.show(cell) for column in printed]
            for cell in plan.cells
        ),
    )


def _lossy(alternatives: Sequence[LossyAlternative]) -> Table:
    titles = {
        "batch": "right", "context": "right", "change": "left", "plain TPOT ms": "right", "speedup": "right",
        "best speculation on top": "left", "its TPOT ms": "right", "its speedup": "right",
    }  # fmt: skip
    return grid(
        titles,
        (
            [
                str(one.batch_size),
                tokens(one.context_len),
                f"{one.change} (lossy)",
                number(one.plain_tpot_s * 1e3),
                gain(one.speedup),
                "none" if one.strategy == NO_DRAFT else describe(one.strategy, one.kv_budget, one.gamma),
                number(one.speculating_tpot_s * 1e3),
                gain(one.speculating_speedup),
            ]
            for one in sorted(alternatives, key=lambda one: (one.batch_size, one.context_len))
        ),
    )


def _place(cell: Cell, plan: Plan) -> str:
    places = {(each.batch_size, each.context_len) for each in plan.cells}
    contexts = {context for _, context in places}
    return f"batch {cell.batch_size}" + (f", context {tokens(cell.context_len)}" if len(contexts) > 1 else "")


def _beside(cell: Cell) -> str:
    """What else there is to know about a cell: its acceptance, how sure it is, what came second."""
    said = []
    if cell.speculates and cell.alpha is not None and cell.alpha_kind:
        said.append(f"alpha {cell.alpha:.2f} is {cell.alpha_kind}")
    if cell.speculates and cell.probability_beats_plain is not None:
        said.append(f"beats plain decoding with probability {cell.probability_beats_plain:.2f}")
    if cell.runner_up:
        said.append(f"next best {cell.runner_up}, {cell.runner_up_behind:.1%} slower")
    return "".join(f"; {part}" for part in said)
