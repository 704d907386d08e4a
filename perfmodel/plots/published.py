"""Published measurements beside what is computed for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes

from perfmodel.errors import SpecError
from perfmodel.evidence.published.curves import price_measured
from perfmodel.evidence.published.measurements import Measurement
from perfmodel.plots.style import (
    INK,
    axes,
    family,
    legend_beside,
    log_axis,
    looks,
    short_tokens,
    titled,
)

__all__ = ["ComparedPoint", "plot_predicted_against_published", "plot_published_speedup"]

NEAR = (0.1, 0.2)
"""Relative errors that the two bands around the diagonal hold. [1]"""


class ComparedPoint(Protocol):
    """One published number and what is computed for it; `series` names its table."""

    @property
    def series(self) -> str: ...

    @property
    def published(self) -> float: ...

    @property
    def computed(self) -> float: ...


def plot_predicted_against_published(
    points: Sequence[ComparedPoint],
    ax: Axes | None = None,
    *,
    quantity: str = "speedup over plain decoding [1]",
) -> Axes:
    """Draw computed against published numbers, one look a series; on the line they agree.

    The bands hold errors of 10 and of 20 %. Both axes have the same scale, logarithmic where the numbers span
    more than a factor of eight.

    Parameters
    ----------
    quantity : what the numbers are, with its unit.
    """
    ax = axes(ax, height=5.6)
    published = np.array([point.published for point in points])
    computed = np.array([point.computed for point in points])
    both = np.concatenate([published, computed])
    low, high = float(both.min()), float(both.max())
    wide = high > 8.0 * low
    low, high = (low / 1.3, high * 1.3) if wide else (low - 0.08 * (high - low), high + 0.08 * (high - low))
    reach = np.array([low, high])
    for share in NEAR:
        ax.fill_between(
            reach, reach * (1.0 - share), reach * (1.0 + share), color="#DDE3E9", alpha=0.55, linewidth=0
        )
    ax.plot(reach, reach, color=INK, linewidth=1.2)
    series = list(dict.fromkeys(point.series for point in points))
    for look, name in zip(looks(len(series)), series, strict=True):
        of_series = np.array([point.series == name for point in points])
        error = np.mean(np.abs(computed[of_series] / published[of_series] - 1.0))
        ax.plot(
            published[of_series],
            computed[of_series],
            color=look.colour,
            marker=look.marker,
            linestyle="",
            markersize=6.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            label=f"{name}: {of_series.sum()}, mean error {error:.1%}",
        )
    if wide:
        ax.set_xscale("log")
        ax.set_yscale("log")
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.set_xlabel(f"published {quantity}", color=INK)
    ax.set_ylabel(f"computed {quantity}", color=INK)
    mean = np.mean(np.abs(computed / published - 1.0))
    titled(
        ax, "Computed against published", f"{len(points)} numbers, mean error {mean:.1%}; bands: 10 and 20 %"
    )
    ax.legend(loc="upper left", frameon=False, fontsize=9, handlelength=1.2)
    return ax


def plot_published_speedup(rows: Sequence[Measurement], ax: Axes | None = None) -> Axes:
    """Draw published speedups [1] (markers) and computed ones (lines) against batch size, by context.

    The rows share a deployment, a drafter and a budget. Lines use the published speculation length where all
    rows were measured at one, else the best one; acceptance is the drafter's law, not the source's figure.
    """
    measured = [row for row in rows if np.isfinite(row.speedup)]
    if not measured:
        raise SpecError.single("", "rows", "hold no published speedup", "Name tables of speculative decoding")
    surface = price_measured(measured)
    ax = axes(ax)
    ax.axhline(1.0, color=INK, linewidth=1.0)
    for place, look in enumerate(family(surface.context_lens.size)):
        context = surface.context_lens[place]
        here = sorted((row.batch, row.speedup) for row in measured if row.context_len == context)
        batches, speedups = zip(*here, strict=True)
        drawn = surface.batch_sizes <= max(batches)
        ax.plot(
            surface.batch_sizes[drawn],
            surface.speedup[drawn, place],
            color=look.colour,
            linestyle=look.line,
            linewidth=1.8,
            marker="_",
            markersize=15,
            markeredgewidth=2.0,
        )
        ax.plot(
            batches,
            speedups,
            color=look.colour,
            marker=look.marker,
            linestyle="",
            markersize=7.5,
            markeredgecolor="white",
            markeredgewidth=0.7,
            label=short_tokens(context),
        )
    log_axis(ax, "x", surface.batch_sizes, "batch size [sequences]", lambda batch: f"{batch:g}")
    ax.set_ylabel("speedup [1]", color=INK)
    titled(ax, f"{surface.label}: published (markers) and computed (lines)", surface.deployment)
    legend_beside(ax, "context [tokens]")
    return ax
