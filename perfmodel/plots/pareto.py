"""Throughput against latency: what speculation adds to the front of a deployment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from perfmodel.planning.captions import best_and_plain, pareto_in_words
from perfmodel.planning.pareto import EVERYTHING, PLAIN, Front, knee
from perfmodel.plots.style import GREY, INK, Look, axes, legend_below, looks, titled

__all__ = ["plot_throughput_against_tpot"]

PLAIN_LOOK = Look(GREY, "x", (0, (1, 1)), "")


def plot_throughput_against_tpot(
    fronts: Sequence[Front], subtitle: str = "", ax: Axes | None = None, *, tpot: float | None = None
) -> Axes:
    """Draw throughput per GPU [tokens/s] against time per output token [ms]: up and to the left is better.

    The thick line is the front of what a plan recommends, the dotted one that of plain decoding; what they
    beat is faint. Marks name who drafts, numbers the batch size, a ring the knee.

    Parameters
    ----------
    fronts : what `price_fronts` returns. subtitle : what the workload is, in words.
    tpot : longest time per output token that is allowed, drawn as a line. [s]
    """
    ax = axes(ax)
    best, plain = best_and_plain(fronts)
    names = [front.label for front in fronts if front.label not in (EVERYTHING, PLAIN)]
    faces = dict(zip(names, looks(len(names)), strict=True))
    several = len({*best.gpus.tolist(), *(plain.gpus.tolist() if plain else ())}) > 1
    _beaten(ax, fronts, faces)
    if plain is not None:
        _line(ax, plain, PLAIN_LOOK, PLAIN)
    ax.plot(
        best.tpot * 1e3, best.throughput, color=INK, linewidth=2.2, label="best at each batch size", zorder=3
    )
    for name in [*names, PLAIN]:
        here = np.array([each == name for each in best.drafters])
        look = faces.get(name, PLAIN_LOOK)
        if name != PLAIN and not here.any():
            ax.plot([], [], color=look.colour, marker=look.marker, linestyle="none", alpha=0.3, label=name)
        elif name != PLAIN:
            ax.plot(
                best.tpot[here] * 1e3, best.throughput[here], color=look.colour, marker=look.marker,
                linestyle="none", markersize=8, markeredgecolor="white", label=name, zorder=4,
            )  # fmt: skip
    _batches(ax, best, several=several)
    _ring(ax, best)
    ax.set_xlabel("time per output token of one sequence [ms]", color=INK)
    ax.set_ylabel("throughput of one GPU [tokens/s]", color=INK)
    ax.set_xlim(0.0, 1.05 * max(float(front.tpot.max()) for front in fronts) * 1e3)
    ax.set_ylim(0.0, 1.12 * max(float(front.throughput.max()) for front in fronts))
    marks = "numbers: batch size" + (" x GPUs" if several else "") + "; faint: beaten in both"
    if tpot is not None and not _limit(ax, tpot):
        marks += f"; TPOT limit {tpot * 1e3:g} ms: to the right"
    below = f"{subtitle}\n{marks}" if subtitle else marks
    titled(ax, "Throughput against latency", below, pareto_in_words(fronts, tpot))
    legend_below(ax, ax.get_legend_handles_labels()[0])
    return ax


def _beaten(ax: Axes, fronts: Sequence[Front], faces: dict[str, Look]) -> None:
    """What each drafter reaches at its best, faint: the front lies over what of it is best of all."""
    for front in fronts:
        if front.label == EVERYTHING:
            continue
        look = faces.get(front.label, PLAIN_LOOK)
        points = np.concatenate([np.stack([front.tpot, front.throughput]), front.beaten], axis=1)
        ax.plot(
            points[0] * 1e3, points[1], color=look.colour, marker=look.marker, linestyle="none", alpha=0.3,
            markersize=4.5, zorder=1,
        )  # fmt: skip


def _line(ax: Axes, front: Front, look: Look, label: str) -> None:
    ax.plot(
        front.tpot * 1e3, front.throughput, color=look.colour, marker=look.marker, linestyle=look.line,
        linewidth=1.6, markersize=6, label=label, zorder=2,
    )  # fmt: skip


def _batches(ax: Axes, best: Front, *, several: bool) -> None:
    """The batch size beside the points of the front, where there is room above the one before."""
    written: list[tuple[float, float]] = []
    right, top = float(best.tpot[-1]), float(best.throughput.max())
    near = 0.085 if several else 0.05
    for tpot, throughput, batch, gpus in zip(best.tpot, best.throughput, best.batch, best.gpus, strict=True):
        place = tpot / right, throughput / top
        if any(abs(place[0] - x) < near and abs(place[1] - y) < 0.05 for x, y in written):
            continue
        written.append(place)
        ax.annotate(
            f"{batch:g} x {gpus:g}" if several else f"{batch:g}", (tpot * 1e3, throughput), xytext=(-7, 5),
            textcoords="offset points", ha="right", fontsize=8, color=INK,
        )  # fmt: skip


def _ring(ax: Axes, best: Front) -> None:
    """A ring around the knee, and its name."""
    bend = knee(best)
    if bend is None:
        return
    at = bend.tpot * 1e3, bend.throughput
    ax.plot(
        *at, marker="o", markersize=15, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.4,
        zorder=5,
    )  # fmt: skip
    ax.annotate(
        "knee", at, xytext=(13, -17), textcoords="offset points", fontsize=9, color=INK, fontweight="bold"
    )


def _limit(ax: Axes, tpot: float) -> bool:
    """Draw a line at the longest time per token that is allowed, and return whether it lies within."""
    high = ax.get_xlim()[1]
    if tpot * 1e3 > high:
        return False
    ax.axvline(tpot * 1e3, color=INK, linewidth=1.2, linestyle=(0, (2, 2)))
    ax.annotate(
        f"TPOT limit {tpot * 1e3:g} ms", (tpot * 1e3, 0.02), xycoords=("data", "axes fraction"),
        xytext=(-4 if tpot * 1e3 > high / 2 else 4, 0), textcoords="offset points",
        ha="right" if tpot * 1e3 > high / 2 else "left", fontsize=9, color=INK,
    )  # fmt: skip
    return True
