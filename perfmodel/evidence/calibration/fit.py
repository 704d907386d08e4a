"""Figures of an engine from measured steps: robust least squares on log seconds, held by a weak prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.evidence.calibration.response import NOISE, Observations, Prior, Response
from perfmodel.files.numbers import FloatArray

__all__ = ["Fit", "fit_figures"]


LEARNED = 0.5
"""Share of a figure's prior variance that the points must remove before it counts as determined. [1]"""
_PRIOR_DEGREES = 4.0
"""Observations that the expected noise counts for, against that of the points themselves."""


@dataclass(frozen=True)
class Fit:
    """Fitted figures and what is known of them.

    Attributes
    ----------
    values : one per prior, SI. determined : which of them the points determine; the others keep their prior.
    learned : share of prior variance that the points remove, when every figure is free. [0..1]
    covariance : of the determined figures, relative ones in their logarithm; zero elsewhere.
    noise : spread of log seconds about the fit, per observation. [1]
    residuals : log of computed over measured seconds. [1]
    information : of the points about every figure, before the prior; ``[figures, figures]``.
    """

    values: FloatArray
    determined: NDArray[np.bool_]
    learned: FloatArray
    covariance: FloatArray
    noise: FloatArray
    residuals: FloatArray
    information: FloatArray

    def seconds(self, response: Response, figures: Sequence[Prior]) -> FloatArray:
        """Return what the fit computes for the observations of a response. [s]"""
        return computed(response, self.values, figures)

    @property
    def deviation(self) -> FloatArray:
        """Standard deviation of each determined figure; zero elsewhere."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))


def fit_figures(
    response: Response,
    seen: Observations,
    figures: Sequence[Prior],
    free: NDArray[np.bool_] | None = None,
    *,
    choose: bool = True,
) -> Fit:
    """Return the figures that explain the seconds best; those that the points cannot tell keep their prior.

    Parameters
    ----------
    free : which figures may be fitted; all where absent.
    choose : fix the one least learned about, and again, until each of the rest has lost the share `LEARNED`
        of its prior variance; False fits every free one.
    """
    every = np.ones(len(figures), dtype=bool)
    chosen = every if free is None else free.copy()
    values, noise, information = _at(response, seen, figures, chosen)
    learned = _learned(information, figures, chosen)
    while choose and chosen.any():
        share = np.where(chosen, _learned(information, figures, chosen), np.inf)
        if share.min() >= LEARNED:
            break
        chosen = chosen & (np.arange(chosen.size) != share.argmin())
        values, noise, information = _at(response, seen, figures, chosen)
    covariance = np.zeros((len(figures), len(figures)))
    if chosen.any():
        inside = np.ix_(chosen, chosen)
        covariance[inside] = np.linalg.inv((information + _precision(figures))[inside])
    residuals = _residuals(response, seen, values, figures)
    return Fit(values, chosen, learned, covariance, noise, residuals, information)


def _at(
    response: Response, seen: Observations, figures: Sequence[Prior], free: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the fitted figures, the noise about them and the information about every figure there."""
    values = _solve(response, seen, figures, free)
    noise = _noise(_residuals(response, seen, values, figures), seen, free)
    return values, noise, _information(response, noise, values, figures)


def computed(response: Response, values: FloatArray, figures: Sequence[Prior]) -> FloatArray:
    """Return the seconds of every observation at these figures. [s]"""
    moved = np.array(
        [
            np.log(value / prior.value) if prior.relative else value
            for prior, value in zip(figures, values, strict=True)
        ]
    )
    return np.asarray(np.maximum(response.base + response.slopes @ moved, 1e-9))


def _residuals(
    response: Response, seen: Observations, values: FloatArray, figures: Sequence[Prior]
) -> FloatArray:
    return np.asarray(np.log(computed(response, values, figures) / seen.seconds))


def _solve(
    response: Response, seen: Observations, figures: Sequence[Prior], free: NDArray[np.bool_]
) -> FloatArray:
    """Return the figures of least robust squared error; residuals and priors in their own deviations."""
    from scipy.optimize import least_squares

    start = np.array([prior.value for prior in figures])
    if not free.any():
        return start
    deviations = np.array([prior.deviation for prior in figures])
    relative = np.array([prior.relative for prior in figures])
    center = np.where(relative, 0.0, start / deviations)

    def values_of(moved: FloatArray) -> FloatArray:
        unit = center.copy()
        unit[free] = moved
        return np.asarray(np.where(relative, start * np.exp(unit * deviations), unit * deviations))

    def errors(moved: FloatArray) -> FloatArray:
        residuals = _residuals(response, seen, values_of(moved), figures) / seen.noise
        return np.concatenate([residuals, moved - center[free]])

    def slopes(moved: FloatArray) -> FloatArray:
        seconds = computed(response, values_of(moved), figures)
        columns = response.slopes[:, free] * deviations[free]
        return np.vstack([columns / (seconds * seen.noise)[:, None], np.eye(int(free.sum()))])

    lowest = np.where(relative, -3.0, 0.0)[free]
    highest = np.where(relative, 3.0, np.array([prior.most for prior in figures]) / deviations)[free]
    inside = np.clip(center[free], lowest + 1e-6, highest - 1e-6)
    solution = least_squares(
        errors, inside, jac=slopes, bounds=(lowest, highest), loss="soft_l1", x_scale=1.0
    )
    solved = np.where(~relative[free] & (solution.x < 1e-5), 0.0, solution.x)
    return values_of(solved)


def _noise(residuals: FloatArray, seen: Observations, free: NDArray[np.bool_]) -> FloatArray:
    """Return the spread of log seconds per observation: the expected one, corrected by what is left.

    Far outliers count as in the fit, so that one damaged row does not widen every interval.
    """
    steps = seen.noise == NOISE["target"]
    spread = np.empty(residuals.size)
    for group in (steps, ~steps):
        if not group.any():
            continue
        expected = seen.noise[group]
        scaled = (residuals[group] / expected) ** 2
        robust = 2.0 * (np.sqrt(1.0 + scaled) - 1.0)
        lost = int(free.sum()) * group.sum() / residuals.size
        ratio = (_PRIOR_DEGREES + robust.sum()) / (_PRIOR_DEGREES + max(group.sum() - lost, 0.0))
        spread[group] = expected * np.sqrt(ratio)
    return spread


def _information(
    response: Response, noise: FloatArray, values: FloatArray, figures: Sequence[Prior]
) -> FloatArray:
    rows = response.slopes / (computed(response, values, figures) * noise)[:, None]
    return np.asarray(rows.T @ rows)


def _precision(figures: Sequence[Prior]) -> FloatArray:
    return np.diag([prior.deviation**-2 for prior in figures])


def _learned(information: FloatArray, figures: Sequence[Prior], free: NDArray[np.bool_]) -> FloatArray:
    """Return the share of prior variance that the points remove from each free figure, the others fixed."""
    share = np.zeros(len(figures))
    inside = np.ix_(free, free)
    remaining = np.diag(np.linalg.inv((information + _precision(figures))[inside]))
    before = np.array([prior.deviation**2 for prior in figures])[free]
    share[free] = 1.0 - remaining / before
    return share
