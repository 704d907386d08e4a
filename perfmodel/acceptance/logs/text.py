"""The lines of a log, freed of what terminals, containers and two writers at once put around them."""

from __future__ import annotations

import json
import re

from perfmodel.acceptance.logs.lines import Line
from perfmodel.files.lines import LONGEST_LINE

__all__ = ["lines_of"]

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_])")
_NEXT_ENTRY = re.compile(
    r"\s*(?=\[20\d\d-\d\d-\d\d[ T]\d\d:\d\d:\d\d)|\s*(?=\bINFO \d\d-\d\d \d\d:\d\d:\d\d)", re.ASCII
)
_IN_JSON = re.compile(r"\s*(?:[{\"]|\[\s*(?:[\[{]|$)|data:)")
_MESSAGE = ("log", "message", "msg", "textPayload", "MESSAGE")


def lines_of(text: str) -> list[Line]:
    """Return the lines of a log that are not empty, numbered as an editor numbers them.

    Endless ones that are no JSON are passed over: they are of other things.

    Colours are taken off, entries that a container runtime wrapped in JSON are unwrapped, and an entry that
    begins in the middle of a line (two processes wrote at once) is a line of its own with the same number.
    """
    coloured = "\x1b" in text
    lines = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = _unwrapped(_ESCAPE.sub("", raw) if coloured else raw)
        if _IN_JSON.match(line):
            lines.append(Line(number, line))
            continue
        if len(line) > LONGEST_LINE:
            continue
        for part in line.splitlines():
            if part.count("INFO ") + part.count("[20") > 1:
                entries = _NEXT_ENTRY.split(part)
                lines += [Line(number, entry) for entry in entries if entry and not entry.isspace()]
            elif part and not part.isspace():
                lines.append(Line(number, part))
    return lines


def _unwrapped(text: str) -> str:
    """Return the message of a line such as ``{"log": "...", "stream": "stderr"}``, else the line itself."""
    if not text.startswith('{"') or not any(f'"{key}"' in text for key in _MESSAGE):
        return text
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return text
    message = next((entry[key] for key in _MESSAGE if isinstance(entry.get(key), str)), None)
    return text if message is None else message.rstrip("\n")
