"""What a loaded drafter costs beside its passes: rounds, graphs in pieces, steps that do not speculate."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from perfmodel.engine import EngineOverhead
from perfmodel.figures import Numeric
from perfmodel.latency import StepLatency

__all__ = ["idle_share", "idles_slower", "round_overhead"]


class TargetPasses(Protocol):
    """The target's own two passes. [s]"""

    @property
    def baseline(self) -> StepLatency: ...

    @property
    def verify(self) -> StepLatency: ...


def round_overhead(
    engine: EngineOverhead,
    layers: int,
    *,
    batch: Numeric,
    gamma: Numeric,
    steps: TargetPasses,
    draft: StepLatency,
    draft_passes: Numeric,
    tokens_per_round: Numeric,
) -> Numeric:
    """Seconds of the engine in a round, or in a plain step with the drafter loaded; arguments broadcast. [s]

    Parameters
    ----------
    layers : of the target. [1]
    steps : the target's plain step without a drafter, and its verification. [s]
    draft, draft_passes : one draft pass, and how many there are. [s], [1]

    Notes
    -----
    With ``l = piecewise_layer * layers``: a round takes ``round + round_row * batch + l`` on top of its
    passes, a plain step ``loaded_off * baseline + l``. A share ``d = discarded_rounds`` of the rounds, which
    a joining prefill cuts short, yields one token; counted in time, a round takes
    ``tokens / (1 + (1 - d)(tokens - 1))`` as long. Measured in vLLM issues 49548 and 49986.
    """
    per_round = engine.round_s + engine.round_row_s * np.asarray(batch)
    drafting = np.asarray(gamma) > 0
    figures = (engine.piecewise_layer_s, engine.loaded_off, engine.discarded_rounds)
    if not any(np.any(figure) for figure in figures):  # most engines: arrays of fewer axes
        return np.where(drafting, per_round, 0.0)
    pieces = engine.piecewise_layer_s * layers
    kept = 1.0 + (1.0 - np.asarray(engine.discarded_rounds)) * (np.asarray(tokens_per_round) - 1.0)
    passes = np.asarray(draft_passes) * draft.total + steps.verify.total
    speculated = (passes + per_round + pieces) * np.asarray(tokens_per_round) / kept - passes
    return np.where(drafting, speculated, engine.loaded_off * steps.baseline.total + pieces)


def idle_share(engine: EngineOverhead, layers: int, baseline: Numeric) -> Numeric:
    """How much longer a plain step takes with a drafter loaded than without one. [1]"""
    return engine.loaded_off + engine.piecewise_layer_s * layers / np.asarray(baseline)


def idles_slower(engine: EngineOverhead) -> bool:
    """Whether a loaded drafter makes plain steps longer in this engine."""
    return bool(np.any(engine.loaded_off) or np.any(engine.piecewise_layer_s))
