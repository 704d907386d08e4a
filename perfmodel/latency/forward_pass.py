"""Seconds of one forward pass, by cause: the kernels summed over a model's layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.latency.all_reduce import all_gather, all_reduce
from perfmodel.latency.attention import attention
from perfmodel.latency.linear import linear
from perfmodel.model import BYTES, AttentionLayers, LinearLayer, ModelSpec

__all__ = [
    "CAUSES", "ForwardPass", "StepLatency", "prefill_latency", "price_pass", "price_prefill", "step_latency",
]  # fmt: skip

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

    def scale(self, factor: Numeric) -> StepLatency:
        """Return the pass with every cause `factor` times as long. [1]"""
        return StepLatency(*(getattr(self, cause) * factor for cause in CAUSES))


@dataclass(frozen=True, kw_only=True)
class ForwardPass:
    """What one forward pass runs through and reads; every field broadcasts against the others.

    Parameters
    ----------
    batch : sequences. [1]
    kv_tokens : cache entries that each sequence's queries may read, the new ones included. [tokens]
    query_tokens : tokens per sequence that enter the pass: 1 in a decode step, gamma + 1 in a verification.
        [tokens]
    weight_fraction, kv_fraction : bytes of a weight, of a cache entry, relative to the model's dtypes. [1]
    selection_kv_tokens : further entries read per sequence to choose what attention may see. [tokens]
    selection_launches : further kernels launched in each attention layer that chooses. [launches]
    drafting : whether it is a draft pass, whose cache of its own the engine keeps up.
    """

    batch: Numeric
    kv_tokens: Numeric
    query_tokens: Numeric = 1.0
    weight_fraction: Numeric = 1.0
    kv_fraction: Numeric = 1.0
    selection_kv_tokens: Numeric = 0.0
    selection_launches: Numeric = 0.0
    drafting: bool = False

    @property
    def rows(self) -> Numeric:
        """Tokens of all sequences, the rows of a linear layer. [tokens]"""
        return np.multiply(self.batch, self.query_tokens)

    def entries(self, window: int | None) -> Numeric:
        """Entries that a layer of that window reads: at most the union of its queries' windows. [tokens]"""
        wanted = np.add(self.kv_tokens, self.selection_kv_tokens)
        return wanted if window is None else np.minimum(wanted, window + np.subtract(self.query_tokens, 1.0))


def price_pass(deployment: Deployment, forward: ForwardPass) -> StepLatency:
    """Price one forward pass of the deployment's model, by cause. [s]

    The KV cache is read once for all queries of a sequence, the query rows are padded to the attention
    kernel's tile and the linear layers see ``batch * query_tokens`` rows. Terms are broadcast to the joint
    shape only where the causes are added.

    Notes
    -----
    MagicDec (arXiv 2408.11049) section 3: ``T = T_linear + T_attention``, here with the communication of
    tensor parallelism and the engine's own time, which the paper's model leaves out.
    """
    return _price_layers(deployment, forward, logit_tokens=forward.query_tokens, entries=forward.entries)


def price_prefill(
    deployment: Deployment, *, batch: Numeric, prompt_tokens: Numeric, kv_tokens: Numeric | None = None
) -> StepLatency:
    """Price a prefill, or one chunk of it, by cause; arguments as in `prefill_latency`. [s]

    Latent attention computes with the keys and values of every head written out where that is faster than the
    absorbed form of decoding, as FlashMLA's engines do: ``2 heads (head_dim + head_value_dim)`` FLOPs per
    query and entry, and before them the up-projection of the history, which counts as attention
    (DeepSeek-V2, arXiv 2405.04434, section 2.1.2).
    """
    chunk = np.asarray(prompt_tokens, dtype=float)
    history = np.zeros(()) if kv_tokens is None else np.maximum(np.subtract(kv_tokens, chunk), 0.0)

    def entries(window: int | None) -> Numeric:
        """Mean entries that a query of the chunk reads: the first queries all, the rest their window."""
        whole = chunk if window is None else np.clip(window - history, 0.0, chunk)
        beyond = 0.0 if window is None else (chunk - whole) * window
        mean: Numeric = (whole * (history + (whole + 1.0) / 2.0) + beyond) / chunk
        return mean

    forward = ForwardPass(batch=batch, query_tokens=chunk, kv_tokens=history + chunk)
    return _price_layers(deployment, forward, logit_tokens=1.0, entries=entries, history=history)


def _price_layers(
    deployment: Deployment,
    forward: ForwardPass,
    *,
    logit_tokens: Numeric,
    entries: Callable[[int | None], Numeric],
    history: Numeric | None = None,
) -> StepLatency:
    """Sum the kernels over the layers.

    Parameters
    ----------
    logit_tokens : tokens of each sequence whose logits are computed. [tokens]
    entries : how many entries a layer of that window reads. [tokens]
    history : entries of each sequence before a prefill, None outside of one. [tokens]
    """
    model, engine = deployment.model, deployment.engine
    logit_rows = np.multiply(forward.batch, logit_tokens)  # they decode: row figures were fitted to them
    linear_s: Numeric = np.zeros(())
    for layer in model.linears:
        rows = logit_rows if layer.name == "lm_head" else forward.rows
        linear_s = linear_s + layer.count * _price_linear_layer(deployment, layer, forward, rows)
    attention_s: Numeric = np.zeros(())
    for layers in model.attentions:
        seconds = _between_kernels(
            deployment, partial(_price_layer, deployment, layers, forward, entries(layers.window), history)
        )
        attention_s = attention_s + layers.count * seconds
    communication_s = _price_communication(deployment, forward.rows, logit_rows)
    upkeep = engine.draft_row_layer_s * forward.batch if forward.drafting else 0.0
    row_s = engine.row_layer_s * logit_rows + upkeep
    overhead_s = engine.forward_s + model.num_layers * (engine.layer_s + row_s)
    return StepLatency(linear_s, attention_s, communication_s, overhead_s)


def _price_linear_layer(
    deployment: Deployment, layer: LinearLayer, forward: ForwardPass, rows: Numeric
) -> Numeric:
    """Price one GPU's share of a linear layer; distinct experts are that many products of one launch. [s]

    How many are distinct is an expectation: between two whole numbers of experts seconds are a line. Every
    expert walks its own reduction, so many of them are never faster than those of one token.
    """
    gpus = np.asarray(deployment.tensor_parallel, dtype=float)
    n, k = layer.n_per_gpu(gpus), layer.k_per_gpu(gpus)
    price = partial(
        linear,
        deployment.hardware,
        n=n,
        k=k,
        dtype=layer.dtype,
        weight_fraction=forward.weight_fraction,
        cold=True,
    )
    if not layer.experts:
        return price(tokens=rows)
    distinct, visits = layer.distinct_experts(rows), np.multiply(rows, layer.experts_per_token)
    fewer = np.maximum(np.floor(distinct), 1.0)
    fewer_s, more_s = (price(tokens=visits / count, products=count) for count in (fewer, fewer + 1.0))
    together = fewer_s + (distinct - fewer) * (more_s - fewer_s)
    return np.maximum(together, price(tokens=1.0, products=layer.experts_per_token))


def _between_kernels(deployment: Deployment, price: Callable[[str], Numeric]) -> Numeric:
    """Return seconds with the attention kernel that runs, or between those of two that may. [s]

    .. math::
        T = T_1^{1-share} T_2^{share}

    The first at 0 and the other at 1; between them, whatever grows with both grows.
    """
    seconds, *other = map(price, deployment.attention_kernels)
    if not other:
        return seconds
    share = deployment.engine.other_kernel_share
    between: Numeric = seconds ** np.subtract(1.0, share) * other[0] ** share
    return between


def _price_layer(
    deployment: Deployment,
    layers: AttentionLayers,
    forward: ForwardPass,
    kv_tokens: Numeric,
    history: Numeric | None,
    kernel: str,
) -> Numeric:
    """Price one attention layer on one GPU, in a prefill of latent attention by its faster form. [s]"""
    seconds = _price_attention_layer(deployment, layers, forward, kv_tokens, kernel)
    if history is None or not layers.head_value_dim:
        return seconds
    written_out = _price_written_out_layer(deployment, layers, forward, kv_tokens, history, kernel)
    return np.minimum(seconds, written_out)


def _price_attention_layer(
    deployment: Deployment, layers: AttentionLayers, forward: ForwardPass, kv_tokens: Numeric, kernel: str
) -> Numeric:
    """Price one attention layer on one GPU: heads are shared, KV heads copied beyond their number. [s]

    The other layers have flushed its cache entries out of L2 since the last pass, so they are read cold.
    Kernels that choose entries take the ``t_0`` of the attention kernel each, on top of what they read; a
    layer reads its whole sliding window where choosing in it would take longer.
    """
    gpus = np.asarray(deployment.tensor_parallel, dtype=float)
    heads = layers.heads_per_gpu(gpus)
    # Latent attention stores one vector for keys and values: half of it counts as the key, and the heads are
    # scaled so that the FLOPs per entry, 2 heads (score_dim + value_dim), stay what they are.
    entry = layers.kv_elements / (2.0 * layers.kv_heads)
    price = partial(
        attention,
        deployment.hardware,
        batch=forward.batch,
        query_tokens=forward.query_tokens,
        heads=heads * ((layers.score_dim + layers.value_dim) / (2.0 * entry)),
        kv_heads=layers.kv_heads_per_gpu(gpus),
        head_dim=entry,
        kv_dtype=deployment.model.kv_dtype,
        kv_fraction=forward.kv_fraction,
        kernel=kernel,
        cold=True,
    )
    if not np.any(forward.selection_launches):
        return price(kv_tokens=kv_tokens)
    a_launch = deployment.hardware.attention_kernel(kernel).t0
    chosen: Numeric = price(kv_tokens=kv_tokens) + forward.selection_launches * a_launch
    if layers.window is None:
        return chosen
    return np.minimum(chosen, price(kv_tokens=layers.window + np.subtract(forward.query_tokens, 1.0)))


def _price_written_out_layer(
    deployment: Deployment,
    layers: AttentionLayers,
    forward: ForwardPass,
    kv_tokens: Numeric,
    history: Numeric,
    kernel: str,
) -> Numeric:
    """Price one latent attention layer on one GPU, keys and values of every head written out. [s]

    The up-projection of the pass's own tokens is a linear layer; here it is that of the history. Half of key
    and value together counts as the width of a head, which keeps bytes and FLOPs.
    """
    heads = layers.heads_per_gpu(np.asarray(deployment.tensor_parallel, dtype=float))
    attended = attention(
        deployment.hardware,
        batch=forward.batch,
        query_tokens=forward.query_tokens,
        kv_tokens=kv_tokens,
        heads=heads,
        kv_heads=heads,
        head_dim=0.5 * (layers.head_dim + layers.head_value_dim),
        kernel=kernel,
        cold=True,
    )
    up_projection = next(layer for layer in deployment.model.linears if layer.name == "kv_b")
    rows = np.multiply(forward.batch, history)
    written = _price_linear_layer(deployment, up_projection, forward, rows)
    return attended + np.where(rows > 0, written, 0.0)


def _price_communication(deployment: Deployment, rows: Numeric, logit_rows: Numeric) -> Numeric:
    """Price what the GPUs exchange in a pass. [s]

    Every layer reduces its rows after attention and after the MLP; the embedding, which is split by
    vocabulary, once; and the logits, split alike, are gathered to be sampled from.
    """
    hardware, model = deployment.hardware, deployment.model
    gpus = np.asarray(deployment.tensor_parallel, dtype=float)
    reduced = all_reduce(
        hardware,
        bytes=np.multiply(rows, model.hidden_size * BYTES["bf16"]),
        gpus=gpus,
        implementation=deployment.all_reduce,
    )
    vocabulary = sum(layer.n for layer in model.linears if layer.name == "lm_head")
    gathered = all_gather(
        hardware,
        bytes=np.multiply(logit_rows, vocabulary * BYTES["bf16"]),
        gpus=gpus,
        implementation=deployment.all_gather,
    )
    return (2 * model.num_layers + 1) * reduced + gathered


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
    selection_launches: Numeric = 0.0,
    drafting: bool = False,
) -> StepLatency:
    """Seconds of one forward pass of `model`, by cause; all arguments broadcast. [s]

    Parameters
    ----------
    hardware, model, engine : what runs on what, under which software.
    tensor_parallel : GPUs that share every layer; KV heads are replicated beyond their number. [GPUs]
    batch, query_tokens, kv_tokens, weight_fraction, kv_fraction, selection_kv_tokens, selection_launches,
    drafting : what the pass runs through and reads, as in `ForwardPass`.
    """
    forward = ForwardPass(
        batch=batch,
        query_tokens=query_tokens,
        kv_tokens=kv_tokens,
        weight_fraction=weight_fraction,
        kv_fraction=kv_fraction,
        selection_kv_tokens=selection_kv_tokens,
        selection_launches=selection_launches,
        drafting=drafting,
    )
    return price_pass(Deployment(hardware, model, engine, tensor_parallel), forward)


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
    """Seconds to prefill, by cause; all arguments broadcast. [s]

    Every query reads itself and all before it, in a sliding-window layer at most the window; logits are
    computed for the last token of each sequence only, as engines do.

    Parameters
    ----------
    hardware, model, engine : what runs on what, under which software.
    batch : sequences. [1]
    prompt_tokens : tokens of each sequence that enter the pass. [tokens]
    kv_tokens : history and this chunk, for one chunk of a chunked prefill; no history where absent. [tokens]
    tensor_parallel : GPUs that share every layer. [GPUs]
    """
    return price_prefill(
        Deployment(hardware, model, engine, tensor_parallel),
        batch=batch,
        prompt_tokens=prompt_tokens,
        kv_tokens=kv_tokens,
    )
