"""A fit is no worse than its start on the points it was given: neither in error nor in what it chooses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from perfmodel.engine import EngineOverhead
from perfmodel.evidence.calibration.fit import Fit
from perfmodel.evidence.calibration.response import KINDS, Observations, changed
from perfmodel.evidence.published.measurements import Measurement
from perfmodel.evidence.published.steps import ComputedSteps, price_measurements
from perfmodel.files.numbers import FloatArray

__all__ = ["Standing", "stand", "ways"]

_DRAWS = 60
"""Figures that are tried of what the points leave open. [1]"""
_WIDTHS = (0.1, 0.25, 0.5, 1.0, 2.0)
"""How far from the fit they are drawn, one after another, in standard deviations of the fit. [1]"""
_SHARES_OF_THE_WAY = (0.9, 0.75, 0.5, 0.25, 0.0)
"""How far from the start towards the fit is tried after that. [1]"""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Standing:
    """How well figures stand on the points.

    Attributes
    ----------
    error : mean absolute log of computed over measured seconds. [1]
    regret : how much longer a token takes than with the best configuration that was measured beside, mean
        over the places (model, GPUs, batch, context) with several; 0 where there is none. [1]
    places : how many such places there are.
    """

    error: float
    regret: float
    places: int

    def no_worse_than(self, other: Standing) -> bool:
        """Whether neither the error nor the regret is above the other's."""
        return self.error <= other.error + _ROUNDING and self.regret <= other.regret + _ROUNDING


def ways(fit: Fit) -> Iterator[FloatArray]:
    """Yield figures near a fit, nearest first, and then on the way back to where it began.

    They are drawn from the normal distribution that the points leave open, relative ones in their logarithm.
    """
    relative = np.array([figure.relative for figure in fit.figures], dtype=bool)
    begin, least, most = (
        np.array([getattr(figure, name) for figure in fit.figures]) for name in ("value", "least", "most")
    )
    drawn = np.random.default_rng(0).multivariate_normal(np.zeros(begin.size), fit.covariance, _DRAWS)
    drawn *= np.repeat(_WIDTHS, _DRAWS // len(_WIDTHS))[:, None]
    near = np.where(relative, fit.values * np.exp(np.where(relative, drawn, 0.0)), fit.values + drawn)
    near = np.where(fit.determined, np.clip(near, least, most), fit.values)

    yield from near
    ratio = np.divide(fit.values, begin, out=np.ones_like(begin), where=relative)
    for share in _SHARES_OF_THE_WAY:
        yield np.where(relative, begin * ratio**share, begin + share * (fit.values - begin))


def stand(
    rows: Sequence[Measurement], seen: Observations, engine: EngineOverhead, shares: Mapping[str, float]
) -> Standing:
    """Return how an engine stands on measured cells, shares of the hardware at these values."""
    priced = price_measurements(rows, engine=engine, hardware=changed(shares) if shares else None)
    columns = np.stack([getattr(priced, kind) for kind in KINDS], axis=-1)
    computed = np.maximum(columns[seen.row, seen.kind], 1e-9)
    regrets = _regrets(rows, priced)
    return Standing(
        error=float(np.abs(np.log(computed / seen.seconds)).mean()),
        regret=float(np.mean(regrets)) if regrets else 0.0,
        places=len(regrets),
    )


def _regrets(rows: Sequence[Measurement], priced: ComputedSteps) -> list[float]:
    """Return the regret of each place of which several configurations were measured. [1]

    Tokens per round are the measured ones, those of the drafter's law where nobody measured them.
    """
    places: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    for index, row in enumerate(rows):
        measured = row.target if row.plain else row.round
        tokens = 1.0 if row.plain else row.tokens_per_round
        if np.isnan(tokens):
            tokens = float(priced.tokens[index])
        computed = float(priced.round[index])
        if np.isfinite(measured) and np.isfinite(computed):
            place = (
                row.group.target.name, row.tensor_parallel, row.expert_parallel, row.batch, row.context_len,
            )  # fmt: skip
            places.setdefault(place, []).append((computed / tokens, measured / tokens))
    chosen = (
        (min(cells)[1], min(measured for _, measured in cells)) for cells in places.values() if len(cells) > 1
    )
    return [taken / best - 1.0 for taken, best in chosen]
