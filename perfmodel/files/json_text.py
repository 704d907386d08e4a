"""JSON texts: how much they may hold, and plain values of them, no key twice and no number too long."""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Iterator
from typing import Any

from perfmodel.errors import Fault, SpecError

__all__ = ["load_json", "refuse_many", "uncollected"]

_BYTES = {"{": 190, "[": 60, ":": 30, ",": 40}
"""Memory of an object, a list, a key, and a number or short text with its place in a list, measured. [B]"""
_ALWAYS, _TIMES = 150_000_000, 2
"""What a text may take whatever its size, and how many times its own size beside that. [B], [1]"""

_MOST_DIGITS = 400
"""A longer integer is beyond every float, and takes long to read. [digits]"""
_MOST_FAULTS = 20


def refuse_many(text: str, file: str) -> None:
    """Refuse a JSON text that would take far more memory than itself. Raises SpecError.

    What it would take is counted by its signs, those inside of quotes too, before anything is made of it.
    """
    needed = sum(text.count(sign) * size for sign, size in _BYTES.items())
    if needed > _ALWAYS + _TIMES * len(text):
        problem = f"the file holds far too many values for its {len(text):,} characters"
        raise SpecError.single(file, "", problem, "Give the file as the tool wrote it, or a part of it")


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Let no garbage be looked for: values of a file hold no cycles, and are many."""
    looks = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looks:
            gc.enable()


class _Repeated(dict[str, Any]):
    """An object in which a key appears twice."""

    key: str = ""


def load_json(text: str, file: str) -> Any:
    """Return a JSON text as plain values. NaN and infinities are floats: what may hold none refuses them.

    Raises
    ------
    SpecError
        Where it is no JSON, is nested too deep, has a key twice, or holds too much; see `refuse_many`.
    """
    refuse_many(text, file)
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
        with uncollected():
            body = _loaded_plainly(text)
            if body is None:
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


def _loaded_plainly(text: str) -> Any:
    """Return a JSON text as values; None where a key may stand twice or a number may be too long.

    Every key that is written ends in ``":``, where it is written as usual: as many keys as these are all.
    """
    step = _MOST_DIGITS // 2
    if any(text[at : at + step].isdigit() for at in range(0, len(text), step)):
        return None
    keys = 0

    def count(body: dict[str, Any]) -> dict[str, Any]:
        nonlocal keys
        keys += len(body)
        return body

    body = json.loads(text, object_hook=count)
    return body if keys == text.count('":') else None


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
