"""Reading the KV cache as a share of a decode step, and against the weights, a line a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from perfmodel.files.units import format_bytes, plural
from perfmodel.planning.bottleneck import Bottleneck
from perfmodel.plots.style import INK, key, log_axis, looks, sheet, short_tokens

__all__ = ["bottleneck_in_words", "plot_kv_bottleneck"]


def plot_kv_bottleneck(models: Sequence[Bottleneck], batch_size: int, deployment: str) -> list[Axes]:
    """Draw the share of a plain step that reads the cache [%], and its bytes over those of the weights [1].

    Parameters
    ----------
    models : what `price_bottleneck` returns, all over the same contexts. batch_size : theirs. [sequences]
    deployment : what they run on, in words.
    """
    contexts = models[0].context_lens
    faces = looks(len(models))
    handles: list[Artist] = [
        key(look, _named(model)) for look, model in zip(faces, models, strict=True)
    ]
    [share], [ratio] = sheet(
        2, 1, height=2.7, title="Where the KV bottleneck is",
        caption=bottleneck_in_words(models, batch_size),
        below=f"{deployment}, batch {batch_size}; named with what one more token keeps, and the layers",
        handles=handles, across=False,
    )  # fmt: skip
    for look, model in zip(faces, models, strict=True):
        for ax, values in ((share, 100.0 * model.cache_share), (ratio, model.read_ratio)):
            ax.plot(
                contexts, values, color=look.colour, marker=look.marker, linestyle=look.line, linewidth=1.7,
                markersize=5,
            )  # fmt: skip
    for ax in (share, ratio):
        log_axis(ax, "x", contexts, "context length [tokens]" if ax is ratio else "", short_tokens)
    share.set_ylim(0.0, 100.0)
    share.set_ylabel("attention, share of a step [%]", color=INK)
    ratio.set_yscale("log")
    ratio.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ratio.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    ratio.axhline(1.0, color=INK, linewidth=1.0)
    ratio.set_ylabel("cache read over weights read [1]", color=INK)
    return [share, ratio]


def bottleneck_in_words(models: Sequence[Bottleneck], batch_size: int) -> str:
    """Say which model reads most and which least at the longest context, and where caches pass weights."""
    longest = short_tokens(models[0].context_lens[-1])
    ordered = sorted(models, key=lambda model: -float(model.cache_share[-1]))
    most, least = ordered[0], ordered[-1]
    share = f"At {longest} tokens attention takes {most.cache_share[-1]:.0%} of a step of {most.name}"
    if most is not least:
        share += f", {least.cache_share[-1]:.0%} of one of {least.name}"
    return f"{share}. {_passes(models, batch_size)}"


def _passes(models: Sequence[Bottleneck], batch_size: int) -> str:
    """Say from which context on a step of a batch reads more of the cache than of the weights."""
    first, last = models[0].context_lens[[0, -1]]
    passing = [model for model in models if np.isfinite(model.passes_at)]
    within = sorted(passing, key=lambda model: model.passes_at)
    never = [model.name for model in models if not np.isfinite(model.passes_at)]
    if not within:
        return f"Up to {short_tokens(last)} tokens none of them reads more cache than weights."
    order = [" (the first)", " (the last)"] if len(within) > 2 else ["", ""]
    parts = [
        f"{_about(max(model.passes_at, first))} tokens in {model.name}{which}"
        for model, which in zip([within[0], *within[1:][-1:]], order, strict=False)
    ]
    beyond = f", and not up to {short_tokens(last)} in {_listed(never)}" if never else ""
    read = f"A step of {plural(batch_size, 'sequence')} reads more cache than weights"
    return f"{read} from about {' and '.join(parts)} on{beyond}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _about(value: float) -> str:
    """Return a number of tokens to two digits."""
    return f"{round(value, 2 - len(str(int(value)))):,.0f}"


def _named(model: Bottleneck) -> str:
    kept = format_bytes(model.kv_bytes_per_token) if model.kv_bytes_per_token else "no cache that grows"
    return f"{model.name}: {kept} a token; {model.layers}"
