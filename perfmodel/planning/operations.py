"""What the kernels of a round compute and move on each GPU, beside the seconds they are priced at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from perfmodel.deployment import Deployment
from perfmodel.files.numbers import FloatArray, Numeric
from perfmodel.latency import ForwardPass, StepLatency
from perfmodel.latency.forward_pass import with_states
from perfmodel.model import BYTES
from perfmodel.model.launches import Attend, Recur
from perfmodel.planning.price import Priced
from perfmodel.speculation import draft_with, half_way, target_passes

__all__ = ["Operation", "PassOfRound", "count_operations", "operations", "passes_of"]


@dataclass(frozen=True)
class Operation:
    """All kernels of one kind in one forward pass, on one GPU; the numbers broadcast.

    phase : which pass. name : which kernels. flops : a multiplication and an addition count two [FLOP].
    bytes : weights or cache entries read [B]. seconds : as priced [s].
    """

    phase: str
    name: str
    flops: Numeric
    bytes: Numeric
    seconds: Numeric

    @property
    def intensity(self) -> FloatArray:
        """Arithmetic per byte moved. [FLOP/B]"""
        return np.asarray(np.divide(self.flops, self.bytes), dtype=float)

    @property
    def rate(self) -> FloatArray:
        """Arithmetic per second. [FLOP/s]"""
        return np.asarray(np.divide(self.flops, self.seconds), dtype=float)


class PassOfRound(NamedTuple):
    """A forward pass of a round: which one, of what, what it reads, how often it runs, what it takes."""

    phase: str
    deployment: Deployment
    forward: ForwardPass
    times: Numeric
    seconds: StepLatency


def passes_of(priced: Priced) -> list[PassOfRound]:
    """Return the plain step and, where somebody drafts, a draft pass if any and the verification."""
    deployment, drafter, round_ = priced.deployment, priced.drafter, priced.round
    middle = half_way(priced.context_len, priced.output_tokens)
    step, verification = target_passes(batch=priced.batch, context_len=middle, gamma=priced.gamma)
    passes = [PassOfRound("plain step", deployment, step, 1.0, round_.baseline)]
    if drafter is None:
        return passes
    half = priced.output_tokens / 2.0
    drafting = draft_with(
        deployment, drafter, batch=priced.batch, context_len=middle, kv_budget=priced.kv_budget,
        gamma=priced.gamma, generated=half, output_tokens=half,
    )  # fmt: skip
    if drafting.deployment is not None:
        passes.append(
            PassOfRound(
                "draft pass", drafting.deployment, drafting.forward, drafting.counts.passes, round_.draft
            )
        )
    return [*passes, PassOfRound("verification", deployment, verification, 1.0, round_.verify)]


def count_operations(
    deployment: Deployment, forward: ForwardPass
) -> tuple[Numeric, Numeric, Numeric, Numeric]:
    """Count FLOPs and weight bytes of the linear layers, FLOPs and cache bytes of the token mixers, on a GPU.

    ``2 rows n k`` per matrix that a row visits; ``2 rows heads entries (key_dim + value_dim)`` per attention
    layer; states, where layers keep some. Shapes on a GPU and what is read are those that
    `perfmodel.latency.price_pass` prices. [FLOP], [B], [FLOP], [B]
    """
    model, gpus = deployment.model, np.asarray(deployment.tensor_parallel, dtype=float)
    forward = with_states(deployment.engine, forward)
    visited, weights, work, cache = (np.zeros(()) for _ in range(4))
    for layer in model.linears:
        rows, times = forward.runs(layer, forward.rows)
        matrix = times * layer.count * layer.elements_per_gpu(gpus)
        visited = visited + np.asarray(rows) * (layer.experts_per_token or 1) * matrix
        weights = weights + layer.distinct_experts(rows) * matrix * layer.stored_bytes
    for mixer, count in model.token_mixers:
        for launch in mixer.ways(forward)[0]:
            if isinstance(launch, Attend):
                work = work + count * launch.flops(gpus)
                entry_bytes = BYTES[model.kv_dtype] * forward.kv_fraction
                cache = cache + count * launch.elements(gpus) * entry_bytes
            elif isinstance(launch, Recur):
                work = work + count * launch.flops / launch.shards(gpus)
                cache = cache + count * launch.bytes_moved(gpus)
    return (
        2.0 * visited,
        weights * forward.weight_fraction,
        np.asarray(forward.batch) * work,
        np.asarray(forward.batch) * cache,
    )


def operations(priced: Priced) -> list[Operation]:
    """Return the linear layers and the attention of every pass of `passes_of`."""
    kinds = []
    for phase, deployment, forward, _, seconds in passes_of(priced):
        flops, weights, work, cache = count_operations(deployment, forward)
        kinds.append(Operation(phase, "linear layers", flops, weights, seconds.linear))
        kinds.append(Operation(phase, "attention", work, cache, seconds.attention))
    return kinds
