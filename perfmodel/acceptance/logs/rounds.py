"""Read acceptance counts from a CSV with a row per round."""

from __future__ import annotations

import csv

import numpy as np

from perfmodel.acceptance.counts import MOST_GAMMA, AcceptanceCounts, counts_of_rounds
from perfmodel.acceptance.logs.lines import Line, damaged
from perfmodel.errors import Fault, SpecError, nearest_name

__all__ = ["CSV_COLUMNS", "read_csv"]

CSV_COLUMNS = ("request", "round", "drafted", "accepted")
_MOST_FAULTS = 50


def read_csv(lines: list[Line], file: str, gamma: int | None) -> AcceptanceCounts:
    """Return the counts of a CSV with a row per round: request, round, drafted, accepted, others ignored.

    Raises
    ------
    SpecError : naming every bad row by its line.
    """
    header = [name.strip().lower() for name in next(csv.reader([lines[0].text]))]
    faults = [
        Fault(file, lines[0].number, name, "the column is missing", nearest=nearest_name(name, header))
        for name in CSV_COLUMNS
        if header.count(name) != 1
    ]
    if faults:
        raise SpecError(faults)
    place = {name: header.index(name) for name in CSV_COLUMNS}
    seen: dict[tuple[str, int], int] = {}
    rows: list[tuple[str, int, int, int]] = []
    for line in lines[1:]:
        try:
            rows.append(_csv_row(line, file, place, len(header), seen, gamma))
        except SpecError as refused:
            faults.extend(refused.faults)
            if len(faults) > _MOST_FAULTS:
                break
    if faults:
        raise SpecError(faults)
    rows.sort(key=lambda row: row[1])
    order = {name: place for place, name in enumerate(dict.fromkeys(name for name, _ in seen))}
    rows.sort(key=lambda row: order[row[0]])
    numbers = np.array([row[2:] for row in rows], dtype=np.float64).reshape(-1, 2)
    return counts_of_rounds([row[0] for row in rows], numbers[:, 0], numbers[:, 1])


def _csv_row(
    line: Line,
    file: str,
    place: dict[str, int],
    columns: int,
    seen: dict[tuple[str, int], int],
    gamma: int | None,
) -> tuple[str, int, int, int]:
    cells = next(csv.reader([line.text]))
    if len(cells) != columns:
        raise damaged(file, line, f"{len(cells)} cells where the header has {columns}", remedy="")
    request = cells[place["request"]].strip()
    number, drafted, accepted = (_count(cells[place[name]], name, line, file) for name in CSV_COLUMNS[1:])
    if accepted > drafted:
        problem = f"found {accepted} of {drafted} drafted"
        raise damaged(file, line, problem, "accepted", "The bonus token is not counted")
    if drafted > (gamma or MOST_GAMMA):
        problem = f"found {drafted} where gamma is {gamma or f'{MOST_GAMMA} at most'}"
        raise damaged(file, line, problem, "drafted", "")
    earlier = seen.setdefault((request, number), line.number)
    if earlier != line.number:
        problem = f"round {number} of request {request!r} is in line {earlier} already"
        raise damaged(file, line, problem, "round", "")
    return request, number, drafted, accepted


def _count(text: str, field: str, line: Line, file: str) -> int:
    cleaned = text.strip()
    if not (cleaned.isascii() and cleaned.isdigit() and len(cleaned) <= 12):
        raise damaged(file, line, f"found {cleaned[:40]!r}", field, "Give a whole number, 0 or more")
    return int(cleaned)
