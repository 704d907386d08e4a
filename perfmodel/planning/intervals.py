"""How sure a price is: the same equations over draws of every figure that is not known exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.latency import StepLatency
from perfmodel.model import ModelSpec
from perfmodel.speculation import Configuration, Drafter, Round, price_round

DRAWS = 200
MOST_DRAWN = 200_000
"""Cells times draws that intervals are computed for; with more cells there are fewer draws. [1]"""
LEVEL = 0.8
"""Share of cases that an interval is meant to cover. [1]"""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """Possible worlds on a last axis: hardware, engine, what the equations leave out, acceptance."""

    hardware: HardwareProfile
    engine: EngineOverhead
    target_residual: FloatArray
    verify_residual: FloatArray
    draft_residual: FloatArray
    deviations: FloatArray

    @property
    def size(self) -> int:
        """How many worlds there are."""
        return self.deviations.size


def draw(hardware: HardwareProfile, engine: EngineOverhead, *, count: int = DRAWS, seed: int = 0) -> Draws:
    """Draw `count` possible worlds; the same seed gives the same worlds.

    Figures are drawn between their low and high. Where the engine was calibrated on this very hardware its
    points already contain what hardware figures do to a step, so these keep their values and the residual of
    the calibration stands for what is left; elsewhere both are drawn.
    """
    random = np.random.default_rng([seed, 0x5EED])
    normal = random.standard_normal((4, count))
    calibrated = engine.calibrated_on == hardware.name
    return Draws(
        hardware=hardware if calibrated else hardware.sample(count, seed),
        engine=engine if calibrated else engine.sample(count, seed),
        target_residual=np.exp(float(np.asarray(engine.step_residual)) * normal[0]),
        verify_residual=np.exp(float(np.asarray(engine.step_residual)) * normal[1]),
        draft_residual=np.exp(float(np.asarray(engine.draft_residual)) * normal[2]),
        deviations=normal[3],
    )


def price_draws(
    draws: Draws,
    target: ModelSpec,
    drafter: Drafter | None,
    configuration: Configuration,
    *,
    alpha: Numeric | Acceptance | None = None,
    tokens_per_round: Numeric | None = None,
) -> Round:
    """`price_round` of `configuration` in every possible world, on a new last axis of every term.

    Acceptance is drawn from what is believed of it, unless `tokens_per_round` was measured.
    """
    wide: Configuration = {
        "batch": _wide(configuration["batch"]),
        "context_len": _wide(configuration["context_len"]),
        "kv_budget": _wide(configuration.get("kv_budget", np.inf)),
        "gamma": _wide(configuration.get("gamma", 0.0)),
        "tensor_parallel": _wide(configuration.get("tensor_parallel", 1.0)),
    }
    priced = price_round(
        draws.hardware,
        target,
        draws.engine,
        drafter,
        alpha=alpha if alpha is None or isinstance(alpha, Acceptance) else _wide(alpha),
        tokens_per_round=None if tokens_per_round is None else _wide(tokens_per_round),
        deviations=draws.deviations,
        **wide,
    )
    drafting = np.asarray(priced.gamma) > 0
    baseline = _scaled(priced.baseline, draws.target_residual)
    verify = _scaled(priced.verify, np.where(drafting, draws.verify_residual, draws.target_residual))
    draft = _scaled(priced.draft, draws.draft_residual)
    return replace(priced, baseline=baseline, verify=verify, draft=draft)


def _wide(value: Numeric) -> Numeric:
    """The value with one more axis, over the worlds."""
    return np.asarray(value, dtype=float)[..., None]


def interval(values: Numeric, level: float = LEVEL) -> tuple[FloatArray, FloatArray]:
    """Low and high between which `level` of the draws on the last axis lie."""
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(np.asarray(values), [tail, 1.0 - tail], axis=-1)
    return low, high


def _scaled(step: StepLatency, factor: Numeric) -> StepLatency:
    return StepLatency(
        step.linear * factor, step.attention * factor, step.communication * factor, step.overhead * factor
    )
