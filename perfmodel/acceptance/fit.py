"""Fit the acceptance laws to observed points, and say how well they predict unseen points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perfmodel.acceptance.laws import budget_shape, missed
from perfmodel.acceptance.published import published_rows
from perfmodel.acceptance.tokens import power_sum
from perfmodel.errors import SpecError
from perfmodel.files.numbers import FloatArray, Numeric


@dataclass(frozen=True)
class BudgetLaw:
    """A fitted law ``1 - alpha = level (B0 / B)**eta L / (1 + L)``, one level per family.

    ``*_sd`` are standard errors; ``rmse`` is the error of the fit, ``leave_one_out`` that of every point
    predicted from the others of all families. All in units of alpha.
    """

    levels: dict[str, float]
    level_sd: dict[str, float]
    eta: float
    eta_sd: float
    level_budget: float
    rmse: float
    leave_one_out: float

    def alpha(self, family: str, context_len: Numeric, kv_budget: Numeric) -> Numeric:
        """Return the acceptance rate of one family; context and budget [tokens] broadcast."""
        return 1.0 - missed(self.levels[family], self.eta, context_len, kv_budget, self.level_budget)


def published_points(table: str) -> dict[str, list[str]]:
    """Return the columns of a bundled table of points: ``window``, ``chains``, ``pairs`` or ``tiny``."""
    rows = published_rows(table)
    return {name: [row[name] for row in rows] for name in rows[0]}


def fit_budget_law(
    context_len: FloatArray,
    kv_budget: FloatArray,
    alpha: FloatArray,
    family: Sequence[str] | None = None,
    *,
    level_budget: float = 512.0,
    eta: float | None = None,
) -> BudgetLaw:
    """Return the budget law of least squared error in alpha.

    Parameters
    ----------
    context_len, kv_budget : [tokens], shape ``[points]``, budget below context.
    alpha : observed rates [0..1], shape ``[points]``.
    family : which points share a level (one model and task each); all where None.
    level_budget : budget at which a level is stated [tokens].
    eta : the exponent where it is not to be fitted, as with points of a single budget.

    Raises
    ------
    SpecError : fewer points than parameters, one budget only and no ``eta``, or a budget that covers its
        context.
    """
    context, budget, rate = (
        np.asarray(column, dtype=np.float64) for column in (context_len, kv_budget, alpha)
    )
    names = list(dict.fromkeys(family)) if family is not None else [""]
    member = np.array(
        [[name == own for name in names] for own in (family or [""] * rate.size)], dtype=np.float64
    )
    if np.any(budget >= context):
        raise SpecError.single(
            "", "kv_budget", "covers the context in some points, which then say nothing", "leave them out"
        )
    if eta is None and (np.unique(budget).size < 2 or rate.size <= len(names) + 1):
        raise SpecError.single(
            "", "eta", "cannot be told from these points", "give eta, or points of more budgets"
        )

    def shape(exponent: float) -> FloatArray:
        return np.asarray(budget_shape(exponent, context, budget, level_budget), dtype=np.float64)

    def levels(exponent: float, used: FloatArray) -> FloatArray:
        lost = shape(exponent) * used
        return np.asarray((member.T @ (lost * (1.0 - rate))) / np.maximum(member.T @ lost**2, 1e-300))

    def errors(exponent: float, used: FloatArray) -> FloatArray:
        return np.asarray(rate - 1.0 + (member @ levels(exponent, used)) * shape(exponent))

    def best(used: FloatArray) -> float:
        if eta is not None:
            return eta
        from scipy.optimize import minimize_scalar

        minimum = minimize_scalar(
            lambda exponent: float((used * errors(exponent, used) ** 2).sum()),
            bounds=(0.0, 2.0),
            method="bounded",
        )
        return float(minimum.x)

    everything = np.ones(rate.size)
    exponent = best(everything)
    error = errors(exponent, everything)
    level = levels(exponent, everything)
    slopes = member * shape(exponent)[:, None]
    if eta is None:
        slopes = np.column_stack([slopes, (member @ level) * shape(exponent) * np.log(level_budget / budget)])
    freedom = max(rate.size - slopes.shape[1], 1)
    spread = np.sqrt(np.diag(np.linalg.pinv(slopes.T @ slopes)) * float(error @ error) / freedom)
    unseen = []
    for point in range(rate.size):
        others = everything.copy()
        others[point] = 0.0
        if (member.T @ others)[member[point].argmax()] > 0.0:
            unseen.append(errors(best(others), others)[point])
    return BudgetLaw(
        levels=dict(zip(names, level.tolist(), strict=True)),
        level_sd=dict(zip(names, spread[: len(names)].tolist(), strict=True)),
        eta=exponent,
        eta_sd=float(spread[-1]) if eta is None else 0.0,
        level_budget=level_budget,
        rmse=float(np.sqrt(np.mean(error**2))),
        leave_one_out=float(np.sqrt(np.mean(np.square(unseen)))) if unseen else float("nan"),
    )


def fit_first_rest(gammas: Sequence[int], mean_lengths_with_bonus: FloatArray) -> tuple[Numeric, Numeric]:
    """Return the rates (first, rest) of least squared error in tokens per round at several lengths.

    Two lengths are reproduced exactly where any pair of rates can. Measured runs weight rounds by difficulty,
    so rates from short drafts are a little high: over 87 published chains, gamma 7 is predicted from 3 and 5
    with +.4 % bias.

    Parameters
    ----------
    gammas : speculation lengths [tokens], at least two different ones.
    mean_lengths_with_bonus : tokens per round at each of them on the last axis; leading axes are fitted
        separately.

    Raises
    ------
    SpecError : fewer than two lengths, or tokens outside 1 .. gamma + 1.
    """
    lengths = np.asarray(mean_lengths_with_bonus, dtype=np.float64)
    gamma = np.asarray(gammas, dtype=np.float64)
    if np.unique(gamma).size < 2 or lengths.shape[-1:] != gamma.shape:
        raise SpecError.single("", "gammas", "two or more different lengths are needed, one observation each")
    if np.any(lengths < 1.0) or np.any(lengths > gamma + 1.0):
        raise SpecError.single("", "mean_lengths_with_bonus", "some are not between 1 and gamma + 1")
    accepted = lengths - 1.0

    def fitted(rest: FloatArray) -> tuple[FloatArray, FloatArray]:
        basis = np.asarray(power_sum(rest[..., None], gamma))
        first = (basis * accepted[..., None, :]).sum(axis=-1) / (basis**2).sum(axis=-1)
        first = np.clip(first, 0.0, 1.0)
        return first, ((first[..., None] * basis - accepted[..., None, :]) ** 2).sum(axis=-1)

    low, high = np.zeros(lengths.shape[:-1]), np.ones(lengths.shape[:-1])
    steps = np.linspace(0.0, 1.0, 33)
    for _ in range(12):
        tried = low[..., None] + (high - low)[..., None] * steps
        best = fitted(tried)[1].argmin(axis=-1)[..., None]
        low = np.take_along_axis(tried, np.maximum(best - 1, 0), axis=-1)[..., 0]
        high = np.take_along_axis(tried, np.minimum(best + 1, steps.size - 1), axis=-1)[..., 0]
    rest = 0.5 * (low + high)
    return fitted(rest[..., None])[0][..., 0][()], rest[()]
