"""What stands where a file should be: pipes, devices, folders, sockets, loops, giants and hostile shapes."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random

__all__ = ["SPECIALS", "special"]


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(name: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(f"/dev/{name}")


def _socket(path: Path) -> None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path)[:100])


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _text(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def _sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(3_000_000_000)


SPECIALS: dict[str, Callable[[Path], None]] = {
    "a named pipe": _fifo,
    **{f"/dev/{name}": _device(name) for name in ("zero", "urandom", "full", "null", "tty")},
    "a socket": _socket, "a link to itself": _loop,
    "a link to nothing": lambda path: path.symlink_to(path.with_name("nothing")),
    "a folder": lambda path: path.mkdir(), "3 GB of zeros": _sparse, "commas": _text(b"," * 20_000_000),
    "brackets": _text(b"[" * 2_000_000), "braces": _text(b'{"a":' * 200_000),
    "one long word": _text(b"x" * 20_000_000), "one number": _text(b"9" * 5_000_000),
    "an open quote": _text(b'"' + b"x,\n" * 1_000_000), "lines": _text(b"\n" * 5_000_000),
    "many keys": _text(b"{" + b",".join(b'"k%d": 1' % key for key in range(60_000)) + b"}"),
    "nested yaml": _text(b"".join(b" " * depth + b"a:\n" for depth in range(900))),
    "flow yaml": _text(b"a: " + b"[" * 400_000), "nothing": _text(b""), "NULs": _text(bytes(1_000_000)),
}  # fmt: skip
NAMES = ("file", "a\x1b[31mb", "a\u202eb", "a\nb", "a b", "$(x)", "'", '"', "-x", "é", "\udcff", "%s", "{x}")


def special(draw: Random, folder: Path, ending: str) -> tuple[Path, str]:
    """Make one of `SPECIALS` in a folder under one of `NAMES`; return it and what it is."""
    what, name = draw.choice(list(SPECIALS)), draw.choice(NAMES)
    path = folder / f"{name}{ending}"
    SPECIALS[what](path)
    return path, f"{what} named {name!r}"
