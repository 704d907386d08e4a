"""Seconds of one forward pass, by cause: the kernels summed over a model's layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.latency.kernels import all_reduce, attention, linear
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
    def bound_by(self) -> NDArray[np.str_]:
        """Name of the largest cause, one of `CAUSES`, per element."""
        stacked = np.stack(np.broadcast_arrays(*(getattr(self, cause) for cause in CAUSES)))
        largest: NDArray[np.str_] = np.asarray(CAUSES)[np.argmax(stacked, axis=0)]
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

    def entries(window: int | None) -> Numeric:
        """Entries that a layer reads, chosen or not: at most the union of its queries' windows."""
        wanted = np.add(kv_tokens, selection_kv_tokens)
        return wanted if window is None else np.minimum(wanted, window + np.subtract(query_tokens, 1.0))

    return _forward_pass(
        hardware,
        model,
        engine,
        batch=batch,
        query_tokens=query_tokens,
        logit_tokens=query_tokens,
        entries=entries,
        tensor_parallel=tensor_parallel,
        weight_fraction=weight_fraction,
        kv_fraction=kv_fraction,
        drafting=drafting,
    )


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

    With `kv_tokens` (history plus this chunk) it prices one chunk of a chunked prefill. Every query reads
    itself and all before it, in a sliding-window layer at most the window; logits are computed for the last
    token of each sequence only, as engines do.
    """
    chunk = np.asarray(prompt_tokens, dtype=float)
    history = np.zeros(()) if kv_tokens is None else np.maximum(np.subtract(kv_tokens, chunk), 0.0)

    def entries(window: int | None) -> Numeric:
        """Mean entries that a query of the chunk reads: the first queries all, the rest their window."""
        whole = chunk if window is None else np.clip(window - history, 0.0, chunk)
        beyond = 0.0 if window is None else (chunk - whole) * window
        mean: Numeric = (whole * (history + (whole + 1.0) / 2.0) + beyond) / chunk
        return mean

    return _forward_pass(
        hardware,
        model,
        engine,
        batch=batch,
        query_tokens=chunk,
        logit_tokens=1.0,
        entries=entries,
        tensor_parallel=tensor_parallel,
    )


def _forward_pass(
    hardware: HardwareProfile,
    model: ModelSpec,
    engine: EngineOverhead,
    *,
    batch: Numeric,
    query_tokens: Numeric,
    logit_tokens: Numeric,
    entries: Callable[[int | None], Numeric],
    tensor_parallel: Numeric,
    weight_fraction: Numeric = 1.0,
    kv_fraction: Numeric = 1.0,
    drafting: bool = False,
) -> StepLatency:
    """Sum the kernels over the layers; `entries` tells how many entries a layer of that window reads."""
    rows = np.multiply(batch, query_tokens)
    logit_rows = np.multiply(batch, logit_tokens)  # those that decode: the row figures were fitted to them
    tp = np.asarray(tensor_parallel, dtype=float)
    linear_s: Numeric = np.zeros(())
    for layer in model.linears:
        linear_s = linear_s + layer.count * _linear_layer(
            hardware,
            layer,
            rows=logit_rows if layer.name == "lm_head" else rows,
            tensor_parallel=tp,
            weight_fraction=weight_fraction,
        )
    attention_s: Numeric = np.zeros(())
    for layers in model.attentions:
        attention_s = attention_s + layers.count * _attention_layers(
            hardware,
            engine,
            layers,
            batch=batch,
            query_tokens=query_tokens,
            kv_tokens=entries(layers.window),
            tensor_parallel=tp,
            kv_dtype=model.kv_dtype,
            kv_fraction=kv_fraction,
        )
    message = rows * (model.hidden_size * BYTES["bf16"])
    communication_s = (2 * model.num_layers) * all_reduce(
        hardware, bytes=message, gpus=tp, implementation=_all_reduce_used(hardware, engine)
    )
    row_s = engine.row_layer_s * logit_rows + (engine.draft_row_layer_s * batch if drafting else 0.0)
    overhead_s = engine.forward_s + model.num_layers * (engine.layer_s + row_s)
    return StepLatency(linear_s, attention_s, communication_s, overhead_s)


def _all_reduce_used(hardware: HardwareProfile, engine: EngineOverhead) -> str:
    """All-reduce that an engine ends up with: kernels of its own need every GPU linked to every other.

    Over PCIe engines fall back to NCCL: vLLM beyond two GPUs, PyTorch's symmetric memory always.
    """
    fallback = hardware.link_kind.lower().startswith("pcie") and not engine.all_reduce.startswith("nccl")
    return "nccl" if fallback else engine.all_reduce


def _linear_layer(
    hardware: HardwareProfile,
    layer: LinearLayer,
    *,
    rows: Numeric,
    tensor_parallel: NDArray[np.float64],
    weight_fraction: Numeric,
) -> Numeric:
    """Seconds of one GPU's share of a linear layer; experts are one product over the distinct ones.

    Every expert walks its own reduction, so many of them are never faster than those of one token.
    """
    n, k = layer.n_per_gpu(tensor_parallel), layer.k_per_gpu(tensor_parallel)
    price = partial(linear, hardware, k=k, dtype=layer.dtype, weight_fraction=weight_fraction, cold=True)
    if not layer.experts:
        return price(tokens=rows, n=n)
    distinct = layer.distinct_experts(rows)
    visits = np.multiply(rows, layer.experts_per_token)
    return np.maximum(
        price(tokens=visits / distinct, n=n * distinct), price(tokens=1.0, n=n * layer.experts_per_token)
    )


def _attention_layers(
    hardware: HardwareProfile,
    engine: EngineOverhead,
    layers: AttentionLayers,
    *,
    batch: Numeric,
    query_tokens: Numeric,
    kv_tokens: Numeric,
    tensor_parallel: NDArray[np.float64],
    kv_dtype: str,
    kv_fraction: Numeric,
) -> Numeric:
    """Seconds of one attention layer on one GPU: heads are shared, KV heads copied beyond their number.

    The other layers have flushed its cache entries out of L2 since the last pass, so they are read cold.
    """
    kv_heads = np.maximum(layers.kv_heads / tensor_parallel, 1.0)
    heads = np.maximum(layers.heads / tensor_parallel, 1.0)
    # Latent attention stores one vector for keys and values: half of it counts as the key, and the heads are
    # scaled so that the FLOPs per entry, 2 heads (score_dim + value_dim), stay what they are.
    entry = layers.kv_elements / (2.0 * layers.kv_heads)
    work = (layers.score_dim + layers.value_dim) / (2.0 * entry)
    return attention(
        hardware,
        batch=batch,
        query_tokens=query_tokens,
        kv_tokens=kv_tokens,
        heads=heads * work,
        kv_heads=kv_heads,
        head_dim=entry,
        kv_dtype=kv_dtype,
        kv_fraction=kv_fraction,
        kernel=engine.attention_kernel,
        cold=True,
    )
