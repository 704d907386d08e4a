"""Block-sparse attention: an index chooses blocks of keys and values for every query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from perfmodel.model.launches import Attend, Choose, ForwardPass, Way
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers.base import MAX_WIDTH, Cache, Sizes, matrix, shared_and_alone, with_choice
from perfmodel.model.mixers.softmax import Softmax

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind

_SECTION = "sparse_attention_config"


@dataclass(frozen=True, kw_only=True)
class BlockSparse(Softmax):
    """Attention of grouped heads to the `blocks` best blocks of `block` tokens.

    Parameters
    ----------
    index_heads, index_dim : queries of the index and the width of its one key per token. [1]
    block, blocks : tokens of a block, and how many blocks a query reads for each KV head.
    """

    words = ("block_sparse", "sparse", "sparse_attention", "minimax_m3_sparse")
    marks = ("sparse_attention_config.sparse_topk_blocks", "index_topk_blocks")
    label = "block-sparse"

    index_heads: int
    index_dim: int
    block: int
    blocks: int

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:
        """Return the layer with the index of the config."""
        plain = Softmax.read(keys, sizes, kind)
        return cls(
            **vars(plain),
            index_heads=keys.optional_size(
                f"{_SECTION}.sparse_num_index_heads", "index_n_heads", high=MAX_WIDTH, default=plain.kv_heads
            ),
            index_dim=keys.size(f"{_SECTION}.sparse_index_dim", "index_head_dim", high=MAX_WIDTH),
            block=keys.size(f"{_SECTION}.sparse_block_size", "index_block_size", high=MAX_WIDTH),
            blocks=keys.size(f"{_SECTION}.sparse_topk_blocks", "index_topk_blocks", high=MAX_WIDTH),
        )

    @property
    def caches(self) -> tuple[Cache, ...]:
        """Keys, values and the index key of every token."""
        return (*super().caches, Cache(self.index_dim, 1))

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """Those of grouped heads, and the index's."""
        width = (self.index_heads + 1) * self.index_dim
        index = matrix(
            "index", width, hidden, "none", "self_attn.index_q_proj", "self_attn.index_k_proj",
            vectors=2 * self.index_dim,
        )  # fmt: skip
        return (*super().products(hidden), index)

    def ways(self, forward: ForwardPass) -> tuple[Way, ...]:
        """Return the index's scores over the whole context, then attention to the blocks of each query."""
        most = self.block * self.blocks
        readable = np.asarray(forward.entries(), dtype=float)
        chosen = np.minimum(readable, most) if forward.history is None else forward.entries(most)
        scores = Attend(
            heads=self.index_heads,
            kv_heads=1,
            key_dim=self.index_dim,
            value_dim=0,
            entry_elements=self.index_dim,
            kv_tokens=readable,
            query_tokens=forward.query_tokens,
            copied=True,
        )
        return tuple(
            with_choice(forward, (scores, Choose(launches=1.0), self.attend(chosen, *reads)))
            for reads in shared_and_alone(forward, readable, most)
        )


mixer = BlockSparse
