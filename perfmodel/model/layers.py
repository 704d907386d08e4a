"""The matrix products and the attention layers that the sizes of a decoder amount to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from perfmodel.files.numbers import Numeric
from perfmodel.model.config import DecoderConfig, ExpertSizes, LatentSizes
from perfmodel.model.dtypes import BYTES, UNQUANTIZED
from strategies.base import HeadShape

__all__ = [
    "AttentionLayers", "LinearLayer", "attention_layers", "head_layers", "keep_evenly", "linear_layers",
]  # fmt: skip

Split: TypeAlias = Literal["column", "row", "none"]
Block: TypeAlias = Literal["attention", "mlp", "experts", "output"]

_READ_HIDDEN_STATES = ("qkv", "q", "q_a", "kv_a")
"""Products of attention whose input is the layer's own."""


@dataclass(frozen=True)
class LinearLayer:
    """One matrix product ``[tokens, k] x [k, n]`` that occurs `count` times per forward pass.

    Parameters
    ----------
    n, k : output and input width without tensor parallelism; of one expert where there are experts.
    split : tensor parallelism divides `n` (``column``), `k` (``row``, followed by an all-reduce) or nothing.
    experts, experts_per_token : how many matrices of this shape a layer holds and how many each token visits;
        0 for a dense layer.
    dtype : key of `BYTES` in which the matrix is stored.
    block : the part of the model it belongs to.
    vectors : norm and bias elements that go with each matrix; they stay unquantised.
    kv_columns, kv_heads : of a fused query-key-value product, how many of the `n` columns are keys and
        values, and of how many heads; GPUs beyond that number hold copies.
    keeps_precision : stays unquantised when the model is quantised.
    """

    name: str
    n: int
    k: int
    count: int
    split: Split
    experts: int = 0
    experts_per_token: int = 0
    dtype: str = "bf16"
    block: Block = "attention"
    vectors: int = 0
    kv_columns: int = 0
    kv_heads: int = 1
    keeps_precision: bool = False

    @property
    def parameters(self) -> int:
        """Elements of all its matrices and vectors."""
        return self.count * max(self.experts, 1) * (self.n * self.k + self.vectors)

    def distinct_experts(self, tokens: Numeric) -> Numeric:
        """Matrices read per layer by `tokens` uniformly routed tokens: ``E (1 - (1 - k/E)^tokens)``, or 1."""
        if not self.experts:
            return np.ones_like(tokens, dtype=float)
        missed = (1.0 - self.experts_per_token / self.experts) ** np.asarray(tokens, dtype=float)
        return self.experts * (1.0 - missed)

    def active_parameters(self, tokens: Numeric) -> Numeric:
        """Expected elements read in a forward pass of `tokens` tokens."""
        return self.count * (self.n * self.k + self.vectors) * self.distinct_experts(tokens)

    def weight_bytes(self, base_dtype: str) -> float:
        """Bytes of all its matrices, and of its vectors in `base_dtype`. [B]"""
        return self.count * max(self.experts, 1) * self._bytes_each(base_dtype)

    def weight_bytes_read(self, tokens: Numeric, base_dtype: str) -> Numeric:
        """Expected bytes read in a forward pass of `tokens` tokens. [B]"""
        return self.count * self._bytes_each(base_dtype) * self.distinct_experts(tokens)

    def n_per_gpu(self, tensor_parallel: Numeric) -> Numeric:
        """Output width on each of `tensor_parallel` GPUs; beyond `kv_heads` keys and values are copied."""
        shards = np.asarray(tensor_parallel, dtype=float)
        if self.split != "column":
            return np.full_like(shards, self.n)
        copied: Numeric = self.kv_columns / np.minimum(shards, self.kv_heads)
        return (self.n - self.kv_columns) / shards + copied

    def k_per_gpu(self, tensor_parallel: Numeric) -> Numeric:
        """Input width on each of `tensor_parallel` GPUs."""
        shards = np.asarray(tensor_parallel, dtype=float)
        return self.k / shards if self.split == "row" else np.full_like(shards, self.k)

    def elements_per_gpu(self, tensor_parallel: Numeric) -> Numeric:
        """Elements of one matrix on each of `tensor_parallel` GPUs, the copied columns too."""
        return self.n_per_gpu(tensor_parallel) * self.k_per_gpu(tensor_parallel)

    def stored_as(self, weights: str, base_dtype: str) -> LinearLayer:
        """Return the layer in a model whose weights are of dtype `weights` and the rest of `base_dtype`."""
        keep = self.keeps_precision and weights not in UNQUANTIZED
        return replace(self, dtype=base_dtype if keep else weights)

    def _bytes_each(self, base_dtype: str) -> float:
        return self.n * self.k * BYTES[self.dtype] + self.vectors * BYTES[base_dtype]


@dataclass(frozen=True)
class AttentionLayers:
    """`count` attention layers of one shape.

    Parameters
    ----------
    kv_heads : heads that GPUs can share the cache by; 1 under latent attention, whose cache every GPU holds.
    head_dim : width of a query head; `score_dim` and `value_dim` are the widths that a query row multiplies
        with each cache entry and accumulates from it: FLOPs per query token and entry are
        ``2 heads (score_dim + value_dim)``. They differ under latent attention (absorbed form) only.
    head_value_dim : under latent attention the width of a head's value once it is written out; its key is
        `head_dim` wide then. 0 for any other attention.
    kv_elements : elements stored per token and layer: ``2 kv_heads head_dim``, or latent plus rotary part.
    window : most recent tokens that a layer attends to, None for all.
    """

    count: int
    heads: int
    kv_heads: int
    head_dim: int
    kv_elements: int
    window: int | None
    score_dim: int
    value_dim: int
    head_value_dim: int = 0

    def heads_per_gpu(self, tensor_parallel: Numeric) -> Numeric:
        """Query heads on each of `tensor_parallel` GPUs."""
        return np.maximum(self.heads / np.asarray(tensor_parallel, dtype=float), 1.0)

    def kv_heads_per_gpu(self, tensor_parallel: Numeric) -> Numeric:
        """KV heads on each of `tensor_parallel` GPUs; beyond their number they are copied."""
        return np.maximum(self.kv_heads / np.asarray(tensor_parallel, dtype=float), 1.0)

    def kv_elements_per_gpu(self, tensor_parallel: Numeric) -> Numeric:
        """Elements that each of `tensor_parallel` GPUs stores per token and layer."""
        return self.kv_elements / self.kv_heads * self.kv_heads_per_gpu(tensor_parallel)


def attention_layers(config: DecoderConfig) -> tuple[AttentionLayers, ...]:
    """Return the attention layers grouped by window, in the order in which the windows first occur."""
    latent = config.latent
    kv_heads = 1 if latent else config.kv_heads
    shared = latent.kv_rank + latent.rope_dim if latent else 0
    return tuple(
        AttentionLayers(
            count=count,
            heads=config.heads,
            kv_heads=kv_heads,
            head_dim=config.head_dim,
            kv_elements=shared or 2 * kv_heads * config.head_dim,
            window=window,
            score_dim=shared or config.head_dim,
            value_dim=latent.kv_rank if latent else config.head_dim,
            head_value_dim=latent.value_dim if latent else 0,
        )
        for window, count in Counter(config.windows).items()
    )


def linear_layers(config: DecoderConfig) -> tuple[LinearLayer, ...]:
    """Return every matrix product of one forward pass in its order, each stored as the config says."""
    attention = _latent_products(config, config.latent) if config.latent else _attention_products(config)
    dense = config.num_layers - (config.experts.layers if config.experts else 0)
    layers = [
        *attention,
        *(_mlp_products(config, "", config.mlp_width, dense, _norms(config)[1]) if dense else ()),
        *(_expert_products(config, config.experts) if config.experts else ()),
        LinearLayer(
            name="lm_head",
            n=config.vocab_size,
            k=config.hidden_size,
            count=1,
            split="column",
            block="output",
            vectors=config.vocab_size if config.family.head_bias else 0,
            keeps_precision=True,
        ),
    ]
    dtypes = config.dtypes
    return tuple(layer.stored_as(dtypes.weights, dtypes.base) for layer in layers)


def head_layers(
    target: Sequence[LinearLayer], shape: HeadShape, *, hidden_size: int, count: int
) -> tuple[LinearLayer, ...]:
    """Return the matrix products of a draft head: one that fuses features, its layers, an output layer.

    Parameters
    ----------
    target : the products of the target, whose attention and MLP (or experts) the head repeats.
    shape : what differs from them.
    hidden_size : of the target. [1]
    count : layers of the head. [1]
    """
    has_experts = any(layer.block == "experts" for layer in target)
    width = round(shape.mlp_width * hidden_size) if has_experts and shape.mlp_width else 0
    kept = {"attention"} if width else {"attention", "experts" if has_experts else "mlp"}
    norms = shape.features * hidden_size if shape.inputs == 1 else 0  # of all that is fused
    fused = shape.features * hidden_size
    layers = [LinearLayer("fuse", hidden_size, fused, 1, "none", block="output", vectors=norms)]
    for layer in target:
        if layer.name == "lm_head" and shape.draft_vocabulary is not None:
            layers.append(replace(layer, n=min(shape.draft_vocabulary, layer.n), vectors=0))
        elif layer.block == "output":
            layers.append(layer)
        elif layer.block in kept:
            wider = (shape.inputs - 1) * hidden_size if layer.name in _READ_HIDDEN_STATES else 0
            layers.append(replace(layer, k=layer.k + wider, count=count))
    if width:
        layers += [
            LinearLayer("gate_up", 2 * width, hidden_size, count, "column", block="mlp", vectors=hidden_size),
            LinearLayer("down", hidden_size, width, count, "row", block="mlp"),
        ]
    return tuple(layers)


def keep_evenly(counts: Sequence[int], kept: int) -> tuple[int, ...]:
    """Return `counts` cut down to a sum of `kept` in equal proportion, by largest remainder."""
    total = sum(counts)
    whole = [count * kept // total for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda index: -(counts[index] * kept % total))
    for index in by_remainder[: kept - sum(whole)]:
        whole[index] += 1
    return tuple(whole)


def _norms(config: DecoderConfig) -> tuple[int, int]:
    """Norm elements of one layer around attention and around the MLP."""
    size = config.hidden_size * (2 if config.family.norm_bias else 1)
    norms = config.family.norms
    return (norms - norms // 2) * size, norms // 2 * size


def _attention_products(config: DecoderConfig) -> Iterator[LinearLayer]:
    family, hidden = config.family, config.hidden_size
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    columns = queries + 2 * keys
    vectors = _norms(config)[0] + (columns if family.qkv_bias else 0)
    vectors += 2 * config.head_dim if family.qk_norm else 0
    vectors += config.heads if family.attention_sinks else 0
    plain = config.dtypes.plain_attention
    yield LinearLayer(
        "qkv",
        columns,
        hidden,
        config.num_layers,
        "column",
        vectors=vectors,
        kv_columns=2 * keys,
        kv_heads=config.kv_heads,
        keeps_precision=plain,
    )
    bias = hidden if family.output_bias else 0
    yield LinearLayer("o", hidden, queries, config.num_layers, "row", vectors=bias, keeps_precision=plain)


def _latent_products(config: DecoderConfig, latent: LatentSizes) -> Iterator[LinearLayer]:
    """Products of multi-head latent attention; `kv_b` is absorbed: the same matrix, applied to queries."""
    hidden, heads, count = config.hidden_size, config.heads, config.num_layers
    queries = heads * config.head_dim
    norms = _norms(config)[0]
    if latent.q_rank:
        products = [
            LinearLayer("q_a", latent.q_rank, hidden, count, "none", vectors=norms + latent.q_rank),
            LinearLayer("q_b", queries, latent.q_rank, count, "column"),
        ]
    else:
        products = [LinearLayer("q", queries, hidden, count, "column", vectors=norms)]
    products += [
        LinearLayer("kv_a", latent.kv_rank + latent.rope_dim, hidden, count, "none", vectors=latent.kv_rank),
        LinearLayer("kv_b", heads * (latent.nope_dim + latent.value_dim), latent.kv_rank, count, "column"),
        LinearLayer("o", hidden, heads * latent.value_dim, count, "row"),
    ]
    for product in products:
        yield replace(product, keeps_precision=config.dtypes.plain_attention)


def _mlp_products(
    config: DecoderConfig,
    prefix: str,
    width: int,
    count: int,
    vectors: int,
    experts: tuple[int, int] = (0, 0),
) -> Iterator[LinearLayer]:
    """The two products of an MLP, gate and up fused; `vectors` are its norms."""
    family, hidden = config.family, config.hidden_size
    inner = 2 * width if family.gated_mlp else width
    biased = family.expert_bias if experts[0] else family.mlp_bias
    block: Block = "experts" if prefix else "mlp"
    name = "gate_up" if family.gated_mlp else "up"
    yield LinearLayer(
        prefix + name,
        inner,
        hidden,
        count,
        "column",
        *experts,
        block=block,
        vectors=vectors + (inner if biased else 0),
    )
    yield LinearLayer(
        prefix + "down", hidden, width, count, "row", *experts, block=block, vectors=hidden if biased else 0
    )


def _expert_products(config: DecoderConfig, moe: ExpertSizes) -> Iterator[LinearLayer]:
    """Router, routed experts and shared experts of the layers that have them."""
    vectors = _norms(config)[1] + (config.hidden_size if moe.shared_gate else 0)
    vectors += moe.experts if config.family.router_bias else 0
    yield LinearLayer(
        "router",
        moe.experts,
        config.hidden_size,
        moe.layers,
        "none",
        block="experts",
        vectors=vectors,
        keeps_precision=True,
    )
    yield from _mlp_products(config, "expert_", moe.width, moe.layers, 0, (moe.experts, moe.per_token))
    if moe.shared_width:
        yield from _mlp_products(config, "shared_", moe.shared_width, moe.layers, 0)
