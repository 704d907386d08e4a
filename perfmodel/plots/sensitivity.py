"""What could change a decision: a bar a doubtful figure, from one end of its range to the other."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten, wrap

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from perfmodel.planning.captions import chosen_in_words, figure_name, sensitivity_in_words
from perfmodel.planning.plan import Cell
from perfmodel.planning.sensitivity import Influence
from perfmodel.plots.style import GREY, INK, looks, sheet, short_tokens

__all__ = ["MOST_BARS", "plot_sensitivity"]

MOST_BARS = 10
"""Figures that are drawn, those that change the decision first. [1]"""
LOW, HIGH = looks(2)[1], looks(1)[0]
LABEL, BESIDE = 36, 30
"""Characters of a line left and right of the bars. [1]"""


def plot_sensitivity(cell: Cell, every: Sequence[Influence], deployment: str) -> list[Axes]:
    """Draw the speedup [1] of a cell's recommendation at the ends of each doubtful figure, the others kept.

    A diamond is what another choice would reach there, which stands right of it; the values at the bars' ends
    are those of the figure. Where plain decoding is recommended the bars are the best draft's.

    Parameters
    ----------
    every : what `influences` returns; `MOST_BARS` of them are drawn.
    deployment : what runs on what, in words.
    """
    shown = list(every[:MOST_BARS])
    handles: list[Artist] = [
        Patch(facecolor=LOW.colour, hatch=LOW.hatch, edgecolor="white", label="at the figure's low end"),
        Patch(facecolor=HIGH.colour, label="at its high end"),
    ]
    if any(each.decides for each in shown):
        handles.append(
            Line2D([], [], color=INK, marker="D", linestyle="none", label="another choice would reach")
        )
    where = f"batch {cell.batch_size}, context {short_tokens(cell.context_len)}"
    [[ax]] = sheet(
        1, 1, height=0.7 + 0.44 * len(shown), title="What could change the decision",
        caption=sensitivity_in_words(cell, every), below=f"{deployment}, {where}; {_said(every, shown)}",
        handles=handles,
    )  # fmt: skip
    ax.grid(visible=False, axis="y")
    middle = _middle(cell)
    rows = np.arange(len(shown))[::-1]
    for row, each in zip(rows, shown, strict=True):
        for value, look in ((each.speedup_low, LOW), (each.speedup_high, HIGH)):
            if np.isfinite(value):
                start = middle if middle is not None else min(each.speedup_low, each.speedup_high)
                ax.barh(
                    row, value - start, left=start, height=0.5, color=look.colour, hatch=look.hatch,
                    edgecolor="white", linewidth=0.5,
                )  # fmt: skip
        _ends(ax, row, each)
        _instead(ax, row, each)
    if middle is not None:
        ax.axvline(middle, color=INK, linewidth=1.2)
    ax.axvline(1.0, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)))
    _limits(ax, shown, middle)
    ax.set_yticks(rows, [_label(each) for each in shown], fontsize=8)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(-0.6, len(shown) - 0.4)
    ax.set_xlabel(f"speedup of {chosen_in_words(cell)} over plain decoding [1]", color=INK)
    return [ax]


def _middle(cell: Cell) -> float | None:
    """Return the speedup where every figure is what it is believed to be; None where nothing tells. [1]"""
    if cell.speculates:
        return cell.speedup
    return 1.0 / (1.0 + cell.runner_up_behind) if cell.runner_up else None


def _label(each: Influence) -> str:
    """Return a figure's name with what it means, where that has room in two lines, and its kind."""
    for name in (each.name, figure_name(each)):
        lines = wrap(f"{name}, {each.kind}", LABEL)
        if len(lines) <= 2:
            return "\n".join(lines)
    return "\n".join(wrap(shorten(figure_name(each), 2 * LABEL, placeholder="..."), LABEL))


def _reached(each: Influence) -> list[tuple[str, str, float, float]]:
    """Return the ends at which something else is chosen: end, what, its gain [1], its speedup [1]."""
    ends = (
        ("low", each.instead_low, each.gain_low, each.speedup_low),
        ("high", each.instead_high, each.gain_high, each.speedup_high),
    )
    return [(end, what, gain, speedup * (1.0 + gain)) for end, what, gain, speedup in ends if what]


def _ends(ax: Axes, row: int, each: Influence) -> None:
    """The values of a figure at the ends of its bar."""
    ordered = sorted(((each.speedup_low, each.low), (each.speedup_high, each.high)))
    for (speedup, text), (shift, side) in zip(ordered, ((-4, "right"), (4, "left")), strict=True):
        if np.isfinite(speedup):
            written = ax.annotate(
                text.replace(" tokens a round", " tokens"), (speedup, row), xytext=(shift, 0),
                textcoords="offset points", ha=side, va="center", fontsize=7.5, color=INK,
            )  # fmt: skip
            written.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _instead(ax: Axes, row: int, each: Influence) -> None:
    """What would be chosen at an end: a diamond at its speedup, and words right of the bars."""
    reached = _reached(each)
    for _, _, _, speedup in reached:
        if np.isfinite(speedup):
            ax.plot(speedup, row - 0.36, marker="D", color=INK, markersize=4.5, clip_on=False, zorder=4)
    text = "; ".join(
        f"{end}: {what}" + (f" +{gain:.0%}" if np.isfinite(gain) else "") for end, what, gain, _ in reached
    )
    if text:
        ax.annotate(
            "\n".join(wrap(text, BESIDE)[:3]), (1.0, row), xycoords=("axes fraction", "data"),
            xytext=(8, 0), textcoords="offset points", va="center", fontsize=7.5, color=INK,
        )  # fmt: skip


def _limits(ax: Axes, shown: Sequence[Influence], middle: float | None) -> None:
    """Leave room beside the bars for the values of the figures."""
    values = [value for each in shown for value in (each.speedup_low, each.speedup_high)]
    values += [speedup for each in shown for *_, speedup in _reached(each)] + [middle or 1.0, 1.0]
    finite = [value for value in values if np.isfinite(value)]
    low, high = min(finite), max(finite)
    room = 0.27 * max(high - low, 0.02)
    ax.set_xlim(low - room, high + room)


def _said(every: Sequence[Influence], shown: Sequence[Influence]) -> str:
    """Say how many of how many figures are drawn."""
    if len(shown) < len(every):
        return f"the {len(shown)} of {len(every)} figures that matter most, each alone"
    return "each figure alone"
