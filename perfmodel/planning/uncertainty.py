"""How sure a recommendation is: its interval, the chance that it is wrong, what measuring would be worth."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance
from perfmodel.acceptance.intervals import HALF_WIDTH, requests_for
from perfmodel.deployment import Deployment, Drafter
from perfmodel.engine import EngineOverhead
from perfmodel.files.numbers import FloatArray, Numeric, distinct_values, medians, quantile
from perfmodel.files.quantity import KINDS
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import StepLatency
from perfmodel.planning.cells import Cells
from perfmodel.planning.choose import Choice
from perfmodel.planning.plan import Cell
from perfmodel.planning.price import Priced
from perfmodel.speculation import Configuration, Round, price, price_plain, take, with_acceptance

__all__ = [
    "DRAWS", "MOST_DRAWN", "Draws", "doubted_kinds", "draw", "interval", "judge", "price_draws",
    "worth_of_measuring",
]  # fmt: skip

DRAWS = 200
MOST_DRAWN = 200_000
"""Cells times draws that intervals are computed for; with more cells there are fewer draws. [1]"""
SpecT = TypeVar("SpecT", HardwareProfile, EngineOverhead)
LEVEL = 0.8
"""Share of cases that an interval is meant to cover. [1]"""
MATERIAL = 0.005
"""Share of speed below which nobody is told what measuring acceptance would be worth. [1]"""
SHARED_ACCEPTANCE = 0.5
"""Share of the variance of acceptance that all drafters have in common: what text and temperature do to them.
Laws scatter by .02 from run to run beside levels that are known to about .02 (strategies). Assumed. [1]"""
SHARED_RESIDUAL = 0.3
"""Share of the variance of a step's residual that a plain step and its verification have in common: their
kernels are the same. Correlation over 47 rows of MagicDec's A100 tables .32, 12 of H100 .15. Measured. [1]"""


@dataclass(frozen=True)
class Draws:
    """Possible worlds on a last axis: hardware, engine, what the equations leave out, acceptance.

    deployment, central : with drawn figures of hardware and engine, and with their values.
    target_residual, verify_residual, draft_residual : factors on the passes. [1]
    common : what all drafters' deviations of acceptance share. [standard deviations]
    seed : of what each drafter's own share is drawn with.
    """

    deployment: Deployment
    central: Deployment
    target_residual: FloatArray
    verify_residual: FloatArray
    draft_residual: FloatArray
    common: FloatArray
    seed: int
    _deviations: dict[str, FloatArray] = field(default_factory=dict, init=False, compare=False, repr=False)

    @cached_property
    def wide(self) -> Deployment:
        """What serves in every world, with an axis for them in what the worlds have in common too."""
        return _laid_out(self.deployment, self.central)

    @property
    def size(self) -> int:
        """How many worlds there are."""
        return self.common.size

    def deviations(self, drafter: Drafter | None) -> FloatArray:
        """Deviations of a drafter's acceptance from its expectation. [standard deviations]

        Two drafters have in common what the text and the temperature do to both; their laws err apart.
        """
        name = "" if drafter is None else drafter.strategy.name if drafter.kind == "head" else drafter.label
        if name not in self._deviations:
            label = zlib.crc32(name.encode())
            own = np.random.default_rng([self.seed, 0x5EED, label]).standard_normal(self.size)
            self._deviations[name] = _correlated(self.common, own, SHARED_ACCEPTANCE)
        return self._deviations[name]


def _correlated(common: FloatArray, own: FloatArray, share: float) -> FloatArray:
    """Return standard deviations of which `share` of the variance is common. [1]"""
    return np.asarray(np.sqrt(share) * common + np.sqrt(1.0 - share) * own)


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
    step, verify, draft, kernels, common = np.random.default_rng([seed, 0x5EED]).standard_normal((5, count))
    of_hardware, of_engine = doubted_kinds(deployment)
    drawn = replace(
        deployment,
        hardware=_sampled(hardware, count, seed, of_hardware) if of_hardware else hardware,
        engine=_sampled(engine, count, seed, of_engine),
    )
    spread = engine.expert_residual if deployment.model.experts else engine.step_residual
    residual = float(np.asarray(spread))
    return Draws(
        deployment=drawn,
        central=deployment,
        target_residual=np.exp(residual * _correlated(kernels, step, SHARED_RESIDUAL)),
        verify_residual=np.exp(residual * _correlated(kernels, verify, SHARED_RESIDUAL)),
        draft_residual=np.exp(float(np.asarray(engine.draft_residual)) * draft),
        common=common,
        seed=seed,
    )


def doubted_kinds(deployment: Deployment) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the kinds of figures that may be other than they are, of the hardware and of the engine.

    What an engine was fitted to already contains what fitted figures do to a step.
    """
    hardware, engine = deployment.hardware, deployment.engine
    if hardware.family in engine.families:  # fitted on some of the family: what is known of it is in that
        return ("assumed",), ("assumed",)
    return ((), ("assumed",)) if engine.calibrated_on == hardware.name else (KINDS, KINDS)


@lru_cache(maxsize=16)
def _sampled(noun: SpecT, count: int, seed: int, kinds: tuple[str, ...] = KINDS) -> SpecT:
    """Return draws of a noun, as `Spec.sample`: nouns never change, and many are asked about again."""
    return noun.sample(count, seed, kinds)


def price_draws(
    worlds: Draws,
    drafter: Drafter | None,
    configuration: Configuration,
    *,
    alpha: Numeric | Acceptance | None = None,
    tokens_per_round: Numeric | None = None,
    value: Round | None = None,
    baseline: StepLatency | None = None,
) -> Round:
    """Price a configuration in every possible world, on a new last axis of every term.

    Acceptance is drawn from what is believed of it, unless `tokens_per_round` was measured. All seconds of a
    round are scaled by one factor, and those of the plain step by another, so that the price is the median of
    its worlds: each figure's value is the middle of its range, but a sum of skewed figures is not the sum of
    their medians, and it is the sum that measurements were compared with.

    Parameters
    ----------
    configuration : what `price` takes, by name. [sequences], [tokens]
    alpha, tokens_per_round : as in `price_round`. [0..1], [tokens]
    value : the configuration in `worlds.central`, where it is priced already.
    baseline : its plain step as `price_plain_draws` has it, where it is priced already. [s]
    """
    asked = {name: _widen(value) for name, value in configuration.items()}
    believed = {"alpha": _widen(alpha), "tokens_per_round": _widen(tokens_per_round)}
    if baseline is None:
        baseline = price_plain_draws(worlds, configuration)
    drawn = price(
        worlds.wide, drafter, deviations=worlds.deviations(drafter), baseline=baseline, **asked, **believed
    )
    if value is None:
        value = price(_laid_out(worlds.central, worlds.central), drafter, **asked, **believed)
        tpot, speedup = value.tpot, value.speedup
    else:
        tpot, speedup = _widen(value.tpot), _widen(value.speedup)
    residual = np.where(np.asarray(drawn.gamma) > 0, worlds.verify_residual, worlds.target_residual)
    drawn = replace(
        drawn,
        baseline=drawn.baseline.scale(worlds.target_residual),
        verify=drawn.verify.scale(residual),
        draft=drawn.draft.scale(worlds.draft_residual),
    )
    round_off = tpot / medians(drawn.tpot)
    drawn = replace(
        drawn,
        verify=drawn.verify.scale(round_off),
        draft=drawn.draft.scale(round_off),
        overhead=drawn.overhead * round_off,
    )
    step_off = speedup / medians(drawn.speedup)
    return replace(drawn, baseline=drawn.baseline.scale(step_off))


def price_plain_draws(worlds: Draws, configuration: Configuration) -> StepLatency:
    """Price the plain step of a configuration in every possible world, without its residual. [s]"""
    names = ("batch", "context_len", "output_tokens")
    asked = {name: _widen(value) for name, value in configuration.items() if name in names}
    return price_plain(worlds.wide, **asked)


def _laid_out(deployment: Deployment, like: Deployment) -> Deployment:
    """Return a deployment whose GPUs share the work like those of another, with one more axis."""
    layout = ("tensor_parallel", "expert_parallel", "pipeline_parallel", "data_parallel")
    return replace(deployment, **{name: _widen(getattr(like, name)) for name in layout})


def _widen(value: Any) -> Any:
    """Return a value with one more axis, over the worlds."""
    return value if value is None or isinstance(value, Acceptance) else np.asarray(value)[..., None]


def interval(values: Numeric, level: float = LEVEL) -> tuple[FloatArray, FloatArray]:
    """Return low and high between which `level` of the draws on the last axis lie, however few there are."""
    tail = (1.0 - level) / 2.0
    draws = np.asarray(values)
    return quantile(draws, tail), quantile(draws, 1.0 - tail)


def judge(
    worlds: Draws,
    chosen: Choice,
    choices: Sequence[Choice],
    cells: NDArray[np.intp],
    second: NDArray[np.intp],
    behind: FloatArray,
    alpha: float | Acceptance | None,
    *,
    expected: bool = True,
    runs: Priced | None = None,
    lengths: Priced | None = None,
) -> dict[str, FloatArray]:
    """Judge a drafter's choices: intervals, probabilities, what not knowing acceptance costs; one a cell.

    Parameters
    ----------
    worlds : every configuration is priced in the same ones, so differences are paired.
    chosen : the choice that is recommended in `cells`.
    choices : all of them, in all cells.
    second : which of them came second, per cell.
    behind : how far, as a share of the winner's time per token; nan where nothing came second. [1]
    alpha : acceptance in place of the strategies' laws. [0..1]
    expected : whether the choices are priced at the acceptance that is expected.
    runs, lengths : what `Choice.at` and `Choice.by_gamma` return of the choice there, where that is known.

    Returns
    -------
    Fields of `Cell` by their names; nan where there is none.
    """
    size, runs = cells.size, runs or chosen.at(cells)
    nothing = np.full(size, np.nan)
    value = runs.round if expected else None
    plain = price_plain_draws(worlds, runs.configuration)
    priced = price_draws(
        worlds, runs.drafter, runs.configuration, alpha=alpha, value=value, baseline=plain
    )
    tpot = np.broadcast_to(priced.tpot, (size, worlds.size))
    speedup = np.broadcast_to(priced.speedup, (size, worlds.size))
    (tpot_low, tpot_high), (speedup_low, speedup_high) = interval(tpot), interval(speedup)
    slower = np.full((size, worlds.size), np.inf)  # how much longer the runner-up takes
    regret, worth = np.zeros(size), np.zeros(size)
    for index in distinct_values(second):
        here, rival = second == index, choices[index]
        against = np.flatnonzero(here & np.isfinite(behind))
        if against.size:
            behind_it = rival.at(cells[against])
            value = behind_it.round if expected else None
            other = price_draws(
                worlds, rival.drafter, behind_it.configuration, alpha=alpha, value=value,
                baseline=plain if against.size == size else take(plain, (size, worlds.size), (against,)),
            )  # fmt: skip
            ratio = other.tpot / tpot[against]
            middle = medians(ratio)
            slower[against] = ratio * ((1.0 + behind[against, None]) / middle)
        known = np.flatnonzero(here) if chosen.drafts else against
        if known.size and (chosen.drafts or rival.drafts):
            unsure, fallback = (chosen, rival) if chosen.drafts else (rival, chosen)
            by_gamma = lengths if chosen.drafts and known.size == size else None
            regret[known], worth[known] = _value_acceptance(
                worlds, by_gamma or unsure.by_gamma(cells[known]), fallback, cells[known],
                runs.gamma[known], np.isfinite(behind[known]),
            )  # fmt: skip
    return {
        "tpot_low_s": tpot_low,
        "tpot_high_s": tpot_high,
        "speedup_low": speedup_low,
        "speedup_high": speedup_high,
        "probability_beats_plain": np.mean(speedup > 1.0, axis=-1) if chosen.drafts else nothing,
        "probability_runner_up_better": np.mean(slower < 1.0, axis=-1),
        "regret_if_alpha_wrong": regret,
        "value_of_knowing_alpha": worth,
    }


def _value_acceptance(
    worlds: Draws,
    by_gamma: Priced,
    other: Choice,
    cells: NDArray[np.intp],
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
    by_gamma, other : every length of who drafts with an acceptance that is not known, and what else could
        be taken.
    cells, chosen : where, and the length that was chosen there. [tokens]
    rivalled : whether the other is allowed, per cell.
    """
    speedup = _speedup_by_gamma(worlds, by_gamma)
    taken = _at_length(speedup, by_gamma, chosen)
    known = np.ptp(speedup, axis=-1).max(axis=1) == 0.0
    if other.drafts:
        others = other.by_gamma(cells)
        expected = _at_length(_speedup_by_gamma(worlds, others), others, other.gamma(cells))
        fallback = np.where(rivalled, expected, 0.0)[:, None, None]
        speedup = np.concatenate([speedup, np.broadcast_to(fallback, (chosen.size, 1, worlds.size))], axis=1)
    best = speedup.max(axis=1).mean(axis=-1)
    regret = np.where(known, 0.0, best / taken - 1.0)
    worth = np.where(known, 0.0, best / speedup.mean(axis=-1).max(axis=1) - 1.0)
    return regret, worth


def _speedup_by_gamma(worlds: Draws, by_gamma: Priced) -> FloatArray:
    """Return the speedup at every gamma where only acceptance is open, axes (cell, gamma, world). [1]"""
    moved = with_acceptance(
        by_gamma.deployment, by_gamma.round, by_gamma.shape, worlds.deviations(by_gamma.drafter)
    )
    return np.broadcast_to(moved.speedup, (*by_gamma.shape, worlds.size))


def _at_length(speedup: FloatArray, by_gamma: Priced, gamma: FloatArray) -> FloatArray:
    """Return the mean speedup at one length of every cell. [1]"""
    place = np.searchsorted(by_gamma.gamma[0], gamma)
    return np.asarray(speedup[np.arange(gamma.size), place].mean(axis=-1))


def worth_of_measuring(cells: Sequence[Cell]) -> str | None:
    """One sentence on what knowing acceptance would gain over all cells, or None where it hardly matters."""

    columns = Cells.of(cells, Cell)
    if not columns:
        return None
    gains = np.nan_to_num(columns.numbers("value_of_knowing_alpha"))
    most = columns[int(np.argmax(gains))]
    gain, regret = float(gains.max()), float(np.nan_to_num(columns.numbers("regret_if_alpha_wrong")).max())
    requests = requests_for(HALF_WIDTH, known_sd=most.alpha_sd)
    if max(gain, regret) < MATERIAL or not requests:
        return None
    return (
        f"Measuring acceptance on about {requests} requests would be worth up to {gain:.1%} of speed "
        f"(batch {most.batch_size}, context {most.context_len:,}); choosing without knowing it loses up to "
        f"{regret:.1%}."
    )
