"""Lines of a log with their numbers, the refusal of a damaged one, and rows of counts that can be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from perfmodel.acceptance.counts import RISES, WHOLE, AcceptanceCounts, Unit, first_impossible, within_bounds
from perfmodel.errors import SpecError
from perfmodel.files.scalars import number_in

__all__ = [
    "COUNT", "NUMBER", "Line", "Row", "agrees", "count_in", "counts_of_rows", "damaged", "number_of",
    "rates_in",
]  # fmt: skip

COUNT = r"([0-9]{1,15})"
"""A count of a log as a pattern: digits of ASCII alone, of which a glued or endless number is none."""
NUMBER = r"(nan|[0-9]{1,15}(?:\.[0-9]{1,20})?)"
"""A number of a log, the same way."""
Row = tuple[float, float, float, float, list[float]]
"""Rounds, drafted, accepted, gamma, and the rounds that reach each position (empty: not told)."""

_DAMAGED = "Take the log again, or leave this line out"


class Line(NamedTuple):
    """One line of a log with its number, counted from 1."""

    number: int
    text: str


def damaged(file: str, line: Line, problem: str, field: str = "", remedy: str = _DAMAGED) -> SpecError:
    """Return the refusal of one line."""
    return SpecError.single(file, field, problem, remedy, line=line.number)


def number_of(text: str) -> float | None:
    """Return the finite number that a text spells in digits of ASCII, None for any other text."""
    value, problem = number_in(text)
    return None if problem or isinstance(value, str) else float(value)


def count_in(text: str) -> int | None:
    """Return the whole number, 0 or more, of at most 15 digits that a text spells; None for any other."""
    return int(text) if re.fullmatch(COUNT, text) else None


def agrees(text: str, value: float) -> bool:
    """Return whether a number may be printed so: it is within half of the last digit."""
    half = 0.5 * 10.0 ** -len(text.partition(".")[2])
    return abs(float(text) - value) <= half * (1.0 + 1e-6) + 1e-9 * abs(value)


def rates_in(text: str, mark: str, line: Line, file: str) -> list[float]:
    """Return the shares of rounds that are printed in brackets after a mark, by position; none without it.

    Raises
    ------
    SpecError : a list that is not whole, holds what is no share, or rises with the position.
    """
    _, there, rest = text.partition(mark)
    inside, closed, _ = rest.partition(")")
    if not there or (closed and not inside.strip()):
        return []
    rates = [number_of(part.strip()) for part in inside.split(",")]
    shares = [rate for rate in rates if rate is not None and 0.0 <= rate <= 1.0]
    if not closed or len(shares) < len(rates):
        problem = f"found {inside[:60]!r}, no list of rates from 0 to 1"
        raise damaged(file, line, problem, mark.strip(" =("))
    if any(late > early for early, late in pairwise(shares)):
        raise damaged(file, line, RISES, mark.strip(" =("))
    return shares


def counts_of_rows(
    unit: Unit,
    rows: list[Row],
    requests: float | None = None,
    remarks: tuple[str, ...] = (),
    at: Sequence[Line] = (),
    file: str = "",
) -> AcceptanceCounts:
    """Return the counts of rows: rounds, drafted, accepted, gamma, rounds that reach each position.

    Which positions were tried is not told where some rounds drafted less than ``gamma``.

    Parameters
    ----------
    at : the line of each row, for the refusal of one whose counts cannot be.

    Raises
    ------
    SpecError : a row whose counts cannot be, see `perfmodel.acceptance.counts.first_impossible`.
    """
    table = np.array([row[:4] for row in rows], dtype=np.float64).reshape(-1, 4)
    rounds, drafted, accepted, gamma = table.T
    reached = None
    if rows and all(row[4] for row in rows):
        longest = max(len(row[4]) for row in rows)
        reached = np.array([row[4] + [0.0] * (longest - len(row[4])) for row in rows])
    counts = AcceptanceCounts(
        unit=unit,
        rounds=rounds,
        drafted=drafted,
        accepted=accepted,
        gamma=gamma,
        reached=reached,
        requests=requests,
        remarks=remarks,
    )
    if (impossible := first_impossible(counts)) is not None:
        row, problem, field = impossible
        line = at[row].number if at else None
        raise SpecError.single(file, field, problem, _DAMAGED if at else "", line=line)
    counts = within_bounds(counts)
    if counts.reached is None or not np.all(drafted >= WHOLE * rounds * gamma):
        return counts
    possible = np.arange(1, longest + 1) <= np.array([len(row[4]) for row in rows])[:, None]
    tried = np.concatenate([rounds[:, None], counts.reached[:, :-1]], axis=1) * possible
    return replace(counts, tried=tried)
