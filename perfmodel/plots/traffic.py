"""What simulated policies deliver: the goodput that is left when a time per token is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from perfmodel.plots.style import GREY, INK, axes, legend_below, looks, titled
from perfmodel.traffic.metrics import Metrics

__all__ = ["plot_simulation"]

_POINTS = 200
_MARKS = 8


def plot_simulation(
    outcomes: Sequence[Metrics],
    ax: Axes | None = None,
    *,
    ttft: float | None = None,
    tpot: float | None = None,
    names: Sequence[str] | None = None,
) -> Axes:
    """Draw the goodput [tokens/s] of each outcome against the time per output token [ms] that is asked for.

    A curve starts where its fastest request meets the target and ends at its throughput, or, with a target
    for the first token, at what that leaves. Left and up is better.

    Parameters
    ----------
    ttft, tpot : targets; a line marks the second. [s]
    names : of the outcomes; their policies when absent.
    """
    ax = axes(ax)
    called = [outcome.name for outcome in outcomes] if names is None else list(names)
    slowest = max(float(np.quantile(outcome.tpot, 0.999)) for outcome in outcomes)
    asked = np.linspace(0.0, max(slowest, 1.02 * (tpot or 0.0)), _POINTS)
    for place, (name, outcome, look) in enumerate(zip(called, outcomes, looks(len(outcomes)), strict=True)):
        ax.plot(
            asked * 1e3,
            goodput_by_tpot(outcome, asked, ttft),
            color=look.colour,
            linestyle=look.line,
            marker=look.marker,
            markevery=(place * 3 % _MARKS, _POINTS // _MARKS),
            markersize=5,
            linewidth=1.6,
            label=name,
        )
    if tpot is not None:
        ax.axvline(tpot * 1e3, color=GREY, linewidth=1.2, linestyle=(0, (2, 2)), zorder=1)
    ax.set_xlabel("time per output token asked for [ms]", color=INK)
    ax.set_ylabel("goodput [tokens/s]", color=INK)
    ax.set_xlim(0.0, asked[-1] * 1e3)
    ax.set_ylim(bottom=0.0)
    first = outcomes[0]
    subtitle = f"{first.replica.deployment.model.name} on {first.replica.machine}"
    until = "" if ttft is None else f"; first token within {ttft:g} s"
    titled(ax, "Goodput against the target per token", f"{subtitle}, {first.trace.name}{until}")
    legend_below(ax, ax.get_legend_handles_labels()[0])
    return ax


def goodput_by_tpot(outcome: Metrics, asked: np.ndarray, ttft: float | None = None) -> np.ndarray:
    """Output tokens per second of the requests within each time per token asked for. [s] -> [tokens/s]"""
    in_time = outcome.meets(ttft=ttft)
    tpot, tokens = outcome.tpot[in_time], outcome.trace.output_tokens[in_time]
    order = np.argsort(tpot)
    reached = np.concatenate([[0.0], np.cumsum(tokens[order])])
    return reached[np.searchsorted(tpot[order], asked, side="right")] / outcome.makespan
