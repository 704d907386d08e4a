"""The maps of several engines side by side, and what each loses by what its software cannot run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from perfmodel.files.numbers import FloatArray
from perfmodel.planning.captions import engines_in_words
from perfmodel.planning.engine_maps import EngineMap, axes_of
from perfmodel.planning.plan import Cell, Plan
from perfmodel.plots.maps import drafters, face, keys, plane, square
from perfmodel.plots.style import GREY, INK, Look, looks, sheet

__all__ = ["plot_engine_maps"]

WIDE = 6
"""Context lengths of which two maps have room beside each other. [1]"""
ROW = 0.42
"""Height of a square. [inches]"""


def plot_engine_maps(maps: Sequence[EngineMap]) -> list[Axes]:
    """Draw a map an engine of what it should do over context length [tokens] and batch size [sequences].

    Colours are the same in all maps; each cell says its speedup over plain decoding [1], and below it the
    tokens per second that are lost by what the software cannot run [%].
    """
    plans = [each.plan for each in maps]
    batches, contexts = axes_of(plans[0])
    names = drafters(*plans)
    faces = dict(zip(names, looks(len(names)), strict=True))
    most = max(cell.speedup for plan in plans for cell in plan.cells)
    columns = 1 if len(maps) == 1 or len(contexts) > WIDE else 2
    plain = any(not cell.speculates for plan in plans for cell in plan.cells)
    missing = any(len(plan.cells) < len(batches) * len(contexts) for plan in plans)
    first = plans[0]
    grid = sheet(
        -(-len(maps) // columns), columns, height=0.75 + ROW * len(batches),
        title="What each engine should do, and what it loses",
        caption=engines_in_words(maps),
        below=f"{first.model} on {first.gpus} x {first.hardware}{first.layout}; speedup over plain decoding "
        "of that engine, below it tokens/s lost",
        handles=keys(faces, plain=plain, missing=missing),
    )  # fmt: skip
    every = [ax for row in grid for ax in row]
    for ax, each in zip(every, maps, strict=False):
        plane(ax, batches, contexts)
        _draw(ax, each.plan, each.loss, faces, most)
        ax.set_title(_title(each), loc="left", fontsize=10, color=INK)
    for ax in every[len(maps) :]:
        ax.set_visible(False)
    for row in grid:
        row[0].set_ylabel("batch size [sequences]", color=INK)
    for place, ax in enumerate(every[: len(maps)]):
        if place + columns >= len(maps):
            ax.set_xlabel("context length [tokens]", color=INK)
            ax.tick_params(axis="x", labelbottom=True)
    return every[: len(maps)]


def _title(each: EngineMap) -> str:
    loss = float(np.nanmax(each.loss, initial=0.0))
    name = each.name if each.plan.engine.lower() == each.name.lower() else f"{each.name} ({each.plan.engine})"
    return f"{name}: loses {f'up to {loss:.0%}' if loss else 'nothing'}"


def _draw(ax: Axes, plan: Plan, loss: FloatArray, faces: Mapping[str, Look], most: float) -> None:
    batches, contexts = axes_of(plan)
    answered = {(cell.batch_size, cell.context_len): cell for cell in plan.cells}
    for row, batch in enumerate(batches):
        for column, context in enumerate(contexts):
            cell = answered.get((batch, context))
            square(ax, column, row, face(cell, faces, most))
            if cell is not None:
                _words(ax, column, row, cell, float(loss[row, column]))


def _words(ax: Axes, column: int, row: int, cell: Cell, loss: float) -> None:
    """What a cell does, and below it what is lost there."""
    lost = loss > 0.0
    for text, shift, size, colour, weight in (
        (f"{cell.speedup:.2f}x" if cell.speculates else "plain", 5.5 if lost else 0.0, 8.0,
         INK if cell.speculates else GREY, "bold" if cell.speculates else "normal"),
        (f"\u2212{loss:.0%}" if lost else "", -5.5, 8.0, INK, "normal"),
    ):  # fmt: skip
        if text:
            written = ax.annotate(
                text, (column, row), xytext=(0, shift), textcoords="offset points", ha="center", va="center",
                fontsize=size, color=colour, fontweight=weight,
            )  # fmt: skip
            written.set_path_effects([withStroke(linewidth=1.8, foreground="white", alpha=0.7)])


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
