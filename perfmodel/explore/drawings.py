"""Plotly figures and their tables as plain values: the map, the time by cause, every speculation length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from perfmodel.errors import printable
from perfmodel.planning.breakdown import Breakdown, CauseBar, cause_bars
from perfmodel.planning.plan import Cell
from perfmodel.report.words import TIMES, TO, configuration

__all__ = ["draw_causes", "draw_lengths", "draw_map", "table_causes", "table_lengths"]

_SCALE = (
    (0.0, "#8c510a"), (0.25, "#dfc27d"), (0.3333, "#f4f3ee"), (0.55, "#a6cde2"), (0.8, "#4a98c9"),
    (1.0, "#135fa7"),
)  # fmt: skip
"""Speedup 1 is pale, less is brown, more is blue: apart in the common colour blindnesses, and in grey."""
_TICKS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
_CAUSES = {
    "linear": ("linear layers", "#0072B2", ""),
    "attention": ("attention", "#E69F00", "/"),
    "recurrence": ("recurrent states", "#CC79A7", "x"),
    "communication": ("communication", "#009E73", "."),
    "overhead": ("engine", "#9AA5B1", "\\"),
}
"""A cause's word, colour and pattern."""
_LINE = "#0072B2"


def draw_map(
    answers: Sequence[Cell], batches: Sequence[int], contexts: Sequence[int], batch: int, context: int
) -> dict[str, Any]:
    """Return the speedup of every answer over batch and context, one cell marked, and its table.

    Parameters
    ----------
    batches, contexts : the axes; a cell without an answer is empty. [sequences], [tokens]
    batch, context : of the marked cell. [sequences], [tokens]
    """
    answered = {(cell.batch_size, cell.context_len): cell for cell in answers}
    cells = [[answered.get((row, column)) for column in contexts] for row in batches]
    axis = {"type": "category", "showgrid": False, "zeroline": False, "ticks": "", "fixedrange": True}
    trace = {
        "type": "heatmap", "x": [*map(short, contexts)], "y": [*map(str, batches)], "xgap": 2, "ygap": 2,
        "z": [[None if cell is None else _height(cell.speedup) for cell in row] for row in cells],
        "text": [[_in_cell(cell) for cell in row] for row in cells],
        "customdata": [[_in_small_cell(cell) for cell in row] for row in cells],
        "hovertext": [
            [_hover(cell, row, column) for cell, column in zip(line, contexts, strict=True)]
            for line, row in zip(cells, batches, strict=True)
        ],
        "hoverinfo": "text", "hoverongaps": True, "zmin": -1, "zmax": 2,
        "colorscale": [list(step) for step in _SCALE],
        "colorbar": {
            "title": {"text": "speedup", "side": "right"}, "outlinewidth": 0, "thickness": 12, "len": 0.9,
            "tickvals": [_height(tick) for tick in _TICKS],
            "ticktext": [f"{tick:g}{TIMES}" for tick in _TICKS],
        },
    }  # fmt: skip
    column, row = contexts.index(context), batches.index(batch)
    marked = {
        "type": "rect", "line": {"width": 3, "color": "#d55e00"},
        "x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5,
    }  # fmt: skip
    layout = {
        "height": max(260, 90 + 40 * len(batches)), "shapes": [marked],
        "xaxis": {**axis, "title": {"text": "context length [tokens]"}},
        "yaxis": {**axis, "title": {"text": "batch size [sequences]"}},
    }  # fmt: skip
    return {
        "data": [trace], "layout": layout, "batches": list(batches), "contexts": list(contexts),
        "at": [row, column], "table": _table_map(trace),
    }  # fmt: skip


def _table_map(trace: dict[str, Any]) -> list[list[dict[str, str]]]:
    """Return the same as rows of texts, each with what a screen reader says."""
    return [
        [
            {"text": text or TO, "label": label.replace("<br>", ", ")}
            for text, label in zip(texts, labels, strict=True)
        ]
        for texts, labels in zip(trace["customdata"], trace["hovertext"], strict=True)
    ]


def draw_causes(behind: Breakdown) -> dict[str, Any]:
    """Return bars of what a plain step, the drafts, the verification, a round and a token cost, by cause."""
    bars = cause_bars(behind)
    names = [bar.name for bar in bars]
    traces = [
        {
            "type": "bar", "orientation": "h", "name": word, "y": names,
            "x": [bar.seconds[cause] * 1e3 for bar in bars],
            "marker": {
                "color": colour, "line": {"width": 0.5, "color": "white"},
                "pattern": {
                    "shape": pattern, "fillmode": "overlay", "fgcolor": "white", "size": 7, "solidity": 0.25,
                },
            },
            "hovertemplate": f"%{{y}}<br>{word} %{{x:.3g}} ms<extra></extra>",
        }
        for cause, (word, colour, pattern) in _shown_causes(bars)
    ]  # fmt: skip
    layout = {
        "barmode": "stack", "bargap": 0.35, "height": 100 + 48 * len(bars),
        "margin": {"l": 172, "r": 10, "t": 10, "b": 45},
        "legend": {"orientation": "h", "x": -0.3, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        "xaxis": {
            "title": {"text": "time [ms]", "standoff": 6}, "zeroline": False, "fixedrange": True,
            "range": [0, max(bar.total for bar in bars) * 1e3 * 1.25],
        },
        "yaxis": {"autorange": "reversed", "ticks": "", "fixedrange": True},
        "annotations": [
            {
                "x": bar.total * 1e3, "y": bar.name, "text": f" {bar.total * 1e3:.3g} ms", "xanchor": "left",
                "showarrow": False,
            }
            for bar in bars
        ],
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def table_causes(behind: Breakdown) -> dict[str, Any]:
    """Return the same as a table."""
    bars = cause_bars(behind)
    causes = _shown_causes(bars)
    return {
        "caption": f"Time by cause [ms]: {printable(behind.shown)}",
        "head": ["", *(word for _, (word, _, _) in causes), "sum"],
        "rows": [
            [bar.name, *(f"{bar.seconds[cause] * 1e3:.3g}" for cause, _ in causes), f"{bar.total * 1e3:.3g}"]
            for bar in bars
        ],
        "chosen": len(bars) - 1,
    }


def draw_lengths(behind: Breakdown) -> dict[str, Any]:
    """Return the speedup of the shown drafter at every speculation length, its choice marked."""
    rows = behind.by_gamma
    chosen = behind.cell.gamma
    trace = {
        "type": "scatter", "mode": "lines+markers", "name": printable(behind.shown),
        "x": [row.gamma for row in rows], "y": [row.speedup if row.fits else None for row in rows],
        "line": {"color": _LINE, "width": 2.5},
        "marker": {
            "color": _LINE, "size": [12 if row.gamma == chosen else 7 for row in rows],
            "symbol": ["diamond" if row.gamma == chosen else "circle" for row in rows],
        },
        "hovertemplate": f"length %{{x}}: %{{y:.2f}}{TIMES}<extra></extra>",
    }  # fmt: skip
    axis = {"zeroline": False, "fixedrange": True}
    layout = {
        "height": 330,
        "shapes": [
            {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": 1, "y1": 1, "line": {"width": 1}},
        ],
        "xaxis": {
            **axis, "title": {"text": "speculation length [tokens]", "standoff": 6},
            "dtick": 2 if len(rows) > 9 else 1,
        },
        "yaxis": {**axis, "title": {"text": "speedup [1]"}},
        "showlegend": False,
    }  # fmt: skip
    return {"data": [trace], "layout": layout}


def table_lengths(behind: Breakdown) -> dict[str, Any]:
    """Return the same as a table."""
    lengths = [row.gamma for row in behind.by_gamma]
    return {
        "caption": printable(behind.shown),
        "head": ["length", "tokens per round", "ms per token", "speedup", "pays from a rate of"],
        "rows": [
            [
                str(row.gamma), f"{row.tokens_per_round:.2f}", f"{row.tpot_s * 1e3:.3g}",
                f"{row.speedup:.2f}{TIMES}" if row.fits else "does not fit",
                TO if row.break_even_alpha is None else f"{row.break_even_alpha:.2f}",
            ]
            for row in behind.by_gamma
        ],
        "chosen": lengths.index(behind.cell.gamma) if behind.cell.gamma in lengths else None,
    }  # fmt: skip


def short(count: int) -> str:
    """Return a count in few signs: 32k, 32K for 32768, 1,500."""
    if count >= 1000 and count % 1000 == 0:
        return f"{count // 1000}k"
    return f"{count // 1024}K" if count >= 1024 and count % 1024 == 0 else f"{count:,}"


def _height(speedup: float) -> float:
    """The colour of a speedup: its logarithm to the base 2, within the scale."""
    return max(-1.0, min(2.0, math.log2(speedup)))


def _in_cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"<b>{cell.speedup:.2f}{TIMES}</b><br>\u03b3{cell.gamma}" if cell.speculates else "plain"


def _in_small_cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"{cell.speedup:.2f}" if cell.speculates else "plain"


def _hover(cell: Cell | None, batch: int, context: int) -> str:
    place = f"batch {batch}, context {context:,}"
    if cell is None:
        return f"{place}<br>nothing fits"
    lines = [place, configuration(cell), f"TPOT {cell.tpot_s * 1e3:.3g} ms"]
    return "<br>".join([*lines, f"speedup {cell.speedup:.2f}{TIMES}"] if cell.speculates else lines)


def _shown_causes(bars: Sequence[CauseBar]) -> list[tuple[str, tuple[str, str, str]]]:
    return [(cause, look) for cause, look in _CAUSES.items() if any(bar.seconds[cause] for bar in bars)]
