"""What one layer is made of: its weights, what a pass sees of a cache, its norm and its rotary turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["IndexRows", "LayerWeights", "State", "View", "normalize", "rotate"]

State = tuple[Tensor, ...]
"""Tensors of one recurrent layer, [batch, ...] each; after every token of a pass, one axis more in front."""


@dataclass(frozen=True)
class LayerWeights:
    """One layer; a matrix is stored as [outputs, inputs].

    Attributes
    ----------
    qkv : all that a token mixer computes of its input in one product: queries, keys, values, gates.
    output : its last product, back to the hidden size.
    extra : what a mixer has beside these two, by name.
    """

    attention_norm: Tensor
    qkv: Tensor
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    qkv_bias: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class IndexRows:
    """What an index puts beside queries and keys: it scores every entry, and each query reads the best.

    Attributes
    ----------
    query : [batch, index_heads, query_tokens, index_dim].
    weight : of each head's score, [batch, index_heads, query_tokens].
    key : of the pass's own tokens, [batch, 1, query_tokens, index_dim].
    topk : entries that a query reads at most. [tokens]
    """

    query: Tensor
    weight: Tensor
    key: Tensor
    topk: int

    def choose(self, keys: Tensor, seen: Tensor) -> Tensor:
        """Return which slots each query reads, [batch, 1, query_tokens, slots].

        The score is ``sum_h w_h relu(q_h k)``. Of equal scores the first slots count, so that a pass of
        several tokens chooses what single passes choose. Source: DeepSeek-V3.2-Exp, section 2.1, equation 1.

        Parameters
        ----------
        keys : index keys, [batch, 1, slots, index_dim].
        seen : slots that may be chosen, [batch or 1, 1, query_tokens, slots].
        """
        products = (self.query @ keys.transpose(-1, -2)).relu()
        scores = (self.weight[..., None] * products).sum(1, keepdim=True).masked_fill(~seen, -torch.inf)
        ranked = scores.argsort(dim=-1, descending=True, stable=True)
        best = torch.zeros_like(scores, dtype=torch.bool)
        best.scatter_(-1, ranked[..., : self.topk], value=True)
        return best & seen


class View(Protocol):
    """What one forward pass sees of a cache: where its tokens stand, and what its layers may read."""

    @property
    def positions(self) -> Tensor:
        """Position of every token of the pass, shape [batch or 1, query_tokens]."""
        ...

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        index: IndexRows | None = None,
    ) -> Tensor:
        """Put the new keys and values in their slots and return what the queries read.

        Parameters
        ----------
        layer : index from 0.
        query : [batch, heads, query_tokens, key_dim].
        key : [batch, kv_heads, query_tokens, key_dim]; None where the layer reads the cache of another.
        value : [batch, kv_heads, query_tokens, value_dim]; None where values are part of the keys too.
        index : what chooses the entries of every query, where the layer has an index.

        Returns
        -------
        [batch, heads, query_tokens, value_dim].
        """
        ...

    def state(self, layer: int) -> State:
        """Return the state of a recurrent layer before the first token of the pass."""
        ...

    def leave(self, layer: int, after: State) -> None:
        """Keep the states after each token of the pass, [query_tokens, batch, ...]."""
        ...


def normalize(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale to a root mean square of one, then by `weight`; at least in float32."""
    wide = hidden if hidden.dtype == torch.float64 else hidden.float()
    scale = (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    return (wide * scale).to(hidden.dtype) * weight


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair (i, i + head_dim / 2) of every head by its angle; the last axes are tokens and pairs."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
