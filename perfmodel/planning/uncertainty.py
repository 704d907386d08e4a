"""How sure a recommendation is: its interval, the chance that it is wrong, what measuring would be worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance.intervals import HALF_WIDTH, requests_for
from perfmodel.planning.explain import Choice
from perfmodel.planning.intervals import Draws, interval, price_draws
from perfmodel.planning.plan import Cell
from perfmodel.planning.price import Grid
from perfmodel.speculation import price_round

__all__ = ["judgements", "worth_of_measuring"]

FloatArray = NDArray[np.float64]

MATERIAL = 0.005
"""Share of speed below which nobody is told what measuring acceptance would be worth. [1]"""


def judgements(
    grid: Grid, worlds: Draws, choice: Choice, rivals: Sequence[Choice], second: NDArray[np.intp]
) -> dict[str, list[float | None]]:
    """Intervals, probabilities, and what not knowing acceptance costs: fields of `Cell`, a value per cell.

    Parameters
    ----------
    worlds : the possible worlds; every configuration is priced in the same ones, so differences are paired.
    choice, rivals : the chosen configurations, and every drafter's best in the same cells.
    second : which of the rivals came second, per cell.
    """
    chosen = price_draws(worlds, grid.target, choice.drafter, choice.configuration(grid), alpha=grid.alpha)
    shape = (choice.batch.size, worlds.size)
    tpot = np.broadcast_to(chosen.tpot, shape)
    speedup = np.broadcast_to(chosen.speedup, shape)
    (tpot_low, tpot_high), (speedup_low, speedup_high) = interval(tpot), interval(speedup)
    runner_up = _runner_up_tpot(grid, worlds, rivals, second, shape)
    regret, worth = _what_acceptance_decides(grid, worlds, choice, rivals, second)
    columns = {
        "tpot_low_s": tpot_low,
        "tpot_high_s": tpot_high,
        "speedup_low": speedup_low,
        "speedup_high": speedup_high,
        "probability_beats_plain": np.mean(speedup > 1.0, axis=-1)
        if choice.drafter
        else np.full(shape[0], np.nan),
        "probability_runner_up_better": np.mean(runner_up < tpot, axis=-1),
        "regret_if_alpha_wrong": regret,
        "value_of_knowing_alpha": worth,
    }
    return {name: _known(values) for name, values in columns.items()}


def _known(values: FloatArray) -> list[float | None]:
    """The numbers, None where there is none."""
    return [None if value != value else value for value in values.tolist()]


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
    grid: Grid, worlds: Draws, choice: Choice, rivals: Sequence[Choice], second: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray]:
    """Regret of the choice, and worth of knowing one drafter's acceptance exactly, as shares of speed.

    The drafter is the chosen one, or the runner-up where plain decoding is chosen. Knowing its acceptance
    ``a`` one could take any of its speculation lengths ``g``, 0 among them, or the runner-up as it is
    expected to be. With ``s(g, a)`` the speedup, ``g0`` the choice and means over ``a``: regret is
    ``mean(max_g s) / mean(s(g0)) - 1``, the worth is ``mean(max_g s) / max_g mean(s) - 1``.
    """
    gammas = np.asarray([0, *grid.gammas], dtype=float)
    regret, worth = np.zeros(choice.gamma.size), np.zeros(choice.gamma.size)
    rivalled = np.isfinite(choice.runner_up_behind)
    for index in np.unique(second):
        here = second == index
        cells = np.flatnonzero(here if choice.drafter is not None else here & rivalled)
        unsure, rival = (choice, rivals[index]) if choice.drafter is not None else (rivals[index], choice)
        if unsure.drafter is None or not cells.size:
            continue
        speedup = _speedup_by_gamma(grid, worlds, unsure.only(cells), gammas)
        chosen = speedup[np.arange(cells.size), np.searchsorted(gammas, choice.gamma[cells])].mean(axis=-1)
        known = np.ptp(speedup, axis=-1).max(axis=1) == 0.0
        if rival.drafter is not None:
            speedup = np.concatenate([speedup, _fallback(grid, worlds, rival.only(cells))], axis=1)
        best = speedup.max(axis=1).mean(axis=-1)
        regret[cells] = np.where(known, 0.0, best / chosen - 1.0)
        worth[cells] = np.where(known, 0.0, best / speedup.mean(axis=-1).max(axis=1) - 1.0)
    return regret, worth


def _speedup_by_gamma(grid: Grid, worlds: Draws, choice: Choice, gammas: FloatArray) -> FloatArray:
    """Speedup at every gamma in every world in which only acceptance is open, (cells, gammas, worlds). [1]"""
    priced = price_round(
        grid.hardware[0],
        grid.target,
        grid.engine,
        choice.drafter,
        batch=choice.batch[:, None, None],
        context_len=choice.context_len[:, None, None],
        kv_budget=choice.kv_budget[:, None, None],
        gamma=gammas[:, None],
        tensor_parallel=float(grid.tensor_parallel[0]),
        alpha=grid.alpha,
        deviations=worlds.deviations,
    )
    return np.broadcast_to(priced.speedup, (choice.batch.size, gammas.size, worlds.size))


def _fallback(grid: Grid, worlds: Draws, rival: Choice) -> FloatArray:
    """Expected speedup of the runner-up, the same in every world; 0 where it is not allowed. [1]"""
    shape = (rival.batch.size, 1, worlds.size)
    at = np.searchsorted(np.unique(rival.gamma), rival.gamma)
    speedup = _speedup_by_gamma(grid, worlds, rival, np.unique(rival.gamma))
    expected = speedup[np.arange(at.size), at].mean(axis=-1)
    return np.broadcast_to(np.where(np.isfinite(rival.runner_up_behind), expected, 0.0)[:, None, None], shape)


def worth_of_measuring(cells: Sequence[Cell]) -> str | None:
    """One sentence on what knowing acceptance would gain over all cells, or None where it hardly matters."""

    def gain(cell: Cell) -> float:
        return cell.value_of_knowing_alpha or 0.0

    most = max(cells, key=gain, default=None)
    if most is None:
        return None
    regret = max(cell.regret_if_alpha_wrong or 0.0 for cell in cells)
    requests = requests_for(HALF_WIDTH, known_sd=most.alpha_sd)
    if max(gain(most), regret) < MATERIAL or not requests:
        return None
    return (
        f"Measuring acceptance on about {requests} requests would be worth up to {gain(most):.1%} of speed "
        f"(batch {most.batch_size}, context {most.context_len:,}); choosing without knowing it loses up to "
        f"{regret:.1%}."
    )
