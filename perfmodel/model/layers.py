"""The layers of a decoder in groups of equal ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from perfmodel.model.channels import ChannelMixer
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers import TokenMixer

__all__ = ["Layer", "flatten", "keep_evenly"]

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


def keep_evenly(counts: Sequence[int], kept: int) -> tuple[int, ...]:
    """Return `counts` cut down to a sum of `kept` in equal proportion, by largest remainder."""
    total = sum(counts)
    whole = [count * kept // total for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda index: -(counts[index] * kept % total))
    for index in by_remainder[: kept - sum(whole)]:
        whole[index] += 1
    return tuple(whole)
