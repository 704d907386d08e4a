"""The layers of a decoder in groups of equal ones, and the draft head that is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from perfmodel.model.channels import ChannelMixer
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers import TokenMixer
from strategies.base import HeadShape

__all__ = ["Layer", "flatten", "head_layer", "head_outputs", "keep_evenly"]

_READ_HIDDEN_STATES = ("qkv", "q", "q_a", "kv_a")
"""Products of attention whose input is the layer's own."""


@dataclass(frozen=True)
class Layer:
    """`count` equal layers of a decoder: how tokens see one another, then what each passes through alone.

    Parameters
    ----------
    token_mixers, channel_mixers : the mixers of a layer; either may be none, or several side by side.
    products : every matrix product of one layer in its order, stored as the checkpoint says.
    """

    count: int
    token_mixers: tuple[TokenMixer, ...]
    channel_mixers: tuple[ChannelMixer, ...]
    products: tuple[LinearLayer, ...]

    @property
    def reductions(self) -> int:
        """How often the GPUs that share it add up what they have. [1]"""
        return len(self.token_mixers) + sum(mixer.reduces for mixer in self.channel_mixers)

    @property
    def reach(self) -> float:
        """Tokens that it looks back at most. [tokens]"""
        return max((mixer.reach for mixer in self.token_mixers), default=0.0)

    @property
    def label(self) -> str:
        """What it is made of, for people."""
        labels = [*(each.label for each in self.token_mixers), *(each.label for each in self.channel_mixers)]
        return " + ".join(dict.fromkeys(labels)) or "nothing"


def flatten(layers: Iterable[Layer], outputs: Iterable[LinearLayer]) -> tuple[LinearLayer, ...]:
    """Return every product of one forward pass, equal ones counted together, as they first occur."""
    counts: dict[LinearLayer, int] = {}
    for layer in layers:
        for product in layer.products:
            key = replace(product, count=1, modules=())
            counts[key] = counts.get(key, 0) + layer.count * product.count
    return (*(replace(product, count=count) for product, count in counts.items()), *outputs)


def head_layer(layers: Sequence[Layer], shape: HeadShape, *, hidden_size: int, count: int) -> Layer:
    """Return the layer of a draft head: the target's attention that looks back farthest, and its MLP.

    Parameters
    ----------
    layers : of the target.
    shape : what differs from them.
    hidden_size : of the target. [1]
    count : layers of the head. [1]
    """
    attends = [layer for layer in layers if layer.reach]
    widest = max(attends, key=lambda layer: layer.reach, default=layers[0])
    attention = max(widest.token_mixers, key=lambda mixer: mixer.reach)
    attention = attention.with_cache()
    blocks = {"attention"}
    passes = widest if widest.channel_mixers else next(
        (layer for layer in reversed(layers) if layer.channel_mixers), widest
    )  # fmt: skip
    has_experts = any(product.block == "experts" for layer in layers for product in layer.products)
    width = round(shape.mlp_width * hidden_size) if has_experts and shape.mlp_width else 0
    if not width and has_experts:
        passes = next(
            layer for layer in reversed(layers) if any(p.block == "experts" for p in layer.products)
        )
    products = [
        replace(product, k=product.k + (shape.inputs - 1) * hidden_size)
        if product.name in _READ_HIDDEN_STATES
        else product
        for product in widest.products
        if product.block in blocks
    ]
    if width:
        products += [
            LinearLayer("gate_up", 2 * width, hidden_size, 1, "column", block="mlp", vectors=hidden_size),
            LinearLayer("down", hidden_size, width, 1, "row", block="mlp"),
        ]
    else:
        kept = "experts" if has_experts else "mlp"
        products += [product for product in passes.products if product.block == kept]
    return Layer(count, (attention,), passes.channel_mixers[:1], tuple(products))


def head_outputs(
    target: Iterable[LinearLayer], shape: HeadShape, *, hidden_size: int
) -> tuple[LinearLayer, ...]:
    """Return the product of a draft head that fuses features, and its output layer, own or the target's."""
    norms = shape.features * hidden_size if shape.inputs == 1 else 0  # of all that is fused
    fuse = LinearLayer(
        "fuse", hidden_size, shape.features * hidden_size, 1, "none", block="output", vectors=norms
    )
    logits = next(product for product in target if product.name == "lm_head")
    if shape.draft_vocabulary is not None:
        logits = replace(logits, n=min(shape.draft_vocabulary, logits.n), vectors=0)
    return fuse, logits


def keep_evenly(counts: Sequence[int], kept: int) -> tuple[int, ...]:
    """Return `counts` cut down to a sum of `kept` in equal proportion, by largest remainder."""
    total = sum(counts)
    whole = [count * kept // total for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda index: -(counts[index] * kept % total))
    for index in by_remainder[: kept - sum(whole)]:
        whole[index] += 1
    return tuple(whole)
