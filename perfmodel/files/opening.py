"""The one way into a file: what it may be, how large, and as which text."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import sys
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, NoReturn

from perfmodel.errors import SpecError

__all__ = [
    "ACCEPTANCE", "KINDS", "LOG", "MODEL_CONFIG", "PLAN", "PROFILE", "RESULT", "TABLE", "TRACE", "Kind",
    "first_bytes", "is_pipe", "opened", "read_file", "text_of",
]  # fmt: skip


class Kind(NamedTuple):
    """What a file is read as, and the most bytes that are read of one.

    Attributes
    ----------
    name : what people call it.
    largest : a larger file is refused. [bytes]
    remedy : what to do with a larger one.
    """

    name: str
    largest: int
    remedy: str = "Such files are refused"


PROFILE = Kind("a profile or configuration in YAML", 1_000_000)
ACCEPTANCE = Kind("an acceptance file", 1_000_000)
MODEL_CONFIG = Kind("a model's config.json", 16 << 20)
PLAN = Kind("a plan", 1 << 30, "Plan fewer cells")
TABLE = Kind("a table of cases, points or limits", 512_000_000, "Split it")
TRACE = Kind("a request trace", 2_000_000_000, "Split it")
LOG = Kind("a server's log", 512_000_000, "Give a part of it")
RESULT = Kind("what a benchmark tool wrote", 512_000_000, "Give a part of it")

KINDS = (PROFILE, ACCEPTANCE, MODEL_CONFIG, PLAN, TABLE, TRACE, LOG, RESULT)

_DESCRIPTOR = re.compile(r"/(dev|proc/(self|[0-9]+))/fd/[0-9]+|/dev/stdin")
_NONBLOCKING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_looked_at: dict[str, bytes] = {}
"""What `first_bytes` took from pipes, which can be read only once, for whoever reads them next."""


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], kind: Kind) -> Iterator[BinaryIO]:
    """Yield the bytes of a regular file as a stream; standard input where it is named ``-``.

    Of what is neither, only a pipe that the shell opened for this process (``<(...)``) is taken: a named pipe
    might never answer, a device never end. Whoever reads a pipe stops at `kind.largest`, as `read_file` does.

    Raises
    ------
    SpecError
        What is no such file, cannot be read, or is larger than its kind may be.
    """
    file = os.fspath(path)
    if file == "-":
        waiting = _looked_at.pop(file, None)
        yield _standard_input() if waiting is None else io.BytesIO(waiting)
        return
    try:
        _refuse_special(file, os.stat(file).st_mode)
        descriptor = os.open(file, os.O_RDONLY | _NONBLOCKING)  # what became a pipe since must not wait
    except SpecError:
        raise
    except (OSError, ValueError) as error:  # the latter: a name that no file can have
        raise _unreadable(file, error) from error
    with open(descriptor, "rb") as stream:
        try:
            status = os.fstat(descriptor)
            _refuse_special(file, status.st_mode)
            os.set_blocking(descriptor, True)
            if status.st_size > kind.largest:
                _too_large(file, kind)
            waiting = _looked_at.pop(file, None) if stat.S_ISFIFO(status.st_mode) else None
            yield stream if waiting is None else io.BytesIO(waiting)
        except OSError as error:
            raise _unreadable(file, error) from error


def read_file(path: str | os.PathLike[str], kind: Kind) -> bytes:
    """Return the bytes of a regular file, or of standard input where it is named ``-``; see `opened`."""
    file = os.fspath(path)
    with opened(file, kind) as stream:
        try:
            content = stream.read(kind.largest + 1)
        except (OSError, ValueError) as error:
            raise _unreadable(file, error) from error
    if len(content) > kind.largest:
        _too_large(file, kind)
    return content


def first_bytes(path: str | os.PathLike[str], kind: Kind, count: int) -> bytes:
    """Return the first bytes of a file, which whoever reads it next finds there too; see `opened`."""
    file = os.fspath(path)
    with opened(file, kind) as stream:
        try:
            if file != "-" and _is_regular(stream):
                return stream.read(count)
            content = _looked_at[file] = stream.read(kind.largest + 1)
        except (OSError, ValueError) as error:
            raise _unreadable(file, error) from error
    return content[:count]


def text_of(content: bytes, file: str, *, or_utf_16: bool = False, errors: str = "strict") -> str:
    """Return the bytes of a file as text.

    Parameters
    ----------
    file : its name, for the refusal.
    or_utf_16 : read UTF-16 with its mark too, which some shells write where the output of a server is kept.
    errors : what becomes of bytes that are no UTF-8, a word of `bytes.decode`; refused unless it says more.

    Raises
    ------
    SpecError
        Where it is no UTF-8, with or without its mark.
    """
    if content[:2] in _UTF_16:
        if or_utf_16:
            return content.decode("utf-16", errors="replace")
        raise SpecError.single(file, "", "the file is UTF-16", "Save the file as UTF-8", line=1)
    try:
        return content.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        problem, line = f"byte {error.start} is not UTF-8 text", content.count(b"\n", 0, error.start) + 1
        raise SpecError.single(file, "", problem, "Save the file as UTF-8", line=line) from error


def is_pipe(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is standard input or a pipe of the shell, so that its name means nothing."""
    file = os.fspath(path)
    return file == "-" or _DESCRIPTOR.fullmatch(os.path.abspath(file)) is not None


def _standard_input() -> BinaryIO:
    if sys.stdin is None or sys.stdin.closed:
        raise SpecError.single("-", "", "standard input is closed", "Name a file")
    return sys.stdin.buffer


def _is_regular(stream: BinaryIO) -> bool:
    return not isinstance(stream, io.BytesIO) and stat.S_ISREG(os.fstat(stream.fileno()).st_mode)


def _refuse_special(file: str, mode: int) -> None:
    if stat.S_ISREG(mode) or (stat.S_ISFIFO(mode) and _DESCRIPTOR.fullmatch(os.path.abspath(file))):
        return
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    problem = f"the file is {kinds.get(stat.S_IFMT(mode), 'a device')}"
    remedy = "Name a file" if stat.S_ISDIR(mode) else "Name a regular file, or - for standard input"
    raise SpecError.single(file, "", problem, remedy)


def _too_large(file: str, kind: Kind) -> NoReturn:
    problem = f"the file is larger than {kind.largest:,} bytes, the most for {kind.name}"
    raise SpecError.single(file, "", problem, kind.remedy)


def _unreadable(file: str, error: Exception) -> SpecError:
    if isinstance(error, OSError) and error.errno == errno.ENOENT:
        return SpecError.single(file, "", "the file does not exist", "Name a readable file")
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return SpecError.single(file, "", f"the file cannot be read: {reason}", "Name a readable file")
