"""Reading the KV cache as a share of a decode step, and against the weights, a line a model."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from perfmodel.files.units import format_bytes
from perfmodel.planning.bottleneck import Bottleneck
from perfmodel.planning.captions import bottleneck_in_words
from perfmodel.plots.style import INK, key, log_axis, looks, sheet, short_tokens

__all__ = ["plot_kv_bottleneck"]


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


def _named(model: Bottleneck) -> str:
    kept = format_bytes(model.kv_bytes_per_token) if model.kv_bytes_per_token else "no cache that grows"
    return f"{model.name}: {kept} a token; {model.layers}"
