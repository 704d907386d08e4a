"""`draftplan parts list|remove`: what runs that ended early left beside their outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from perfmodel.cli.ask.flag import NO_COLOR, argument, flag, group
from perfmodel.cli.ask.format import Format, OutputFlags
from perfmodel.cli.tell.output import emit, remark, tell

if TYPE_CHECKING:
    from perfmodel.files.leftovers import Leftover

__all__ = ["commands"]

OLDER = flag("--older-than", "AGE", help="Only what nothing was written to for so long: 7d, 12h, 30m.")

commands = group("parts", 19, "List and remove what runs that ended early left: pieces and unfinished files.")


@commands.command("list")
def list_them(
    ctx: typer.Context,
    folder: str = argument("FOLDER", default=".", help="Where to look; not below it."),
    format: Format | None = flag("--format", help="A table, json, yaml or csv."),
    older_than: str | None = OLDER,
    no_color: bool = NO_COLOR,
) -> None:
    """Show the pieces of sweeps and simulations that lie in a folder, and files that never became whole.

    Of each the output that it was for, the pieces done of all, the version that began it, its size, its age,
    and who is at it. The same command goes on from pieces of its own question and version.

    Example: draftplan parts list results
    """
    from perfmodel.cli.tell.parts import COLUMNS, draw_leftovers, row_of
    from perfmodel.files.leftovers import leftovers_in

    least = _age(ctx, older_than)
    old = [leftover for leftover in leftovers_in(folder) if leftover.age >= least]
    flags = OutputFlags(format=format, output=None, no_color=no_color)
    if not old and format in (None, Format.TABLE):
        remark("nothing lies here")
    elif not old and format is Format.CSV:
        emit(",".join(COLUMNS) + "\n")
    else:
        tell(
            lambda: {"parts": [row_of(leftover) for leftover in old]}, flags,
            rows=lambda: [row_of(leftover) for leftover in old],
            table=lambda console: draw_leftovers(console, old),
        )  # fmt: skip


@commands.command("remove")
def remove(
    ctx: typer.Context,
    names: list[str] = argument("FOLDER|NAME...", default=None,
        help="A folder, whose leftovers go; an output, a folder of pieces; this folder where absent."),
    older_than: str | None = OLDER,
) -> None:
    """Delete what runs left that ended early, and say what is gone; nothing is asked.

    What a running process uses is refused, and so is a folder with anything in it that draftplan did not
    write. Links are not followed.

    Example: draftplan parts remove results --older-than 7d
    """
    from perfmodel.cli.tell.parts import size_of
    from perfmodel.errors import Fault, SpecError
    from perfmodel.files.leftovers import leftovers_of, remove_leftover

    least = _age(ctx, older_than)
    faults: list[Fault] = []
    named: dict[str, Leftover] = {}
    for name in names or ["."]:
        try:
            named |= {str(leftover.folder.absolute()): leftover for leftover in leftovers_of(name)}
        except SpecError as refusal:
            faults += refusal.faults
    old = [leftover for leftover in named.values() if leftover.age >= least]
    for leftover in old:
        try:
            remove_leftover(leftover)
            remark(f"removed {leftover.folder}: {size_of(leftover.size)}")
        except SpecError as refusal:
            faults += refusal.faults
    if faults:
        raise SpecError(faults)
    if not old:
        remark("nothing to remove")


def _age(ctx: typer.Context, text: str | None) -> float:
    from perfmodel.cli.ask.reading import read_flag
    from perfmodel.files.leftovers import read_age

    return read_flag(ctx, "older_than", read_age, text) or 0.0
