"""Throughput against latency: what speculation adds to the front of a deployment."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from perfmodel.planning.pareto import EVERYTHING, PLAIN, Front
from perfmodel.plots.style import GREY, INK, axes, legend_below, looks, titled

__all__ = ["plot_throughput_against_tpot"]


def plot_throughput_against_tpot(fronts: Sequence[Front], subtitle: str = "", ax: Axes | None = None) -> Axes:
    """Draw throughput per GPU [tokens/s] against time per output token [ms]: up and to the left is better.

    Thin lines are what each drafter reaches at its best, the thick one what none beats; numbers beside it are
    batch sizes.

    Parameters
    ----------
    fronts : what `price_fronts` returns. said : what the workload is, in words.
    """
    ax = axes(ax)
    [best] = [front for front in fronts if front.label == EVERYTHING]
    each = [front for front in fronts if front.label not in (EVERYTHING, PLAIN)]
    ax.plot(
        best.tpot * 1e3, best.throughput, color=INK, linewidth=5.0, alpha=0.16, label="Pareto front", zorder=1
    )
    for look, front in zip(looks(len(each)), each, strict=True):
        ax.plot(
            front.tpot * 1e3,
            front.throughput,
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            linewidth=1.6,
            markersize=5,
            label=front.label,
        )
    for front in fronts:
        if front.label == PLAIN:
            ax.plot(
                front.tpot * 1e3,
                front.throughput,
                color=GREY,
                marker="x",
                linestyle=(0, (1, 1)),
                linewidth=1.6,
                markersize=6,
                label=PLAIN,
            )
    _batches(ax, best)
    ax.set_xlabel("time per output token of one sequence [ms]", color=INK)
    ax.set_ylabel("throughput of one GPU [tokens/s]", color=INK)
    ax.set_xlim(0.0, 1.05 * max(float(front.tpot.max()) for front in fronts) * 1e3)
    ax.set_ylim(0.0, 1.1 * max(float(front.throughput.max()) for front in fronts))
    titled(
        ax, "Throughput against latency", f"{subtitle}; numbers on the front: batch size" if subtitle else ""
    )
    legend_below(ax, ax.get_legend_handles_labels()[0])
    return ax


def _batches(ax: Axes, best: Front) -> None:
    """The batch size beside the first point of each batch on the front."""
    seen: set[float] = set()
    for tpot, throughput, batch in zip(best.tpot, best.throughput, best.batch, strict=True):
        if batch not in seen:
            seen.add(batch)
            ax.annotate(
                f"{batch:g}",
                (tpot * 1e3, throughput),
                xytext=(-5, 5),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                color=INK,
            )
