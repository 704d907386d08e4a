"""Servers beside what is computed for them: errors by source, engine and family, for people and programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from perfmodel._version import __version__
from perfmodel.cli.tell.tables import Column, draw, heading, left, line, lines, number, section
from perfmodel.evidence.servers.summary import KINDS, ServerError, ServerErrors, summarise_servers

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["draw_servers", "servers_to_dict", "servers_to_rows"]


def _share(value: float, *, sign: bool = False) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{100 * value:+.1f} %" if sign else f"{100 * value:.1f} %"


_COLUMNS = (
    left("", lambda row: row.name),
    left("measure", lambda row: KINDS[row.kind]),
    Column("numbers", lambda row: row.count),
    Column("mean error", lambda row: _share(row.held_out)),
    Column("median", lambda row: _share(row.median)),
    Column("bias", lambda row: _share(row.bias, sign=True)),
    Column("in 80 %", lambda row: _share(row.coverage)),
    Column("as shipped", lambda row: _share(row.fitted)),
)
_NOTES = (
    "Error, median, bias and the share within 80 % intervals are those of engines that were fitted without",
    "the source; as shipped: the engines' own files, which are fitted to these numbers too.",
)
_CELLS = (
    left("source", lambda error: _title(error)),
    left("number", lambda error: error.row.cell),
    left("measure", lambda error: KINDS[error.kind]),
    Column("published", lambda error: _in_people(error, error.published)),
    Column("computed", lambda error: _in_people(error, error.held_out)),
    Column("error", lambda error: _share(error.error, sign=True)),
)


def _title(error: ServerError) -> str:
    """A source without its address."""
    return error.row.source.partition(", https://")[0]


def _experts(error: ServerError) -> str:
    return "with experts" if error.row.experts else "dense"


def _in_people(error: ServerError, value: float) -> str:
    return number(value if error.kind == "speedup" else value * 1e3, 4)


GROUPS = (
    ("In total", lambda _: "all"),
    ("Dense models, and those with experts", _experts),
    ("By engine", lambda error: error.row.group.engine.name),
    ("By family of accelerators", lambda error: error.row.group.hardware.family),
    ("By source", _title),
)


def draw_servers(console: Console, errors: Sequence[ServerError], cells: bool) -> None:
    """Draw errors by group, the numbers that nothing can meet, and every number if asked."""
    heading(console, "Servers beside what is computed for them; an error is computed over published, less 1")
    for title, name_of in GROUPS:
        section(console, title)
        draw(console, _COLUMNS, _named_once(summarise_servers(errors, name_of)))
    lines(console, _NOTES)
    impossible = [error for error in errors if not error.possible]
    if impossible:
        section(console, "Left out, as too much of the source lies below what the hardware allows")
        draw(console, _CELLS, impossible)
    if cells:
        section(console, "Numbers (times in ms)")
        draw(console, _CELLS, [error for error in errors if error.possible])
    line(console, "")


def _named_once(summaries: Sequence[ServerErrors]) -> list[ServerErrors]:
    """Return the summaries with each name on its first line only."""
    from dataclasses import replace

    before = ["", *(summary.name for summary in summaries)]
    return [
        replace(summary, name="" if summary.name == name else summary.name)
        for summary, name in zip(summaries, before, strict=False)
    ]


def servers_to_rows(errors: Sequence[ServerError]) -> list[dict[str, str]]:
    """Return one published number a row."""
    return [
        {
            "source": error.row.source, "cell": error.row.cell, "engine": error.row.group.engine.name,
            "hardware": error.row.group.hardware.name, "model": error.row.group.target.name,
            "measure": error.kind, "unit": "" if error.kind == "speedup" else "ms",
            **{
                name: _in_digits(error, getattr(error, name))
                for name in ("published", "held_out", "low", "high", "fitted")
            },
            "error": f"{error.error:.6g}", "possible": str(error.possible).lower(),
            "unknown": error.row.unknown,
        }
        for error in errors
    ]  # fmt: skip


def _in_digits(error: ServerError, value: float) -> str:
    value = value if error.kind == "speedup" else value * 1e3
    return f"{value:.6g}" if math.isfinite(value) else ""


def servers_to_dict(errors: Sequence[ServerError], cells: bool) -> dict[str, Any]:
    """Return the summaries as plain values; every number if asked."""
    body: dict[str, Any] = {
        "draftplan": __version__,
        "measures": dict(KINDS),
        **{
            title.lower(): [asdict(summary) for summary in summarise_servers(errors, name_of)]
            for title, name_of in GROUPS
        },
    }
    if cells:
        body["numbers"] = servers_to_rows(errors)
    return body
