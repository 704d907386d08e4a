"""What the kernels of a round compute and move on each GPU, beside the seconds they are priced at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from perfmodel.deployment import Deployment
from perfmodel.files.numbers import FloatArray, Numeric
from perfmodel.latency import ForwardPass, StepLatency
from perfmodel.memory import kv_bytes_per_gpu
from perfmodel.planning.price import Priced
from perfmodel.speculation import draft_with

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
    asked = priced.configuration
    step = ForwardPass(batch=priced.batch, kv_tokens=asked["context_len"])
    passes = [PassOfRound("plain step", deployment, step, 1.0, round_.baseline)]
    if drafter is None:
        return passes
    drafting = draft_with(deployment, drafter, **asked)
    if drafting.deployment is not None:
        passes.append(
            PassOfRound(
                "draft pass", drafting.deployment, drafting.forward, drafting.counts.passes, round_.draft
            )
        )
    verification = replace(step, query_tokens=priced.gamma + 1.0)
    return [*passes, PassOfRound("verification", deployment, verification, 1.0, round_.verify)]


def count_operations(
    deployment: Deployment, forward: ForwardPass
) -> tuple[Numeric, Numeric, Numeric, Numeric]:
    """Count FLOPs and weight bytes of the linear layers, FLOPs and cache bytes of attention, on one GPU.

    ``2 rows n k`` per matrix that a row visits; ``2 rows heads kv_tokens (score_dim + value_dim)`` per
    attention layer, whose cache is read once for all queries of a sequence. [FLOP], [B], [FLOP], [B]
    """
    model, gpus = deployment.model, np.asarray(deployment.tensor_parallel, dtype=float)
    matrices = sum(
        layer.count * (layer.experts_per_token or 1) * layer.n_per_gpu(gpus) * layer.k_per_gpu(gpus)
        for layer in model.linears
    )
    read = np.add(forward.kv_tokens, forward.selection_kv_tokens)
    work: Numeric = np.zeros(())
    for layers in model.attentions:
        entries = read if layers.window is None else np.minimum(read, layers.window)
        heads = np.maximum(layers.heads / gpus, 1.0)
        work = work + layers.count * heads * entries * (layers.score_dim + layers.value_dim)
    weights = model.weight_bytes_read(forward.rows) / gpus * forward.weight_fraction
    cache = np.asarray(forward.batch) * kv_bytes_per_gpu(model, read, gpus) * forward.kv_fraction
    return 2.0 * np.asarray(forward.rows) * matrices, weights, 2.0 * np.asarray(forward.rows) * work, cache


def operations(priced: Priced) -> list[Operation]:
    """Return the linear layers and the attention of every pass of `passes_of`."""
    kinds = []
    for phase, deployment, forward, _, seconds in passes_of(priced):
        flops, weights, work, cache = count_operations(deployment, forward)
        kinds.append(Operation(phase, "linear layers", flops, weights, seconds.linear))
        kinds.append(Operation(phase, "attention", work, cache, seconds.attention))
    return kinds
