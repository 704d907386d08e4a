"""A JSON text as plain values, fast enough for plans of many cells: no key twice, no number too long."""

from __future__ import annotations

import json
from typing import Any

from perfmodel.errors import Fault, SpecError

__all__ = ["load_json"]

_MOST_DIGITS = 400
"""A longer integer is beyond every float, and takes long to read. [digits]"""
_MOST_FAULTS = 20


class _Repeated(dict[str, Any]):
    """An object in which a key appears twice."""

    key: str = ""


def load_json(text: str, file: str) -> Any:
    """Return a JSON text as plain values. NaN and infinities are floats: what may hold none refuses them.

    Raises
    ------
    SpecError
        Where it is no JSON, is nested too deep, or has a key twice.
    """
    repeated: list[_Repeated] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        body = dict(pairs)
        if len(body) == len(pairs):
            return body
        keys = [key for key, _ in pairs]
        twice = _Repeated(body)
        twice.key = next(key for key in keys if keys.count(key) > 1)
        repeated.append(twice)
        return twice

    try:
        body = json.loads(text, object_pairs_hook=build, parse_int=_whole)
    except json.JSONDecodeError as error:
        remedy = "Check quotes, commas and brackets"
        raise SpecError.single(file, "", f"not valid JSON: {error.msg}", remedy, line=error.lineno) from None
    except RecursionError:
        raise SpecError.single(file, "", "nested too deep to be read", "Write a flatter file") from None
    if repeated:
        raise SpecError(
            Fault(file, None, place, "the key appears twice", "Keep one of them")
            for place in _places(body)[:_MOST_FAULTS]
        )
    return body


def _whole(text: str) -> int:
    """Return an integer; one of too many digits as one that no range holds."""
    if len(text) <= _MOST_DIGITS:
        return int(text)
    beyond: int = 10**_MOST_DIGITS
    return -beyond if text.startswith("-") else beyond


def _places(body: Any) -> list[str]:
    """Return where the repeated keys stand, such as ``cells.3.speedup``."""
    places, open_values = [], [("", body)]
    while open_values:
        place, value = open_values.pop()
        if isinstance(value, _Repeated):
            places.append(place + value.key)
        pairs = list(value.items()) if isinstance(value, dict) else []
        pairs += enumerate(value) if isinstance(value, list) else []
        open_values += [(f"{place}{key}.", item) for key, item in pairs]
    return places[::-1]
