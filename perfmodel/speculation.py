"""One draft-verify round: what it costs, what it yields, and what plain decoding would have cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import numpy as np

from perfmodel.acceptance import Acceptance, expected_tokens
from perfmodel.deployment import Drafter
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.latency import StepLatency, step_latency
from perfmodel.memory import ResidentMemory, resident_memory
from perfmodel.model import BYTES, ModelSpec

__all__ = [
    "FREE", "Configuration", "Drafter", "Round", "TargetSteps",
    "copied_fraction", "idle_share", "idles_slower", "price_round", "round_overhead", "target_steps",
]  # fmt: skip

FREE = StepLatency(0.0, 0.0, 0.0, 0.0)


class Configuration(TypedDict, total=False):
    """The arguments of `price_round` that say what is priced; all broadcast."""

    batch: Numeric
    context_len: Numeric
    kv_budget: Numeric
    gamma: Numeric
    tensor_parallel: Numeric


@dataclass(frozen=True)
class Round:
    """Cost and yield of one round; every field broadcasts, shapes are joined only where they must be.

    ``draft`` is one draft pass, ``verify`` the verification of ``gamma + 1`` tokens, ``baseline`` one plain
    decode step of the target at the same batch and context, ``overhead`` the engine's seconds per round. [s]
    """

    gamma: Numeric
    passes: Numeric
    batch: Numeric
    draft: StepLatency
    verify: StepLatency
    baseline: StepLatency
    overhead: Numeric
    tokens_per_round: Numeric
    memory: ResidentMemory
    acceptance: Acceptance | None = None

    @property
    def draft_s(self) -> Numeric:
        """Seconds of the draft phase: all draft passes of the round. [s]"""
        return np.asarray(self.passes) * self.draft.total

    @property
    def round_s(self) -> Numeric:
        """Seconds of one round, ``gamma T_D + T_V + overhead`` (MagicDec section 3.1). [s]"""
        return self.draft_s + self.verify.total + self.overhead

    @property
    def tpot(self) -> Numeric:
        """Seconds per output token of one sequence, the round over its tokens. [s]"""
        return self.round_s / self.tokens_per_round

    @property
    def throughput(self) -> Numeric:
        """Output tokens per second of the whole batch. [tokens/s]"""
        return self.batch / self.tpot

    @property
    def speedup(self) -> Numeric:
        """Plain decode step over seconds per token; exactly 1 at gamma 0. [1]"""
        return self.baseline.total / self.tpot

    @property
    def draft_ratio(self) -> Numeric:
        """T_D / T_T. [1]"""
        return self.draft.total / self.baseline.total

    @property
    def verify_ratio(self) -> Numeric:
        """T_V / T_T. [1]"""
        return self.verify.total / self.baseline.total

    @property
    def break_even_tokens(self) -> Numeric:
        """Tokens per round above which speculation pays: ``round / baseline``. [tokens]"""
        return self.round_s / self.baseline.total


@dataclass(frozen=True)
class TargetSteps:
    """The target's own two passes, which all drafters share: a plain decode step and the verification. [s]"""

    baseline: StepLatency
    verify: StepLatency


def target_steps(
    hardware: HardwareProfile,
    target: ModelSpec,
    engine: EngineOverhead,
    *,
    batch: Numeric,
    context_len: Numeric,
    gamma: Numeric,
    tensor_parallel: Numeric = 1.0,
) -> TargetSteps:
    """Price one plain decode step and one verification of ``gamma + 1`` tokens; arguments broadcast. [s]"""
    step = partial(
        step_latency,
        hardware,
        target,
        engine,
        batch=batch,
        kv_tokens=context_len,
        tensor_parallel=tensor_parallel,
    )
    return TargetSteps(baseline=step(), verify=step(query_tokens=np.asarray(gamma, dtype=float) + 1.0))


def price_round(
    hardware: HardwareProfile,
    target: ModelSpec,
    engine: EngineOverhead,
    drafter: Drafter | None,
    *,
    batch: Numeric,
    context_len: Numeric,
    kv_budget: Numeric = np.inf,
    gamma: Numeric = 0.0,
    tensor_parallel: Numeric = 1.0,
    alpha: Numeric | Acceptance | None = None,
    tokens_per_round: Numeric | None = None,
    deviations: Numeric = 0.0,
    steps: TargetSteps | None = None,
) -> Round:
    """Price one draft-verify round of every configuration; all arguments broadcast.

    Parameters
    ----------
    drafter : who drafts, or None for plain decoding, which is priced at gamma 0.
    batch, context_len, kv_budget, gamma, tensor_parallel : the configuration, in the package's axis order.
        [sequences], [tokens], [tokens], [tokens], [GPUs]
    alpha : acceptance rate of one drafted token, or a whole `Acceptance`; the strategy's published or assumed
        law when absent. [0..1]
    tokens_per_round : measured tokens per round, bonus included; overrides `alpha`. [1..gamma+1]
    deviations : standard deviations by which acceptance is above its expectation. [1]
    steps : the target's passes where they are priced already; every drafter shares them.

    Returns
    -------
    Round
        Terms are kept on the axes they depend on; gamma 0 is plain decoding with speedup exactly 1, less what
        the engine charges for a loaded drafter.

    Notes
    -----
    MagicDec (arXiv 2408.11049) section 3.1: ``T_SD = (gamma T_D + T_V(gamma)) / Omega(gamma, alpha)``.
    """
    if steps is None:
        steps = target_steps(
            hardware,
            target,
            engine,
            batch=batch,
            context_len=context_len,
            gamma=gamma,
            tensor_parallel=tensor_parallel,
        )
    if drafter is None:
        memory = resident_memory(
            hardware, target, engine, batch=batch, context_len=context_len, tensor_parallel=tensor_parallel
        )
        return Round(0.0, 0.0, batch, FREE, steps.baseline, steps.baseline, 0.0, 1.0, memory)
    draft_pass = drafter.strategy.draft_pass(
        context_len=context_len, kv_budget=kv_budget, gamma=gamma, drafter=drafter.kind
    )
    weights = drafter.weights(target, draft_pass)
    draft = FREE
    if weights is not None:
        draft = step_latency(
            hardware,
            weights,
            engine,
            batch=batch,
            query_tokens=draft_pass.query_tokens,
            kv_tokens=draft_pass.kv_tokens,
            tensor_parallel=tensor_parallel,
            weight_fraction=copied_fraction(draft_pass.weight_fraction, weights.weight_dtype),
            kv_fraction=copied_fraction(draft_pass.kv_fraction, weights.kv_dtype),
            selection_kv_tokens=draft_pass.selection_kv_tokens,
            drafting=True,
        )
    acceptance = None
    if tokens_per_round is None:
        if alpha is None:
            acceptance = drafter.acceptance(target, context_len=context_len, kv_budget=kv_budget)
        else:
            acceptance = alpha if isinstance(alpha, Acceptance) else Acceptance.given(alpha)
        tokens_per_round = expected_tokens(acceptance.shifted(deviations), gamma)
    extra = drafter.extra_model(target)
    memory = resident_memory(
        hardware,
        target,
        engine,
        batch=batch,
        context_len=context_len,
        gamma=gamma,
        tensor_parallel=tensor_parallel,
        draft=extra,
        draft_resident_kv_tokens=draft_pass.resident_kv_tokens,
        draft_kv_fraction=copied_fraction(draft_pass.kv_fraction, (extra or target).kv_dtype),
        draft_weight_fraction=copied_fraction(draft_pass.resident_weight_fraction, target.weight_dtype),
    )
    speculating = np.asarray(gamma) > 0
    return Round(
        gamma=gamma,
        passes=draft_pass.passes,
        batch=batch,
        draft=draft,
        verify=steps.verify,
        baseline=steps.baseline,
        overhead=round_overhead(
            engine,
            target.num_layers,
            batch=batch,
            gamma=gamma,
            steps=steps,
            draft=draft,
            draft_passes=draft_pass.passes,
            tokens_per_round=tokens_per_round,
        ),
        tokens_per_round=np.where(speculating, tokens_per_round, 1.0),
        memory=memory,
        acceptance=acceptance,
    )


def copied_fraction(fraction: Numeric, dtype: str) -> Numeric:
    """Bytes of a copy in that fraction of 16 bits, relative to its original of `dtype` and no wider."""
    relative: Numeric = np.where(
        np.less(fraction, 1.0), np.minimum(np.multiply(fraction, 2.0 / BYTES[dtype]), 1.0), fraction
    )
    return relative


def round_overhead(
    engine: EngineOverhead,
    layers: int,
    *,
    batch: Numeric,
    gamma: Numeric,
    steps: TargetSteps,
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
