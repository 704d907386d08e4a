"""YAML text to a document; refuses whatever could be misread."""

from __future__ import annotations

import re
from typing import Any

import yaml

from perfmodel.errors import SpecError
from perfmodel.files.documents import INFINITE, REMEDY, Builder, Document, decoded, number_in, shown

__all__ = ["parse_yaml"]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TRUTH = "which some YAML readers take for true or false"
_NOTATION = "a number in a notation that YAML readers read differently"
_REMEDY = {
    _TRUTH: "Write true or false, or put the text in quotes",
    _NOTATION: "Write a decimal number without leading zeros, or put the text in quotes",
    **REMEDY,
}
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NORWAY = frozenset(("y", "n", "yes", "no", "on", "off"))
_ODD = re.compile(
    r"[-+]?(?:0[0-9_]+|0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*_[0-9_]*|[0-9]+(?::[0-5]?[0-9])+)",
    re.ASCII,
)


def parse_yaml(content: bytes, file: str) -> Document:
    """Return the document of a YAML file; raises SpecError where the text cannot be read on."""
    text = decoded(content, file)
    build = Builder(file)
    if tab := re.search(r"^ *\t", text, re.MULTILINE):
        row = text.count("\n", 0, tab.start()) + 1
        raise build.stop(row, "found a tab in the indentation", "Indent with spaces")
    try:
        for event in yaml.parse(text, Loader=_Loader):
            _take(build, event)
    except SpecError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: impossible escapes
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        position: int | None = getattr(error, "position", None)
        line = mark.line + 1 if mark else None
        if line is None and position is not None:
            line = text.count("\n", 0, position) + 1
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable text"
        raise build.stop(
            line, f"not valid YAML: {problem}", "Check quotes, colons and indentation"
        ) from error
    return _finished(build)


def _take(build: Builder, event: yaml.Event) -> None:
    line = event.start_mark.line + 1 if event.start_mark else 1
    if isinstance(event, yaml.DocumentStartEvent):
        if build.document.lines:
            raise build.stop(
                line, "a second document starts here", "Write one document per file, without '---'"
            )
        if event.tags:
            raise build.stop(line, "found a %TAG directive", "Remove it: tags are not accepted")
    elif isinstance(event, yaml.AliasEvent):
        raise build.stop(
            line, f"found the alias *{event.anchor}", "Write the value out: aliases are not accepted"
        )
    elif isinstance(event, yaml.NodeEvent):
        _take_node(build, event, line)
    elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
        build.end()


def _take_node(build: Builder, event: yaml.NodeEvent, line: int) -> None:
    if event.anchor is not None:
        raise build.stop(line, f"found the anchor &{event.anchor}", "Remove it: anchors are not accepted")
    tag = getattr(event, "tag", None)
    if tag is not None:
        raise build.stop(line, f"found the tag {tag[:80]}", "Remove it: tags are not accepted")
    if isinstance(event, yaml.MappingStartEvent):
        build.start({}, line)
    elif isinstance(event, yaml.SequenceStartEvent):
        build.start([], line)
    elif isinstance(event, yaml.ScalarEvent):
        is_key = build.expects_key
        if is_key:
            build.key(event.value, line)
        problem, value = None, event.value
        if not event.style:
            value, problem = _resolve(event.value, is_key)
        if problem:
            build.document.refuse(
                build.place, line, f"found {shown(event.value)}, {problem}", _REMEDY[problem]
            )
        if not is_key:
            build.value(value, line)


def _finished(build: Builder) -> Document:
    if () not in build.document.lines:
        raise build.stop(1, "the file is empty", "Write 'key: value' lines")
    return build.document


def _resolve(text: str, is_key: bool) -> tuple[Any, str | None]:
    """Return the value of an unquoted YAML scalar, and what is wrong with it."""
    if text.lower() in _NORWAY:
        return text, _TRUTH
    if is_key or text in _NULLS:
        return (text if is_key else None), None
    if text in _BOOLEANS:
        return _BOOLEANS[text], None
    if text.lower().lstrip("+-") in (".inf", ".nan"):
        return text, INFINITE
    if len(text) <= 60 and _ODD.fullmatch(text):
        return text, _NOTATION
    return number_in(text)
