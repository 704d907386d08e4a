"""What an unquoted text of a file means: a number, true, false, nothing, or the text itself."""

from __future__ import annotations

import math
import re
from typing import Any

__all__ = ["INFINITE", "REMEDY", "number_in", "scalar_in"]

_LONGEST_NUMBER = 30

_HUGE = "a number of absurd length"
INFINITE = "which is not a finite number"
_TRUTH = "which some YAML readers take for true or false"
_NOTATION = "a number in a notation that YAML readers read differently"
REMEDY = {
    _HUGE: f"Write at most {_LONGEST_NUMBER} digits",
    INFINITE: "Write a finite number",
    _TRUTH: "Write true or false, or put the text in quotes",
    _NOTATION: "Write a decimal number without leading zeros, or put the text in quotes",
}
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NORWAY = frozenset(("y", "n", "yes", "no", "on", "off"))
_ODD = re.compile(
    r"[-+]?(?:0[0-9_]+|0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*_[0-9_]*|[0-9]+(?::[0-5]?[0-9])+)",
    re.ASCII,
)
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_DIGITS = re.compile(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)


def number_in(text: str) -> tuple[Any, str | None]:
    """Return the number that a text spells, else the text itself, and what is wrong with it."""
    if len(text) > _LONGEST_NUMBER:
        return text, _HUGE if _DIGITS.fullmatch(text) else None
    if _INTEGER.fullmatch(text):
        return int(text), None
    value = float(text) if _FLOAT.fullmatch(text) else None
    if value is None:
        return text, None
    return (value, None) if math.isfinite(value) else (text, INFINITE)


def scalar_in(text: str, is_key: bool) -> tuple[Any, str | None]:
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
