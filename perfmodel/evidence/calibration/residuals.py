"""What a fit leaves open: errors by kind of step, in the fit and on cells it did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perfmodel.evidence.calibration.fit import Fit, fit_figures
from perfmodel.evidence.calibration.response import KINDS, Observations, Prior, Response
from perfmodel.evidence.published.measurements import Measurement
from perfmodel.files.numbers import FloatArray
from perfmodel.files.quantity import Quantity

__all__ = ["KindError", "held_out_errors", "kind_errors", "residual_figures"]


FOLDS = 5
_LEAST_RESIDUAL = 0.01
_FEWEST = 4


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


def held_out_errors(
    rows: Sequence[Measurement], seen: Observations, response: Response, figures: Sequence[Prior], fit: Fit
) -> FloatArray:
    """Return log errors of every observation, predicted from a fit to the cells of the other folds."""
    cells = [(row.group.target.name, row.tensor_parallel, row.batch, row.context_len) for row in rows]
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
            Response(response.base[inside], response.slopes[inside]),
            seen.of(inside),
            figures,
            fit.determined,
            choose=False,
        )
        outside = Response(response.base[~inside], response.slopes[~inside])
        errors[~inside] = np.log(part.seconds(outside, figures) / seen.seconds[~inside])
    return errors


def residual_figures(seen: Observations, held_out: FloatArray, note: str) -> dict[str, Quantity]:
    """Return the spread that the figures leave open, of target passes and of draft passes."""
    from scipy.stats import chi2

    figures: dict[str, Quantity] = {}
    for path, kinds in (("step_residual", ("target", "verify", "round")), ("draft_residual", ("draft",))):
        of_kind = np.isin(seen.kind, [KINDS.index(kind) for kind in kinds]) & np.isfinite(held_out)
        count = int(of_kind.sum())
        if count < _FEWEST:
            continue
        spread = max(float(np.sqrt(np.mean(held_out[of_kind] ** 2))), _LEAST_RESIDUAL)
        low, high = (spread * float(np.sqrt(count / chi2.ppf(share, count))) for share in (0.9, 0.1))
        figures[path] = Quantity(
            spread, low, high, "", f"{note}; cells predicted from the others", "measured"
        )
    return figures


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
