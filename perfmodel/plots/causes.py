"""Where the time of a round goes: stacked by cause, beside a plain decode step."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from perfmodel.planning.breakdown import Breakdown, cause_bars
from perfmodel.plots.style import CAUSE_LOOKS, INK, axes, legend_below, short_tokens, titled

__all__ = ["plot_time_by_cause"]

WORDS = {
    "linear": "linear layers",
    "attention": "attention",
    "recurrence": "recurrent states",
    "communication": "communication",
    "overhead": "engine",
}


def plot_time_by_cause(explained: Breakdown, ax: Axes | None = None) -> Axes:
    """Draw the time of a plain step, the draft phase, the verification and the round [ms], by cause.

    The last bar is what a token costs with speculation; it pays where that bar is shorter than the first. The
    whole round holds the engine's time once a round, which belongs to neither phase.
    """
    bars = cause_bars(explained)
    ax = axes(ax, height=1.7 + 0.55 * len(bars))
    ax.grid(visible=False, axis="y")
    places = np.arange(len(bars))[::-1]
    left = np.zeros(len(bars))
    for cause, word in WORDS.items():
        look = CAUSE_LOOKS[cause]
        widths = np.array([bar.seconds[cause] for bar in bars]) * 1e3
        ax.barh(
            places,
            widths,
            left=left,
            height=0.62,
            color=look.colour,
            hatch=look.hatch,
            edgecolor="white",
            linewidth=0.6,
            label=word,
        )
        left = left + widths
    for place, bar in zip(places, bars, strict=True):
        ax.annotate(
            f"{bar.total * 1e3:.3g} ms",
            (bar.total * 1e3, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    ax.set_xlim(0.0, 1.13 * float(left.max()))
    ax.set_yticks(places, [bar.name for bar in bars])
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("time [ms]", color=INK)
    titled(ax, "Time by cause", _said(explained))
    legend_below(ax, ax.get_legend_handles_labels()[0])
    return ax


def _said(explained: Breakdown) -> str:
    cell, option = (
        explained.plan.cells[0],
        next(option for option in explained.options if option.drafter == explained.shown),
    )
    budget = f", KV {short_tokens(option.kv_budget)}" if option.kv_budget is not None else ""
    return (
        f"{explained.plan.model} on {cell.gpus} x {cell.hardware}, "
        f"engine {explained.plan.engine}, batch {cell.batch_size}, context {short_tokens(cell.context_len)}\n"
        f"{explained.shown}{budget}, speculation length {option.gamma}"
    )
