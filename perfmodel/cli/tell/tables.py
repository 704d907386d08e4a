"""How answers are drawn for people: headings, lines, and tables that are lists of columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from perfmodel.errors import printable
from perfmodel.planning.columns import gain as show_gain
from perfmodel.planning.columns import milliseconds, number, tokens

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "Column", "Shown", "change", "draw", "gain", "heading", "left", "line", "lines", "milliseconds", "number",
    "section", "to_paste", "tokens",
]  # fmt: skip

_NARROWEST_FOLD = 24
_WIDEST_TEXT = 100
"""Sentences are broken at this width on wider terminals, where they could not be read. [columns]"""
_APART = 2
"""Spaces between columns where there is room. [columns]"""
_UNBOUNDED = 100_000
_UNBROKEN = 1000
"""So wide is what asks for whole lines, as in COLUMNS=10000. [columns]"""


class Shown(Protocol):
    """What a printed column needs: such as a column of a plan, `perfmodel.planning.columns.Column`."""

    @property
    def title(self) -> str:
        """What stands above it; may have two lines."""

    @property
    def show(self) -> Callable[[Any], Any]:
        """Gives the text of a row."""

    @property
    def left(self) -> bool:
        """Whether it is aligned to the left, as words are."""


@dataclass(frozen=True)
class Column:
    """A column of a printed table: its title, and what it shows of a row; numbers stand to the right."""

    title: str
    show: Callable[[Any], Any]
    left: bool = False
    spare: int = 0


def left(title: str, show: Callable[[Any], Any]) -> Column:
    """Return a column of words."""
    return Column(title, show, left=True)


def draw(console: Console, columns: Sequence[Shown], rows: Iterable[Any], *, folds: bool = False) -> None:
    """Print a table, closer and without its spare columns where the terminal is too narrow for them.

    One that is too wide still is printed whole, as wide as it has to be: the terminal breaks its lines.

    Parameters
    ----------
    columns : what it shows of every row.
    rows : anything that the columns know.
    folds : whether the last column may take several lines.
    """
    from rich.measure import Measurement

    rows, terminal = list(rows), console.width
    kept = sorted(columns, key=_spare)
    fewer = [
        [column for column in columns if column in kept[:many]]
        for many in range(len(kept) - 1, 0, -1)
        if _spare(kept[many])
    ]
    tries = [(columns, _APART), *((some, 1) for some in (columns, *fewer))]
    for some, apart in tries:
        table = _table(some, rows, folds, apart)
        needed = Measurement.get(console, console.options.update(max_width=_UNBOUNDED), table).minimum
        if needed <= terminal:
            break
    else:  # it fits nowhere
        table = _table(columns, rows, folds, _APART)
        needed = Measurement.get(console, console.options.update(max_width=_UNBOUNDED), table).minimum
    console.width = max(terminal, needed)
    console.print(table, crop=False)
    console.width = terminal


def _spare(column: Shown) -> int:
    """Return how soon a column is left out where a terminal is too narrow, the highest first; 0: never."""
    return getattr(column, "spare", 0)


def _table(columns: Sequence[Shown], rows: Sequence[Any], folds: bool, apart: int) -> Table:
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, apart, 0, 0), show_edge=False, header_style="bold")
    deep = any("\n" in column.title for column in columns)
    shown = [[_text(column.show(row)) for row in rows] for column in columns]
    for column, cells in zip(columns, shown, strict=True):
        titles = column.title.split("\n")
        needed = max(cell_len(text) for text in (*titles, *(cell.plain for cell in cells)))
        foldable = folds and column is columns[-1]
        table.add_column(
            _text(f"\n{column.title}" if deep and len(titles) == 1 else column.title),
            justify="left" if column.left else "right",
            no_wrap=not foldable,
            overflow="fold",
            min_width=min(needed, _NARROWEST_FOLD) if foldable else needed,
        )
    for row in zip(*shown, strict=True):
        table.add_row(*row)
    return table


def _text(value: Any) -> Text:
    from rich.text import Text

    text = value if isinstance(value, Text) else Text(str(value))
    seen = printable(text.plain, keep="\n")
    return text if seen == text.plain else Text(seen, style=text.style)


def heading(console: Console, text: str) -> None:
    """Print a sentence in bold, broken between words where the terminal ends."""
    _wrapped(console, text, style="bold")


def section(console: Console, title: str) -> None:
    """Print a heading after an empty line."""
    console.print()
    heading(console, title)


def line(console: Console, text: str) -> None:
    """Print a sentence, broken between words where the terminal ends and set in below its beginning."""
    _wrapped(console, text)


def lines(console: Console, sentences: Iterable[str]) -> None:
    """Print each sentence on lines of its own, below a heading."""
    for sentence in sentences:
        line(console, f"  {sentence}")


def to_paste(console: Console, text: str) -> None:
    """Print a line as it is, never broken, such as a command."""
    console.print(_text(text), soft_wrap=True)


def _wrapped(console: Console, text: str, style: str = "") -> None:
    import textwrap

    width = min(console.width, _WIDEST_TEXT) if console.width < _UNBROKEN else console.width
    for part in text.split("\n"):
        begins = len(part) - len(part.lstrip())
        broken = textwrap.wrap(
            part, width, subsequent_indent=" " * (begins + 2 if begins else 0), break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
        for piece in broken or [""]:
            console.print(_text(piece), style=style, soft_wrap=True)


def change(share: float) -> str:
    """Return a difference with its sign, such as +3.1%; what is none has no minus."""
    return f"{round(share, 3) + 0.0:+.1%}"


def gain(value: float | None) -> Text:
    """Return a speedup, coloured by whether it is one."""
    from rich.text import Text

    shade = "" if value is None else "green" if value > 1.005 else "red" if value < 0.995 else ""
    return Text(show_gain(value), style=shade)
