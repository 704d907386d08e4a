"""The speculation length that would have been planned, beside the one that was measured to be the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.evidence.published.measurements import Measurement
from perfmodel.evidence.published.steps import ComputedSteps, price_measurements
from perfmodel.planning.near_tie import shortest_near_best

__all__ = ["GammaChoice", "gamma_choices", "planned_lengths"]


LENGTHS = np.arange(1.0, 17.0)


@dataclass(frozen=True)
class GammaChoice:
    """One cell whose best length is printed.

    `regret` is the share of speedup lost by the planned length. Where both lengths were measured it is what
    was measured; otherwise it is the difference that the computed speedups show between the two, whichever is
    the better one there. `measured` says which.
    """

    table: str
    cell: str
    scope: str
    published: int
    planned: int
    regret: float
    measured: bool

    @property
    def within_one(self) -> bool:
        """Whether the two lengths differ by at most one token."""
        return abs(self.planned - self.published) <= 1


def planned_lengths(curve: ComputedSteps) -> NDArray[np.intp]:
    """Return the length that planning takes for every cell, 0 where drafting does not pay.

    Parameters
    ----------
    curve : cells priced at `LENGTHS`.
    """
    tpot = curve.tpot(curve.tokens)
    shortest = shortest_near_best(tpot)
    pays = np.take_along_axis(tpot, shortest[:, None], axis=1)[:, 0] < curve.target[:, 0]
    return np.asarray(np.where(pays, LENGTHS[shortest], 0.0).astype(np.intp))


def gamma_choices(rows: Sequence[Measurement]) -> tuple[GammaChoice, ...]:
    """Return planned and published length of every cell whose best one is printed."""
    printed = [row for row in rows if row.gamma_is_best and row.gamma > 0.0]
    if not printed:
        return ()
    curve = price_measurements(printed, gammas=LENGTHS)
    speedup = np.concatenate([np.ones((len(printed), 1)), curve.speedup(curve.tokens)], axis=1)
    measured: dict[tuple[object, ...], dict[int, float]] = {}
    for row in rows:
        if row.gamma > 0.0 and np.isfinite(row.speedup):
            measured.setdefault(_cell(row), {})[int(row.gamma)] = row.speedup
    choices = []
    for row, planned, computed in zip(printed, planned_lengths(curve), speedup, strict=True):
        published, seen = int(row.gamma), measured[_cell(row)]
        known = int(planned) in seen
        if known:
            regret = max(1.0 - seen[int(planned)] / max(seen.values()), 0.0)
        else:
            pair = computed[[planned, published]]
            regret = 1.0 - float(pair.min() / pair.max())
        choices.append(GammaChoice(row.table, row.cell, row.scope, published, int(planned), regret, known))
    return tuple(choices)


def _cell(row: Measurement) -> tuple[object, ...]:
    group = row.group
    drafter = group.drafter.label if group.drafter else ""
    return (
        str(group.hardware.name),
        row.tensor_parallel,
        group.target.name,
        drafter,
        row.kv_budget,
        row.batch,
        row.context_len,
    )
