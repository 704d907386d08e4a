"""Every command of README and docs runs and prints what stands below it; every link leads somewhere."""

from __future__ import annotations

import configparser
import io
import re
import shlex

import matplotlib.image
import numpy as np
import pytest
import typer.main

from pages.reading import (
    PAGES,
    ROOT,
    anchors_of,
    answered_at_build,
    blocks_of,
    links_of,
    name_of,
    pictures_of,
    typed_elsewhere,
)
from pages.running import DiffersError, Page, answer_of, drawn, drawn_by, is_shown, renewed
from perfmodel.cli.app import app

TEXTS = {name_of(page): page.read_text(encoding="utf-8") for page in PAGES}
RUN_ELSEWHERE = {
    "docs/closing-the-loop.md": "tests/evidence/test_loop.py",
    **dict.fromkeys((name for name in TEXTS if name.startswith("docs/engines/")),
                    "tests/export/test_recipe_commands.py"),
}  # fmt: skip
"""Pages with blocks that a shell runs, and the test that runs them."""
BLOCKS = {name: blocks_of(text) for name, text in TEXTS.items()}
RUN_HERE = [name for name, blocks in BLOCKS.items() if any(one.shown or ">>>" in one.text for one in blocks)]
ANSWERED = sorted({command for text in TEXTS.values() for command in answered_at_build(text)})
NAMING = [name for name, text in TEXTS.items() if typed_elsewhere(text) and name != "CHANGELOG.md"]
COMMANDS = typer.main.get_command(app)


@pytest.mark.parametrize("name", RUN_HERE)
def test_a_page_shows_what_its_commands_print_and_what_its_python_does(name):
    try:
        Page(TEXTS[name]).run()
    except DiffersError as difference:
        pytest.fail(f"{name}: {difference}\nmake docs-record writes today's answers into the pages")


@pytest.mark.parametrize("command", ANSWERED)
def test_a_command_that_the_site_answers_is_answered(command):
    assert answer_of(command).count("\n") > 10


def test_blocks_for_a_shell_are_on_pages_that_another_test_runs():
    with_shell = {name for name, blocks in BLOCKS.items() if any(block.kind == "sh" for block in blocks)}
    assert with_shell <= RUN_ELSEWHERE.keys()
    for name in with_shell:
        assert (ROOT / RUN_ELSEWHERE[name]).is_file()
        page, test = name.rpartition("/")[2], (ROOT / RUN_ELSEWHERE[name]).read_text(encoding="utf-8")
        assert page in test or '"engines"' in test


def test_every_console_block_holds_commands_and_every_file_of_python_compiles():
    for name, blocks in BLOCKS.items():
        for block in blocks:
            assert block.kind != "console" or block.text.startswith("$ "), name
            if block.kind == "python" and block.file:
                compile(block.text, f"{name}: {block.file}", "exec")


def flags_of(words):
    """The command that words begin with, and the flags it has."""
    command = COMMANDS
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    return command, {flag for param in command.params for flag in param.opts}


@pytest.mark.parametrize("name", NAMING)
def test_a_command_that_is_named_in_passing_exists_with_its_flags(name):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    for typed in typed_elsewhere(TEXTS[name]):
        program, _, rest = re.split(r"\s{2,}|\s+#", typed)[0].partition(" ")
        if program == "make":
            targets = re.sub(r'\S*=("[^"]*"|\S*)', "", rest).split()
            missing = [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)]
            assert not missing, typed
        elif program == "pip":
            for extra in re.findall(r"draftplan\[([\w,]+)\]", rest):
                assert set(extra.split(",")) <= set(setup["options.extras_require"]), typed
        else:
            words = shlex.split(rest)
            command, flags = flags_of(words)
            asked = {word.split("=")[0] for word in words if word.startswith("--")}
            stands_for_all = words[:1] in (["COMMAND"], ["..."]) or rest.startswith("--")
            assert command is not COMMANDS or stands_for_all, f"there is no such command: {typed}"
            assert stands_for_all or asked <= flags | {"--help"}, (typed, asked - flags)


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_to_something(name):
    folder = (ROOT / name).parent
    for path, anchor in links_of(TEXTS[name]):
        target = folder / path if path else ROOT / name
        assert target.exists(), f"{name} links to {path}"
        if anchor and target.suffix == ".md":
            there = anchors_of(target.read_text(encoding="utf-8"))
            assert anchor in there, f"{name} links to {path}#{anchor}"


@pytest.mark.parametrize("name", [name for name in TEXTS if pictures_of(TEXTS[name])])
def test_every_picture_is_there_and_drawn_by_a_command_that_the_page_names(name):
    for picture, command in drawn_by(TEXTS[name]).items():
        assert command, f"{name} does not say what draws {picture}"
        there = matplotlib.image.imread((ROOT / name).parent / picture)
        if name == "README.md":  # the same picture elsewhere has the same command
            now = matplotlib.image.imread(io.BytesIO(drawn(command)))
            assert now.shape == there.shape
            assert np.abs(now - there).mean() < 0.02, "make docs-record draws it anew"
    commands = {command for text in TEXTS.values() for command in drawn_by(text).values()}
    pictures = {picture.rpartition("/")[2] for text in TEXTS.values() for picture in pictures_of(text)}
    assert len(commands) == len(pictures), "one command for one picture"


def test_what_is_shortened_keeps_its_shape_when_it_is_renewed():
    answer = "title\nfirst\nsecond\n\nTable\nrow 3\nrow 4\nend\n"
    shown = "title\n...\nTable\nrow 1\n...\n"
    assert not is_shown(shown, answer)
    assert renewed(shown, answer) == "title\n...\nTable\nrow 3\n...\n"
    assert renewed("old\n", answer) == answer
    assert renewed("", answer) == ""
    with pytest.raises(DiffersError, match="no line is 'Gone'"):
        renewed("title\n...\nGone\n...\n", answer)


def test_a_wrong_output_of_a_command_and_of_python_is_found_and_renewed():
    right = "```console\n$ draftplan --version\nVERSION\n```\n\n```python\n>>> 1 + 1\n2\n\n```\n"
    right = right.replace("VERSION", answer_of("draftplan --version").strip())
    assert Page(right).run() == right
    for wrong in (right.replace("draftplan 0", "draftplan 9"), right.replace("\n2\n", "\n3\n")):
        with pytest.raises(DiffersError):
            Page(wrong).run()
        assert Page(wrong, record=True).run() == right
