"""How answers are drawn for people: headings, lines, and tables that are lists of columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from perfmodel.dataclass import dataclass
from perfmodel.errors import printable
from perfmodel.planning.columns import gain as show_gain
from perfmodel.planning.columns import milliseconds, number, tokens

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "Column", "Shown", "change", "draw", "gain", "heading", "left", "line", "lines", "milliseconds", "number",
    "section", "tokens",
]  # fmt: skip

_NARROWEST_FOLD = 24
_UNBOUNDED = 100_000


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


def left(title: str, show: Callable[[Any], Any]) -> Column:
    """Return a column of words."""
    return Column(title, show, left=True)


def draw(console: Console, columns: Sequence[Shown], rows: Iterable[Any], *, folds: bool = False) -> None:
    """Print a table as wide as it has to be: a narrower terminal breaks its lines, and nothing is lost.

    Parameters
    ----------
    columns : what it shows of every row.
    rows : anything that the columns know.
    folds : whether the last column may take several lines.
    """
    from rich.measure import Measurement

    table = _table(columns, list(rows), folds)
    terminal = console.width
    needed = Measurement.get(console, console.options.update(max_width=_UNBOUNDED), table)
    console.width = max(terminal, needed.minimum)
    console.print(table, crop=False)
    console.width = terminal


def _table(columns: Sequence[Shown], rows: Sequence[Any], folds: bool) -> Table:
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), show_edge=False, header_style="bold")
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
    """Print a line in bold."""
    console.print(_text(text), style="bold", soft_wrap=True)


def section(console: Console, title: str) -> None:
    """Print a heading after an empty line."""
    console.print()
    heading(console, title)


def line(console: Console, text: str) -> None:
    """Print a line as it is, never broken."""
    console.print(_text(text), soft_wrap=True)


def lines(console: Console, sentences: Iterable[str]) -> None:
    """Print each sentence on a line of its own, below a heading."""
    for sentence in sentences:
        line(console, f"  {sentence}")


def change(share: float) -> str:
    """Return a difference with its sign, such as +3.1%; what is none has no minus."""
    return f"{round(share, 3) + 0.0:+.1%}"


def gain(value: float | None) -> Text:
    """Return a speedup, coloured by whether it is one."""
    from rich.text import Text

    shade = "" if value is None else "green" if value > 1.005 else "red" if value < 0.995 else ""
    return Text(show_gain(value), style=shade)
