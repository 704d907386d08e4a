"""Input number n, made in a folder, and its verdict; the same number is the same input in every run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from fuzz.command_lines import command_line
from fuzz.damage import damaged
from fuzz.judge import Verdict, judged, judged_command, sound_json
from fuzz.readers import READERS
from fuzz.seeds import NAME, seeds
from fuzz.specials import special
from perfmodel.errors import printable

__all__ = ["Tried", "judge_file", "try_input"]

KINDS = ("damaged",) * 45 + ("command",) * 6 + ("special",)


class Tried(NamedTuple):
    """One input: its number and kind, what was done, how it ended, and the file for whoever looks into it."""

    number: int
    kind: str
    what: str
    verdict: Verdict
    content: bytes | None = None


def try_input(seed: int, number: int, folder: Path) -> Tried:
    """Make an input in a folder, which is emptied again, and judge it."""
    draw = Random(f"{seed} {number}")
    folder.mkdir(exist_ok=True)
    try:
        tried = {"damaged": _damaged, "command": _command, "special": _special}[draw.choice(KINDS)]
        return tried(number, draw, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _damaged(number: int, draw: Random, folder: Path) -> Tried:
    kind = draw.choice(list(READERS))
    content, what = damaged(draw.choice(seeds()[kind]), draw)
    path = folder / f"{NAME}{READERS[kind].ending}"
    path.write_bytes(content)
    return Tried(
        number, kind, what, judge_file(kind, path, asked=draw.random() < READERS[kind].asked), content
    )


def judge_file(kind: str, path: Path, *, asked: bool) -> Verdict:
    """Judge what a reader makes of a file: that of the library, or the command where it is `asked`."""
    reader, file = READERS[kind], str(path)
    names = (printable(path.name), *reader.places)
    if asked:
        return judged_command(reader.ask(file), names, reader.answer)
    return judged(lambda: reader.read(file), names[:1], reader.sound)


def _command(number: int, draw: Random, folder: Path) -> Tried:
    arguments = command_line(draw, folder)
    answers_json = "json" in arguments and "--format" in arguments
    sound: Callable[[str], str] = sound_json if answers_json and arguments[0] == "plan" else lambda _: ""
    verdict = judged_command(arguments, (), sound)
    return Tried(number, f"command {arguments[0]}", " ".join(map(repr, arguments)), verdict)


def _special(number: int, draw: Random, folder: Path) -> Tried:
    kind = draw.choice(list(READERS))
    path, what = special(draw, folder, READERS[kind].ending)
    return Tried(number, kind, what, judge_file(kind, path, asked=draw.random() < 0.5))
