"""Where the time of a round goes: stacked by cause, beside a plain decode step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from perfmodel.planning.breakdown import Breakdown, PassTime
from perfmodel.plots.style import CAUSE_LOOKS, INK, axes, legend_below, short_tokens, titled

__all__ = ["CauseBar", "cause_bars", "plot_time_by_cause"]

WORDS = {
    "linear": "linear layers",
    "attention": "attention",
    "recurrence": "recurrent states",
    "communication": "communication",
    "overhead": "engine",
}


@dataclass(frozen=True)
class CauseBar:
    """One bar: what it is, and seconds by cause. [s]"""

    name: str
    seconds: dict[str, float]

    @property
    def total(self) -> float:
        """Seconds of the whole bar. [s]"""
        return sum(self.seconds.values())


def cause_bars(explained: Breakdown) -> list[CauseBar]:
    """The bars of a breakdown: target, draft phase, verification, round, round over its tokens. [s]"""
    plain = _bar(explained.passes[0], 1.0, "plain step, 1 token")
    if len(explained.passes) == 1:
        return [plain]
    option = next(best for best in explained.options if best.drafter == explained.shown)
    phases = []
    if len(explained.passes) > 2:
        passes = option.draft_passes
        word = "pass" if passes == 1 else "passes"
        phases.append(_bar(explained.passes[1], float(passes), f"{passes} draft {word}"))
    phases.append(_bar(explained.passes[-1], 1.0, f"verification of {option.verified}"))
    whole = {cause: sum(phase.seconds[cause] for phase in phases) for cause in WORDS}
    whole["overhead"] += explained.round_overhead_s
    tokens = option.tokens_per_round
    each = {cause: seconds / tokens for cause, seconds in whole.items()}
    return [
        plain,
        *phases,
        CauseBar(f"whole round, {tokens:.2f} tokens", whole),
        CauseBar("round per token", each),
    ]


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


def _bar(part: PassTime, passes: float, name: str) -> CauseBar:
    return CauseBar(name, {cause: passes * getattr(part, f"{cause}_s") for cause in WORDS})
