"""What a fit leaves open: errors by kind of step, in the fit and on cells it did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import SpecError
from perfmodel.evidence.calibration.fit import Fit, fit_figures
from perfmodel.evidence.calibration.response import KINDS, NAMES, Observations
from perfmodel.evidence.published.measurements import Measurement
from perfmodel.files.numbers import FloatArray
from perfmodel.files.quantity import Quantity

__all__ = ["KindError", "held_out_errors", "kind_errors", "refuse_unexplained", "residual_figures"]


FOLDS = 5
MOST_RESIDUAL = 0.15
"""Spread of target passes above which nothing is explained: half as much again as of an engine that was never
calibrated. [1]"""
_LEAST_RESIDUAL = 0.01
_FEWEST = 4
_TARGET_PASSES = ("target", "verify", "round")


@dataclass(frozen=True)
class KindError:
    """Errors of the log seconds of one kind of step: in the fit, and predicted from the other cells."""

    kind: str
    count: int
    mean_absolute: float
    bias: float
    worst: float
    worst_place: str
    held_out: float


def held_out_errors(rows: Sequence[Measurement], seen: Observations, fit: Fit) -> FloatArray:
    """Return log errors of every observation, predicted from a fit to the cells of the other folds.

    A cell is a place (model, GPUs, batch, context) with all that was measured there; of a log of whole steps
    at fewer than `FOLDS` places, one configuration of it.
    """
    cells: list[tuple[object, ...]] = [
        (row.group.target.name, row.tensor_parallel, row.batch, row.context_len) for row in rows
    ]
    whole = np.all(_of_kinds(seen, ("target", "round")))
    if whole and len(set(cells)) < FOLDS:  # too few places to lose one: whole rounds of a place are cells
        cells = [(*cell, row.key, row.gamma, row.kv_budget) for cell, row in zip(cells, rows, strict=True)]
    number = {cell: index for index, cell in enumerate(dict.fromkeys(cells))}
    cell_of = np.array([number[cell] for cell in cells])[seen.row]
    shuffled = np.random.default_rng(0).permutation(len(number))
    fold = (shuffled % min(FOLDS, len(number)))[cell_of] if len(number) > 2 * FOLDS else cell_of
    errors = np.full(seen.seconds.size, np.nan)
    for each in np.unique(fold):
        inside = fold != each
        if not inside.any():
            continue
        part = fit_figures(
            fit.response.of(inside), seen.of(inside), fit.figures, fit.determined, choose=False
        )
        computed = fit.response.of(~inside).seconds(part.values, fit.figures)
        errors[~inside] = np.log(computed / seen.seconds[~inside])
    return errors


def residual_figures(
    rows: Sequence[Measurement], seen: Observations, held_out: FloatArray, note: str
) -> dict[str, Quantity]:
    """Return the spread that the figures leave open: of passes of targets, with experts or not, and drafts.

    A figure of which there are fewer than `_FEWEST` observations is absent: it keeps its value. [1]
    """
    from scipy.stats import chi2

    experts = np.array([bool(row.group.target.experts) for row in rows])[seen.row]
    target = _of_kinds(seen, _TARGET_PASSES)
    of_figure = {
        "step_residual": target & ~experts,
        "expert_residual": target & experts,
        "draft_residual": _of_kinds(seen, ("draft",)),
    }
    figures: dict[str, Quantity] = {}
    for path, chosen in of_figure.items():
        spread, count = _spread(held_out, chosen)
        if count < _FEWEST:
            continue
        spread = max(spread, _LEAST_RESIDUAL)
        low, high = (spread * float(np.sqrt(count / chi2.ppf(share, count))) for share in (0.9, 0.1))
        figures[path] = Quantity(
            spread, low, high, "", f"{note}; cells predicted from the others", "measured"
        )
    return figures


def refuse_unexplained(
    rows: Sequence[Measurement], seen: Observations, held_out: FloatArray, kernels: str, most: float
) -> None:
    """Refuse a fit that leaves target passes open by more than `most`, usually `MOST_RESIDUAL`.

    Parameters
    ----------
    held_out : log errors of every observation, predicted from the other cells. [1]
    kernels : which ones the fit was made with, in words.
    most : relative spread that an engine may leave open. [1]
    """
    spread, count = _spread(held_out, _of_kinds(seen, _TARGET_PASSES))
    if count < _FEWEST or spread <= most:
        return
    worst = int(np.nanargmax(np.where(_of_kinds(seen, _TARGET_PASSES), np.abs(held_out), np.nan)))
    raise SpecError.single(
        "",
        "points",
        f"nothing explains them: predicted from each other, target passes are off by {spread:.0%} with "
        f"{kernels}, and more than {most:.0%} is no engine; the {NAMES[KINDS[seen.kind[worst]]]} of "
        f"{rows[seen.row[worst]].place} is computed {np.expm1(held_out[worst]):+.0%}",
        "Check that cell, the accelerator, the model, its GPUs and the unit of the times, and that they are "
        "of decode steps; a kernel that ran and is not in the hardware profile needs an entry there",
    )


def _of_kinds(seen: Observations, kinds: Sequence[str]) -> NDArray[np.bool_]:
    return np.isin(seen.kind, [KINDS.index(kind) for kind in kinds])


def _spread(held_out: FloatArray, chosen: NDArray[np.bool_]) -> tuple[float, int]:
    """Return the root mean square of the log errors of chosen ones, and how many there are. [1], [1]"""
    errors = held_out[chosen & np.isfinite(held_out)]
    return (float(np.sqrt(np.mean(errors**2))) if errors.size else 0.0), int(errors.size)


def kind_errors(
    rows: Sequence[Measurement], seen: Observations, residuals: FloatArray, held_out: FloatArray
) -> list[KindError]:
    summaries = []
    for number, kind in enumerate(KINDS):
        of_kind = np.flatnonzero(seen.kind == number)
        if not of_kind.size:
            continue
        worst = of_kind[int(np.abs(residuals[of_kind]).argmax())]
        unseen = np.abs(held_out[of_kind])
        summaries.append(
            KindError(
                kind=kind,
                count=int(of_kind.size),
                mean_absolute=float(np.abs(residuals[of_kind]).mean()),
                bias=float(residuals[of_kind].mean()),
                worst=float(residuals[worst]),
                worst_place=rows[seen.row[worst]].place,
                held_out=float(np.nanmean(unseen)) if np.isfinite(unseen).any() else float("nan"),
            )
        )
    return summaries
