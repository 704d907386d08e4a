"""The acceptance that drafting needs beside what is believed, a panel a drafter and context length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from perfmodel.planning.captions import needed_in_words
from perfmodel.planning.needed import Needed
from perfmodel.plots.style import INK, key, looks, sheet, short_tokens

__all__ = ["MOST_PANELS", "plot_acceptance_needed"]

KNOWN, NEEDED = looks(2)
MOST_PANELS = 4
"""Context lengths that have room beside each other. [1]"""
MOST_TICKS = 5
"""Batch sizes that a panel has room to name. [1]"""


def plot_acceptance_needed(every: Sequence[Needed], deployment: str) -> list[Axes]:
    """Draw the acceptance rate needed and known [1] against batch size, a row a drafter, a column a context.

    Drafting pays where the blue line lies above the orange one; the band holds 80 % of what is believed.

    Parameters
    ----------
    every : what `price_needed` returns. deployment : what runs on what, in words.
    """
    contexts = every[0].context_lens
    handles: list[Artist] = [
        key(KNOWN, "known"),
        Patch(facecolor=KNOWN.colour, alpha=0.18, label="80 % of what is believed"),
        key(NEEDED, "needed to pay"),
    ]
    panels = [(each, column) for each in every for column in range(len(contexts))]
    columns = len(contexts) if len(contexts) > 1 else min(len(every), 3)
    grid = sheet(
        -(-len(panels) // columns), columns, height=1.75 if len(panels) > columns else 2.6,
        title="Acceptance needed against acceptance known",
        caption=needed_in_words(every),
        below=f"{deployment}; each drafter at its own best budget and length",
        handles=handles,
    )  # fmt: skip
    drawn = [ax for row in grid for ax in row]
    for place, ax in enumerate(drawn):
        if place >= len(panels):
            ax.set_visible(False)
            continue
        each, column = panels[place]
        _draw(ax, each, column)
        ax.set_title(f"{each.label}, {short_tokens(contexts[column])}", loc="left", fontsize=9, color=INK)
        ax.set_ylim(_lowest(every), 1.03)
        if place % columns == 0:
            ax.set_ylabel("rate [1]", color=INK)
        if place + columns >= len(panels):
            ax.set_xlabel("batch [sequences]", color=INK)
            ax.tick_params(axis="x", labelbottom=True)
    return drawn[: len(panels)]


def _draw(ax: Axes, each: Needed, column: int) -> None:
    """Draw one drafter at one context length."""
    batches, at = each.batch_sizes, (slice(None), column)
    places, step = np.arange(batches.size), -(-batches.size // MOST_TICKS)
    ax.fill_between(places, each.low[at], each.high[at], color=KNOWN.colour, alpha=0.18, linewidth=0)
    for values, look in ((each.known[at], KNOWN), (each.needed[at], NEEDED)):
        ax.plot(
            places, values, color=look.colour, marker=look.marker, linestyle=look.line, linewidth=1.6,
            markersize=4.5,
        )  # fmt: skip
    if not np.isfinite(each.needed[at]).any():
        ax.annotate("nothing is allowed", (0.5, 0.5), xycoords="axes fraction", ha="center", color=INK)
    ax.set_xlim(-0.4, batches.size - 0.6)
    ax.set_xticks(places[::step], [f"{batch:g}" for batch in batches[::step]])


def _lowest(every: Sequence[Needed]) -> float:
    """Return where the vertical axis begins. [1]"""
    least = min(float(np.nanmin([each.low, each.needed])) for each in every)
    return float(max(np.floor(least * 10.0 - 0.2) / 10.0, -0.03))
