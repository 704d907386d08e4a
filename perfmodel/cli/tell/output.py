"""Where words go: the result to stdout or a file, remarks and progress to stderr."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from perfmodel.cli.ask.format import Format

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["broken_pipe", "dumped", "emit", "plain", "remark", "rendered", "tell", "to_csv", "working"]

BROKEN_PIPE = 141
PATIENCE = 2.0
"""Seconds without an answer after which a person at a terminal is told that something is going on. [s]"""
_WIDE = 10_000
"""Columns where no terminal bounds them: nothing is cut or broken in a file."""
def tell(
    wanted: Format,
    answer: Callable[[], Mapping[str, Any]],
    *,
    table: Callable[[Console], None],
    rows: Callable[[], Sequence[Mapping[str, Any]]] | None = None,
    output: str | None = None,
    no_color: bool = False,
) -> None:
    """Write an answer to stdout or a file, as a table, JSON, YAML or CSV.

    Parameters
    ----------
    answer : the whole answer, for JSON and YAML.
    table : draws it for people.
    rows : its rows, for CSV; all have the columns of the first.
    output : a file in place of stdout.
    """
    if wanted is Format.TABLE:
        text = rendered(table, no_color=no_color, output=output)
    elif wanted is Format.CSV:
        assert rows is not None, "read_format refuses csv where there are no rows"
        text = to_csv(rows())
    else:
        text = dumped(answer(), wanted)
    emit(text, output)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV text; a column that a row lacks is empty, one that the first lacks is left out."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def remark(text: str) -> None:
    """Write one line to stderr."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def emit(text: str, output: str | None = None) -> None:
    """Write a result to stdout, or whole to a file. Raises SpecError where the file cannot be written."""
    if output is None or output == "-":
        with broken_pipe():
            sys.stdout.write(text)
            sys.stdout.flush()
        return
    from perfmodel.errors import SpecError
    from perfmodel.files.document import write_whole

    target = Path(output).resolve()
    try:
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")
        else:
            write_whole(target, text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SpecError.single(
            output, "", f"the file cannot be written: {reason}", "Name another file"
        ) from error
    remark(f"wrote {output}")


@contextlib.contextmanager
def broken_pipe() -> Iterator[None]:
    """End quietly when whoever reads stdout has seen enough."""
    try:
        yield
    except BrokenPipeError:
        # Nothing more may be written when the interpreter flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE) from None


def plain(value: Any) -> Any:
    """Return a value with nothing in it that JSON and YAML lack: no tuples, no infinities."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def dumped(body: Mapping[str, Any], wanted: Format) -> str:
    """Return a mapping as JSON or YAML text; what is not finite becomes null."""
    if wanted is Format.YAML:
        import yaml

        return str(yaml.safe_dump(plain(body), sort_keys=False, allow_unicode=True, width=120))
    return json.dumps(plain(body), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def rendered(draw: Callable[[Console], None], *, no_color: bool, output: str | None) -> str:
    """Return what `draw` prints, coloured and as wide as the terminal where a terminal will show it."""
    from rich.console import Console

    shown = output is None and sys.stdout.isatty()
    stream = io.StringIO()
    console = Console(
        file=stream,
        force_terminal=shown and not no_color,
        no_color=no_color or None,
        width=None if shown else _WIDE,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )
    draw(console)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal, after a moment, that work is going on."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    status = Console(stderr=True).status(what)
    timer = threading.Timer(PATIENCE, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()
