"""A server as it is started: its engine, its options and the machine that it asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ENGINES", "Server", "find_server", "options_of", "version_in"]

ENGINES = ("vllm", "sglang", "tensorrt-llm")
_MODULES = {
    "vllm.entrypoints.openai.api_server": "vllm",
    "vllm.entrypoints.api_server": "vllm",
    "sglang.launch_server": "sglang",
}
_PROGRAMS = {"vllm": "vllm", "sglang": "sglang", "trtllm-serve": "tensorrt-llm"}
_IMAGES = (
    (re.compile(r"(^|/)vllm(-openai[\w-]*)?(:|@|$)"), "vllm"),
    (re.compile(r"(^|/)sglang[\w-]*(:|@|$)"), "sglang"),
    (re.compile(r"(^|/)tensorrt-?llm(/release)?(:|@|$)"), "tensorrt-llm"),
)
_VERSION = re.compile(r":v?(\d+\.\d+(?:\.\d+)*)")
_SHORT = {
    "-tp": "--tensor-parallel-size", "-pp": "--pipeline-parallel-size", "-dp": "--data-parallel-size",
    "-q": "--quantization",
}  # fmt: skip
_SWITCHES = re.compile(
    r"--(trust-remote-code|enforce-eager|async-scheduling|(enable|disable|no|use|skip)-[\w-]+)"
)
"""Options that take no value: what follows one is a word of its own."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """What starts one server.

    name : what the file calls it. engine : one of `ENGINES`. words : its command's, from its options on.
    image : of its container, for the release. gpus : those that it asks for on each of its `nodes`; 0 where
    nobody says. hardware : the accelerator that it is to run on. line : where it stands in the file.
    """

    name: str
    engine: str
    words: Sequence[str]
    image: str = ""
    gpus: int = 0
    nodes: int = 1
    hardware: str = ""
    line: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def find_server(words: Sequence[str], image: str = "") -> tuple[str, list[str], str] | None:
    """Return engine, options and image of a command; None where it starts no server.

    Parameters
    ----------
    image : of the container whose command it is: one that starts a server takes the words as its options.
    """
    for place, word in enumerate(words):
        program, rest = word.rpartition("/")[2].rpartition("=")[2], list(words[place + 1 :])
        if word == "-m" and rest and (engine := _MODULES.get(rest[0])):
            return engine, rest[1:], image
        if program == "trtllm-serve" or (program in _PROGRAMS and rest[:1] == ["serve"]):
            return _PROGRAMS[program], rest[1:] if rest[:1] == ["serve"] else rest, image
        if place and _engine_of(word) and "run" in words[:place]:  # docker run IMAGE ...
            inner = find_server(rest, word)
            return inner or ((_engine_of(word), rest, word) if _engine_of(word) == "vllm" else None)
    if image and _engine_of(image) == "vllm" and words and words[0].startswith("-"):
        return "vllm", list(words), image
    return None


def _engine_of(image: str) -> str:
    return next((engine for pattern, engine in _IMAGES if pattern.search(image)), "")


def version_in(image: str) -> str:
    """Return the release that an image's tag names; empty where it names none."""
    match = _VERSION.search(image)
    return match[1] if match else ""


def options_of(words: Sequence[str]) -> dict[str, Any]:
    """Return the options of a command by their long names with dashes, "" for the first word that is none.

    A value is a text, or True where none follows. ``--a.b c`` is the value of b in a mapping a.
    """
    options: dict[str, Any] = {}
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if not re.match(r"--?[A-Za-z]", word):
            options.setdefault("", word)
            continue
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name).replace("_", "-")
        given: Any = value if equals else True
        follows = place < len(words) and not re.match(r"--?[A-Za-z]", words[place])
        if not equals and follows and not _SWITCHES.fullmatch(name):
            given = words[place]
            place += 1
        outer, dot, inner = name.lstrip("-").partition(".")
        if dot:
            section = options.setdefault(outer, {})
            if isinstance(section, dict):
                section[inner.replace("-", "_")] = given
        else:
            options[outer] = _plain(given)
    return options


def _plain(given: Any) -> Any:
    """Return a JSON mapping as one, anything else as it is."""
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            return json.loads(given)
        except ValueError:
            return given
    return given
