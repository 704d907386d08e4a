"""`draftplan explain`: one cell in depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from perfmodel.cli.ask.flag import command, takes
from perfmodel.cli.ask.flags import ExplainFlags
from perfmodel.cli.ask.format import read_format
from perfmodel.cli.tell.output import remark, tell

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from perfmodel.planning.breakdown import Breakdown, PassTime

__all__ = ["explain"]


@command("explain", 2)
@takes(ExplainFlags)
def explain(ctx: typer.Context, flags: ExplainFlags) -> None:
    """Explain one cell: time by cause, memory, every speculation length, every other strategy.

    Name --strategy, --draft-budget or --gamma to look at a configuration of your own.

    Example: draftplan explain --model llama-3.1-8b --hardware h100-sxm-80gb --tp 8 --context 32k -b 64
    """
    from perfmodel.cli.ask.question import read_question
    from perfmodel.errors import SpecError
    from perfmodel.planning.breakdown import break_down

    question = read_question(ctx, flags)
    if question.cells > 1:
        raise SpecError.single(
            "",
            "--batch-size, --context",
            f"ask for {question.cells} cells",
            "Name one of each, or use `draftplan plan`",
        )
    wanted = read_format(flags.format, flags.output, csv=False)
    found = break_down(
        question.hardware,
        question.target,
        question.engine,
        batch_size=question.workload.batch_sizes[0],
        context_len=question.workload.context_lens[0],
        **question.planned,
    )
    for line in question.remarks:
        remark(f"note: {line}")
    tell(
        wanted, found.to_dict, table=lambda console: _draw(console, found), output=flags.output,
        no_color=flags.no_color,
    )  # fmt: skip


def _draw(console: Console, found: Breakdown) -> None:
    from perfmodel.cli.tell import tables
    from perfmodel.planning.choose import describe
    from perfmodel.planning.plan import NO_DRAFT

    cell = found.cell
    tables.draw_header(console, found.plan)
    name = describe(found.shown if cell.speculates else NO_DRAFT, cell.kv_budget, cell.gamma)
    tables.line(
        console,
        f"Batch {cell.batch_size}, context {tables.tokens(cell.context_len)}: {name}, "
        f"{cell.tokens_per_round:.2f} tokens per round, TPOT {cell.tpot_s * 1e3:.3f} ms against "
        f"{cell.baseline_s * 1e3:.3f} ms, {cell.speedup:.2f}x",
    )
    tables.line(console, f"Why: {cell.why}")
    tables.draw_worth(console, found.plan)
    _section(console, "Time of each pass, by cause (share of the pass)")
    tables.draw(console, _time(found))
    _section(console, "What each pass reads and computes, on each GPU")
    tables.draw(console, _work(found.passes))
    _section(console, "Resident memory on each GPU")
    tables.draw(console, _memory(found))
    if found.by_gamma:
        _section(console, f"Every speculation length of {found.shown}")
        tables.draw(console, _by_gamma(found))
    _section(console, "The best of every strategy")
    tables.draw(console, _options(found))
    tables.draw_assumed(console, found.plan.assumed, most=1000)


def _section(console: Console, title: str) -> None:
    from perfmodel.cli.tell.tables import heading

    console.print()
    heading(console, title)


def _time(found: Breakdown) -> Table:
    from perfmodel.cli.tell.tables import grid, number

    causes = ("linear", "attention", "communication", "overhead")
    columns = {"pass": "left", **{f"{cause} ms": "right" for cause in causes}, "total ms": "right"}
    rows = []
    for one in found.passes:
        parts = [getattr(one, f"{cause}_s") for cause in causes]
        shares = [f"{number(part * 1e3)} ({part / one.total_s:4.0%})" for part in parts]
        rows.append([one.name, *shares, number(one.total_s * 1e3)])
    if found.round_overhead_s:
        rows.append(["once a round", "", "", "", "", number(found.round_overhead_s * 1e3)])
    return grid(columns, rows)


def _work(passes: tuple[PassTime, ...]) -> Table:
    from perfmodel.cli.tell.tables import grid, number
    from perfmodel.files.units import format_bytes

    columns = {
        "pass": "left",
        "weights": "right",
        "KV cache": "right",
        "GFLOP": "right",
        "FLOP per byte": "right",
    }
    rows = (
        [
            one.name,
            format_bytes(one.weight_bytes),
            format_bytes(one.kv_bytes),
            number(one.flops / 1e9),
            number(one.flops / max(one.weight_bytes + one.kv_bytes, 1.0)),
        ]
        for one in passes
    )
    return grid(columns, rows)


def _memory(found: Breakdown) -> Table:
    from perfmodel.cli.tell.tables import grid
    from perfmodel.files.units import format_bytes

    resident = found.resident_bytes
    words = {
        "weights": "weights", "draft_weights": "draft weights", "target_kv": "KV cache",
        "draft_kv": "draft KV cache", "lookahead_kv": "slots for drafted tokens",
        "activations": "activations", "total": "total", "usable": "usable by the engine",
    }  # fmt: skip
    rows = [
        [word, format_bytes(resident[key]), f"{resident[key] / resident['usable']:.1%}"]
        for key, word in words.items()
    ]
    return grid({"what": "left", "bytes": "right", "of usable": "right"}, rows)


def _by_gamma(found: Breakdown) -> Table:
    from perfmodel.cli.tell.tables import gain, grid, number

    columns = {
        "gamma": "right", "tokens/round": "right", "round ms": "right", "TPOT ms": "right",
        "speedup": "right", "pays above alpha": "right", "fits": "left",
    }  # fmt: skip
    rows = (
        [
            str(row.gamma),
            f"{row.tokens_per_round:.2f}",
            number(row.round_s * 1e3),
            number(row.tpot_s * 1e3),
            gain(row.speedup),
            "-"
            if row.gamma == 0
            else "never"
            if row.break_even_alpha is None
            else f"{row.break_even_alpha:.2f}",
            "yes" if row.fits else "no",
        ]
        for row in found.by_gamma
    )
    return grid(columns, rows)


def _options(found: Breakdown) -> Table:
    from perfmodel.cli.tell.tables import gain, grid, number, tokens

    columns = {
        "strategy": "left", "KV budget": "right", "gamma": "right", "tokens/round": "right",
        "TPOT ms": "right", "speedup": "right", "allowed": "left",
    }  # fmt: skip
    rows = (
        [
            "plain decoding" if option.gamma == 0 else option.drafter,
            tokens(option.kv_budget) if option.kv_budget is not None or option.gamma == 0 else "all",
            str(option.gamma),
            f"{option.tokens_per_round:.2f}",
            number(option.tpot_s * 1e3),
            gain(option.speedup),
            "yes" if option.allowed else "no",
        ]
        for option in found.options
    )
    return grid(columns, rows)
