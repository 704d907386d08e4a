"""Latent attention with an index that chooses what each query reads: DeepSeek sparse attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from perfmodel.reference.layer import IndexRows
from perfmodel.reference.mixers.base import Entry, LayerPass, split_heads
from perfmodel.reference.mixers.latent import Latent

__all__ = ["LatentIndex"]


@dataclass(frozen=True)
class LatentIndex(Latent):
    """Latent attention over the entries that a small index scores best, for every query token apart.

    A context of up to `top_k` entries is read whole. Source: DeepSeek-V3.2-Exp, section 2.1.

    Attributes
    ----------
    index_heads, index_dim : of the index; its one key per token is cached beside the latent.
    top_k : entries that a query reads. [tokens]
    """

    index_heads: int = 1
    index_dim: int = 1
    top_k: int = 1

    @property
    def entry(self) -> Entry:
        """An index key beside the latent."""
        return replace(super().entry, index_dim=self.index_dim)

    def shapes(self, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Return the products of latent attention, and those of the index."""
        return super().shapes(hidden_size) | {
            "index_query": (self.index_heads * self.index_dim, self.q_rank or hidden_size),
            "index_key": (self.index_dim, hidden_size),
            "index_weight": (self.index_heads, hidden_size),
        }

    def index_rows(
        self, hidden: Tensor, compressed: Tensor, extra: Mapping[str, Tensor], run: LayerPass
    ) -> IndexRows:
        """Return index queries, weights and the key of every token; their first elements are turned."""
        entering = compressed if self.q_rank else hidden
        query = split_heads(F.linear(entering, extra["index_query"]), self.index_heads)
        key = F.layer_norm(F.linear(hidden, extra["index_key"]), (self.index_dim,))[:, None]
        query, key = (
            torch.cat((run.turn(heads[..., : self.rope_dim]), heads[..., self.rope_dim :]), dim=-1)
            for heads in (query, key)
        )
        weight = F.linear(hidden, extra["index_weight"]).transpose(1, 2)
        return IndexRows(query, weight, key, self.top_k)


mixer = LatentIndex
