"""Latent attention: one compressed vector per token stands for the keys and values of all heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from perfmodel.reference.layer import IndexRows, LayerWeights
from perfmodel.reference.mixers.base import Entry, LayerPass, Mixer, cut, join_heads, split_heads

__all__ = ["Latent"]


@dataclass(frozen=True)
class Latent(Mixer):
    """Multi-head latent attention in its absorbed form, which reads the latents themselves.

    The product that makes keys of latents is moved to the queries, that of the values behind the attention:
    ``q_h (U_h c) = (U_h^T q_h) c``. Source: DeepSeek-V2, arXiv 2405.04434, section 2.1.

    Attributes
    ----------
    heads : query heads; all read one latent.
    kv_rank : elements of the latent.
    rope_dim : elements of the rotary part beside it, of queries and of the one key.
    nope_dim, value_dim : elements of a head's key without rotation, and of its value.
    q_rank : elements that queries are compressed to; 0 where they are not.
    """

    heads: int
    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int
    q_rank: int = 0

    @property
    def rotary_dim(self) -> int:
        """The rotary part alone is turned."""
        return self.rope_dim

    @property
    def entry(self) -> Entry:
        """The latent and the rotary part; the latent is the value too."""
        return Entry(1, self.kv_rank + self.rope_dim, self.kv_rank, in_keys=True)

    @property
    def query_dim(self) -> int:
        """Elements of a query head."""
        return self.nope_dim + self.rope_dim

    def shapes(self, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Return the products down to the ranks, those up from them, and the output."""
        queries = self.heads * self.query_dim
        shapes: dict[str, tuple[int, ...]] = {
            "qkv": ((self.q_rank or queries) + self.kv_rank + self.rope_dim, hidden_size),
            "output": (hidden_size, self.heads * self.value_dim),
            "key_up": (self.heads * self.nope_dim, self.kv_rank),
            "value_up": (self.heads * self.value_dim, self.kv_rank),
            "latent_norm": (self.kv_rank,),
        }
        if self.q_rank:
            shapes |= {"query_norm": (self.q_rank,), "query_up": (queries, self.q_rank)}
        return shapes

    def mix(self, hidden: Tensor, weights: LayerWeights, run: LayerPass) -> Tensor:
        """Return ``W_o V_h softmax((U_h^T q_h c + q_r k_r) / sqrt(d)) c`` of all heads."""
        extra = weights.extra
        queries = self.q_rank or self.heads * self.query_dim
        compressed, latent, rotary = cut(F.linear(hidden, weights.qkv), queries, self.kv_rank)
        query = compressed
        if self.q_rank:
            compressed = run.normalize(compressed, extra["query_norm"])
            query = F.linear(compressed, extra["query_up"])
        plain, turned = cut(split_heads(query, self.heads), self.nope_dim)
        key_up, value_up = (
            extra[name].reshape(self.heads, -1, self.kv_rank) for name in ("key_up", "value_up")
        )
        absorbed, latent = plain @ key_up, run.normalize(latent, extra["latent_norm"])[:, None]
        key = torch.cat((latent, run.turn(rotary[:, None])), dim=-1)
        # A kernel divides by the root of what it is given; scores are divided by that of a head's own query.
        scale = (key.shape[-1] / self.query_dim) ** 0.5
        read = run.attend(
            scale * torch.cat((absorbed, run.turn(turned)), dim=-1), key, None,
            self.index_rows(hidden, compressed, extra, run),
        )  # fmt: skip
        return F.linear(join_heads(read @ value_up.transpose(-1, -2)), weights.output)

    def index_rows(
        self, hidden: Tensor, compressed: Tensor, extra: Mapping[str, Tensor], run: LayerPass  # noqa: ARG002
    ) -> IndexRows | None:
        """Return what an index puts beside queries and keys; None without one."""
        return None


mixer = Latent
