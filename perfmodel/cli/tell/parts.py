"""What runs that ended early left, for people and as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfmodel.cli.tell.tables import Column, draw, left
from perfmodel.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.files.leftovers import Leftover

__all__ = ["COLUMNS", "draw_leftovers", "row_of", "size_of"]

COLUMNS = (
    "name", "kind", "output", "pieces_done", "pieces", "version", "size_bytes", "age_s", "used_by", "state",
)  # fmt: skip
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def row_of(leftover: Leftover) -> dict[str, Any]:
    """Return one leftover as plain values: sizes in bytes, ages in seconds."""
    values = (
        printable(leftover.folder.name), leftover.kind, printable(leftover.output), leftover.done,
        leftover.pieces, printable(leftover.version), leftover.size, round(leftover.age, 1),
        leftover.used_by, printable(leftover.state),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def draw_leftovers(console: Console, leftovers: list[Leftover]) -> None:
    """Draw one line each."""
    draw(
        console,
        (
            left("name", lambda each: printable(each.folder.name)),
            left("what", lambda each: each.kind),
            Column("done", _done),
            left("draftplan", lambda each: printable(each.version)),
            Column("size", lambda each: size_of(each.size)),
            Column("age", lambda each: _age(each.age)),
            left("state", lambda each: printable(each.state)),
        ),
        leftovers,
    )


def size_of(size: int) -> str:
    """Return a size for people. [bytes]"""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"


def _done(leftover: Leftover) -> str:
    return "" if leftover.done is None else f"{leftover.done} of {leftover.pieces or '?'}"


def _age(seconds: float) -> str:
    unit, name = next((unit for unit in _UNITS if seconds >= unit[0]), _UNITS[-1])
    return f"{seconds / unit:.0f} {name}"
