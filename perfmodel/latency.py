"""Seconds of one forward pass, by cause: the kernels of `perfmodel.kernels` summed over a model's layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.kernels import all_reduce, attention, linear
from perfmodel.model import BYTES, AttentionLayers, LinearLayer, ModelSpec

__all__ = ["CAUSES", "StepLatency", "all_reduce", "attention", "linear", "prefill_latency", "step_latency"]

CAUSES = ("linear", "attention", "communication", "overhead")


@dataclass(frozen=True)
class StepLatency:
    """Seconds of one forward pass split by cause; every field broadcasts against the others. [s]"""

    linear: Numeric
    attention: Numeric
    communication: Numeric
    overhead: Numeric

    @property
    def total(self) -> Numeric:
        """Seconds of the whole pass: the causes do not overlap. [s]"""
        return self.linear + self.attention + self.communication + self.overhead

    @property
    def bound_by(self) -> np.ndarray:
        """Name of the largest cause, one of `CAUSES`, per element."""
        stacked = np.stack(np.broadcast_arrays(*(getattr(self, cause) for cause in CAUSES)))
        largest: np.ndarray = np.asarray(CAUSES)[np.argmax(stacked, axis=0)]
        return largest


def step_latency(
    hardware: HardwareProfile,
    model: ModelSpec,
    engine: EngineOverhead,
    *,
    batch: Numeric,
    query_tokens: Numeric = 1.0,
    kv_tokens: Numeric,
    tensor_parallel: Numeric = 1.0,
    weight_fraction: Numeric = 1.0,
    kv_fraction: Numeric = 1.0,
    selection_kv_tokens: Numeric = 0.0,
    drafting: bool = False,
) -> StepLatency:
    """Seconds of one forward pass of `model`, by cause; all arguments broadcast.

    One query token is a decode step, ``gamma + 1`` query tokens are a verification: the KV cache is read once
    for all of them, the query rows are padded to the attention kernel's tile and the linear layers see
    ``batch * query_tokens`` rows.

    Parameters
    ----------
    batch, query_tokens : sequences, and tokens per sequence that enter the pass. [1], [tokens]
    kv_tokens : cache entries that each sequence's queries may read, the new ones included. [tokens]
    tensor_parallel : GPUs that share every layer; KV heads are replicated beyond their number. [GPUs]
    weight_fraction, kv_fraction : bytes of a weight, of a cache entry, relative to the model's dtypes. [1]
    selection_kv_tokens : further entries read per sequence to choose what attention may see. [tokens]
    drafting : whether it is a draft pass, whose cache of its own the engine keeps up. [bool]

    Returns
    -------
    StepLatency
        Broadcast to the joint shape only where the causes are added. [s]

    Notes
    -----
    MagicDec (arXiv 2408.11049) section 3: ``T = T_linear + T_attention``, here with the communication of
    tensor parallelism and the engine's own time, which the paper's model leaves out.
    """
    rows = batch * query_tokens
    tp = np.asarray(tensor_parallel, dtype=float)
    linear_s = sum(
        (
            layer.count
            * _linear_layer(hardware, layer, rows=rows, tensor_parallel=tp, weight_fraction=weight_fraction)
            for layer in model.linears
        ),
        start=np.zeros(()),
    )
    attention_s = sum(
        (
            layers.count
            * _attention_layers(
                hardware,
                engine,
                layers,
                model=model,
                batch=batch,
                query_tokens=query_tokens,
                kv_tokens=kv_tokens,
                selection_kv_tokens=selection_kv_tokens,
                tensor_parallel=tp,
                kv_fraction=kv_fraction,
            )
            for layers in model.attentions
        ),
        start=np.zeros(()),
    )
    message = rows * (model.hidden_size * BYTES["bf16"])
    communication_s = (2 * model.num_layers) * all_reduce(
        hardware, bytes=message, gpus=tp, implementation=engine.all_reduce
    )
    row_s = engine.row_layer_s * rows + (engine.draft_row_layer_s * batch if drafting else 0.0)
    overhead_s = engine.forward_s + model.num_layers * (engine.layer_s + row_s)
    return StepLatency(linear_s, attention_s, communication_s, overhead_s)


def prefill_latency(
    hardware: HardwareProfile,
    model: ModelSpec,
    engine: EngineOverhead,
    *,
    batch: Numeric,
    prompt_tokens: Numeric,
    kv_tokens: Numeric | None = None,
    tensor_parallel: Numeric = 1.0,
) -> StepLatency:
    """Seconds to prefill `prompt_tokens` per sequence, by cause; all arguments broadcast.

    With `kv_tokens` (history plus this chunk) it prices one chunk of a chunked prefill. A causal pass reads
    half of its own square on average, so the queries see ``kv_tokens - prompt_tokens / 2`` entries.
    """
    history = 0.0 if kv_tokens is None else np.maximum(np.subtract(kv_tokens, prompt_tokens), 0.0)
    return step_latency(
        hardware,
        model,
        engine,
        batch=batch,
        query_tokens=prompt_tokens,
        kv_tokens=history + (np.asarray(prompt_tokens) + 1.0) / 2.0,
        tensor_parallel=tensor_parallel,
    )


def _linear_layer(
    hardware: HardwareProfile,
    layer: LinearLayer,
    *,
    rows: Numeric,
    tensor_parallel: np.ndarray,
    weight_fraction: Numeric,
) -> Numeric:
    """Seconds of one GPU's share of a linear layer; experts are one product over the distinct ones."""
    n, k = layer.n_per_gpu(tensor_parallel), layer.k_per_gpu(tensor_parallel)
    tokens = rows
    if layer.experts:
        distinct = layer.distinct_experts(rows)
        tokens = np.asarray(rows) * layer.experts_per_token / distinct
        n = n * distinct
    return linear(
        hardware, tokens=tokens, n=n, k=k, dtype=layer.dtype, weight_fraction=weight_fraction, cold=True
    )


def _attention_layers(
    hardware: HardwareProfile,
    engine: EngineOverhead,
    layers: AttentionLayers,
    *,
    model: ModelSpec,
    batch: Numeric,
    query_tokens: Numeric,
    kv_tokens: Numeric,
    selection_kv_tokens: Numeric,
    tensor_parallel: np.ndarray,
    kv_fraction: Numeric,
) -> Numeric:
    """Seconds of one attention layer on one GPU: heads are shared, KV heads copied beyond their number."""
    kv_heads = np.maximum(layers.kv_heads / tensor_parallel, 1.0)
    heads = np.maximum(layers.heads / tensor_parallel, 1.0)
    entry = layers.kv_elements / (
        2.0 * layers.kv_heads
    )  # elements per key, as if keys and values were stored apart
    work = (layers.score_dim + layers.value_dim) / (
        2.0 * entry
    )  # FLOPs per stored element against plain heads
    seen = (
        kv_tokens
        if layers.window is None
        else np.minimum(kv_tokens, layers.window + np.subtract(query_tokens, 1))
    )
    return attention(
        hardware,
        batch=batch,
        query_tokens=query_tokens,
        kv_tokens=np.add(seen, selection_kv_tokens),
        heads=heads * work,
        kv_heads=kv_heads,
        head_dim=entry,
        kv_dtype=model.kv_dtype,
        kv_fraction=kv_fraction,
        kernel=engine.attention_kernel,
    )
