"""Compressed attention: a window, and beyond it one entry for several tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from perfmodel.files.numbers import Numeric
from perfmodel.model.launches import Attend, Choose, ForwardPass, Way
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers.base import (
    MAX_TOKENS,
    MAX_WIDTH,
    Cache,
    Sizes,
    State,
    TokenMixer,
    matrix,
    shared_and_alone,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind

OVERLAPPING = 4
"""The ratio whose entries overlap and are chosen by an index (DeepSeek-V4); all others are read. [tokens]"""


@dataclass(frozen=True, kw_only=True)
class Compressed(TokenMixer):
    """Attention to a window and to compressed entries (DeepSeek-V4); keys and values are one vector.

    Parameters
    ----------
    head_dim, window : width of a head, and latest tokens that are seen one by one. [1], [tokens]
    ratio : tokens that an entry beyond stands for; 0 keeps the window alone. [tokens]
    q_rank, o_rank, o_groups : ranks of the query's and the output's projection, and the output's groups. [1]
    index_heads, index_dim, top_k : of the index that chooses among the entries of ratio 4. [1], [entries]
    """

    words = (
        "compressed_attention", "compressed", "compressed_sparse_attention", "heavily_compressed_attention",
        "sliding_attention",
    )  # fmt: skip
    marks = ("compress_ratios", "compress_rates")
    label = "compressed"

    head_dim: int
    window: int
    ratio: int
    q_rank: int
    o_rank: int
    o_groups: int
    index_heads: int
    index_dim: int
    top_k: int

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:
        """Return the layer of that ratio."""
        return cls(
            heads=sizes.heads,
            head_dim=sizes.head_dim,
            window=keys.size("sliding_window", high=MAX_TOKENS),
            ratio=kind.ratio,
            q_rank=keys.size("q_lora_rank", high=MAX_WIDTH),
            o_rank=keys.size("o_lora_rank", high=MAX_WIDTH),
            o_groups=keys.size("o_groups", high=MAX_WIDTH),
            index_heads=keys.size("index_n_heads", high=MAX_WIDTH),
            index_dim=keys.size("index_head_dim", high=MAX_WIDTH),
            top_k=keys.size("index_topk", high=MAX_WIDTH),
        )

    @property
    def indexed(self) -> bool:
        """Whether an index chooses among its entries."""
        return self.ratio == OVERLAPPING

    @property
    def overlap(self) -> int:
        """Entries that a token takes part in. [1]"""
        return 2 if self.indexed else 1

    @property
    def caches(self) -> tuple[Cache, ...]:
        """The window's vectors, the compressed ones, and an index key for each that is chosen among."""
        caches = [Cache(self.head_dim, 1, self.window)]
        if self.ratio:
            caches.append(Cache(self.head_dim, 1, tokens_per_entry=self.ratio))
        if self.indexed:
            caches.append(Cache(self.index_dim, 1, tokens_per_entry=self.ratio))
        return tuple(caches)

    @property
    def budgeted(self) -> bool:
        """An entry stands for several tokens, so a budget of tokens has nothing to choose from."""
        return False

    @property
    def state(self) -> State | None:
        """Running sums of the compressors: of every token that an unfinished entry takes part in."""
        if not self.ratio:
            return None
        width = self.head_dim + (self.index_dim if self.indexed else 0)
        tokens = self.ratio * self.overlap
        return State(tokens * 2 * width, "fp32", 0, 1, kept=False)

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """Queries in two steps, the shared vector, compressors and index, and the output in two steps."""
        queries = self.heads * self.head_dim
        products = [
            matrix("q_a", self.q_rank, hidden, "none", "self_attn.wq_a", vectors=self.q_rank),
            matrix("q_b", queries, self.q_rank, "column", "self_attn.wq_b", vectors=self.heads),
            matrix("kv", self.head_dim, hidden, "none", "self_attn.wkv", vectors=self.head_dim),
            matrix("o_a", self.o_rank, queries, "row", "self_attn.wo_a"),
            matrix("o_b", hidden, self.o_groups * self.o_rank, "row", "self_attn.wo_b"),
        ]
        if self.ratio:
            products.append(self._compressor("compressor", self.head_dim, hidden))
        if self.indexed:
            products += [
                self._compressor("indexer.compressor", self.index_dim, hidden),
                matrix(
                    "index_q", self.index_heads * self.index_dim, self.q_rank, "none",
                    "self_attn.indexer.wq_b",
                ),
                matrix(
                    "index_weights", self.index_heads, hidden, "none",
                    "self_attn.indexer.weights_proj", keeps_precision=True,
                ),
            ]  # fmt: skip
        return tuple(products)

    def _compressor(self, name: str, width: int, hidden: int) -> LinearLayer:
        """Return the product that makes an entry's values and their weights."""
        columns = 2 * self.overlap * width
        vectors = self.ratio * self.overlap * width + width
        return matrix(
            name.replace("indexer.", "index_"), columns, hidden, "none",
            f"self_attn.{name}.wkv", vectors=vectors, keeps_precision=True,
        )  # fmt: skip

    def ways(self, forward: ForwardPass) -> tuple[Way, ...]:
        """Return the index's scores, and attention to the window and to the entries beyond it."""
        queries = np.asarray(forward.query_tokens, dtype=float)
        window = np.asarray(forward.entries(self.window), dtype=float)
        if not self.ratio:
            return ((self._attend(window, queries),),)
        entries = np.asarray(forward.entries(), dtype=float) / self.ratio
        if not self.indexed:
            return ((self._attend(window + entries, queries),),)
        if forward.history is None:
            chosen = np.minimum(entries, self.top_k)
        else:
            chosen = np.asarray(forward.entries(self.top_k * self.ratio)) / self.ratio
        scores = Attend(
            heads=self.index_heads,
            kv_heads=1,
            key_dim=self.index_dim,
            value_dim=0,
            entry_elements=self.index_dim,
            kv_tokens=entries,
            query_tokens=queries,
            copied=True,
        )
        return tuple(
            (scores, Choose(launches=1.0), self._attend(window + chosen, *reads))
            for reads in shared_and_alone(forward, entries, self.top_k)
        )

    def _attend(self, kv_tokens: Numeric, query_tokens: Numeric, choices: Numeric = 1.0) -> Attend:
        return Attend(
            heads=self.heads,
            kv_heads=1,
            key_dim=self.head_dim,
            value_dim=self.head_dim,
            entry_elements=self.head_dim,
            kv_tokens=kv_tokens,
            query_tokens=query_tokens,
            choices=choices,
        )


mixer = Compressed
