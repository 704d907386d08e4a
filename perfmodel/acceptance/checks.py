"""What speaks against one acceptance rate: rows that differ, positions that differ, drift along the log."""

from __future__ import annotations

import numpy as np

from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.files.numbers import FloatArray

__all__ = ["between_rows", "decay_chance", "drift_along"]


def between_rows(kept: FloatArray, tries: FloatArray) -> float:
    """Return the standard deviation between rows beyond chance, by moments."""
    used = tries > 0.0
    value = float(kept[used].sum() / tries[used].sum())
    rates = kept[used] / tries[used]
    beyond = (rates - value) ** 2 - value * (1.0 - value) / tries[used]
    return float(np.sqrt(max(float(tries[used] @ beyond / tries[used].sum()), 0.0)))


def decay_chance(counts: AcceptanceCounts, alpha: float) -> float | None:
    """Return the chance of positions as unequal as these under one rate: chi-square over design effect."""
    from scipy.special import chdtrc

    if counts.reached is None or counts.tried is None:
        return None
    tried = counts.tried.sum(axis=0)
    used = tried >= 10.0
    if used.sum() < 2 or not 0.0 < alpha < 1.0:
        return None
    rates = counts.reached.sum(axis=0)[used] / tried[used]
    effect = np.ones(rates.size)
    if counts.units >= 8:
        error = counts.reached[:, used] - rates * counts.tried[:, used]
        spread = counts.units / (counts.units - 1.0) * (error**2).sum(axis=0) / tried[used] ** 2
        effect = np.maximum(spread / (alpha * (1.0 - alpha) / tried[used]), 1.0)
    misfit = float((tried[used] * (rates - alpha) ** 2).sum() / (alpha * (1.0 - alpha)) / effect.mean())
    return float(chdtrc(float(rates.size - 1), misfit))


def drift_along(counts: AcceptanceCounts, kept: FloatArray, tries: FloatArray) -> tuple[float, float] | None:
    """Return (change from first to second half, chance of it): along the log, or along each request."""
    from scipy.special import ndtr, stdtr

    drifts: list[tuple[float, float]] = []
    used = tries > 0.0
    if counts.units >= 8 and used.sum() >= 8:
        place = np.linspace(-1.0, 1.0, counts.units)[used]
        weight = tries[used] / tries[used].sum()
        rates = kept[used] / tries[used]
        place = place - weight @ place
        slope = float((weight * place) @ rates / ((weight * place) @ place))
        error = weight * place * (rates - weight @ rates - slope * place)
        se = float(np.sqrt((error @ error) * place.size / (place.size - 2.0)) / ((weight * place) @ place))
        if se > 0.0:
            drifts.append((slope, 2.0 * float(stdtr(place.size - 2.0, -abs(slope) / se))))
    if counts.halves is not None and counts.units >= 2:
        early, late = counts.halves[:, 0], counts.halves[:, 1]
        if early[:, 1].sum() > 0.0 and late[:, 1].sum() > 0.0:
            before, after = (float(half[:, 0].sum() / half[:, 1].sum()) for half in (early, late))
            error = (late[:, 0] - after * late[:, 1]) / late[:, 1].sum()
            error = error - (early[:, 0] - before * early[:, 1]) / early[:, 1].sum()
            se = float(np.sqrt((error @ error) * counts.units / (counts.units - 1.0)))
            if se > 0.0:
                drifts.append((after - before, 2.0 * float(ndtr(-abs(after - before) / se))))
    if not drifts:
        return None
    change, chance = min(drifts, key=lambda drift: drift[1])
    return change, min(chance * len(drifts), 1.0)
