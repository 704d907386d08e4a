"""What is in a page: blocks of commands, code and files, pictures, links and headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
"""README, what stands beside it, and all of docs."""
_FENCE = re.compile(r"^( *)```([a-z]*)[ ]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# ([\w-]+\.(?:py|yaml|csv|json))(?::.*)?$")
_OUTPUT = re.compile(r"^<!-- output: (draftplan .*) -->$", re.MULTILINE)
_INDENTED = re.compile(r"^(?: {4}|\t)(?=draftplan |make |pip )(.*)$", re.MULTILINE)
_INLINE = re.compile(r"`(draftplan [^`\n]+|make [a-z-]+[^`\n]*|pip install [^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes
    ----------
    kind : what stands behind its fence.
    text : what stands in it.
    start, end : where that begins and ends in the page.
    """

    kind: str
    text: str
    start: int
    end: int

    @property
    def file(self) -> str:
        """The name of the file that it shows, by its first line; empty where it shows none."""
        named = _NAMED.match(self.text.split("\n", 1)[0])
        return named[1] if named and self.kind in ("python", "yaml") else ""

    @property
    def shown(self) -> list[tuple[str, str]]:
        """Its commands, each with the output below it."""
        parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]
        return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


def name_of(page: Path) -> str:
    """A page by its place in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(part[2], part[3], part.start(3), part.end(3)) for part in _FENCE.finditer(text)]


def prose_of(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text)


def answered_at_build(text: str) -> list[str]:
    """The commands whose output the site shows."""
    return _OUTPUT.findall(text)


def typed_elsewhere(text: str) -> list[str]:
    """Commands that a page names in a line or an indented block, without what they print."""
    prose = prose_of(text)
    return [line.strip() for line in _INDENTED.findall(prose)] + _INLINE.findall(prose)


def pictures_of(text: str) -> list[str]:
    """Paths of the pictures of a page."""
    return re.findall(r"!\[[^\]]*\]\((?!https?://)([^)]+)\)", prose_of(text))


def links_of(text: str) -> list[tuple[str, str]]:
    """Relative links of a page: path, empty for the page itself, and anchor."""
    plain = re.sub(r"`[^`\n]*`", "", prose_of(text))
    return re.findall(r"\]\((?!https?://|mailto:)([^)#\s]*)#?([^)\s]*)\)", plain)


def anchors_of(text: str) -> set[str]:
    """Anchors of the headings of a page, as GitHub and the site make them."""
    titles = re.findall(r"^#{1,6} (.+?)\s*$", prose_of(text), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}
