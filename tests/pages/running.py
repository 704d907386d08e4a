"""Run what a page shows, in order and in a folder of its own; compare, or write today's answers into it."""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from pages.reading import Block, blocks_of, pictures_of
from perfmodel.cli.app import app

LOOSE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class DiffersError(AssertionError):
    """A page shows something else than what is answered."""


def answer_of(command: str) -> str:
    """What one of our commands writes to stdout; it must succeed."""
    words = shlex.split(command)
    assert words[0] == "draftplan", f"a page shows commands of draftplan only, not {command}"
    result = CliRunner().invoke(
        app, words[1:], prog_name="draftplan", env={"NO_COLOR": "1", "COLUMNS": "80", "HF_HUB_OFFLINE": "1"}
    )
    assert result.exit_code == 0, f"{command}\n{result.stderr}"
    return "\n".join(line.rstrip() for line in result.stdout.splitlines()) + ("\n" if result.stdout else "")


def as_pattern(output: str) -> str:
    """The shown output as a pattern: a line of three dots stands for any lines."""
    return "".join(
        r"(?:[^\n]*\n)*?" if line.strip() == "..." else re.escape(line.rstrip()) + r"\n"
        for line in output.splitlines()
    )


def is_shown(output: str, answer: str) -> bool:
    """Whether an answer is what stands below its command; below many stands nothing."""
    return not output.strip() or re.fullmatch(as_pattern(output), answer) is not None


def renewed(output: str, answer: str) -> str:
    """The shown output with today's lines: as many as stood between two lines of three dots.

    The first ones are taken from the top, the last ones from the end, those between from the line on that is
    the same as before.
    """
    if is_shown(output, answer):
        return output
    lines = answer.splitlines()
    parts = re.split(r"^\.\.\.$", output, flags=re.MULTILINE)
    kept = [part.strip("\n").splitlines() for part in parts]
    if len(kept) == 1:
        return answer
    new = [lines[: len(kept[0])]]
    for part in kept[1:-1]:
        if part and part[0] not in lines:
            raise DiffersError(f"no line is {part[0]!r} any more; shorten by hand what is shown:\n{answer}")
        begin = lines.index(part[0]) if part else 0
        new.append(lines[begin : begin + len(part)])
    new.append(lines[len(lines) - len(kept[-1]) :] if kept[-1] else [])
    text = "\n...\n".join("\n".join(part) for part in new).strip("\n")
    return text + "\n"


@contextlib.contextmanager
def in_a_folder() -> Iterator[Path]:
    """An empty folder that is the current one for a while."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(before)


class Page:
    """What a page shows, run in order.

    Parameters
    ----------
    text : the page.
    record : whether answers that differ are written into it; otherwise they raise `DiffersError`.
    """

    def __init__(self, text: str, *, record: bool = False) -> None:
        self.text, self.record = text, record
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def run(self) -> str:
        """Run all of it; returns the page with today's answers."""
        done, at = [], 0
        with in_a_folder():
            for block in blocks_of(self.text):
                done += [self.text[at : block.start], self._answered(block)]
                at = block.end
        return "".join([*done, self.text[at:]])

    def _answered(self, block: Block) -> str:
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.kind == "console":
            answers = [(command, self._of_command(command, output)) for command, output in block.shown]
            return "".join(f"$ {command}\n{output}" for command, output in answers)
        elif block.kind == "python" and ">>>" in block.text:
            return self._of_python(block.text)
        return block.text

    def _of_command(self, command: str, output: str) -> str:
        answer = answer_of(command)
        if not self.record and not is_shown(output, answer):
            raise DiffersError(f"below {command}\nstands\n{output}\nbut it prints\n{answer}")
        return renewed(output, answer) if self.record else output

    def _of_python(self, text: str) -> str:
        parts: list[str] = []
        for part in doctest.DocTestParser().parse(text):
            if isinstance(part, str):
                parts.append(part)
                continue
            with contextlib.redirect_stdout(io.StringIO()) as stream:
                exec(compile(part.source, "page", "single"), self.names)
            got, want = stream.getvalue(), part.want
            if not doctest.OutputChecker().check_output(want, got, LOOSE):
                if not self.record:
                    raise DiffersError(f"below {part.source}stands\n{want}\nbut it prints\n{got}")
                want = got
            first, *rest = part.source.splitlines()
            parts.append("".join([f">>> {first}\n", *(f"... {line}\n" for line in rest), want]))
        return "".join(parts)


def drawn_by(text: str) -> dict[str, str]:
    """Each picture of a page with the command that draws it, which the page names."""
    commands = {Path(command.split(" -o ")[1].split()[0]).name: command
                for command in re.findall(r"`(draftplan plot [^`]+ -o [^`]+)`", text)}  # fmt: skip
    return {picture: commands.get(Path(picture).name, "") for picture in pictures_of(text)}


def drawn(command: str) -> bytes:
    """The picture that a command draws."""
    with in_a_folder():
        answer_of(command)
        return Path(shlex.split(command)[shlex.split(command).index("-o") + 1]).read_bytes()


def record(page: Path) -> bool:
    """Write today's answers and pictures into a page; says whether anything changed."""
    text = page.read_text(encoding="utf-8")
    new = Page(text, record=True).run()
    if new != text:
        page.write_text(new, encoding="utf-8")
    for picture, command in drawn_by(text).items():
        if command and (page.parent / picture).suffix == ".png":
            (page.parent / picture).write_bytes(drawn(command))
    return new != text
