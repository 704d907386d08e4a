"""Shell text to the commands in it, with the variables that are set there; nothing is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from perfmodel.errors import SpecError

__all__ = ["Command", "commands_in", "expanded", "unset_in"]

_ENDS = frozenset(";&|\n")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_COMMENT = re.compile(r"^[ \t]*#.*$", re.MULTILINE)
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?-([^}]*))?\}|\((\w+)\)|([A-Za-z_]\w*))")
_SHELLS = ("sh", "bash", "dash", "zsh")
_DEEPEST = 4


class Command(NamedTuple):
    """One command's words, in which variables that are set are replaced, and those variables."""

    words: list[str]
    variables: dict[str, str]


def commands_in(text: str, variables: Mapping[str, str] | None = None, depth: int = 0) -> Iterator[Command]:
    """Yield the commands of a text, those in quotes behind ``sh -c`` among them.

    Raises
    ------
    SpecError
        Where a quote is not closed.
    """
    known = dict(variables or {})
    joined = _COMMENT.sub("", re.sub(r"\\\r?\n", " ", text))
    reader = shlex.shlex(joined, posix=True, punctuation_chars="".join(_ENDS))
    reader.whitespace, reader.whitespace_split, reader.commenters = " \t\r", True, ""
    try:
        tokens = list(reader)
    except ValueError as fault:
        problem = f"is no shell command: {str(fault).lower()}"
        raise SpecError.single("", "", problem, "Check its quotes") from None
    words: list[str] = []
    for token in (*tokens, "\n"):
        if token and set(token) <= _ENDS:
            yield from _finished(words, known, depth)
            words = []
        else:
            words.append(token)


def _finished(words: list[str], known: dict[str, str], depth: int) -> Iterator[Command]:
    """Yield a command, and those that it has a shell run; assignments alone are kept in `known`."""
    words = [expanded(word, known) for word in words]
    own = dict(known)
    start = 1 if words[:1] == ["export"] else 0
    while start < len(words) and (assigned := _ASSIGNMENT.fullmatch(words[start])):
        own[assigned[1]] = assigned[2]
        start += 1
    if start == len(words):
        known |= own
        return
    words = words[start:]
    shell = next((place for place, word in enumerate(words) if word.rpartition("/")[2] in _SHELLS), None)
    if shell is not None and depth < _DEEPEST:
        for flag, text in zip(words[shell + 1 :], words[shell + 2 :], strict=False):
            if re.fullmatch(r"-[a-z]*c", flag):
                yield from commands_in(text, own, depth + 1)
                return
    yield Command(words, own)


def expanded(word: str, variables: Mapping[str, str]) -> str:
    """Return a word with the variables in it that are set, or have a default, replaced."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[3] or match[4]
        return variables.get(name) or (match[0] if match[2] is None else match[2])

    return _VARIABLE.sub(value, word) if "$" in word else word


def unset_in(word: str) -> str:
    """Return the first variable in a word that nobody set; empty where there is none."""
    match = _VARIABLE.search(word)
    return (match[1] or match[3] or match[4]) if match else ""
