"""How every figure looks: 800 pixels wide, told apart without colour, the same bytes at each run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from textwrap import wrap

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from perfmodel.errors import SpecError, printable
from perfmodel.files.writing import write_whole

__all__ = [
    "CAUSE_LOOKS", "DPI", "GREY", "INK", "MOST_SERIES", "PALE", "Look", "axes", "family", "figure_bytes",
    "file_kind", "legend_below", "legend_beside", "log_axis", "looks", "panels", "save", "short_tokens",
    "titled",
]  # fmt: skip

DPI = 100
SIZE = (8.0, 4.8)
"""Inches: 800 x 480 pixels."""
MOST_SERIES = 8
"""Series that stay apart: so many looks there are. [1]"""
MOST_TICKS = 11
LONGEST_LINE = 92
"""Characters of a subtitle that fit into the width. [1]"""
BELOW = -40.0
"""Where a legend below the axes begins: under the axis label. [pt]"""
INK, GREY, PALE = "#1f2933", "#7b8794", "#e4e7eb"


@dataclass(frozen=True)
class Look:
    """Colour, marker, line and hatch of one series: any one of them tells it from the others."""

    colour: str
    marker: str
    line: str | tuple[float, tuple[float, ...]]
    hatch: str


LINES: tuple[str | tuple[float, tuple[float, ...]], ...] = (
    "-",
    (0, (6, 2)),
    (0, (2, 1.5)),
    (0, (7, 2, 1.5, 2)),
    (0, (1, 1)),
    (0, (10, 3)),
    (0, (4, 1, 1, 1, 1, 1)),
    (0, (3, 3)),
)
MARKERS = "osD^vPX*"
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "++", "ooo", "--")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5B4A8A", "#8C6D31")
"""Okabe and Ito's colours, darkest apart, with two more: told apart in the common colour blindnesses."""
CAUSE_LOOKS = {
    "linear": Look("#0072B2", "o", "-", ""),
    "attention": Look("#E69F00", "s", "-", "///"),
    "recurrence": Look("#CC79A7", "v", "-", "xxx"),
    "communication": Look("#009E73", "D", "-", "..."),
    "overhead": Look("#9AA5B1", "^", "-", "\\\\\\"),
}
"""One look for each cause of time, in every figure."""


def panels(count: int, *, height: float = 3.6) -> list[Axes]:
    """Return so many axes below each other in one new figure, each of that height in inches."""
    figure = Figure(figsize=(SIZE[0], height * count), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return [figure.add_subplot(count, 1, index + 1) for index in range(count)]


def axes(ax: Axes | None, *, height: float = SIZE[1]) -> Axes:
    """Return `ax`, or the axes of a new figure that no global state knows of, styled as all figures are."""
    if ax is None:
        [ax] = panels(1, height=height)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(colors=INK, labelsize=9, which="both")
    ax.grid(visible=True, color=PALE, linewidth=0.8)
    return ax


def looks(count: int) -> list[Look]:
    """Looks of unordered series, such as strategies."""
    return [
        Look(
            COLOURS[index % len(COLOURS)],
            MARKERS[index % len(MARKERS)],
            LINES[index % len(LINES)],
            HATCHES[index % len(HATCHES)],
        )
        for index in range(count)
    ]


def family(count: int) -> list[Look]:
    """Looks of ordered series, such as rising contexts: from light to dark, so that grey keeps the order."""
    shades = matplotlib.colormaps["viridis_r"]
    steps = [0.18 + 0.80 * index / max(count - 1, 1) for index in range(count)] if count > 1 else [0.75]
    return [
        Look(matplotlib.colors.to_hex(shades(step)), look.marker, look.line, look.hatch)
        for step, look in zip(steps, looks(count), strict=True)
    ]


def log_axis(ax: Axes, which: str, values: Iterable[float], label: str, form: Callable[[float], str]) -> None:
    """Make one axis logarithmic with ticks at the values themselves, as many of them as have room."""
    whole = sorted({float(value) for value in values})
    apart = (whole[-1] / whole[0]) ** (1.0 / MOST_TICKS)
    ticks = whole[:1]
    for value in whole[1:]:
        if value >= apart * ticks[-1]:
            ticks.append(value)
    axis = ax.xaxis if which == "x" else ax.yaxis
    getattr(ax, f"set_{which}scale")("log", base=2)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([form(tick) for tick in ticks]))
    axis.set_minor_locator(NullLocator())
    getattr(ax, f"set_{which}label")(label, color=INK)


def short_tokens(value: float) -> str:
    """Return a number of tokens as it may be typed: 32k is 32000, 32K is 32768."""
    whole = round(value)
    if whole >= 1000 and whole % 1000 == 0:
        return f"{whole // 1000}k"
    if whole >= 1024 and whole % 1024 == 0:
        return f"{whole // 1024}K"
    return f"{whole / 1000:g}k" if whole >= 1000 and whole % 100 == 0 else f"{whole:,}"


def legend_beside(ax: Axes, title: str, handles: Sequence[Artist] | None = None) -> None:
    """Put the legend right of the axes, where it covers nothing."""
    ax.legend(
        handles=handles or ax.get_legend_handles_labels()[0],
        title=title,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=9,
        title_fontsize=9,
        borderaxespad=0.0,
        handlelength=3.2,
        alignment="left",
    )


def legend_below(ax: Axes, handles: Sequence[Artist]) -> None:
    """Put the legend below the axes, in as many columns as its longest name allows."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=1)
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0),
        bbox_transform=ax.transAxes + ScaledTranslation(0.0, BELOW / 72.0, ax.figure.dpi_scale_trans),
        frameon=False,
        fontsize=9,
        borderaxespad=0.0,
        ncols=int(min(max(700 // (6.2 * longest + 55), 1), 4)),
        handlelength=2.6,
        columnspacing=1.8,
    )


def titled(ax: Axes, title: str, below: str = "") -> None:
    """Write what is drawn above the axes, and below it on smaller lines what for."""
    below = "\n".join(part for line in below.splitlines() for part in wrap(line, LONGEST_LINE))
    pad = 8 + 14 * len(below.splitlines())
    ax.set_title(title, loc="left", fontsize=11, color=INK, pad=pad, fontweight="bold")
    if below:
        ax.annotate(
            below,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 7),
            textcoords="offset points",
            fontsize=9,
            color=GREY,
        )


def figure_bytes(ax: Axes | Sequence[Axes], kind: str) -> bytes:
    """Return the figure of some axes as SVG or PNG; the same figure gives the same bytes.

    Its texts hold nothing invisible, such as characters that no XML may have.
    """
    figure = (ax if isinstance(ax, Axes) else ax[0]).get_figure(root=True)
    assert figure is not None
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names may hold a $
        if (seen := printable(text.get_text(), keep="\n\u00a0")) != text.get_text():
            text.set_text(seen)
    stream = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "draftplan", "svg.fonttype": "path"}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(stream, format=kind, dpi=DPI, metadata=metadata)
    return stream.getvalue()


def file_kind(path: str | os.PathLike[str]) -> str:
    """Return ``svg`` or ``png``, what a file's ending says; SpecError where it says another thing."""
    ending = Path(path).suffix.lower()
    if ending not in (".svg", ".png"):
        raise SpecError.single(str(path), "", f"the ending is {ending!r}", "Name a file.svg or a file.png")
    return ending[1:]


def save(ax: Axes | Sequence[Axes], path: str | os.PathLike[str]) -> None:
    """Write the figure of some axes to a file that ends on .svg or .png.

    Raises
    ------
    SpecError
        When the ending is another one, or the file cannot be written.
    """
    write_whole(path, figure_bytes(ax, file_kind(path)))
