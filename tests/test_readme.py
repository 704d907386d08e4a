"""What README shows is what the commands print and what the Python does, at this commit."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def shown() -> list[tuple[str, str]]:
    """Commands in README's console blocks with the output shown below each."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def as_pattern(output: str) -> str:
    """The shown output as a pattern: a line of three dots stands for any lines, trailing space is free."""
    lines = [
        r"(?:[^\n]*\n)*?" if line.strip() == "..." else re.escape(line.rstrip()) + r"[ ]*\n"
        for line in output.splitlines()
    ]
    return "".join(lines)


@pytest.mark.parametrize(("command", "output"), shown())
def test_a_command_prints_what_readme_shows_below_it(command: str, output: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    assert words[0] == "draftplan", "README shows commands of draftplan only"
    inputs = {name: ROOT / name for name in words if (ROOT / name).is_file()}
    arguments = [str(inputs.get(word, word)) for word in words[1:]]
    ran = subprocess.run(
        [sys.executable, "-m", "perfmodel", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "COLUMNS": "80", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(as_pattern(output), ran.stdout), (
        f"README shows\n{output}\nbut it prints\n{ran.stdout}"
    )


def test_readme_shows_the_recommendation_and_the_table_of_errors() -> None:
    commands = [command for command, _ in shown()]
    assert any(command.startswith("draftplan plan ") for command in commands)
    assert any(command.startswith("draftplan validate") for command in commands)


def test_the_python_in_readme_does_what_it_shows() -> None:
    test = doctest.DocTestParser().get_doctest(
        "\n".join(re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)),
        {},
        "README.md",
        "README.md",
        0,
    )
    assert test.examples, "README has no doctest"
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(test)
    assert results.failed == 0


def test_every_file_that_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
