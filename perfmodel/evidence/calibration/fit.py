"""Figures of an engine from measured steps: robust least squares on log seconds, held by a weak prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perfmodel.evidence.calibration.response import NOISE, Observations, Prior, Response
from perfmodel.files.numbers import FloatArray
from perfmodel.files.quantity import Z90

__all__ = ["Fit", "fit_figures"]


Reprice = Callable[[FloatArray], Response]
"""Prices the observations again at other shares of the hardware, given the value of every figure."""

LEARNED = 0.5
"""Share of a figure's prior variance that the points must remove before it counts as determined. [1]"""
OVERRULES = 4.5
"""Rise of the log likelihood that a wide prior must bring: three standard deviations of one figure. [1]"""
WIDER = 10.0
"""How much wider a prior is that the points overruled. [1]"""
_WIDEST = 1.4
"""Widest prior of a share, of its logarithm: a factor of 10 either way with 90 %. [1]"""
_PRIOR_DEGREES = 4.0
"""Observations that the expected noise counts for, against that of the points themselves."""
_STEPS, _RADIUS, _CLOSE = 40, 1.0, 1e-4
"""Repricings at most, first trust radius of the log of a share, and the step below which it has converged."""


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
    figures : the priors that held the fit, those that the points contradict wider.
    overruled : which priors were contradicted.
    response : priced at the fitted shares.
    converged : whether the last step of the shares was small, or none was better.
    """

    values: FloatArray
    determined: NDArray[np.bool_]
    learned: FloatArray
    covariance: FloatArray
    noise: FloatArray
    residuals: FloatArray
    information: FloatArray
    figures: tuple[Prior, ...]
    overruled: NDArray[np.bool_]
    response: Response
    converged: bool

    @property
    def deviation(self) -> FloatArray:
        """Standard deviation of each determined figure; zero elsewhere."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))


@dataclass(frozen=True)
class _Solution:
    """The figures of least cost, where they were priced, the noise about them, and what the points tell."""

    values: FloatArray
    response: Response
    cost: float
    noise: FloatArray
    information: FloatArray
    converged: bool


def fit_figures(
    response: Response,
    seen: Observations,
    figures: Sequence[Prior],
    free: NDArray[np.bool_] | None = None,
    *,
    choose: bool = True,
    overrule: bool = False,
    reprice: Reprice | None = None,
) -> Fit:
    """Return the figures that explain the seconds best; those that the points cannot tell keep their prior.

    Parameters
    ----------
    free : which figures may be fitted; all where absent.
    choose : fix the one least learned about, and again, until each of the rest has lost the share `LEARNED`
        of its prior variance; False fits every free one.
    overrule : widen the priors of shares that the points contradict: where one `WIDER` times as wide raises
        the log likelihood by `OVERRULES` or more. Those of an engine's seconds are wide as they are.
    reprice : prices the observations at other shares; the response is taken as it is where absent.

    Notes
    -----
    Every step is linear in the engine's seconds. Shares are not: each step solves the priced response within
    a trust region about it, prices again, and is taken only where the cost falls (Nocedal and Wright 2006,
    section 4.1).
    """
    chosen = np.ones(len(figures), dtype=bool) if free is None else free.copy()
    beliefs = tuple(figures)
    solution = _solve(response, seen, beliefs, chosen, reprice)
    overruled = np.zeros(len(figures), dtype=bool)
    if overrule:
        beliefs, overruled, solution = _overrule(solution, seen, beliefs, chosen, reprice)
    learned = _learned(solution.information, beliefs, chosen)
    while choose and chosen.any():
        share = np.where(chosen, _learned(solution.information, beliefs, chosen), np.inf)
        if share.min() >= LEARNED:
            break
        chosen = chosen & (np.arange(chosen.size) != share.argmin())
        solution = _solve(response, seen, beliefs, chosen, reprice)
    covariance = np.zeros((len(figures), len(figures)))
    if chosen.any():
        inside = np.ix_(chosen, chosen)
        covariance[inside] = np.linalg.inv((solution.information + _precision(beliefs))[inside])
    residuals = _residuals(solution.response, seen, solution.values, beliefs)
    return Fit(
        solution.values, chosen, learned, covariance, solution.noise, residuals, solution.information,
        beliefs, overruled & chosen, solution.response, solution.converged,
    )  # fmt: skip


def _overrule(
    solution: _Solution,
    seen: Observations,
    figures: tuple[Prior, ...],
    free: NDArray[np.bool_],
    reprice: Reprice | None,
) -> tuple[tuple[Prior, ...], NDArray[np.bool_], _Solution]:
    """Return priors of which the contradicted ones are wider, which ones these are, and the fit with them.

    One after another, the one that raises the likelihood most first.
    """
    before = figures
    shares = np.array([figure.relative for figure in figures], dtype=bool) & free
    overruled = np.zeros(len(figures), dtype=bool)
    degrees = _PRIOR_DEGREES + seen.seconds.size

    def gain(wider: _Solution) -> float:
        """Rise of the log likelihood, the spread of the points not being known either."""
        ratio = (_PRIOR_DEGREES + 2.0 * solution.cost) / (_PRIOR_DEGREES + 2.0 * wider.cost)
        return float(0.5 * degrees * np.log(ratio))

    while 0.5 * degrees * np.log1p(2.0 * solution.cost / _PRIOR_DEGREES) >= OVERRULES:
        trials = {}
        for index in np.flatnonzero(shares & ~overruled):
            wide = (*figures[:index], _widened(figures[index]), *figures[index + 1 :])
            trials[int(index)] = wide, _solve(solution.response, seen, wide, free, reprice)
        best = max(trials, key=lambda index: gain(trials[index][1]), default=None)
        if best is None or gain(trials[best][1]) < OVERRULES:
            break
        figures, solution = trials[best]
        overruled[best] = True
    return figures, overruled & (np.abs(_pulls(solution.values, before)) >= Z90), solution


def _widened(figure: Prior) -> Prior:
    return replace(figure, deviation=max(min(WIDER * figure.deviation, _WIDEST), figure.deviation))


def _pulls(values: FloatArray, figures: Sequence[Prior]) -> FloatArray:
    """Return how far each figure is from its prior, in deviations of that. [1]"""
    moved = [
        np.log(value / figure.value) if figure.relative else value - figure.value
        for figure, value in zip(figures, values, strict=True)
    ]
    return np.asarray(np.array(moved) / np.array([figure.deviation for figure in figures]))


def _solve(
    response: Response,
    seen: Observations,
    figures: Sequence[Prior],
    free: NDArray[np.bool_],
    reprice: Reprice | None,
) -> _Solution:
    """Return the figures of least robust squared error, priced where they are."""
    shares = np.array([figure.relative for figure in figures], dtype=bool) & free
    if reprice is None or not shares.any():
        values = _solve_response(response, seen, figures, free)
        return _solution(values, response, seen, figures, free)
    values, converged, radius = response.at, False, _RADIUS
    values = _solve_response(response, seen, figures, free & ~shares, start=values)
    cost = _cost(response, seen, values, figures, free)
    for _ in range(_STEPS):
        proposed = _solve_response(response, seen, figures, free, start=response.at, radius=radius)
        step = float(np.abs(np.log(proposed[shares] / response.at[shares])).max())
        there = reprice(proposed)
        cost_there = _cost(there, seen, proposed, figures, free)
        better = cost_there < cost
        if better:
            converged = cost - cost_there <= 1e-6 * cost
            values, response, cost = proposed, there, cost_there
            radius = min(2.0 * radius, 2.0)
        else:
            radius = min(radius, step) / 4.0
        if converged or step < _CLOSE or radius < _CLOSE:
            converged = True
            break
    return _solution(values, response, seen, figures, free, converged=converged)


def _solution(
    values: FloatArray,
    response: Response,
    seen: Observations,
    figures: Sequence[Prior],
    free: NDArray[np.bool_],
    *,
    converged: bool = True,
) -> _Solution:
    noise = _noise(_residuals(response, seen, values, figures), seen, free)
    return _Solution(
        values, response, _cost(response, seen, values, figures, free), noise,
        _information(response, noise, values, figures), converged,
    )  # fmt: skip


def _cost(
    response: Response,
    seen: Observations,
    values: FloatArray,
    figures: Sequence[Prior],
    free: NDArray[np.bool_],
) -> float:
    """Return half the sum of soft-L1 losses of residuals and priors, what `least_squares` makes least. [1]"""
    errors = _residuals(response, seen, values, figures) / seen.noise
    scaled = np.concatenate([errors, _pulls(values, figures)[free]])
    return float(np.sum(np.sqrt(1.0 + scaled**2) - 1.0))


def _residuals(
    response: Response, seen: Observations, values: FloatArray, figures: Sequence[Prior]
) -> FloatArray:
    return np.asarray(np.log(response.seconds(values, figures) / seen.seconds))


def _solve_response(
    response: Response,
    seen: Observations,
    figures: Sequence[Prior],
    free: NDArray[np.bool_],
    *,
    start: FloatArray | None = None,
    radius: float = np.inf,
) -> FloatArray:
    """Return the figures of least robust squared error; residuals and priors in their own deviations.

    Parameters
    ----------
    start : where relative figures are that stay, and about which they may move; their priors where absent.
    radius : how far the log of a relative figure may go from there. [1]
    """
    from scipy.optimize import least_squares

    prior = np.array([figure.value for figure in figures])
    deviations = np.array([figure.deviation for figure in figures])
    relative = np.array([figure.relative for figure in figures], dtype=bool)
    fixed = prior if start is None else np.where(relative, start, prior)
    if not free.any():
        return fixed
    center = np.where(relative, 0.0, prior / deviations)

    def unit_of(values: FloatArray) -> FloatArray:
        safe = np.where(relative, np.maximum(values / np.where(relative, prior, 1.0), 1e-12), 1.0)
        return np.asarray(np.where(relative, np.log(safe) / deviations, values / deviations))

    begin = unit_of(fixed) if np.all(prior[relative] > 0.0) else center

    def values_of(moved: FloatArray) -> FloatArray:
        unit = begin.copy()
        unit[free] = moved
        grown = np.where(relative, np.exp(np.where(relative, unit * deviations, 0.0)), 1.0)
        return np.asarray(np.where(relative, prior * grown, unit * deviations))

    def errors(moved: FloatArray) -> FloatArray:
        residuals = _residuals(response, seen, values_of(moved), figures) / seen.noise
        return np.concatenate([residuals, moved - center[free]])

    def slopes(moved: FloatArray) -> FloatArray:
        values = values_of(moved)
        seconds = response.seconds(values, figures)
        columns = response.slopes_at(values, figures)[:, free] * deviations[free]
        return np.vstack([columns / (seconds * seen.noise)[:, None], np.eye(int(free.sum()))])

    least, most = (np.array([getattr(figure, end) for figure in figures]) for end in ("least", "most"))
    lowest, highest = unit_of(np.where(relative, least, 0.0)), unit_of(most)
    lowest = np.where(relative, np.maximum(lowest, begin - radius / deviations), lowest)[free]
    highest = np.where(relative, np.minimum(highest, begin + radius / deviations), highest)[free]
    inside = np.clip(begin[free], lowest + 1e-6, highest - 1e-6)
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
    rows = response.slopes_at(values, figures) / (response.seconds(values, figures) * noise)[:, None]
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
