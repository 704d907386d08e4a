"""Whole numbers of a flag: lists, ranges and numbers with separators, within what it allows."""

from __future__ import annotations

import math

from perfmodel.errors import SpecError
from perfmodel.files.count_lists import read_list

__all__ = ["read_budgets", "read_counts", "read_number"]


def read_counts(
    text: str,
    least: int = 0,
    most: int | None = None,
    *,
    by_one: bool = False,
    contexts: bool = False,
    readings: list[str] | None = None,
) -> list[int]:
    """Return the whole numbers that a list or range names. Raises SpecError.

    Parameters
    ----------
    least, most : what is allowed.
    by_one, contexts : as in `read_list`.
    readings : takes a sentence for whatever could have been meant otherwise.
    """
    named = read_list(text, by_one=by_one, contexts=contexts)
    for value in named.counts:
        if value < least or (most is not None and value > most):
            allowed = f"at least {least}" if most is None else f"from {least} to {most}"
            raise SpecError.single("", "", f"found {value}", f"Give whole numbers {allowed}")
    if readings is not None:
        readings += named.readings
    return named.counts


def read_budgets(text: str, readings: list[str] | None = None) -> list[float]:
    """Return the draft KV budgets that a list names, infinite for ``all``. Raises SpecError."""
    parts = text.split(",")
    counts = [part for part in parts if part.strip().lower() != "all"]
    whole = [math.inf] if len(counts) < len(parts) else []
    return [*(read_counts(",".join(counts), least=1, readings=readings) if counts else ()), *whole]


def read_number(text: str, least: int, most: int, of: str = "") -> int:
    """Return the one whole number that is named, `of` what in the refusal. Raises SpecError."""
    (value, *more) = read_counts(text, contexts=True)
    if more or not least <= value <= most:
        raise SpecError.single("", "", f"found {text[:60]!r}", f"Give one number{of} from {least} to {most}")
    return value
