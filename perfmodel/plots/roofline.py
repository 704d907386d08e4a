"""The roofline of an accelerator, with the operations of a workload on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from perfmodel.files.units import format_rate
from perfmodel.hardware import HardwareProfile
from perfmodel.planning.operations import Operation
from perfmodel.plots.style import COLOURS, GREY, INK, axes, legend_below, titled

__all__ = ["plot_roofline"]

PHASES = {"plain step": ("o", 1.25), "draft pass": ("^", 0.7), "verification": ("s", 1.0)}
"""Marker of each pass and its relative size: the target's step is a ring around the draft's."""
KINDS = {"linear layers": (COLOURS[0], "-"), "attention": (COLOURS[5], (0, (3, 2)))}
KINDS["recurrent states"] = (COLOURS[3], (0, (1, 1)))


def plot_roofline(
    hardware: HardwareProfile,
    kernels: Sequence[Operation],
    *,
    dtype: str = "bf16",
    subtitle: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw the rate of each operation [TFLOP/s] against its arithmetic intensity [FLOP/B], under the roofs.

    The roofs are the data sheet's: bandwidth times intensity, and the dense peak of `dtype`. An operation
    whose numbers are arrays, one element a batch size, is a path that starts small and ends large.

    Parameters
    ----------
    found : what `perfmodel.planning.operations` counted on one GPU.
    said : what the workload is, in words.
    """
    ax = axes(ax)
    bandwidth, peak = float(np.asarray(hardware.memory_bandwidth)), float(np.asarray(hardware.peak(dtype)))
    intensities = np.concatenate([np.ravel(kernel.intensity) for kernel in kernels])
    ridge = peak / bandwidth
    reach = np.geomspace(
        min(float(intensities.min()), ridge) / 2.0, max(float(intensities.max()), ridge) * 2.5, 200
    )
    roof = np.minimum(reach * bandwidth, peak)
    ax.plot(reach, roof / 1e12, color=INK, linewidth=1.8)
    rates = np.concatenate([np.ravel(kernel.rate) for kernel in kernels]) / 1e12
    bottom, top = float(rates.min()) / 2.5, peak / 1e12 * 2.6
    ax.fill_between(reach, roof / 1e12, top, color="#F1F3F5", linewidth=0)
    ax.plot([ridge, ridge], [bottom, peak / 1e12], color=GREY, linewidth=1.0, linestyle=(0, (1, 2)))
    for kernel in kernels:
        _path(ax, kernel)
    for axis in ("x", "y"):
        getattr(ax, f"set_{axis}scale")("log")
        getattr(ax, f"{axis}axis").set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    ax.set_xlim(reach[0], reach[-1])
    ax.set_ylim(bottom, top)
    ax.set_xlabel("arithmetic intensity [FLOP per byte moved]", color=INK)
    ax.set_ylabel("rate on one GPU [TFLOP/s]", color=INK)
    ax.annotate(
        f"{dtype} peak {format_rate(peak, 'flops')}",
        (reach[-1], peak / 1e12),
        xytext=(-4, 4),
        ha="right",
        textcoords="offset points",
        fontsize=9,
        color=INK,
    )
    _along_the_slope(ax, reach[0], bandwidth)
    ax.annotate(
        f"{ridge:.0f} FLOP/B",
        (ridge, 0.0),
        xycoords=("data", "axes fraction"),
        xytext=(4, 5),
        textcoords="offset points",
        fontsize=9,
        color=GREY,
    )
    titled(ax, f"Roofline of {hardware.name}", subtitle)
    legend_below(ax, _handles(kernels))
    return ax


def _path(ax: Axes, kernel: Operation) -> None:
    """One operation: a marker for each batch size, growing with it, on a thin line."""
    colour, line = KINDS[kernel.name]
    marker, size = PHASES[kernel.phase]
    x, y = np.atleast_1d(kernel.intensity), np.atleast_1d(kernel.rate) / 1e12
    ax.plot(x, y, color=colour, linestyle=line, linewidth=1.2, gid=f"{kernel.name}, {kernel.phase}")
    sizes = size * (np.linspace(4.0, 8.0, x.size) if x.size > 1 else np.array([8.0]))
    for place in range(x.size):
        ax.plot(x[place], y[place], markersize=sizes[place], **_marker(colour, marker))


def _marker(colour: str, marker: str) -> dict[str, Any]:
    """A hollow ring for the plain step, which others may lie in; filled for the rest."""
    if marker == "o":
        return {
            "marker": marker,
            "linestyle": "",
            "markerfacecolor": "none",
            "markeredgecolor": colour,
            "markeredgewidth": 1.8,
        }
    return {
        "marker": marker,
        "linestyle": "",
        "color": colour,
        "markeredgecolor": "white",
        "markeredgewidth": 0.7,
    }


def _along_the_slope(ax: Axes, left: float, bandwidth: float) -> None:
    """Write the bandwidth along its roof."""
    at = left * 3.0
    ax.annotate(
        f"memory {format_rate(bandwidth)}",
        (at, at * bandwidth / 1e12),
        xytext=(-3, 5),
        fontsize=9,
        color=INK,
        textcoords="offset points",
        rotation=35.0,
        rotation_mode="anchor",
    )


def _handles(kernels: Sequence[Operation]) -> list[Line2D]:
    phases = [phase for phase in PHASES if any(kernel.phase == phase for kernel in kernels)]
    kinds = [kind for kind in KINDS if any(kernel.name == kind for kernel in kernels)]
    return [
        Line2D([], [], markersize=7, label=f"{kind}, {phase}", **_marker(KINDS[kind][0], PHASES[phase][0]))
        for phase in phases
        for kind in kinds
    ]
