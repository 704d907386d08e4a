"""JSON text to a document; refuses whatever could be misread."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from perfmodel.files.documents import INFINITE, REMEDY, Builder, Document, decoded, number_in, shown

__all__ = ["parse_json"]

_TOKEN = re.compile(r'[ \t\r\n]*(?:([{}\[\],:])|("(?:[^"\\\x00-\x1f]|\\.)*")|([-+.\w]+))', re.ASCII)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", re.ASCII)
_WORDS = {"true": True, "false": False, "null": None}


def parse_json(content: bytes, file: str) -> Document:
    """Return the document of a JSON file; raises SpecError where the text cannot be read on."""
    text = decoded(content, file)
    build = Builder(file)
    wanted = "value"
    closers: list[str] = []
    for line, sign, string, word in _tokens(text, build):
        if wanted == "end":
            raise build.stop(
                line, "found text after the end of the document", "Write one JSON object per file"
            )
        if sign and sign in "}]":
            if not closers or closers[-1] != sign or wanted not in ("next", "first key", "first value"):
                raise build.stop(line, f"not valid JSON: {sign} is out of place", "Check commas and brackets")
            closers.pop()
            build.end()
        elif wanted == "next" or wanted == "colon":
            if sign != ("," if wanted == "next" else ":"):
                raise build.stop(
                    line, "not valid JSON: a comma or colon is missing", "Check commas and brackets"
                )
            wanted = ("key" if closers[-1] == "}" else "value") if wanted == "next" else "value"
            continue
        elif wanted.endswith("key"):
            if not string:
                raise build.stop(
                    line, "not valid JSON: a key must be a text in double quotes", "Check the commas"
                )
            build.key(_string(build, string, line), line)
            wanted = "colon"
            continue
        elif sign and sign in "{[":
            build.start({} if sign == "{" else [], line)
            closers.append("}" if sign == "{" else "]")
            wanted = "first key" if sign == "{" else "first value"
            continue
        else:
            build.value(_scalar(build, sign, string, word, line), line)
        wanted = "next" if closers else "end"
    if wanted != "end":
        raise build.stop(
            text.count("\n") + 1, "the text ends too early or is empty", "Complete the JSON object"
        )
    return build.document


def _tokens(text: str, build: Builder) -> Iterator[tuple[int, str, str, str]]:
    position, line = 0, 1
    length = len(text.rstrip(" \t\r\n"))
    while position < length:
        match = _TOKEN.match(text, position)
        if match is None:
            rest = text[position:]
            line += rest[: len(rest) - len(rest.lstrip())].count("\n")
            raise build.stop(line, f"not valid JSON: {shown(rest.lstrip()[:20])}", "Check quotes and commas")
        line += text.count("\n", position, match.end())
        position = match.end()
        yield line, match[1] or "", match[2] or "", match[3] or ""


def _string(build: Builder, token: str, line: int) -> str:
    try:
        return str(json.loads(token))
    except ValueError as error:
        raise build.stop(line, f"not valid JSON: {shown(token)}", "Check the escapes of this text") from error


def _scalar(build: Builder, sign: str, string: str, word: str, line: int) -> Any:
    if string:
        return _string(build, string, line)
    if word in _WORDS:
        return _WORDS[word]
    if _NUMBER.fullmatch(word):
        value, problem = number_in(word)
        if problem:
            build.document.refuse(build.place, line, f"found {shown(word)}, {problem}", REMEDY[problem])
        return value
    if word.lstrip("+-") in ("NaN", "Infinity"):
        build.document.refuse(build.place, line, f"found {word}, {INFINITE}", REMEDY[INFINITE])
        return None
    raise build.stop(line, f"not valid JSON: found {shown(sign or word)}", "Write a JSON value here")
