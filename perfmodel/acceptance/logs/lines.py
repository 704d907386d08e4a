"""Lines of a log with their numbers, the refusal of a damaged one, and rows of counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from perfmodel.acceptance.counts import WHOLE, AcceptanceCounts, Unit
from perfmodel.errors import SpecError

__all__ = ["NUMBER", "Line", "Row", "counts_of_rows", "damaged"]

NUMBER = r"(nan|\d+(?:\.\d+)?)"
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


def counts_of_rows(
    unit: Unit, rows: list[Row], requests: float | None = None, remarks: tuple[str, ...] = ()
) -> AcceptanceCounts:
    """Return the counts of rows: rounds, drafted, accepted, gamma, rounds that reach each position.

    Which positions were tried is not told where some rounds drafted less than ``gamma``.
    """
    table = np.array([row[:4] for row in rows], dtype=np.float64).reshape(-1, 4)
    rounds, drafted, accepted, gamma = table.T
    reached = tried = None
    if rows and all(row[4] for row in rows):
        longest = max(len(row[4]) for row in rows)
        reached = np.array([row[4] + [0.0] * (longest - len(row[4])) for row in rows])
        possible = np.arange(1, longest + 1) <= np.array([len(row[4]) for row in rows])[:, None]
        if np.all(drafted >= WHOLE * rounds * gamma):
            tried = np.concatenate([rounds[:, None], reached[:, :-1]], axis=1) * possible
    return AcceptanceCounts(
        unit=unit,
        rounds=rounds,
        drafted=drafted,
        accepted=accepted,
        gamma=gamma,
        reached=reached,
        tried=tried,
        requests=requests,
        remarks=remarks,
    )
