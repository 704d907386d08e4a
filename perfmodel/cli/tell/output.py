"""Where words go: the result to stdout or a file, remarks to stderr."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

import typer

from perfmodel.cli.ask.format import Format, OutputFlags, read_format, refuse_csv
from perfmodel.errors import SpecError, escaped, printable

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.export import Exported, Exporter

__all__ = [
    "broken_pipe",
    "csv_texts",
    "discard_stdout",
    "dump",
    "emit",
    "emit_pieces",
    "is_terminal",
    "note",
    "plain",
    "remark",
    "render",
    "tell",
    "tell_exported",
    "yaml_text",
    "yaml_texts",
]  # fmt: skip

BROKEN_PIPE = 141
_ROWS = 4096
"""Rows of CSV that are written at once. [1]"""
_YAML_WIDTH = 120
_WIDE = 80
"""Columns where neither a terminal nor COLUMNS says how many there are."""


def tell(
    answer: Callable[[], Mapping[str, Any]],
    flags: OutputFlags,
    *,
    table: Callable[[Console], None],
    rows: Callable[[], Iterable[Mapping[str, Any]]] | None = None,
    parts: Callable[[Callable[[Any], str]], Iterable[str]] | None = None,
    mappings: Callable[[], Iterable[Mapping[str, Any]]] | None = None,
) -> None:
    """Write an answer as the flags ask: a table, JSON, YAML or CSV, to stdout or a file.

    Parameters
    ----------
    answer : gives the whole answer, for JSON and YAML.
    table : draws it for people.
    rows : gives its rows, for CSV; all have the columns of the first.
    parts : gives its JSON in parts, with the function that writes any value; `answer` is taken where absent.
    mappings : gives it in parts for YAML, see `yaml_texts`; `answer` is taken where absent.

    Raises
    ------
    SpecError
        When CSV is asked for and there are no rows, or the file cannot be written.
    """
    wanted = read_format(flags)
    if wanted is Format.TABLE:
        emit(render(table, flags), flags.output, coloured=True)
        return
    if wanted is Format.JSON and parts is not None:
        emit_pieces((text.encode("utf-8") for text in parts(_json)), flags.output)
        return
    if wanted is Format.YAML and mappings is not None:
        emit_pieces((text.encode("utf-8") for text in yaml_texts(mappings())), flags.output)
        return
    if wanted is Format.CSV and rows is not None:
        emit_pieces((text.encode("utf-8") for text in csv_texts(rows())), flags.output)
        return
    refuse_csv(flags)
    emit(dump(answer(), wanted), flags.output)


def csv_texts(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield rows as CSV, some at a time.

    The first says what the columns are: of one that a row lacks it has nothing, another one is left out.
    """
    coming = iter(rows)
    block = [*islice(coming, _ROWS)]
    names, first = list(block[0]), True
    while block:
        stream = io.StringIO()
        writer = csv.DictWriter(stream, names, restval="", extrasaction="ignore", lineterminator="\n")
        if first:
            writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in block)
        yield stream.getvalue()
        first = False
        block = [*islice(coming, _ROWS)]


def yaml_texts(mappings: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a mapping as YAML in parts, to the text that `dump` makes of the whole.

    Parameters
    ----------
    mappings : its parts in order, each of whole entries, or of items of the one list that the one before
        it holds items of as well.
    """
    before: list[str] = []
    for part in mappings:
        text = yaml_text(plain(part), width=_YAML_WIDTH)
        yield text.partition("\n")[2] if len(part) == 1 and [*part] == before else text
        before = [*part]


def _cell(value: Any) -> Any:
    return printable(value, keep="\n") if isinstance(value, str) else value


def is_terminal(stream: TextIO | None) -> bool:
    """Whether people see what is written to a stream; one that is closed shows nothing."""
    return stream is not None and not stream.closed and stream.isatty()


def remark(text: str) -> None:
    """Write one line to stderr, with nothing invisible in it."""
    if sys.stderr is not None:  # else print would take stdout
        with contextlib.suppress(OSError):
            print(printable(text), file=sys.stderr, flush=True)


def note(sentences: Iterable[str]) -> None:
    """Write sentences to stderr that the answer should be read with."""
    for sentence in sentences:
        remark(f"note: {sentence}")


def emit_pieces(pieces: Iterable[bytes], output: str | None = None) -> None:
    """Write a result of many pieces as `emit` does, without holding it whole.

    Parameters
    ----------
    pieces : UTF-8, each of whole characters, with nothing invisible in them but line ends.

    Raises
    ------
    SpecError
        Where it cannot be written.
    """
    if output is None or output == "-":
        with broken_pipe() as stdout:
            for piece in pieces:
                stdout.write(piece.decode())
            stdout.flush()
        return
    from perfmodel.files.writing import write_pieces

    write_pieces(output, pieces)
    remark(f"wrote {output}")


def emit(text: str, output: str | None = None, *, coloured: bool = False) -> None:
    """Write a result to stdout, or whole to a file, with nothing invisible in it but line ends.

    Parameters
    ----------
    coloured : whether `render` made it, which has seen to that itself and may have put colours in.

    Raises
    ------
    SpecError
        Where it cannot be written.
    """
    text = text if coloured else printable(text, keep="\n")
    if output is None or output == "-":
        with broken_pipe() as stdout:
            stdout.write(text)
            stdout.flush()
        return
    from perfmodel.files.writing import write_whole

    write_whole(output, text)
    remark(f"wrote {output}")


def tell_exported(exporter: Exporter, exported: Exported, output: str | None) -> None:
    """Write a plan in an engine's words; say which version was meant and what it cannot express."""
    emit(exported.text, output)
    note([f"for {exporter.name} {exporter.checked_with}", *exported.notes])


@contextlib.contextmanager
def broken_pipe() -> Iterator[TextIO]:
    """Yield stdout; end quietly when whoever reads it has seen enough.

    Raises
    ------
    SpecError
        Where it is closed, or cannot be written to, such as on a full disk.
    """

    stdout, remedy = sys.stdout, "Name a file with -o, or send it elsewhere"
    if stdout is None or stdout.closed:
        raise SpecError.single("", "standard output", "it is closed", remedy)
    try:
        yield stdout
    except BrokenPipeError:
        discard_stdout()
        raise typer.Exit(BROKEN_PIPE) from None
    except OSError as error:
        discard_stdout()
        problem = f"it cannot be written to: {error.strerror or error}"
        raise SpecError.single("", "standard output", problem, remedy) from None


def discard_stdout() -> None:
    """See to it that nothing more is written when the interpreter flushes at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def plain(value: Any) -> Any:
    """Return a value with nothing in it that JSON and YAML lack: no tuples, no infinities."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def dump(body: Mapping[str, Any], wanted: Format) -> str:
    """Return a mapping as JSON or YAML text; what is not finite becomes null."""
    if wanted is Format.YAML:
        return yaml_text(plain(body), width=_YAML_WIDTH)
    return _json(body) + "\n"


def _json(value: Any) -> str:
    return escaped(json.dumps(plain(value), indent=1, allow_nan=False, ensure_ascii=False), pairs=True)


def yaml_text(body: Mapping[str, Any], width: int) -> str:
    """Return a mapping as YAML text, in which texts with anything invisible stand in double quotes."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes such texts with escapes."""

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = None if text.replace("\n", "").isprintable() else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)

    Dumper.add_representer(str, represent)
    text = yaml.dump(body, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=width)
    return escaped(text, pairs=False)


def _columns() -> int:
    text = os.environ.get("COLUMNS", "")
    return max(int(text), 40) if text.isdecimal() and len(text) < 7 else _WIDE


def render(draw: Callable[[Console], None], flags: OutputFlags) -> str:
    """Return what `draw` prints, coloured and as wide as the terminal where a terminal will show it.

    In files and pipes it is as wide as COLUMNS says, or 80.

    It prints by the functions of `perfmodel.cli.tell.tables` only, which let nothing invisible through.
    """
    from rich.console import Console

    shown = flags.output is None and is_terminal(sys.stdout)
    stream = io.StringIO()
    console = Console(
        file=stream,
        force_terminal=shown and not flags.no_color,
        no_color=flags.no_color or None,
        width=None if shown else _columns(),
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )
    draw(console)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"
