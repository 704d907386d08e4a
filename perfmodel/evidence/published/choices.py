"""The speculation length that would have been planned, beside the one that was measured to be the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.evidence.published.measurements import Measurement
from perfmodel.evidence.published.steps import ComputedSteps, price_measurements
from perfmodel.files.numbers import FloatArray
from perfmodel.hardware import HardwareProfile
from perfmodel.planning.near_tie import NEAR_TIE, shortest_near_best

__all__ = ["GammaChoice", "gamma_choices", "planned_lengths"]


LENGTHS = np.arange(1.0, 17.0)
UNTUNED = {"tile_overhead": 32.0, "compute_fraction": 0.42}
"""What prefill chunks say of FlashInfer's tiles (A800, Frontier, MIT). The profiles' own figures of both, and
`NEAR_TIE`, were chosen on cells whose best length is printed."""


@dataclass(frozen=True)
class GammaChoice:
    """One cell whose best length is printed.

    `regret` is the share of speedup lost by the planned length. Where both lengths were measured it is what
    was measured; otherwise it is the difference that the computed speedups show between the two, whichever is
    the better one there. `measured` says which. `untuned` is what nothing chosen on these cells plans: the
    length of least time per token, at the figures of `UNTUNED`.
    """

    table: str
    cell: str
    scope: str
    published: int
    planned: int
    regret: float
    measured: bool
    untuned: int
    untuned_regret: float

    @property
    def within_one(self) -> bool:
        """Whether the planned length differs from the published one by at most one token."""
        return abs(self.planned - self.published) <= 1

    @property
    def untuned_within_one(self) -> bool:
        """Whether the untuned one does."""
        return abs(self.untuned - self.published) <= 1


def planned_lengths(curve: ComputedSteps, near_tie: float = NEAR_TIE) -> NDArray[np.intp]:
    """Return the length that planning takes for every cell, 0 where drafting does not pay.

    Parameters
    ----------
    curve : cells priced at `LENGTHS`.
    near_tie : as in `shortest_near_best`. [1]
    """
    tpot = curve.tpot(curve.tokens)
    shortest = shortest_near_best(tpot, near_tie)
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
    untuned = planned_lengths(price_measurements(printed, gammas=LENGTHS, hardware=_untune), near_tie=0.0)
    choices = []
    for row, planned, other, computed in zip(printed, planned_lengths(curve), untuned, speedup, strict=True):
        published, seen = int(row.gamma), measured[_cell(row)]
        choices.append(
            GammaChoice(
                row.table,
                row.cell,
                row.scope,
                published,
                planned=int(planned),
                regret=_regret(int(planned), published, seen, computed),
                measured=int(planned) in seen,
                untuned=int(other),
                untuned_regret=_regret(int(other), published, seen, computed),
            )
        )
    return tuple(choices)


def _regret(length: int, published: int, seen: dict[int, float], computed: FloatArray) -> float:
    """Return the share of speedup that a length loses: of the measured ones, or by the computed ones. [1]"""
    if length in seen:
        return max(1.0 - seen[length] / max(seen.values()), 0.0)
    pair = computed[[length, published]]
    return 1.0 - float(pair.min() / pair.max())


def _untune(profile: HardwareProfile) -> HardwareProfile:
    """Return the profile with the figures of `UNTUNED`, where it has FlashInfer's."""
    figures = {f"attention.flashinfer.{name}": value for name, value in UNTUNED.items()}
    return profile.with_values(figures) if "flashinfer" in profile.attention else profile


def _cell(row: Measurement) -> tuple[object, ...]:
    group = row.group
    drafter = group.drafter.label if group.drafter else ""
    return (
        str(group.hardware.name),
        row.tensor_parallel,
        row.expert_parallel,
        group.target.name,
        drafter,
        row.kv_budget,
        row.batch,
        row.context_len,
    )
