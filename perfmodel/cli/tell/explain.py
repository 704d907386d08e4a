"""One cell in depth for people: time, work and memory, every length, the best of every strategy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from perfmodel.cli.tell.plan import draw_assumed, draw_header, draw_worth
from perfmodel.cli.tell.tables import Column, draw, gain, left, line, milliseconds, number, section, tokens
from perfmodel.files.units import format_bytes
from perfmodel.latency import CAUSES
from perfmodel.planning.choose import describe
from perfmodel.planning.columns import NO_DRAFT

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.planning.breakdown import Breakdown, PassTime
    from perfmodel.planning.plan import Plan

__all__ = ["draw_breakdown"]

_RESIDENT = {
    "weights": "weights", "draft_weights": "draft weights", "target_kv": "KV cache",
    "draft_kv": "draft KV cache", "lookahead_kv": "slots for drafted tokens",
    "states": "states of fixed size", "kept_states": "states kept for drafted tokens",
    "activations": "activations",
    "fixed": "context, communication buffers, graphs", "total": "total", "usable": "usable by the engine",
}  # fmt: skip


def _share(cause: str, row: tuple[str, float, PassTime | None]) -> str:
    """Return what one cause takes of a pass, and its share; nothing for what is no pass."""
    _, total, step = row
    if step is None:
        return ""
    seconds = getattr(step, f"{cause}_s")
    return f"{milliseconds(seconds)} ({seconds / total:4.0%})"


def _time_columns(passes: Sequence[PassTime]) -> tuple[Column, ...]:
    """Return a column for every cause that takes time in any pass."""
    taken = [cause for cause in CAUSES if any(getattr(step, f"{cause}_s") for step in passes)]
    return (
        left("pass", lambda row: row[0]),
        *(Column(f"{cause} ms", partial(_share, cause)) for cause in taken),
        Column("total ms", lambda row: milliseconds(row[1])),
    )


def _intensity(step: PassTime) -> float:
    """Return arithmetic per byte moved. [FLOP/B]"""
    return step.flops / max(step.weight_bytes + step.kv_bytes + step.state_bytes, 1.0)


_STATES = Column("states", lambda step: format_bytes(step.state_bytes))
_WORK = (
    left("pass", lambda step: step.name),
    Column("weights", lambda step: format_bytes(step.weight_bytes)),
    Column("KV cache", lambda step: format_bytes(step.kv_bytes)),
    _STATES,
    Column("GFLOP", lambda step: number(step.flops / 1e9)),
    Column("FLOP per byte", lambda step: number(_intensity(step))),
)
_LENGTHS = (
    Column("gamma", lambda row: row.gamma),
    Column("tokens/round", lambda row: f"{row.tokens_per_round:.2f}"),
    Column("round ms", lambda row: milliseconds(row.round_s)),
    Column("TPOT ms", lambda row: milliseconds(row.tpot_s)),
    Column("speedup", lambda row: gain(row.speedup)),
    Column(
        "pays above alpha",
        lambda row: "-"
        if row.gamma == 0
        else "never"
        if row.break_even_alpha is None
        else f"{row.break_even_alpha:.2f}",
    ),
    left("fits", lambda row: "yes" if row.fits else "no"),
)
_OPTIONS = (
    left("strategy", lambda option: "plain decoding" if option.gamma == 0 else option.drafter),
    Column(
        "KV budget",
        lambda option: "all" if option.kv_budget is None and option.gamma else tokens(option.kv_budget),
    ),
    Column("gamma", lambda option: option.gamma),
    Column("tokens/round", lambda option: f"{option.tokens_per_round:.2f}"),
    Column("TPOT ms", lambda option: milliseconds(option.tpot_s)),
    Column("speedup", lambda option: gain(option.speedup)),
    left("allowed", lambda option: "yes" if option.allowed else "no"),
)


def _machine(plan: Plan) -> str:
    """On what, where that was chosen among several."""
    cell, asked = plan.cells[0], plan.request.get("tensor_parallel") or []
    several = len(plan.hardware.split(", ")) * len(asked) > 1
    return f" on {cell.gpus} x {cell.hardware}" if several else ""


def draw_breakdown(console: Console, breakdown: Breakdown) -> None:
    """Draw what is recommended for a cell and why, then everything that it was weighed against."""
    cell = breakdown.cell
    draw_header(console, breakdown.plan)
    length = None if cell.tree else cell.gamma
    name = describe(breakdown.shown if cell.speculates else NO_DRAFT, cell.kv_budget, length)
    name += f" (needs {cell.needs})" if cell.needs else ""
    line(
        console,
        f"Batch {cell.batch_size}, context {tokens(cell.context_len)}{_machine(breakdown.plan)}: {name}, "
        f"{cell.tokens_per_round:.2f} tokens per round, TPOT {cell.tpot_s * 1e3:.3f} ms against "
        f"{cell.baseline_s * 1e3:.3f} ms, {cell.speedup:.2f}x",
    )
    line(console, f"Why: {cell.why}")
    draw_worth(console, breakdown.plan)
    section(console, "Time of each pass, by cause (share of the pass)")
    times: list[tuple[str, float, PassTime | None]] = [
        (step.name, step.total_s, step) for step in breakdown.passes
    ]
    if breakdown.round_overhead_s:
        times.append(("once a round", breakdown.round_overhead_s, None))
    draw(console, _time_columns(breakdown.passes), times)
    section(console, "What each pass reads and computes, on each GPU")
    keeps = any(step.state_bytes for step in breakdown.passes)
    draw(console, [column for column in _WORK if keeps or column is not _STATES], breakdown.passes)
    section(console, "Resident memory on each GPU")
    resident = breakdown.resident_bytes
    memory = (
        left("what", lambda key: _RESIDENT[key]),
        Column("bytes", lambda key: format_bytes(resident[key])),
        Column("of usable", lambda key: f"{resident[key] / resident['usable']:.1%}"),
    )
    draw(console, memory, [key for key in _RESIDENT if resident[key] or "state" not in key])
    if breakdown.by_gamma:
        section(console, f"Every speculation length of {breakdown.shown}")
        draw(console, _LENGTHS, breakdown.by_gamma)
    section(console, "The best of every strategy")
    draw(console, _OPTIONS, breakdown.options)
    draw_assumed(console, breakdown.plan.assumed, most=1000)
