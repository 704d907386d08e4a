"""Values of others in texts that are run: words of a shell, JSON, YAML and variables, each quoted for it."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from perfmodel.errors import SpecError, printable, shown

__all__ = [
    "decimal", "environment", "json_text", "name_or_path", "shell", "shell_line", "shell_path", "word",
    "yaml_text",
]  # fmt: skip

LONGEST = 4096
"""Characters of a name or path at most: as many as the bytes of a path on Linux. [1]"""

_WORD = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*")
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]+")
"""Words that every version of YAML reads as texts, unless PyYAML does not: no number begins with a letter."""
_PLAIN = re.compile(r"[A-Za-z0-9_@%+:,./-][A-Za-z0-9_@%+=:,./-]*")
"""Words that no shell changes; zsh replaces those that begin with ``=``."""


def shell(value: str) -> str:
    """Return a text as one word of a shell, which hands it on byte for byte.

    What a reader would not see is written out, ``$'\\x1b'``, as bash, zsh and ksh read it.

    Raises
    ------
    SpecError
        Where no command can be given it: with a NUL or half of a character pair.
    """
    if _PLAIN.fullmatch(value):
        return value
    if printable(value) == value:
        quoted = shlex.quote(value)
        return f"'{value}'" if quoted == value else quoted
    try:
        seen = "".join(sign if _stays(sign) else _bytes_of(sign) for sign in value)
    except UnicodeEncodeError:
        seen = ""
    if not seen or "\0" in value:
        raise SpecError.single(
            "", "", f"no command can be given {shown(value)}", "Name it without control characters"
        )
    return f"$'{seen}'"


def shell_path(path: str) -> str:
    """Return a path as one word of a shell that no command takes for a flag; ``-`` stays standard input."""
    return shell(f"./{path}" if path.startswith("-") and path != "-" else path)


def shell_line(words: Iterable[str]) -> str:
    """Return words as one line of a shell; see `shell`."""
    return " ".join(map(shell, words))


def json_text(body: Any, indent: int | None = None) -> str:
    """Return JSON with a line end; no ``'`` is in it, so that ``'...'`` holds it in a shell and in YAML.

    Raises
    ------
    SpecError
        Where a number is not finite.
    """
    try:
        text = json.dumps(body, indent=indent, allow_nan=False)
    except ValueError as fault:
        raise SpecError.single(
            "plan", "cells", "hold a number that is not finite", "make it anew with draftplan plan"
        ) from fault
    return text.replace("'", "\\u0027") + "\n"


def yaml_text(value: str) -> str:
    """Return a text as YAML that is read as that text: quoted where a bare one would mean something else."""
    import yaml  # here, so that commands without YAML begin sooner

    if _BARE.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def environment(name: str, value: str) -> str:
    """Return a line ``NAME=value`` that shells and files of variables read alike.

    They disagree on quotes: docker takes them as part of the value.

    Raises
    ------
    SpecError
        Where the value needs quotes.
    """
    if not _PLAIN.fullmatch(value):
        raise SpecError.single("", name, f"found {shown(value)}", "Give it in the server's own environment")
    return f"{name}={value}\n"


def decimal(value: float, digits: int | None = None) -> str:
    """Return a number without an exponent, which YAML 1.1 takes for a text.

    Parameters
    ----------
    value : any finite number.
    digits : significant ones; as many as tell it from its neighbours where absent. [1]

    Raises
    ------
    SpecError
        Where it is not finite.
    """
    if not math.isfinite(value):
        raise SpecError.single("plan", "cells", f"hold {value}, which is no number for an engine")
    return format(Decimal(repr(float(value)) if digits is None else f"{value:.{digits}g}"), "f")


def word(value: str, field: str, file: str = "request") -> str:
    """Return a name that needs no quotes anywhere: letters, digits, ``_``, ``.`` and, inside, ``-``.

    Raises
    ------
    SpecError
        Where it is none.
    """
    if not _WORD.fullmatch(value) or len(value) > LONGEST:
        raise SpecError.single(
            file, field, f"found {shown(value)}, which is no name",
            "write letters, digits, _ and ., or - inside, nothing else",
        )  # fmt: skip
    return value


def name_or_path(value: str, field: str, file: str = "request") -> str:
    """Return a name or path that an engine is told, as it is.

    Raises
    ------
    SpecError
        Where it is empty, an engine could take it for a flag, or something in it is not seen.
    """
    if not value.strip() or len(value) > LONGEST:
        size = f"{len(value)} characters" if value.strip() else "nothing"
        raise SpecError.single(file, field, f"names {size}", f"name one of 1 to {LONGEST} characters")
    if value.startswith("-"):
        raise SpecError.single(
            file, field, f"found {shown(value)}, which engines take for a flag",
            f"write ./{value} for a file or folder",
        )  # fmt: skip
    if printable(value) != value:
        raise SpecError.single(
            file, field, f"found {shown(value)}, in which some characters are not seen",
            "rename it without control characters and direction marks",
        )  # fmt: skip
    return value


def _stays(sign: str) -> bool:
    return sign.isprintable() and sign not in "'\\!"


def _bytes_of(sign: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in sign.encode("utf-8", "surrogateescape"))
