"""What a command file declares: flags in two lines each, a command, a group of commands."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import fields
from types import ModuleType
from typing import Any, TypeVar, get_type_hints

import typer

from perfmodel.cli.ask.config import blamed
from perfmodel.cli.ask.outputs import Commands
from perfmodel.errors import SpecError

__all__ = [
    "ALLOW_CODE", "NO_COLOR", "OUTPUT", "PROFILES", "argument", "command", "commands_in", "commands_of",
    "flag", "group", "summary", "takes", "without",
]  # fmt: skip

FlagsT = TypeVar("FlagsT")
CommandT = TypeVar("CommandT", bound=Callable[..., None])


def flag(
    *names: str,
    help: str | None = None,
    default: Any = None,
    required: bool = False,
    panel: str | None = None,
    complete: Callable[..., list[str]] | None = None,
    **more: Any,
) -> Any:
    """Declare a flag.

    Parameters
    ----------
    names : its spellings, and last what stands for its value in the help, if that is not the type's own word.
    default : its value where it is absent; without meaning for a required one.
    panel : heading of the help that it stands under.
    complete : what a shell offers for its value.
    more : anything else that `typer.Option` takes.
    """
    spellings = [name for name in names if name.startswith("-")]
    metavar = names[-1] if len(spellings) < len(names) else None
    return typer.Option(
        ... if required else default, *spellings, metavar=metavar, help=help, rich_help_panel=panel,
        autocompletion=complete, **more,
    )  # fmt: skip


def argument(name: str | None = None, *, help: str | None = None, default: Any = ..., **more: Any) -> Any:
    """Declare an argument that is given by its place; required where it has no default."""
    return typer.Argument(default, metavar=name, help=help, **more)


OUTPUT = flag("--output", "-o", "FILE", help="Write to a file, not to stdout.")
NO_COLOR = flag("--no-color", default=False, help="No colours; so does the variable NO_COLOR.")
ALLOW_CODE = flag("--allow-code", default=False,
    help="Run the code of a file that lies outside of the current project. Read it first.")
PROFILES = flag("--profiles-path", "FOLDER", help="Further folders of hardware and engine files.")


def takes(flags: type[FlagsT]) -> Callable[[Callable[[typer.Context, FlagsT], None]], Callable[..., None]]:
    """Make a function of (context, flags) a command whose options are the fields of the dataclass `flags`."""

    def decorate(command: Callable[[typer.Context, FlagsT], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(ctx: typer.Context, **values: Any) -> None:
            try:
                command(ctx, flags(**values))
            except SpecError as refusal:
                raise blamed(ctx, refusal) from refusal

        hints = get_type_hints(flags)
        options = [
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default)
            for field in fields(flags)  # type: ignore[arg-type]
        ]
        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [context, *(option.replace(annotation=hints[option.name]) for option in options)]
        )
        run.__annotations__ = {"ctx": typer.Context, **hints}
        return run

    return decorate


def without(function: CommandT, name: str, value: Any) -> Callable[..., None]:
    """Return a command without the option `name`, which is `value` in it."""

    @functools.wraps(function)
    def run(*arguments: Any, **values: Any) -> None:
        function(*arguments, **values, **{name: value})

    signature = inspect.signature(function, eval_str=True)
    left = [option for option in signature.parameters.values() if option.name != name]
    run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in left}
    return run


def command(name: str, place: float) -> Callable[[CommandT], CommandT]:
    """Declare a function as the command `name`, listed at that place of the help."""

    def declare(function: CommandT) -> CommandT:
        function.declared = place, name  # type: ignore[attr-defined]
        return function

    return declare


def group(name: str, place: int, help: str) -> typer.Typer:
    """Declare a group of commands, listed at that place of the help; functions join by ``@group.command``."""
    commands = Commands(name=name, no_args_is_help=True, help=help)
    commands.declared = place, name  # type: ignore[attr-defined]
    return commands


def commands_in(package: ModuleType) -> list[tuple[str, Any]]:
    """Return every command and group that the files of a package declare, by name, in their places."""
    declared: dict[tuple[float, str], Any] = {}
    for file in pkgutil.iter_modules(package.__path__):
        if not file.ispkg and file.name != "app":
            declared |= _declared_in(f"{package.__name__}.{file.name}")
    return [(name, declared[place, name]) for place, name in sorted(declared)]


def commands_of(package: ModuleType, name: str) -> list[tuple[str, Any]]:
    """Return the command or group `name` where a file that is called like it declares it, else nothing."""
    files = [file.name for file in pkgutil.iter_modules(package.__path__) if not file.ispkg]
    if name not in files or name == "app":
        return []
    declared = _declared_in(f"{package.__name__}.{name}").items()
    return [(name, command) for (_, declared_name), command in declared if declared_name == name]


def summary(declared: Any) -> str:
    """Return the help of a command or of a group."""
    text = declared.info.help if isinstance(declared, Commands) else declared.__doc__
    return inspect.cleandoc(text or "")


def _declared_in(module: str) -> dict[tuple[float, str], Any]:
    """Return the commands and groups of a module by place and name."""
    values = vars(importlib.import_module(module)).values()
    candidates = [each for value in values for each in (value if isinstance(value, tuple) else (value,))]
    return {each.declared: each for each in candidates if isinstance(getattr(each, "declared", None), tuple)}
