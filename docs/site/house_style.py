"""How docstrings are written here, for the API reference: what stands below a heading is a list."""

from __future__ import annotations

import re

import griffe

_HEADING = re.compile(r"^(Parameters|Attributes|Raises|Returns|Notes)\n-{4,}$", re.MULTILINE)
_ITEM = re.compile(r"^(\S[^:\n]*?) : ")
_MATHS = re.compile(r"^\.\. math::\n((?:[ ]{4}.*\n?|\n)+)", re.MULTILINE)
_EXAMPLE = re.compile(r"::\n\n(?=    )")
LISTS = ("Parameters", "Attributes", "Raises")


class HouseStyle(griffe.Extension):
    """Makes Markdown of docstrings whose items are ``name : what it is``, of one name or several."""

    def on_object(self, *, obj, **settings):
        """Rewrite the docstring of whatever is shown."""
        del settings
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text):
    """Return a docstring as Markdown: headings bold, items as lists, equations in dollar signs."""
    text = _MATHS.sub(lambda block: f"$$\n{block[1].strip()}\n$$\n\n", text)
    first, *rest = _HEADING.split(text)
    parts = [_EXAMPLE.sub(":\n\n", first)]
    for name, body in zip(rest[::2], rest[1::2], strict=True):
        own, _, after = body.lstrip("\n").partition("\n\n")
        shown = "\n".join(f"- {_item(part)}" for part in _parts(own)) if name in LISTS else own
        parts += [f"**{name}**\n\n{shown}\n\n{after}"]
    return "\n\n".join(part.strip() for part in parts)


def _parts(body):
    """The items of a section, each with the lines that go on."""
    parts = []
    for line in body.splitlines():
        if line.startswith(" ") and parts:
            parts[-1] += f" {line.strip()}"
        elif line.strip():
            goes_on = parts and parts[-1].endswith(",") and not _ITEM.match(parts[-1])
            parts[-1:] = [f"{parts[-1]} {line.strip()}"] if goes_on else [*parts[-1:], line.strip()]
    return parts


def _item(part):
    """One item: its names as code, a colon and what they are."""
    called = _ITEM.match(part)
    names, rest = (called[1], part[called.end() :]) if called else part.partition(" ")[::2]
    return f"{', '.join(f'`{name.strip()}`' for name in names.split(','))}: {rest}"
