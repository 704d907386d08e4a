"""The map of recommendations: strategy, draft KV budget and speculation length at every batch and context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch, Rectangle

from perfmodel.planning.captions import drafter_of
from perfmodel.planning.plan import NO_DRAFT, Cell, Plan
from perfmodel.plots.style import GREY, INK, Look, axes, legend_below, looks, short_tokens, titled

__all__ = ["drafters", "face", "keys", "plane", "plot_strategy_map", "square"]

PLAIN = "#E4E7EB"
HATCHED = (1.0, 1.0, 1.0, 0.75)
CROSSED: dict[str, Any] = {"facecolor": "white", "edgecolor": "#D0D5DB", "hatch": "xxx"}
"""A cell in which nothing is allowed."""


def plot_strategy_map(plan: Plan, ax: Axes | None = None) -> Axes:
    """Draw what a plan recommends over context length [tokens] and batch size [sequences].

    Colour and hatch name the strategy, the tint grows with the speedup; each cell says its speedup [1], its
    speculation length g and its draft KV budget [tokens]. Cells in which nothing is allowed are crossed.
    """
    batches = sorted({cell.batch_size for cell in plan.cells})
    contexts = sorted({cell.context_len for cell in plan.cells})
    ax = axes(ax, height=max(4.0, 1.7 + 0.5 * len(batches)))
    names = drafters(plan)
    faces = dict(zip(names, looks(len(names)), strict=True))
    most = max((cell.speedup for cell in plan.cells), default=1.0)
    answered = {(cell.batch_size, cell.context_len): cell for cell in plan.cells}
    for row, batch in enumerate(batches):
        for column, context in enumerate(contexts):
            cell = answered.get((batch, context))
            square(ax, column, row, face(cell, faces, most))
            if cell is not None:
                _words(ax, column, row, cell, small=len(contexts) > 9 or len(batches) > 12)
    plane(ax, batches, contexts)
    ax.set_xlabel("context length [tokens]", color=INK)
    ax.set_ylabel("batch size [sequences]", color=INK)
    where = f"{plan.model} on {plan.gpus} x {plan.hardware}{plan.layout}, engine {plan.engine}"
    titled(
        ax,
        "What to do at every batch size and context length",
        f"{where}\nspeedup, g: speculation length, KV: draft KV budget",
    )
    missing = len(answered) < len(batches) * len(contexts)
    legend_below(ax, keys(faces, plain=any(not cell.speculates for cell in plan.cells), missing=missing))
    return ax


def plane(ax: Axes, batches: Sequence[int], contexts: Sequence[int]) -> None:
    """Make axes a plane of squares: a column a context length, a row a batch size."""
    ax.grid(visible=False)
    ax.set_xlim(-0.5, len(contexts) - 0.5)
    ax.set_ylim(-0.5, len(batches) - 0.5)
    ax.set_xticks(range(len(contexts)), [short_tokens(context) for context in contexts])
    ax.set_yticks(range(len(batches)), [f"{batch:g}" for batch in batches])
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)


def drafters(*plans: Plan) -> Sequence[str]:
    """Return the drafters that plans recommend anywhere, the most frequent first."""
    names = [drafter_of(cell) for plan in plans for cell in plan.cells if cell.strategy != NO_DRAFT]
    return sorted(set(names), key=lambda name: (-names.count(name), name))


def face(cell: Cell | None, faces: Mapping[str, Look], most: float) -> dict[str, Any]:
    """Return how a cell is filled: the more speedup, the more colour."""
    if cell is None:
        return CROSSED
    if not cell.speculates:
        return {"facecolor": PLAIN}
    look = faces[drafter_of(cell)]
    share = float(np.clip((cell.speedup - 1.0) / max(most - 1.0, 1e-9), 0.0, 1.0))
    return {"facecolor": _tinted(look.colour, 0.25 + 0.45 * share), "edgecolor": HATCHED, "hatch": look.hatch}


def _tinted(colour: str, tint: float) -> tuple[float, float, float]:
    red, green, blue = (1.0 - tint * (1.0 - part) for part in to_rgb(colour))
    return red, green, blue


def square(ax: Axes, column: int, row: int, face: Mapping[str, Any]) -> None:
    """Fill one square of a map, with a white rim."""
    corner = (column - 0.5, row - 0.5)
    ax.add_patch(Rectangle(corner, 1, 1, linewidth=0, **face))
    ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="white", linewidth=2))


def _words(ax: Axes, column: int, row: int, cell: Cell, *, small: bool) -> None:
    """Speedup, speculation length and budget of one cell, as many as its size allows."""
    if not cell.speculates:
        ax.text(column, row, "plain", ha="center", va="center", fontsize=8, color=GREY)
        return
    lines = [
        f"g {cell.gamma}",
        *([] if cell.kv_budget is None or small else [f"KV {short_tokens(cell.kv_budget)}"]),
    ]
    ax.annotate(
        f"{cell.speedup:.2f}x",
        (column, row),
        xytext=(0, 4.5 * len(lines)),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=7 if small else 9,
        color=INK,
        fontweight="bold",
    )
    ax.annotate(
        "\n".join(lines),
        (column, row),
        xytext=(0, -5.5),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=6 if small else 7.5,
        color=INK,
        linespacing=1.15,
    )


def keys(faces: Mapping[str, Look], *, plain: bool, missing: bool) -> list[Artist]:
    """Return what the legend of a map holds: a key a drafter, and those of squares without one."""
    handles: list[Artist] = [
        Patch(facecolor=_tinted(look.colour, 0.6), edgecolor=HATCHED, hatch=look.hatch, label=name)
        for name, look in faces.items()
    ]
    if plain:
        handles.append(Patch(facecolor=PLAIN, label="do not speculate"))
    if missing:
        handles.append(Patch(**CROSSED, label="nothing is allowed"))
    return handles
