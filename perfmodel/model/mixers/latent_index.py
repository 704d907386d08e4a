"""Latent attention with an index: every query reads the entries that score best for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from perfmodel.model.launches import Attend, Choose, ForwardPass, Way
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers.base import MAX_WIDTH, Cache, Sizes, matrix, shared_and_alone, with_choice
from perfmodel.model.mixers.latent import Latent

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind


@dataclass(frozen=True, kw_only=True)
class LatentIndex(Latent):
    """DeepSeek sparse attention, to the `top_k` tokens that score best (DeepSeek-V3.2-Exp report).

    Parameters
    ----------
    index_heads, index_dim : heads and width of the index; every GPU runs it whole. [1]
    top_k : entries that a query reads. [tokens]
    owns_index : False where it takes over the choice of an earlier layer.
    pool : tokens that one index key stands for. [tokens]
    """

    words = (*Latent.words, "deepseek_sparse_attention", "sparse_attention", "dsa", "indexed_attention")
    marks = ("index_topk",)
    label = "latent with an index"

    index_heads: int
    index_dim: int
    top_k: int
    owns_index: bool = True
    pool: int = 1

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:
        """Return the layer; layers that share an index have none of their own."""
        if keys.find("kv_lora_rank") is None:
            keys.fault(
                "index_topk",
                "an index chooses among the entries of grouped heads, which is not modelled",
                "Nearest is full attention: delete index_topk; cache and parameters lack the index, a few "
                "percent, and beyond index_topk tokens every step reads too much",
            )
            keys.raise_faults()
        latent = Latent.read(keys, sizes, kind)
        return cls(
            **vars(latent),
            index_heads=keys.size("index_n_heads", high=MAX_WIDTH),
            index_dim=keys.size("index_head_dim", high=MAX_WIDTH),
            top_k=keys.size("index_topk", high=MAX_WIDTH),
            owns_index=kind.owns_index,
            pool=keys.optional_size("index_kpool", high=MAX_WIDTH, default=1),
        )

    @property
    def caches(self) -> tuple[Cache, ...]:
        """The latents, and the index key of every token, or of every `pool` tokens."""
        index = Cache(self.index_dim, 1, tokens_per_entry=self.pool)
        return (*super().caches, index) if self.owns_index else super().caches

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """Those of latent attention, and the index's."""
        products = super().products(hidden)
        if not self.owns_index:
            return products
        return (
            *products,
            matrix(
                "index_q", self.index_heads * self.index_dim, self.q_rank or hidden, "none",
                "self_attn.indexer.wq_b",
            ),
            matrix(
                "index_k", self.index_dim, hidden, "none", "self_attn.indexer.wk", vectors=2 * self.index_dim
            ),
            matrix(
                "index_weights", self.index_heads, hidden, "none", "self_attn.indexer.weights_proj",
                keeps_precision=True,
            ),
        )  # fmt: skip

    def ways(self, forward: ForwardPass) -> tuple[Way, ...]:
        """Return the index's scores over the whole context, then attention to what each query chose."""
        readable = np.asarray(forward.entries(), dtype=float)
        if forward.history is None:
            chosen = np.minimum(readable, self.top_k)
        else:
            chosen = np.asarray(forward.entries(self.top_k), dtype=float)
        ways = [
            (self.absorbed(chosen, *reads),) for reads in shared_and_alone(forward, readable, self.top_k)
        ]
        if not self.owns_index:
            return tuple(with_choice(forward, way) for way in ways)
        scores = Attend(
            heads=self.index_heads,
            kv_heads=1,
            key_dim=self.index_dim,
            value_dim=0,
            entry_elements=self.index_dim,
            kv_tokens=readable / self.pool,
            query_tokens=forward.query_tokens,
            copied=True,
        )
        return tuple(with_choice(forward, (scores, Choose(launches=1.0), *way)) for way in ways)


mixer = LatentIndex
