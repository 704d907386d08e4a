"""How acceptance grows with the draft KV budget, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from perfmodel.acceptance import Acceptance
from perfmodel.model import ModelSpec
from perfmodel.plots.style import INK, axes, legend_below, log_axis, looks, short_tokens, titled
from perfmodel.speculation import Drafter

__all__ = ["plot_acceptance_against_budget"]

TAIL = 0.1
"""Chance that the true acceptance lies below the band, and above it. [1]"""


def plot_acceptance_against_budget(
    target: ModelSpec,
    drafters: Sequence[Drafter],
    context_len: float,
    kv_budgets: Sequence[int],
    ax: Axes | None = None,
) -> Axes:
    """Draw acceptance rate [1] against draft KV budget [tokens], a curve and an 80 % interval a drafter.

    It is the rate of every drafted token after the first; a strategy without a budget is a level line.
    """
    ax = axes(ax, height=4.6 + 0.2 * max(len(drafters) // 2 - 1, 0))
    budgets = np.asarray(kv_budgets, dtype=float)
    for look, drafter in zip(looks(len(drafters)), drafters, strict=True):
        read = budgets if drafter.strategy.default_budgets else np.inf
        law = drafter.acceptance(target, context_len=context_len, kv_budget=read)
        middle, low, high = (np.broadcast_to(quantile.rest, budgets.shape) for quantile in _with_band(law))
        ax.fill_between(budgets, low, high, color=look.colour, alpha=0.14, linewidth=0)
        ax.plot(
            budgets,
            middle,
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            linewidth=1.8,
            markersize=6,
            label=f"{drafter.label} ({law.kind})",
        )
    log_axis(ax, "x", kv_budgets, "draft KV budget [tokens]", short_tokens)
    ax.set_ylabel("acceptance rate of a drafted token [1]", color=INK)
    ax.set_ylim(max(ax.get_ylim()[0], 0.0), 1.005)
    titled(
        ax,
        "Acceptance against draft KV budget",
        f"{target.name}, context {short_tokens(context_len)} tokens; bands hold 80 %",
    )
    legend_below(ax, ax.get_legend_handles_labels()[0])
    return ax


def _with_band(law: Acceptance) -> tuple[Acceptance, Acceptance, Acceptance]:
    return law, law.quantile(TAIL), law.quantile(1.0 - TAIL)
