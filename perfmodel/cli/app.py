"""The commands of `draftplan`, and the one place where a failure becomes a message and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from perfmodel import cli
from perfmodel.cli.ask.config import sentence_on
from perfmodel.cli.ask.flag import commands_in, commands_of, flag, summary
from perfmodel.cli.ask.meaning import flag_meant
from perfmodel.cli.ask.outputs import Command
from perfmodel.cli.ask.values import take_as_given
from perfmodel.cli.ending import Terminated, terminating
from perfmodel.cli.tell.output import broken_pipe, discard_stdout, remark
from perfmodel.errors import InfeasibleError, SpecError, printable

__all__ = ["app", "build_app"]  # noqa: F822

_STDOUT_LOST = (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EBADF)
ANSWERED, UNEXPECTED, ASKED_WRONGLY, INFEASIBLE, INTERRUPTED = 0, 1, 2, 3, 130


class Commands(TyperGroup):
    """The top level: every exception below it ends here."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the flags of the top level, of which nothing is made where they are absent."""
        params = super().get_params(ctx)
        take_as_given(params, lambda _: None)
        return params

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run one command and leave the process with its exit code; there is no other mode."""
        del standalone_mode
        try:
            with terminating():
                code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
                _finish_stdout()
        except (KeyboardInterrupt, typer.Abort):
            code = INTERRUPTED
        except Terminated as end:
            code = end.code
            remark("terminated")
        except Exception as failure:
            code = _explain(failure)
        if code == INTERRUPTED:
            remark("interrupted")
        sys.exit(code if isinstance(code, int) else ANSWERED)


def _finish_stdout() -> None:
    """Write what is still held back, such as help, where a failure can be told."""
    if sys.stdout is not None and not sys.stdout.closed:
        with broken_pipe() as stdout:
            stdout.flush()


def _explain(failure: Exception) -> int:
    """Say on stderr what went wrong, in words for a user, and return the exit code."""
    if os.environ.get("DRAFTPLAN_DEBUG"):
        import traceback

        sys.stderr.write(printable("".join(traceback.format_exception(failure)), keep="\n"))
    if isinstance(failure, OSError) and failure.filename is None and failure.errno in _STDOUT_LOST:
        discard_stdout()  # what the command line's library prints itself: help
        remark(f"error: standard output: it cannot be written to: {failure.strerror}")
        return ASKED_WRONGLY
    if isinstance(failure, SpecError):
        for fault in failure.faults:
            remark(f"error: {fault}")
        return ASKED_WRONGLY
    if isinstance(failure, InfeasibleError):
        remark("error: no configuration is feasible")
        for reason, count in failure.counts.items():
            remark(f"  {count} {'configuration' if count == 1 else 'configurations'}: {reason}")
        for number, sentence in enumerate(failure.nearest_miss.split("; ")):
            remark(f"{'  ' if number else 'nearest miss: '}{sentence}")
        return INFEASIBLE
    if hasattr(failure, "format_message"):  # what typer raises for flags and arguments
        context = getattr(failure, "ctx", None)
        if type(failure).__name__ == "NoArgsIsHelpError":
            print(failure.format_message(), file=sys.stderr, flush=True)
            return ASKED_WRONGLY
        remark(f"error: {sentence_on(failure, _with_nearest(failure))}")
        if context is not None:
            remark(f"try: {context.command_path} --help")
        return ASKED_WRONGLY
    remark(f"error: unexpected {type(failure).__name__}: {failure}".replace("\n", " ")[:500])
    remark("A fault of draftplan: please report it with the command and its output with DRAFTPLAN_DEBUG=1.")
    return UNEXPECTED


def _with_nearest(failure: Any) -> str:
    """The message of a refused argument, with the flag that was probably meant."""
    message = str(failure.message or failure.format_message())
    if type(failure).__name__ != "NoSuchOption":
        return str(failure.format_message())
    flags = [flag for param in failure.ctx.command.params for flag in param.opts if flag.startswith("--")]
    meant = flag_meant(failure.option_name, flags)
    if meant.startswith("did"):
        return f"{message}. D{meant[1:]}"
    return f"{message}: {meant}" if meant else message


def _print_version(wanted: bool) -> None:
    if wanted:
        from perfmodel._version import __version__

        print(f"draftplan {__version__}")
        raise typer.Exit


def _top_level(
    version: bool = flag("--version", default=False, callback=_print_version, is_eager=True,
        help="Print the version and exit."),
) -> None:
    pass


def build_app(arguments: Sequence[str] = ()) -> typer.Typer:
    """Build the command line of what the files of this package declare.

    Parameters
    ----------
    arguments : what follows `draftplan`. The flags of one command are enough where it is named first, and
        none where only help or the version is asked for; without arguments every command is there.
    """
    app = typer.Typer(
        name="draftplan",
        cls=Commands,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Should a long-context deployment speculate, with which drafting strategy, draft KV budget and "
        "speculation length, at every batch size and context length it meets?",
        epilog="Exit codes: 0 answered, 1 unexpected, 2 asked wrongly or a bad file, "
        "3 nothing feasible or a limit passed, 130 interrupted, 143 terminated.",
    )
    app.callback()(_top_level)
    is_list = list(arguments) in (["-h"], ["--help"], ["--version"])
    asked = commands_of(cli, arguments[0]) if arguments and not is_list else []
    for name, declared in asked or commands_in(cli):
        if is_list:
            app.command(name, help=summary(declared))(_listed)
        elif isinstance(declared, typer.Typer):
            app.add_typer(declared, name=name)
        else:
            app.command(name, cls=Command)(declared)
    return app


def _listed() -> None:
    """Stand in the list of commands, whose flags it does not show."""


def __getattr__(name: str) -> typer.Typer:
    """Build `app`, the command line with every command, when it is first asked for."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = app = build_app()
    return app
