"""Attention over the whole context: grouped-query attention with rotary positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from perfmodel.reference.layer import LayerWeights
from perfmodel.reference.mixers.base import Entry, LayerPass, Mixer, cut, join_heads, split_heads

__all__ = ["FullAttention"]


@dataclass(frozen=True)
class FullAttention(Mixer):
    """Every query reads all entries up to its own.

    Attributes
    ----------
    heads, kv_heads : of queries, and of keys and values.
    head_dim, value_dim : elements of a query or key head, and of a value head.
    owns_cache : whether it has keys and values; where not, it reads those of the last layer of its kind that
        has.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    owns_cache: bool = True

    @property
    def rotary_dim(self) -> int:
        """All elements are turned."""
        return self.head_dim

    @property
    def entry(self) -> Entry:
        """A key and a value per head."""
        return Entry(self.kv_heads, self.head_dim, self.value_dim)

    def shapes(self, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Return the fused product of queries, keys and values, and the output."""
        keys_values = self.kv_heads * (self.head_dim + self.value_dim) * self.owns_cache
        return {
            "qkv": (self.heads * self.head_dim + keys_values, hidden_size),
            "output": (hidden_size, self.heads * self.value_dim),
        }

    def mix(self, hidden: Tensor, weights: LayerWeights, run: LayerPass) -> Tensor:
        """Return ``W_o softmax(q k / sqrt(d)) v``."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        fused = F.linear(hidden, weights.qkv, weights.qkv_bias)
        query, key, value = cut(fused, queries, keys * self.owns_cache)
        query = run.turn(split_heads(query, self.heads))
        if not self.owns_cache:
            read = run.attend(query, None, None)
        else:
            key = run.turn(split_heads(key, self.kv_heads))
            read = run.attend(query, key, split_heads(value, self.kv_heads))
        return F.linear(join_heads(read), weights.output)


mixer = FullAttention
