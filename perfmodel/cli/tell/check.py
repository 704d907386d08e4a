"""A plan beside what its server was benchmarked at, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

from perfmodel.cli.tell.tables import Column, draw, heading, left, line, lines, milliseconds, number, section
from perfmodel.evidence.loop.check import CAUSES

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.evidence.loop.check import Checked
    from perfmodel.planning.plan import Plan

__all__ = ["draw_checked"]


class _Row(NamedTuple):
    """One figure: as planned, priced at the run's own place, measured; texts."""

    name: str
    planned: str
    there: str
    measured: str


_FIGURES = (
    left("", lambda row: row.name),
    Column("planned", lambda row: row.planned),
    Column("priced there", lambda row: row.there),
    Column("measured", lambda row: row.measured),
)
_SHARES = (
    left("what differs", lambda share: share[0]),
    Column("ms", lambda share: f"{share[1] * 1e3:+.3f}"),
    Column("of the plan", lambda share: f"{share[2]:+.1%}"),
)


def draw_checked(console: Console, plan: Plan, checked: Sequence[Checked]) -> None:
    """Draw every benchmark beside its cell, what explains the difference, and what to do next."""
    heading(console, f"{plan.model} on {plan.hardware}, {plan.engine}: planned and measured")
    for each in checked:
        cell = each.cell
        section(
            console,
            f"{each.run.benchmark.source} beside batch {cell.batch_size}, context {cell.context_len:,}"
            + (", plain" if each.plain else ""),
        )
        draw(console, _FIGURES, list(_figures(each, plan.half_way)))
        shares = [
            (CAUSES[cause], seconds, seconds / each.predicted_tpot)
            for cause, seconds in each.shares.items()
            if abs(seconds) >= 5e-4 * each.predicted_tpot
        ]
        total = each.measured_tpot - each.predicted_tpot
        console.print()
        draw(console, _SHARES, [*shares, ("measured less planned", total, each.difference)])
        console.print()
        for advice in each.advice:
            line(console, f"Next: {advice.what}")
            lines(console, _broken(advice.command))


def _broken(command: str) -> list[str]:
    """Return a command in lines of a shell that fit 80 columns."""
    parts = wrap(command, 74, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return [f"{part} \\" for part in parts[:-1]] + parts[-1:]


def _figures(each: Checked, half_way: float) -> Iterator[_Row]:
    run, cell = each.run, each.cell
    yield _Row("TPOT ms", milliseconds(each.predicted_tpot), milliseconds(each.there_tpot),
               milliseconds(each.measured_tpot))  # fmt: skip
    yield _Row("tokens/s", "-", number(each.predicted_throughput), number(each.measured_throughput))
    yield _Row("sequences at a time", f"{cell.batch_size}", number(run.batch), number(run.batch))
    middle = f"{run.context_len:,.0f}"
    yield _Row("context, mean", f"{cell.context_len + half_way:,.0f}", middle, middle)
    if not each.plain:
        gamma, tokens = number(run.gamma), number(run.tokens_per_round)
        yield _Row("drafted per round", f"{cell.gamma}", gamma, gamma)
        yield _Row("tokens per round", number(each.predicted_tokens), tokens, tokens)
    if each.measured_speedup is not None:
        yield _Row("speedup", f"{each.predicted_speedup:.2f}x", "-", f"{each.measured_speedup:.2f}x")
