"""How sure a recommendation is: its interval, the chance that it is wrong, what measuring would be worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance
from perfmodel.acceptance.intervals import HALF_WIDTH, requests_for
from perfmodel.deployment import Deployment, Drafter
from perfmodel.files.numbers import FloatArray, Numeric
from perfmodel.planning.choose import Choice
from perfmodel.planning.plan import Cell
from perfmodel.planning.price import Priced
from perfmodel.speculation import Configuration, Round, price, with_acceptance

__all__ = ["DRAWS", "MOST_DRAWN", "Draws", "draw", "interval", "judge", "price_draws", "worth_of_measuring"]

DRAWS = 200
MOST_DRAWN = 200_000
"""Cells times draws that intervals are computed for; with more cells there are fewer draws. [1]"""
LEVEL = 0.8
"""Share of cases that an interval is meant to cover. [1]"""
MATERIAL = 0.005
"""Share of speed below which nobody is told what measuring acceptance would be worth. [1]"""


@dataclass(frozen=True)
class Draws:
    """Possible worlds on a last axis: hardware, engine, what the equations leave out, acceptance.

    deployment : with drawn figures of hardware and engine.
    target_residual, verify_residual, draft_residual : factors on the passes. [1]
    deviations : of acceptance from its expectation. [standard deviations]
    """

    deployment: Deployment
    target_residual: FloatArray
    verify_residual: FloatArray
    draft_residual: FloatArray
    deviations: FloatArray

    @property
    def size(self) -> int:
        """How many worlds there are."""
        return self.deviations.size


def draw(deployment: Deployment, *, count: int = DRAWS, seed: int = 0) -> Draws:
    """Draw `count` possible worlds; the same seed gives the same worlds.

    Figures are drawn between their low and high. Where the engine was calibrated on this very hardware its
    points already contain what hardware and fitted figures do to a step, so these keep their values and the
    residual of the calibration stands for what is left; figures of the engine that the points did not
    determine are drawn. Elsewhere both are drawn.

    Parameters
    ----------
    deployment : whose figures are drawn.
    count : how many worlds, the length of the last axis. [1]
    seed : of the generator; a figure's draws do not depend on what else is drawn.
    """
    hardware, engine = deployment.hardware, deployment.engine
    normal = np.random.default_rng([seed, 0x5EED]).standard_normal((4, count))
    if engine.calibrated_on == hardware.name:
        deployment = replace(deployment, engine=engine.sample(count, seed, kinds=("assumed",)))
    else:
        deployment = replace(
            deployment, hardware=hardware.sample(count, seed), engine=engine.sample(count, seed)
        )
    return Draws(
        deployment=deployment,
        target_residual=np.exp(float(np.asarray(engine.step_residual)) * normal[0]),
        verify_residual=np.exp(float(np.asarray(engine.step_residual)) * normal[1]),
        draft_residual=np.exp(float(np.asarray(engine.draft_residual)) * normal[2]),
        deviations=normal[3],
    )


def price_draws(
    worlds: Draws,
    drafter: Drafter | None,
    configuration: Configuration,
    *,
    alpha: Numeric | Acceptance | None = None,
    tokens_per_round: Numeric | None = None,
) -> Round:
    """Price a configuration in every possible world, on a new last axis of every term.

    Acceptance is drawn from what is believed of it, unless `tokens_per_round` was measured.

    Parameters
    ----------
    configuration : what `price` takes, by name. [sequences], [tokens]
    alpha, tokens_per_round : as in `price_round`. [0..1], [tokens]
    """

    def widen(value: Numeric) -> Numeric:
        """Return the value with one more axis, over the worlds."""
        return np.asarray(value, dtype=float)[..., None]

    deployment = worlds.deployment
    priced = price(
        replace(deployment, tensor_parallel=widen(deployment.tensor_parallel)),
        drafter,
        alpha=alpha if alpha is None or isinstance(alpha, Acceptance) else widen(alpha),
        tokens_per_round=None if tokens_per_round is None else widen(tokens_per_round),
        deviations=worlds.deviations,
        batch=widen(configuration["batch"]),
        context_len=widen(configuration["context_len"]),
        kv_budget=widen(configuration["kv_budget"]),
        gamma=widen(configuration["gamma"]),
    )
    drafting = np.asarray(priced.gamma) > 0
    return replace(
        priced,
        baseline=priced.baseline.scale(worlds.target_residual),
        verify=priced.verify.scale(np.where(drafting, worlds.verify_residual, worlds.target_residual)),
        draft=priced.draft.scale(worlds.draft_residual),
    )


def interval(values: Numeric, level: float = LEVEL) -> tuple[FloatArray, FloatArray]:
    """Return low and high between which `level` of the draws on the last axis lie."""
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(np.asarray(values), [tail, 1.0 - tail], axis=-1)
    return low, high


def judge(
    worlds: Draws,
    runs: Priced,
    by_gamma: Priced,
    choices: Sequence[Choice],
    cells: NDArray[np.intp],
    second: NDArray[np.intp],
    behind: FloatArray,
    alpha: float | Acceptance | None,
) -> dict[str, FloatArray]:
    """Judge a drafter's choices: intervals, probabilities, what not knowing acceptance costs; one a cell.

    Parameters
    ----------
    worlds : every configuration is priced in the same ones, so differences are paired.
    runs, by_gamma : what was chosen in `cells`, and every speculation length of its budget.
    choices : every drafter's, in all cells.
    second : which of them came second, per cell.
    behind : how far, as a share of the winner's time per token; nan where nothing came second. [1]
    alpha : acceptance in place of the strategies' laws. [0..1]

    Returns
    -------
    Fields of `Cell` by their names; nan where there is none.
    """
    size = cells.size
    priced = price_draws(worlds, runs.drafter, runs.configuration, alpha=alpha)
    tpot = np.broadcast_to(priced.tpot, (size, worlds.size))
    speedup = np.broadcast_to(priced.speedup, (size, worlds.size))
    (tpot_low, tpot_high), (speedup_low, speedup_high) = interval(tpot), interval(speedup)
    runner_up = np.full((size, worlds.size), np.inf)
    regret, worth = np.zeros(size), np.zeros(size)
    for index in np.unique(second):
        here, rival = second == index, choices[index]
        against = np.flatnonzero(here & np.isfinite(behind))
        if against.size:
            configuration = rival.at(cells[against]).configuration
            runner_up[against] = price_draws(worlds, rival.drafter, configuration, alpha=alpha).tpot
        known = np.flatnonzero(here) if runs.drafter else against
        if known.size and (runs.drafter or rival.drafter):
            lengths = (by_gamma.at(known), runs.gamma[known])
            others = (rival.by_gamma(cells[known]), rival.at(cells[known]).gamma)
            unsure, other = (lengths, others) if runs.drafter else (others, lengths)
            regret[known], worth[known] = _value_acceptance(
                worlds, unsure, other, runs.gamma[known], np.isfinite(behind[known])
            )
    return {
        "tpot_low_s": tpot_low,
        "tpot_high_s": tpot_high,
        "speedup_low": speedup_low,
        "speedup_high": speedup_high,
        "probability_beats_plain": np.mean(speedup > 1.0, axis=-1) if runs.drafter else np.full(size, np.nan),
        "probability_runner_up_better": np.mean(runner_up < tpot, axis=-1),
        "regret_if_alpha_wrong": regret,
        "value_of_knowing_alpha": worth,
    }


def _value_acceptance(
    worlds: Draws,
    unsure: tuple[Priced, FloatArray],
    other: tuple[Priced, FloatArray],
    chosen: FloatArray,
    rivalled: NDArray[np.bool_],
) -> tuple[FloatArray, FloatArray]:
    """Return the regret of a choice, and the worth of knowing acceptance exactly, as shares of speed.

    The drafter is the chosen one, or the runner-up where plain decoding is chosen. Knowing its acceptance
    ``a`` one could take any of its speculation lengths ``g``, 0 among them, or the runner-up as it is
    expected to be. With ``s(g, a)`` the speedup, ``g0`` the choice and means over ``a``: regret is
    ``mean(max_g s) / mean(s(g0)) - 1``, the worth is ``mean(max_g s) / max_g mean(s) - 1``.

    Parameters
    ----------
    unsure, other : every length of a drafter, and the one that it would take. [tokens]
    chosen : the length that was chosen. [tokens]
    rivalled : whether the other is allowed, per cell.
    """
    speedup = _speedup_by_gamma(worlds, unsure[0])
    taken = _at_length(speedup, unsure[0], chosen)
    known = np.ptp(speedup, axis=-1).max(axis=1) == 0.0
    if other[0].drafter is not None:
        expected = _at_length(_speedup_by_gamma(worlds, other[0]), other[0], other[1])
        fallback = np.where(rivalled, expected, 0.0)[:, None, None]
        speedup = np.concatenate([speedup, np.broadcast_to(fallback, (chosen.size, 1, worlds.size))], axis=1)
    best = speedup.max(axis=1).mean(axis=-1)
    regret = np.where(known, 0.0, best / taken - 1.0)
    worth = np.where(known, 0.0, best / speedup.mean(axis=-1).max(axis=1) - 1.0)
    return regret, worth


def _speedup_by_gamma(worlds: Draws, by_gamma: Priced) -> FloatArray:
    """Return the speedup at every gamma where only acceptance is open, axes (cell, gamma, world). [1]"""
    moved = with_acceptance(by_gamma.deployment, by_gamma.round, by_gamma.shape, worlds.deviations)
    return np.broadcast_to(moved.speedup, (*by_gamma.shape, worlds.size))


def _at_length(speedup: FloatArray, by_gamma: Priced, gamma: FloatArray) -> FloatArray:
    """Return the mean speedup at one length of every cell. [1]"""
    place = np.searchsorted(by_gamma.gamma[0], gamma)
    return np.asarray(speedup[np.arange(gamma.size), place].mean(axis=-1))


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
