"""Published numbers beside computed ones, each also by engines that nothing of the source was fitted to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from perfmodel.engine import EngineOverhead
from perfmodel.evidence.published.choices import LENGTHS, planned_lengths
from perfmodel.evidence.published.measurements import Measurement
from perfmodel.evidence.published.steps import ComputedSteps, price_measurements
from perfmodel.files.numbers import FloatArray

__all__ = ["MEASURES", "ZERO_SHOT", "Compared", "ErrorSummary", "compare_steps", "summarise"]


MEASURES = {
    "target": "plain step",
    "draft": "draft pass",
    "verify": "verification",
    "tokens": "tokens per round",
    "tpot": "TPOT",
    "tpot_by_law": "TPOT, acceptance by law",
    "speedup": "speedup",
    "speedup_by_law": "speedup, acceptance by law",
}
"""What is compared. Acceptance is the source's own tokens per round where not said otherwise."""
ZERO_SHOT = ("generic", "ideal")
"""Engines of the zero-shot columns: facts about the hardware, nothing fitted to the tables."""


@dataclass(frozen=True)
class Compared:
    """One published number; `zero_shot` is what the engines of `ZERO_SHOT` compute, NaN where none do."""

    table: str
    cell: str
    scope: str
    measure: str
    published: float
    computed: float
    zero_shot: tuple[float, ...]
    source: str
    unknown: str

    @property
    def error(self) -> float:
        """Computed over published, less 1."""
        return self.computed / self.published - 1.0


@dataclass(frozen=True)
class ErrorSummary:
    """Errors of one measure over the cells of a table, of a number and kind of accelerators, or of all."""

    scope: str
    measure: str
    count: int
    mean_absolute_error: float
    bias: float
    worst: float
    worst_cell: str
    zero_shot: tuple[float, ...]


def compare_steps(rows: Sequence[Measurement]) -> list[Compared]:
    """Return everything printed in the rows beside what is computed for it, a number printed twice once.

    Where the source used its best length without printing it, cells are computed at the planned one.
    """
    if not rows:
        return []
    engines = [None, *(EngineOverhead.load(name) for name in ZERO_SHOT)]
    columns = [_computed(rows, engine) for engine in engines]
    seen: set[tuple[object, ...]] = set()
    compared = []
    for index, row in enumerate(rows):
        for measure, published in _printed(row):
            cell = (
                row.group.target.name,
                row.scope,
                row.batch,
                row.context_len,
                str(row.group.hardware.name),
            )
            once = (*cell, measure, published) if measure == "target" else (index, measure)
            if once in seen or not math.isfinite(published):
                continue
            seen.add(once)
            own, *others = (float(column[measure][index]) for column in columns)
            zero_shot = tuple(math.nan if measure == "tokens" else other for other in others)
            compared.append(
                Compared(
                    row.table,
                    row.cell,
                    row.scope,
                    measure,
                    published,
                    own,
                    zero_shot,
                    row.source,
                    row.unknown,
                )
            )
    return compared


def summarise(compared: Iterable[Compared], key: Callable[[Compared], str]) -> list[ErrorSummary]:
    """Return the errors of every measure, over the numbers that share a key, in their order."""
    groups: dict[tuple[str, str], list[Compared]] = {}
    for number in compared:
        groups.setdefault((key(number), number.measure), []).append(number)
    order = list(MEASURES)
    scopes = list(dict.fromkeys(scope for scope, _ in groups))
    return [
        _summary(scope, measure, groups[scope, measure])
        for scope in scopes
        for measure in order
        if (scope, measure) in groups
    ]


def _summary(scope: str, measure: str, group: Sequence[Compared]) -> ErrorSummary:
    errors = np.array([number.error for number in group])
    worst = int(np.abs(errors).argmax())
    others = np.array([[value / number.published - 1.0 for value in number.zero_shot] for number in group])
    return ErrorSummary(
        scope=scope,
        measure=measure,
        count=len(group),
        mean_absolute_error=float(np.abs(errors).mean()),
        bias=float(errors.mean()),
        worst=float(errors[worst]),
        worst_cell=f"{group[worst].table}: {group[worst].cell}",
        zero_shot=tuple(float(column) for column in np.abs(others).mean(axis=0)),
    )


def _printed(row: Measurement) -> Iterator[tuple[str, float]]:
    known = math.isfinite(row.tokens_per_round)
    yield "target", row.target
    yield "draft", row.draft
    yield "verify", row.verify
    yield "tokens", row.tokens_per_round
    if known:
        yield "tpot", row.tpot
        yield "speedup", row.speedup
    if not row.plain:
        yield "tpot_by_law", row.tpot
        yield "speedup_by_law", row.speedup


def _computed(rows: Sequence[Measurement], engine: EngineOverhead | None) -> dict[str, FloatArray]:
    steps = price_measurements(rows, engine=engine)
    tokens = np.array([row.tokens_per_round for row in rows])
    by_law = {"tpot": steps.tpot(steps.tokens), "speedup": steps.speedup(steps.tokens)}
    unprinted = [index for index, row in enumerate(rows) if math.isnan(row.gamma)]
    if unprinted:
        best = _at_planned_length([rows[index] for index in unprinted], engine)
        by_law["tpot"][unprinted] = best.tpot(best.tokens)
        by_law["speedup"][unprinted] = best.speedup(best.tokens)
    return {
        "target": steps.target,
        "draft": steps.draft,
        "verify": steps.verify,
        "tokens": steps.tokens,
        "tpot": steps.tpot(tokens),
        "speedup": steps.speedup(tokens),
        "tpot_by_law": by_law["tpot"],
        "speedup_by_law": by_law["speedup"],
    }


def _at_planned_length(rows: Sequence[Measurement], engine: EngineOverhead | None) -> ComputedSteps:
    curve = price_measurements(rows, engine=engine, gammas=LENGTHS)
    place = np.maximum(planned_lengths(curve) - 1, 0)
    index = np.arange(len(rows)), place
    return ComputedSteps(
        curve.gamma[index], curve.target[index], curve.draft[index], curve.verify[index],
        curve.overhead[index], curve.tokens[index], curve.fits[index],
    )  # fmt: skip
