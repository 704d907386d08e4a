"""How every figure looks: 800 pixels wide, told apart without colour, the same bytes at each run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import Any
from xml.sax.saxutils import escape

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from perfmodel.errors import SpecError, printable
from perfmodel.files.units import short_tokens
from perfmodel.files.writing import write_whole

__all__ = [
    "CAUSE_LOOKS", "DPI", "GREY", "INK", "MOST_SERIES", "PALE", "Look", "axes", "caption_of", "family",
    "figure_bytes", "file_kind", "key", "legend_below", "legend_beside", "log_axis", "looks", "panels",
    "save", "sheet", "short_tokens", "titled",
]  # fmt: skip

DPI = 100
SIZE = (8.0, 4.8)
"""Inches: 800 x 480 pixels."""
MOST_SERIES = 8
"""Series that stay apart: so many looks there are. [1]"""
MOST_TICKS = 11
LONGEST_LINE, LONGEST_CAPTION, LONGEST_ON_SHEET = 92, 98, 112
"""Characters of a subtitle and a caption that fit above axes, and above several of them. [1]"""
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


def key(look: Look, label: str) -> Line2D:
    """Return what a legend shows of a line: its look and its name."""
    form: dict[str, Any] = {"color": look.colour, "marker": look.marker, "linestyle": look.line}
    return Line2D([], [], **form, label=label)


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
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0),
        bbox_transform=ax.transAxes + ScaledTranslation(0.0, BELOW / 72.0, ax.figure.dpi_scale_trans),
        frameon=False,
        fontsize=9,
        borderaxespad=0.0,
        ncols=_legend_columns(handles),
        handlelength=2.6,
        columnspacing=1.8,
    )


def titled(ax: Axes, title: str, below: str = "", caption: str = "") -> None:
    """Write what is drawn above the axes, below it what to see in it, and on smaller lines what for."""
    lines = [*_wrapped(caption, LONGEST_CAPTION), *_wrapped(below, LONGEST_LINE)]
    ax.set_title(title, loc="left", fontsize=11, color=INK, pad=8 + 14 * len(lines), fontweight="bold")
    for text, size, colour, after in (
        ("\n".join(_wrapped(caption, LONGEST_CAPTION)), 9.5, INK, 14 * len(_wrapped(below, LONGEST_LINE))),
        ("\n".join(_wrapped(below, LONGEST_LINE)), 9.0, GREY, 0),
    ):
        if text:
            ax.annotate(
                text, (0, 1), xycoords="axes fraction", xytext=(0, 7 + after), textcoords="offset points",
                fontsize=size, color=colour,
            )  # fmt: skip
    _remember(ax, title, caption, below)


def sheet(
    rows: int,
    columns: int,
    *,
    height: float,
    title: str,
    caption: str,
    below: str = "",
    handles: Sequence[Artist] = (),
    across: bool = True,
) -> list[list[Axes]]:
    """Return the axes of several panels in one new figure, under one title and over one legend.

    Parameters
    ----------
    height : of each row of panels. [inches]
    title, caption, below : as for `titled`.
    handles : what the legend holds.
    across : whether panels of a row share their vertical axis, and those of a column their horizontal one.
    """
    ink, grey = _wrapped(caption, LONGEST_ON_SHEET), _wrapped(below, LONGEST_ON_SHEET)
    top = (30 + 15 * len(ink) + 14 * len(grey)) / 72.0
    ncols = _legend_columns(handles)
    bottom = (14 + 15 * -(-len(handles) // ncols)) / 72.0 if handles else 0.05
    whole = top + rows * height + bottom
    figure = Figure(figsize=(SIZE[0], whole), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", rect=(0.0, bottom / whole, 1.0, 1.0 - (top + bottom) / whole))
    grid = figure.subplots(rows, columns, squeeze=False, sharex="all" if across else "none",
                           sharey="all" if across else "none")
    left, y = 0.08 / SIZE[0], 1.0 - 18 / 72.0 / whole
    figure.text(left, y, title, fontsize=11, color=INK, fontweight="bold")
    for lines, size, colour in ((ink, 9.5, INK), (grey, 9.0, GREY)):
        for line in lines:
            y -= (15 if colour == INK else 14) / 72.0 / whole
            figure.text(left, y, line, fontsize=size, color=colour)
    if handles:
        figure.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(left, 0.0), frameon=False, fontsize=9,
            ncols=ncols, handlelength=2.6, columnspacing=1.8, borderaxespad=0.3,
        )  # fmt: skip
    every = [[axes(ax) for ax in row] for row in grid]
    _remember(every[0][0], title, caption, below)
    return every


def caption_of(ax: Axes | Sequence[Axes]) -> str:
    """Return what to see in the figure of some axes, in a sentence or two; empty where nobody said."""
    return _remembered(ax)[1]


def _remember(ax: Axes, title: str, caption: str, below: str) -> None:
    """Keep the words of a figure for whoever cannot see it; those of its first panel stay."""
    figure = ax.get_figure(root=True)
    if figure is not None and not figure.get_label():
        figure.set_label("\n".join(" ".join(text.split()) for text in (title, caption, below)))


def _remembered(ax: Axes | Sequence[Axes]) -> tuple[str, str, str]:
    """Return title, caption and the small lines of a figure."""
    title, caption, below, *_ = *str(_figure_of(ax).get_label()).split("\n"), "", "", ""
    return title, caption, below


def _figure_of(ax: Axes | Sequence[Axes]) -> Figure:
    figure = (ax if isinstance(ax, Axes) else ax[0]).get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def _wrapped(text: str, longest: int) -> list[str]:
    return [part for line in text.splitlines() for part in wrap(line, longest)]


def _legend_columns(handles: Sequence[Artist]) -> int:
    """How many columns a legend has room for."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=1)
    return int(min(max(700 // (6.2 * longest + 55), 1), 4))


def figure_bytes(ax: Axes | Sequence[Axes], kind: str) -> bytes:
    """Return the figure of some axes as SVG, PNG or PDF; the same figure gives the same bytes.

    Its title and its caption go with it for those who cannot see it: `title` and `desc` of an SVG, text of a
    PNG, title and subject of a PDF. Texts hold nothing invisible, such as characters that no XML may have.
    """
    figure = _figure_of(ax)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names may hold a $
        if (seen := printable(text.get_text(), keep="\n\u00a0")) != text.get_text():
            text.set_text(seen)
    title, *more = (printable(words) for words in _remembered(ax))
    description = " ".join(words for words in more if words)
    stream = BytesIO()
    metadata: dict[str, Any] = {
        "svg": {"Date": None, "Title": title, "Description": description},
        "png": {"Software": None, "Title": title, "Description": description},
        "pdf": {"CreationDate": None, "Title": title, "Subject": description},
    }[kind]
    with matplotlib.rc_context({"svg.hashsalt": "draftplan", "svg.fonttype": "path"}):
        figure.savefig(stream, format=kind, dpi=DPI, metadata=metadata)
    return _described(stream.getvalue(), description) if kind == "svg" else stream.getvalue()


def _described(svg: bytes, description: str) -> bytes:
    """Return an SVG that programs read aloud as an image: its title, then its description."""
    spoken = f"<desc>{escape(description)}</desc>\n <metadata>".encode()
    return svg.replace(b"<metadata>", spoken, 1).replace(b"<svg ", b'<svg role="img" ', 1)


def file_kind(path: str | os.PathLike[str]) -> str:
    """Return ``svg``, ``png`` or ``pdf``, as a file's ending says; SpecError where it says another thing."""
    ending = Path(path).suffix.lower()
    if ending not in (".svg", ".png", ".pdf"):
        raise SpecError.single(
            str(path), "", f"the ending is {ending!r}", "Name a file.svg, a file.png or a file.pdf"
        )
    return ending[1:]


def save(ax: Axes | Sequence[Axes], path: str | os.PathLike[str]) -> None:
    """Write the figure of some axes to a file that ends on .svg, .png or .pdf.

    Raises
    ------
    SpecError
        When the ending is another one, or the file cannot be written.
    """
    write_whole(path, figure_bytes(ax, file_kind(path)))
