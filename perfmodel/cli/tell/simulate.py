"""Simulated policies side by side, for people."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from perfmodel.cli.tell.tables import Column, change, draw, heading, left, line, number, section, tokens
from perfmodel.traffic.step_times import CAUSES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from perfmodel.traffic.runs import Comparison

__all__ = ["draw_comparison"]


def draw_comparison(console: Console, comparison: Comparison) -> None:
    """Draw every policy's figures, its time by cause, and how far schedules are ahead."""
    first = comparison.outcomes[0]
    replica, trace = first.replica, first.trace
    heading(
        console,
        f"{replica.deployment.label}: {trace.name}, {len(trace)} requests, on average "
        f"{tokens(float(trace.prompt_tokens.mean()))} prompt and "
        f"{tokens(float(trace.output_tokens.mean()))} output tokens",
    )
    if comparison.deployed is not None:
        budget = comparison.kv_budget
        reads = f", draft KV budget {tokens(budget)}" if budget is not None else ""
        line(console, f"Drafts: {comparison.deployed.drafter.label}{reads}")
    policy = left("policy", lambda row: row["name"])
    rows = [row | {"name": name} for row, name in zip(comparison.rows, comparison.names, strict=True)]
    best = max(row["goodput_tokens_per_s"] for row in rows)
    goodput = Column("goodput\ntokens/s", lambda row: _mark_best(row["goodput_tokens_per_s"], best))
    hits = (_PREFIX_HITS,) if all("prefix_cache_hit_rate" in row for row in rows) else ()
    draw(console, (policy, _THROUGHPUT, goodput, *_FIGURES, *hits), rows)
    section(console, "Time by cause, % of the time to the last token")
    draw(console, (policy, *_CAUSES), rows)
    if leads := comparison.ahead():
        console.print()
        for lead in leads:
            at = f" at speed {lead['speed']:g}" if comparison.several_speeds else ""
            line(
                console,
                f"{lead['policy']}{at}: {lead['figure']} {change(lead['ahead'])} against the best single "
                f"length ({lead['best_single_length']})",
            )


def _mark_best(goodput: float, best: float) -> Text:
    from rich.text import Text

    return Text(number(goodput, 4), style="green" if goodput == best > 0 else "")


def _pair(low: str, high: str, scale: float = 1.0) -> Callable[[dict[str, Any]], str]:
    """Return what shows two figures of a row, scaled to people's unit."""
    return lambda row: f"{number(row[low] * scale)} / {number(row[high] * scale)}"


def _show_share(cause: str, row: dict[str, Any]) -> str:
    return f"{100.0 * row[f'{cause}_s'] / row['makespan_s']:.1f}"


_THROUGHPUT = Column("throughput\ntokens/s", lambda row: number(row["throughput_tokens_per_s"], 4))
_FIGURES = (
    Column("TTFT s\np50 / p99", _pair("ttft_p50_s", "ttft_p99_s")),
    Column("TPOT ms\np50 / p99", _pair("tpot_p50_s", "tpot_p99_s", 1e3)),
    Column("ITL ms\np50 / p99", _pair("itl_p50_s", "itl_p99_s", 1e3)),
    Column("USD/M\ntokens", lambda row: number(row["cost_per_million_tokens_usd"])),
    Column("kWh/M\ntokens", lambda row: number(row["energy_per_million_tokens_kwh"])),
    Column("KV full %\nmean / peak", _pair("kv_occupancy_mean", "kv_occupancy_peak", 1e2)),
    Column("batch\nmean", lambda row: number(row["mean_batch"])),
    Column("tokens/\nround", lambda row: f"{row['tokens_per_round']:.2f}"),
    Column("preempted", lambda row: f"{row['preemptions']:.0f}"),
)
_PREFIX_HITS = Column("prefix\nhits %", lambda row: number(row["prefix_cache_hit_rate"] * 1e2))
_CAUSES = [Column(cause, partial(_show_share, cause)) for cause in (*CAUSES, "idle")]
