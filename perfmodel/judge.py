"""How sure a recommendation is: its interval, the chance that it is wrong, what measuring would be worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance, expected_tokens
from perfmodel.evidence.intervals import Draws, interval, price_draws
from perfmodel.explain import Choice
from perfmodel.plan import Cell
from perfmodel.sweep import Grid

FloatArray = NDArray[np.float64]


def judged_cells(
    grid: Grid,
    worlds: Draws,
    cells: Sequence[Cell],
    choice: Choice,
    rivals: Sequence[Choice],
    second: NDArray[np.intp],
) -> list[Cell]:
    """The cells with intervals, probabilities, and what not knowing acceptance costs.

    Parameters
    ----------
    worlds : the possible worlds; every configuration is priced in the same ones, so differences are paired.
    choice, rivals : the chosen configurations, and every drafter's best in the same cells.
    second : which of the rivals came second, per cell.
    """
    chosen = price_draws(worlds, grid.target, choice.drafter, choice.configuration(grid), alpha=grid.alpha)
    shape = (len(cells), worlds.size)
    tpot = np.broadcast_to(chosen.tpot, shape)
    speedup = np.broadcast_to(chosen.speedup, shape)
    (tpot_low, tpot_high), (speedup_low, speedup_high) = interval(tpot), interval(speedup)
    runner_up = _runner_up_tpot(grid, worlds, rivals, second, shape)
    regret, worth = _what_acceptance_decides(grid, worlds, cells, choice)
    columns = {
        "tpot_low_s": tpot_low,
        "tpot_high_s": tpot_high,
        "speedup_low": speedup_low,
        "speedup_high": speedup_high,
        "probability_beats_plain": np.mean(speedup > 1.0, axis=-1)
        if choice.drafter
        else np.full(len(cells), np.nan),
        "probability_runner_up_better": np.mean(runner_up < tpot, axis=-1),
        "regret_if_alpha_wrong": regret,
        "value_of_knowing_alpha": worth,
    }
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return [
        replace(cell, **dict(zip(columns, map(_known, row), strict=True)))
        for cell, row in zip(cells, rows, strict=True)
    ]


def _known(value: float) -> Any:
    """The number, or None where there is none."""
    return None if np.isnan(value) else value


def _runner_up_tpot(
    grid: Grid, worlds: Draws, rivals: Sequence[Choice], second: NDArray[np.intp], shape: tuple[int, int]
) -> FloatArray:
    """Seconds per token of the runner-up of every cell in every world; infinite where there is none. [s]"""
    tpot = np.full(shape, np.inf)
    for index in np.unique(second):
        mine = np.flatnonzero((second == index) & np.isfinite(rivals[index].runner_up_behind))
        if not mine.size:
            continue
        rival = rivals[index].only(mine)
        priced = price_draws(worlds, grid.target, rival.drafter, rival.configuration(grid), alpha=grid.alpha)
        tpot[mine] = np.broadcast_to(priced.tpot, (mine.size, shape[1]))
    return tpot


def _what_acceptance_decides(
    grid: Grid, worlds: Draws, cells: Sequence[Cell], choice: Choice
) -> tuple[FloatArray, FloatArray]:
    """Regret of the chosen gamma, and worth of knowing acceptance exactly, both as shares of speedup.

    With ``s(g, a)`` the speedup of gamma ``g`` at acceptance ``a``, ``g0`` the chosen one and means over
    ``a``: regret is ``mean(max_g s) / mean(s(g0)) - 1``, the worth is ``mean(max_g s) / max_g mean(s) - 1``.
    """
    nothing = np.zeros(len(cells))
    if choice.drafter is None or not grid.gammas:
        return nothing, nothing
    gammas = np.asarray([0, *grid.gammas], dtype=float)
    rounds = np.asarray([cell.round_by_gamma_s for cell in cells])
    first, rest, sd = (
        np.asarray([getattr(cell, name) for cell in cells], dtype=float)[:, None, None]
        for name in ("alpha_first", "alpha", "alpha_sd")
    )
    drawn = Acceptance(first=first, rest=rest, sd=sd).shifted(worlds.deviations)
    tokens = np.where(gammas[:, None] > 0, expected_tokens(drawn, gammas[:, None]), 1.0)
    speedup = rounds[:, :1, None] * tokens / rounds[:, :, None]  # (cells, gammas, worlds)
    best = speedup.max(axis=1).mean(axis=-1)
    mean = speedup.mean(axis=-1)
    mine = mean[np.arange(len(cells)), np.searchsorted(gammas, choice.gamma)]
    return best / mine - 1.0, best / mean.max(axis=1) - 1.0
