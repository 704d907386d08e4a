"""What the kernels of a round compute and move on each GPU, beside the seconds they are priced at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.latency import StepLatency
from perfmodel.memory import kv_bytes_per_gpu
from perfmodel.model import ModelSpec
from perfmodel.speculation import Drafter, copied_fraction, price_round

__all__ = ["Operation", "count_attention", "count_linear", "operations"]

FloatArray = NDArray[np.float64]


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


def count_linear(
    model: ModelSpec, *, tokens: Numeric, tensor_parallel: Numeric = 1.0
) -> tuple[Numeric, Numeric]:
    """FLOPs and weight bytes of the linear layers in a pass of `tokens` rows, on one GPU. [FLOP], [B]

    ``2 rows n k`` per matrix that a row visits; all arguments broadcast.
    """
    gpus = np.asarray(tensor_parallel, dtype=float)
    matrices = sum(
        layer.count * (layer.experts_per_token or 1) * layer.n_per_gpu(gpus) * layer.k_per_gpu(gpus)
        for layer in model.linears
    )
    return 2.0 * np.asarray(tokens) * matrices, model.weight_bytes_read(tokens) / gpus


def count_attention(
    model: ModelSpec,
    *,
    batch: Numeric,
    kv_tokens: Numeric,
    query_tokens: Numeric = 1.0,
    kv_fraction: Numeric = 1.0,
    tensor_parallel: Numeric = 1.0,
) -> tuple[Numeric, Numeric]:
    """FLOPs and cache bytes of attention in one pass, on one GPU. [FLOP], [B]

    ``2 rows heads kv_tokens (score_dim + value_dim)`` per layer; the cache is read once for all queries of a
    sequence. All arguments broadcast.
    """
    gpus = np.asarray(tensor_parallel, dtype=float)
    work: Numeric = np.zeros(())
    for layers in model.attentions:
        read = kv_tokens if layers.window is None else np.minimum(kv_tokens, layers.window)
        heads = np.maximum(layers.heads / gpus, 1.0)
        work = work + layers.count * heads * np.asarray(read) * (layers.score_dim + layers.value_dim)
    moved = np.asarray(batch) * kv_bytes_per_gpu(model, kv_tokens, gpus) * kv_fraction
    return 2.0 * np.multiply(batch, query_tokens) * work, moved


def operations(
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
) -> list[Operation]:
    """Linear layers and attention of a plain step, of one draft pass and of the verification.

    Arguments as `price_round`, and they broadcast; a drafter of None gives the plain step only.
    """
    priced = price_round(
        hardware, target, engine, drafter, batch=batch, context_len=context_len, kv_budget=kv_budget,
        gamma=gamma, tensor_parallel=tensor_parallel,
    )  # fmt: skip
    found = _in_pass(
        "plain step",
        target,
        priced.baseline,
        batch=batch,
        kv_tokens=context_len,
        tensor_parallel=tensor_parallel,
    )
    if drafter is None:
        return found
    counts = drafter.strategy.draft_pass(
        context_len=context_len, kv_budget=kv_budget, gamma=gamma, drafter=drafter.kind
    )
    weights = drafter.weights(target, counts)
    if weights is not None:
        found += _in_pass(
            "draft pass", weights, priced.draft, batch=batch, query_tokens=counts.query_tokens,
            kv_tokens=np.add(counts.kv_tokens, counts.selection_kv_tokens), tensor_parallel=tensor_parallel,
            weight_fraction=copied_fraction(counts.weight_fraction, weights.weight_dtype),
            kv_fraction=copied_fraction(counts.kv_fraction, weights.kv_dtype),
        )  # fmt: skip
    return found + _in_pass(
        "verification", target, priced.verify, batch=batch, query_tokens=np.asarray(gamma, dtype=float) + 1.0,
        kv_tokens=context_len, tensor_parallel=tensor_parallel,
    )  # fmt: skip


def _in_pass(
    phase: str,
    model: ModelSpec,
    seconds: StepLatency,
    *,
    batch: Numeric,
    kv_tokens: Numeric,
    query_tokens: Numeric = 1.0,
    tensor_parallel: Numeric = 1.0,
    weight_fraction: Numeric = 1.0,
    kv_fraction: Numeric = 1.0,
) -> list[Operation]:
    """The two kinds of kernels of one pass, with the seconds that it was priced at."""
    rows = np.multiply(batch, query_tokens)
    flops, weights = count_linear(model, tokens=rows, tensor_parallel=tensor_parallel)
    work, entries = count_attention(
        model, batch=batch, kv_tokens=kv_tokens, query_tokens=query_tokens, kv_fraction=kv_fraction,
        tensor_parallel=tensor_parallel,
    )  # fmt: skip
    return [
        Operation(phase, "linear layers", flops, np.multiply(weights, weight_fraction), seconds.linear),
        Operation(phase, "attention", work, entries, seconds.attention),
    ]
