"""What mkdocs asks while it builds: pages of the library, links of the repository, equations as MathML."""

from __future__ import annotations

import html
import posixpath
import re
import shlex
from functools import cache
from pathlib import Path

import reference
import strategy_pages
from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
TOP = {"GLOSSARY.md": "glossary.md", "DECISIONS.md": "decisions.md", "CONTRIBUTING.md": "contributing.md",
       "CHANGELOG.md": "changelog.md"}  # fmt: skip
"""Files of the top level that are pages of the site."""
_LINK = re.compile(r"(?<!\\)(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?://|#|mailto:)([^()\s#]+)(#[^()\s]*)?\)")
_MATHS = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_OUTPUT = re.compile(r"^<!-- output: (draftplan .*) -->$", re.MULTILINE)
_FENCE = re.compile(r"^(```.*?^```[ ]*$)", re.MULTILINE | re.DOTALL)


@cache
def generated():
    """Every generated page and figure: its address, and its text or bytes."""
    return {**strategy_pages.made(), **reference.made()}


def on_config(config):
    """Put the generated pages where the navigation says ``folder/*``."""
    config.nav = [_expanded(entry) for entry in config.nav]
    return config


def on_files(files, config):
    """Add the pages of the top level and the generated ones."""
    for name, address in TOP.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, address, content=text))
    for address, content in generated().items():
        files.append(File.generated(config, address, content=content))
    return files


def on_page_markdown(markdown, page, config, files):  # noqa: ARG001
    """Turn links of the repository into links of the site, and commands into what they print."""
    source = page.file.src_uri
    if source in generated():
        return _OUTPUT.sub(_answered, markdown)
    parts = _FENCE.split(markdown)
    for index in range(0, len(parts), 2):  # what stands between the fenced blocks
        linked = _LINK.sub(lambda link: _relinked(link, source, files), parts[index])
        parts[index] = _OUTPUT.sub(_answered, linked)
    return "".join(parts)


def on_page_content(html, page, config, files):  # noqa: ARG001
    """Write equations as MathML, which browsers draw without a script."""
    return _MATHS.sub(_as_mathml, html)


def _as_mathml(match):
    return convert(html.unescape(match[2]).strip(), display="block" if match[1] == "div" else "inline")


def _expanded(entry):
    if isinstance(entry, dict):
        [(title, below)] = entry.items()
        if isinstance(below, list):
            return {title: [_expanded(part) for part in below]}
        if below.endswith("/*"):
            made = [page for page in generated() if page.startswith(below[:-1])]
            return {title: [page for page in made if page.endswith(".md")]}
    return entry


def _answered(match):
    """What a command prints, as the tests run it."""
    from typer.testing import CliRunner

    from perfmodel.cli.app import app

    words = shlex.split(match[1])[1:]
    result = CliRunner().invoke(app, words, prog_name="draftplan", env={"NO_COLOR": "1"})
    if result.exit_code:
        raise RuntimeError(f"{match[1]}: {result.stderr}")
    return f"```console\n$ {match[1]}\n{result.stdout}```"


def _relinked(link, source, files):
    """A link of a file of the repository as one of the site."""
    picture, text, target, anchor = link[1], link[2], link[3], link[4] or ""
    at_top = next((name for name, address in TOP.items() if address == source), None)
    here = "" if at_top else posixpath.join("docs", posixpath.dirname(source))
    path = posixpath.normpath(posixpath.join(here, target))
    if path == "strategies":
        address = "strategies/index.md"
    elif path.startswith("strategies/") and path.endswith(".py"):
        address = path.removesuffix(".py") + ".md"
    elif path == "README.md":
        address = "index.md"
    else:
        address = TOP.get(path) or path.removeprefix("docs/")
    if path.startswith("docs/") or files.get_file_from_path(address) is not None:
        return f"{picture}[{text}]({posixpath.relpath(address, posixpath.dirname(source) or '.')}{anchor})"
    if path.startswith("perfmodel/") and path.endswith(".py"):
        name = f"{path.removesuffix('.py').replace('/', '.').removesuffix('.__init__')}.{text.strip('`')}"
        if name in reference.names():
            return f"[{text}][{name}]"
    if not (ROOT / path).exists():
        raise ValueError(f"{source} links to {target}, which is not there")
    return text if text.startswith("`") or "/" in text else f"{text} (`{path}`)"
