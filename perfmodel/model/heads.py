"""Draft heads as models of their own: made to fit a target, with what they borrow from it left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from perfmodel.model.channels.mlp import MLP
from perfmodel.model.layers import Layer
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers.full_attention import FullAttention
from perfmodel.model.mixers.softmax import Softmax
from strategies.base import HeadShape

__all__ = ["DraftHead", "HeadParts", "assemble", "head_layer", "own_layer"]

_READ_HIDDEN_STATES = ("qkv", "q", "q_a", "kv_a")
"""Products of attention whose input is the layer's own."""
_HEAD_DIM, _KV_HEADS = 128, 8
"""Heads of a head whose target has none to copy, as SpecForge's for DeepSeek-V3: 56 of 128 over 8. [1]"""
_MAP_BYTES = 8
"""Of an int64 that leads from the head's vocabulary to the target's; a bool leads back. [B]"""


@dataclass(frozen=True)
class DraftHead:
    """What a model drafts as, where it is a head.

    Parameters
    ----------
    kind : its published name.
    name : of the head itself.
    strategy : the drafting strategy that it belongs to.
    shape : what it is made of, and how a round of it goes.
    target_hidden, target_vocabulary : those of the model that it was trained for. [1], [tokens]
    """

    kind: str
    name: str
    strategy: str
    shape: HeadShape
    target_hidden: int
    target_vocabulary: int

    @property
    def label(self) -> str:
        """What it is, for people."""
        return f"{self.name}, {self.article} {self.kind} head,"

    @property
    def article(self) -> str:
        """The one that its kind takes."""
        return "an" if self.kind.startswith(("E", "MTP")) else "a"


@dataclass(frozen=True)
class HeadParts:
    """What a head holds and runs; names as in `ModelSpec`."""

    layers: tuple[Layer, ...]
    outputs: tuple[LinearLayer, ...]
    embedding_parameters: int
    other_parameters: int
    owns_lm_head: bool
    table_bytes: float


def own_layer(layers: Sequence[Layer], shape: HeadShape, *, hidden_size: int) -> Layer:
    """Return a plain layer of a head for that target: full attention of grouped heads, and a gated MLP.

    Heads and their width are those of the target's attention where it has such, also beside recurrent layers.

    Parameters
    ----------
    layers : of the target.
    shape : what the head is made of.
    hidden_size : of the target. [1]
    """
    attends = [mixer for layer in layers for mixer in layer.token_mixers if isinstance(mixer, Softmax)]
    widest = max(attends, key=lambda mixer: mixer.reach, default=None)
    if widest is not None:
        heads, kv_heads, head_dim = widest.heads, widest.kv_heads, widest.head_dim
    else:
        heads, head_dim = max(hidden_size // _HEAD_DIM, 1), min(_HEAD_DIM, hidden_size)
        kv_heads = math.gcd(heads, _KV_HEADS)
    attention = FullAttention(heads=heads, kv_heads=kv_heads, head_dim=head_dim, value_dim=head_dim)
    has_experts = any(product.block == "experts" for layer in layers for product in layer.products)
    widths = [mixer.width for layer in layers for mixer in layer.channel_mixers if isinstance(mixer, MLP)]
    width = round(shape.mlp_width * hidden_size) if has_experts or not widths else max(widths)
    mlp = MLP(width=width)
    halves = (attention.products(hidden_size), mlp.products(hidden_size))
    products = [_normed(half, hidden_size) for half in halves]
    return Layer(1, (attention,), (mlp,), tuple(product for half in products for product in half))


def _normed(products: Sequence[LinearLayer], hidden_size: int) -> tuple[LinearLayer, ...]:
    """Return products with a norm before the first of them."""
    first, *rest = products
    return replace(first, vectors=first.vectors + hidden_size), *rest


def head_layer(layers: Sequence[Layer]) -> Layer:
    """Return the layer of a head that the target was pre-trained with, like the target's own.

    Its attention is the one that looks back farthest, with its experts where it has some.
    """
    attends = [layer for layer in layers if layer.reach]
    widest = max(attends, key=lambda layer: layer.reach, default=layers[0])
    attention = max(widest.token_mixers, key=lambda mixer: mixer.reach)
    if isinstance(attention, Softmax):
        attention = replace(attention, owns_cache=True)
    has_experts = any(product.block == "experts" for layer in layers for product in layer.products)
    kept = "experts" if has_experts else "mlp"
    holds = [layer for layer in reversed(layers) if any(each.block == kept for each in layer.products)]
    passed = widest if widest in holds else next(iter(holds), widest)
    products = [product for product in widest.products if product.block == "attention"]
    products += [product for product in passed.products if product.block == kept]
    return Layer(1, (attention,), passed.channel_mixers[:1], tuple(products))


def assemble(
    shape: HeadShape,
    layers: Iterable[Layer],
    logits: LinearLayer,
    *,
    hidden_size: int,
    feature_size: int,
    vocabulary: int,
    own_output: bool,
) -> HeadParts:
    """Return what a head of that shape holds, around its layers.

    Parameters
    ----------
    shape : what it is made of.
    layers : of attention and MLP, each reading one hidden state.
    logits : the target's language-model head.
    hidden_size, feature_size : of the head, and of the target's hidden states. [1]
    vocabulary : of the target. [tokens]
    own_output : whether it has an output layer of its own.

    Notes
    -----
    It reads the target's embedding, and the target's language-model head where it has none of its own: these
    cost time but no memory (arXiv 2412.19437 section 2.2; arXiv 2503.01840 section 3.1). Small matrices by
    which a draft depends on the one before are not split over GPUs.
    """
    chosen = min(shape.draft_vocabulary or vocabulary, vocabulary)
    fused = shape.features * feature_size
    modules = 1 if shape.fuses_once else shape.layers
    outputs: list[LinearLayer] = []
    if fused and not shape.fuses_once:
        vectors = fused if shape.normed else hidden_size
        outputs.append(_small("fuse", hidden_size, fused, vectors=vectors, count=modules))
    elif fused:
        outputs.append(replace(_small("fuse", hidden_size, fused), occasion="round"))
    if shape.output_heads:
        block = _small("head_block", hidden_size, hidden_size, count=shape.output_heads)
        outputs.append(replace(block, occasion="logits"))
    looked_up = vocabulary * shape.markov_rank
    if rank := shape.markov_rank:
        outputs.append(replace(_small("markov", chosen, rank), occasion="draft"))
    if width := shape.gru_width:
        steps = {
            "gru": (3 * width, hidden_size + width),
            "gru_in": (shape.gru_embedding, hidden_size + width),
            "gru_out": (chosen, shape.gru_embedding),
        }
        outputs += [replace(_small(name, *size), occasion="draft") for name, size in steps.items()]
    if own_output:
        logits = replace(logits, n=chosen, k=hidden_size, vectors=0, count=max(shape.output_heads, 1))
    masked = fused if shape.parallel and shape.block is None else 0  # stands for features still to come
    norms = (2 if shape.fuses_once else modules) if shape.normed and not shape.output_heads else 0
    mapped = own_output and chosen < vocabulary and not shape.output_heads
    return HeadParts(
        layers=_widened(layers, (shape.inputs - 1) * hidden_size),
        outputs=(*outputs, logits),
        embedding_parameters=0,
        other_parameters=norms * hidden_size + masked + looked_up,
        owns_lm_head=own_output,
        table_bytes=_MAP_BYTES * chosen + vocabulary if mapped else 0,
    )


def _small(name: str, n: int, k: int, *, vectors: int = 0, count: int = 1) -> LinearLayer:
    """Return a product outside of the layers that every GPU holds whole."""
    return LinearLayer(
        name, n, k, count, "none", block="output", vectors=vectors, modules=("fc", "eh_proj", name)
    )


def _widened(layers: Iterable[Layer], more: int) -> tuple[Layer, ...]:
    """Return the layers, the first of them reading so many elements more."""
    if not more:
        return tuple(layers)
    first, *rest = layers
    products = tuple(
        replace(product, k=product.k + more) if product.name in _READ_HIDDEN_STATES else product
        for product in first.products
    )
    alike = [replace(first, count=first.count - 1)] if first.count > 1 else []
    return (replace(first, count=1, products=products), *alike, *rest)
