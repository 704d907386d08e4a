"""What a command will write, looked at before the work begins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand

from perfmodel.cli.ask.values import take_as_given

__all__ = ["Command", "Commands", "check_outputs"]

STDOUT = "-"


class Command(TyperCommand):
    """A command whose outputs are refused at once where they could not be written at the end."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return flags and arguments, which take what they are given as it is where it may stay so."""
        params = super().get_params(ctx)
        take_as_given(params, get_type_hints(self.callback).get)
        return params

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of a command line, in which ``--tp_size`` is ``--tp-size``, as servers take it."""
        known = {spelling for param in self.get_params(ctx) for spelling in param.opts}
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*(_dashed(word, known) for word in args[:end]), *args[end:]])

    def invoke(self, ctx: Any) -> Any:
        """Look at the outputs, then run."""
        check_outputs(ctx)
        return super().invoke(ctx)


class Commands(typer.Typer):
    """A group of such commands."""

    def command(self, name: str | None = None, **settings: Any) -> Any:
        """Declare a function as a command of the group."""
        return super().command(name, **{"cls": Command, **settings})


def _dashed(word: str, known: set[str]) -> str:
    """Return a flag with dashes where that makes it one that is known, anything else as it is."""
    name, equals, value = word.partition("=")
    dashed = name.replace("_", "-")
    return dashed + equals + value if name not in known and dashed in known else word


def check_outputs(ctx: typer.Context) -> None:
    """Refuse outputs that cannot be written, are files that the command reads, or are twice the same.

    Raises
    ------
    SpecError
        Naming every flag.
    """
    outputs = {flag: file for flag, file in _outputs(ctx) if file != STDOUT}
    if not outputs:
        return
    from perfmodel.errors import Fault, SpecError
    from perfmodel.files.writing import target_of

    faults: list[Fault] = []
    places: dict[str, str] = {}
    inputs = list(_inputs(ctx))
    for flag, file in outputs.items():
        try:
            target = target_of(file)
        except SpecError as refusal:
            faults += refusal.faults
            continue
        if target.is_stream:
            continue
        problem = next((f"it is read by {name}" for name, read in inputs if _same(read, file)), "")
        place = os.path.normcase(target.file)
        if place in places:
            problem = f"{places[place]} and {flag} both write it"
        places[place] = flag
        if problem:
            faults.append(Fault(file, None, flag, problem, "Name another file"))
    if faults:
        raise SpecError(faults)


def _outputs(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """The flags that name files to write, and those files."""
    for param in ctx.command.params:
        for spelling in param.opts:
            if spelling in ("--output", "--plot") or spelling.endswith("-output"):
                file = ctx.params.get(param.name or "")
                if file is not None:
                    yield spelling, str(file)


def _inputs(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    """What may name files to read: every other value, whole and between commas."""
    written = {spelling for spelling, _ in _outputs(ctx)}
    for param in ctx.command.params:
        if written & set(param.opts):
            continue
        value = ctx.params.get(param.name or "")
        flag = param.opts[0]
        name = flag if flag.startswith("-") else getattr(param, "metavar", "") or flag
        for text in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(text, str):
                yield from ((name, part) for part in dict.fromkeys([text, *text.split(",")]) if part)


def _same(read: str, written: str) -> bool:
    try:
        return os.path.samefile(read, written)
    except (OSError, ValueError):
        return False
