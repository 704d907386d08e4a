"""README is a screen and a half: what it is, two commands, an example, how far to trust it, links."""

from __future__ import annotations

import re

from pages.reading import ROOT, blocks_of

README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_LINES = 120


def test_readme_is_short():
    assert len(README.splitlines()) < MOST_LINES


def test_the_two_commands_are_targets_of_the_makefile():
    assert "    make plan\n    make test\n" in README
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"^(plan|test):", makefile, re.MULTILINE) == ["plan", "test"]


def test_readme_shows_a_figure_the_recommendation_and_the_table_of_errors():
    commands = [command for block in blocks_of(README) for command, _ in block.shown]
    assert any(command.startswith("draftplan plan ") for command in commands)
    assert any(command.startswith("draftplan validate") for command in commands)
    assert "](docs/figures/map.png)" in README


def test_every_page_of_docs_is_reached_from_readme():
    """By links, over as many pages as it takes."""
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8"))
        waiting += [target for link in links if (target := (page.parent / link).resolve()).is_file()]
    there = set((ROOT / "docs").rglob("*.md")) - {ROOT / "docs" / "index.md"}
    assert there <= reached, "the site's own first page is the only one that README does not lead to"
