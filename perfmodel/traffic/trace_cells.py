"""What a cell of a trace means: a number, a time of the calendar, or a count of tokens."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

from perfmodel.files.scalars import number_in

__all__ = ["MOST_TOKENS", "date", "number_of", "puts_out_nothing", "tokens"]

MOST_TOKENS = 100_000_000
_LARGEST = 1e19
"""Beyond any time since 1970, in nanoseconds too."""

_DIGITS = 10
"""A count with fewer needs no closer look."""

_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,12}))?\s*(Z|UTC|[+-]\d\d:?\d\d)?",
    re.ASCII | re.IGNORECASE,
)


def date(value: Any) -> float:
    """Seconds since 1970 of a date and time, in UTC where nothing else is said. [s]"""
    match = _DATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(value)
    date, time, fraction, zone = match.groups()
    if zone is None or zone.upper() in ("Z", "UTC"):
        zone = "+00:00"
    whole = datetime.fromisoformat(f"{date} {time}{zone[:3]}:{zone[-2:]}").astimezone(timezone.utc)
    return whole.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)


def tokens(value: Any) -> float:
    """Give a whole number of tokens from 1 to 100 million"""
    plain = type(value) is str and value.isascii() and value.isdigit() and value[0] != "0"
    number = float(value) if plain and len(value) < _DIGITS else number_of(value)
    if number is None or not 1 <= number <= MOST_TOKENS or number != round(number):
        raise ValueError(value)
    return number


def puts_out_nothing(value: Any) -> bool:
    """Whether an output length is that of a call that failed: none, a word for none, zero or below it."""
    if value is None or value != value or (isinstance(value, str) and value.strip().lower() in _NO_LENGTH):
        return True
    try:
        number = number_of(value)
    except (ValueError, OverflowError):
        return False
    return number is not None and number <= 0.0


_NO_LENGTH = ("", "none", "null", "nan", "na", "n/a")
"""How tables write that there is no value, in lower case."""


def number_of(value: Any) -> float | None:
    """A number, written or given as one; None where it is anything else."""
    if isinstance(value, str):
        value, problem = number_in(value)
        if problem is not None:
            raise ValueError(problem)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    number = float(value)
    if not abs(number) < _LARGEST:
        raise ValueError(value)
    return number
