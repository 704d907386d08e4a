"""How sure a price is: the same equations over draws of every figure that is not known exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.latency import StepLatency
from perfmodel.model import ModelSpec
from perfmodel.speculation import Drafter, Round, price_round

DRAWS = 200
LEVEL = 0.8
"""Share of cases that an interval is meant to cover. [1]"""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """One possible world per element of a last axis: hardware and engine figures, what the equations leave out, and
    how far acceptance is from its expectation."""

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

    Figures are drawn between their low and high. Where the engine was calibrated on this very hardware its points
    already contain what hardware figures do to a step, so these keep their values and the residual of the
    calibration stands for what is left; elsewhere both are drawn.
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
    draws: Draws, target: ModelSpec, drafter: Drafter | None, *, sure_of_acceptance: bool = False, **configuration: Any
) -> Round:
    """`price_round` in every possible world, on a new last axis of every term.

    Parameters
    ----------
    sure_of_acceptance : True where tokens per round were measured, so acceptance is not drawn.
    configuration : the arguments of `price_round`: batch, context_len, kv_budget, gamma, tensor_parallel, ...
    """
    wide = {
        name: np.asarray(value, dtype=float)[..., None] if value is not None else None
        for name, value in configuration.items()
    }
    priced = price_round(
        draws.hardware,
        target,
        draws.engine,
        drafter,
        deviations=0.0 if sure_of_acceptance else draws.deviations,
        **wide,
    )
    speculating = np.asarray(priced.gamma) > 0
    baseline = _scaled(priced.baseline, draws.target_residual)
    verify = _scaled(priced.verify, np.where(speculating, draws.verify_residual, draws.target_residual))
    return replace(priced, baseline=baseline, verify=verify, draft=_scaled(priced.draft, draws.draft_residual))


def interval(values: Numeric, level: float = LEVEL) -> tuple[FloatArray, FloatArray]:
    """Low and high between which `level` of the draws on the last axis lie."""
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(np.asarray(values), [tail, 1.0 - tail], axis=-1)
    return low, high


def _scaled(step: StepLatency, factor: Numeric) -> StepLatency:
    return StepLatency(
        step.linear * factor, step.attention * factor, step.communication * factor, step.overhead * factor
    )
