"""Curves of speedup and of the two ratios that decide it, over batch size and over context length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from perfmodel.files.numbers import FloatArray
from perfmodel.planning.speedup_map import Surface
from perfmodel.plots.style import GREY, INK, Look, axes, family, legend_beside, log_axis, short_tokens, titled

__all__ = ["plot_ratios_against_batch", "plot_speedup_against_batch", "plot_speedup_against_context"]



def plot_speedup_against_batch(
    surface: Surface, contexts: Sequence[float] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw speedup [1] against batch size [sequences], one curve a context length, with its 80 % interval.

    Parameters
    ----------
    contexts : which contexts of the surface; all where absent. [tokens]
    """
    chosen = _places(surface.context_lens, contexts)
    ax = _speedup_axes(ax, surface)
    for look, place in zip(family(len(chosen)), chosen, strict=True):
        _curve(
            ax,
            surface.batch_sizes,
            surface,
            (slice(None), place),
            look,
            short_tokens(surface.context_lens[place]),
        )
    log_axis(ax, "x", surface.batch_sizes, "batch size [sequences]", lambda batch: f"{batch:g}")
    legend_beside(ax, "context [tokens]")
    return ax


def plot_speedup_against_context(
    surface: Surface, batches: Sequence[float] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw speedup [1] against context length [tokens], a curve a batch size; mark the inflection length.

    Parameters
    ----------
    batches : which batch sizes of the surface; all where absent. [sequences]
    """
    chosen = _places(surface.batch_sizes, batches)
    ax = _speedup_axes(ax, surface)
    for look, place in zip(family(len(chosen)), chosen, strict=True):
        _curve(
            ax, surface.context_lens, surface, (place, slice(None)), look, f"{surface.batch_sizes[place]:g}"
        )
    log_axis(ax, "x", surface.context_lens, "context length [tokens]", short_tokens)
    _mark_inflection(ax, surface)
    legend_beside(ax, "batch [sequences]")
    return ax


def plot_ratios_against_batch(
    surface: Surface, contexts: Sequence[float] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw T_V / T_T (filled) and T_D / T_T (hollow) [1] against batch size, a colour a context length.

    T_T is a plain decode step, T_V the verification of gamma + 1 tokens, T_D one draft pass.
    """
    chosen = _places(surface.context_lens, contexts)
    ax = axes(ax)
    for look, place in zip(family(len(chosen)), chosen, strict=True):
        context = short_tokens(surface.context_lens[place])
        for name, ratio, line, face in (
            ("T_V", surface.verify_ratio, "-", look.colour),
            ("T_D", surface.draft_ratio, (0, (3, 2)), "white"),
        ):
            ax.plot(
                surface.batch_sizes,
                ratio[:, place],
                color=look.colour,
                marker=look.marker,
                linestyle=line,
                markerfacecolor=face,
                linewidth=1.8,
                markersize=6,
                label=f"{name} / T_T at {context}",
            )
    ax.axhline(1.0, color=INK, linewidth=1.0)
    log_axis(ax, "x", surface.batch_sizes, "batch size [sequences]", lambda batch: f"{batch:g}")
    ax.set_ylabel("time relative to one plain decode step [1]", color=INK)
    ax.set_ylim(bottom=0.0)
    lengths = surface.gammas
    gamma = (
        f"speculation length {lengths[0]}"
        if len(lengths) == 1
        else f"speculation lengths {lengths[0]}-{lengths[-1]}"
    )
    titled(
        ax,
        "Verification T_V and one draft pass T_D against a plain step T_T",
        f"{surface.deployment}; {surface.label}, {gamma}",
    )
    legend_beside(ax, "ratio, at context [tokens]")
    return ax


def _speedup_axes(ax: Axes | None, surface: Surface) -> Axes:
    ax = axes(ax)
    ax.axhline(1.0, color=INK, linewidth=1.0)
    ax.set_ylabel("speedup over plain decoding [1]", color=INK)
    full = "; a curve ends where nothing is allowed" if np.isnan(surface.speedup).any() else ""
    titled(ax, f"Speedup of {surface.label}", f"{surface.deployment}\nbands hold 80 %{full}")
    return ax


def _curve(
    ax: Axes, x: FloatArray, surface: Surface, at: tuple[slice | int, int | slice], look: Look, label: str
) -> None:
    ax.fill_between(
        x, surface.speedup_low[at], surface.speedup_high[at], color=look.colour, alpha=0.13, linewidth=0
    )
    ax.plot(
        x,
        surface.speedup[at],
        color=look.colour,
        marker=look.marker,
        linestyle=look.line,
        linewidth=1.8,
        markersize=6,
        label=label,
    )


def _mark_inflection(ax: Axes, surface: Surface) -> None:
    """A line at the inflection length, in words where it lies outside what is drawn."""
    length = surface.inflection_context_len
    low, high = surface.context_lens[0], surface.context_lens[-1]
    if not low <= length <= high:
        side = "left" if length < low else "right"
        label = f"inflection length {length:,.0f} tokens, {side} of this figure"
        label = label if np.isfinite(length) else "no inflection length"
        ax.annotate(label, (0.01, 0.98), xycoords="axes fraction", va="top", fontsize=9, color=GREY)
        return
    ax.axvline(length, color=GREY, linewidth=1.4, linestyle=(0, (2, 2)))
    ax.annotate(
        f"inflection length\n{length:,.0f} tokens",
        (length, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(5, -4),
        textcoords="offset points",
        va="top",
        fontsize=9,
        color=GREY,
    )


def _places(axis: FloatArray, wanted: Sequence[float] | None) -> list[int]:
    """Where the wanted values lie on an axis; ValueError names one that is not there."""
    values = axis.tolist()
    return [values.index(float(value)) for value in (values if wanted is None else wanted)]
