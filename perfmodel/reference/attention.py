"""Attention of a few query tokens over a KV cache, by the kernels that torch offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = ["AttentionKernel", "Visible", "exact", "fold_rows", "packed", "score_rows"]


@dataclass
class Visible:
    """Which of the first ``slots`` cache slots each query row sees.

    Attributes
    ----------
    last : slot of every query token, shape [batch or 1, query_tokens]; a row sees the slots up to its own.
    slots : slots that are read.
    aligned : the rows of all sequences end at the last slot, so row i sees ``slots - query_tokens + i + 1``.
    chosen : where not None, the slots that may be read at all, shape [batch or 1, kv_heads or 1, query_tokens
        or 1, slots].
    since : where not None, the first slot that every query token sees, shape [batch or 1, query_tokens].
    """

    last: Tensor
    slots: int
    aligned: bool
    chosen: Tensor | None = None
    since: Tensor | None = None
    _masks: dict[tuple[torch.dtype, int], Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of_aligned(cls, query_tokens: int, slots: int, device: torch.device) -> Visible:
        """Return what is visible where all sequences end at the last of `slots` slots."""
        return cls(torch.arange(slots - query_tokens, slots, device=device)[None], slots, aligned=True)

    @property
    def everything(self) -> bool:
        """Whether every row sees every slot, so that no mask is needed."""
        return self.causal and self.last.shape[1] == 1

    @property
    def causal(self) -> bool:
        """Whether nothing is hidden but what follows a row, and all sequences end at the last slot."""
        return self.aligned and self.chosen is None and self.since is None

    def from_slots(self, since: Tensor) -> Visible:
        """Return the same without what lies before the first slot of every query token."""
        return replace(self, since=since, _masks={})

    def with_chosen(self, chosen: Tensor | None) -> Visible:
        """Return the same with the choice of some slots."""
        return replace(self, chosen=chosen, _masks={})

    def seen(self) -> Tensor:
        """Return whether a query token sees a slot, [batch or 1, kv_heads or 1, query_tokens, slots]."""
        slots = torch.arange(self.slots, device=self.last.device)
        seen = slots <= self.last[:, None, :, None]
        if self.since is not None:
            seen = seen & (slots >= self.since[:, None, :, None])
        return seen if self.chosen is None else seen & self.chosen

    def mask(self, dtype: torch.dtype, group: int) -> Tensor:
        """Return 0 where a row sees a slot, else -inf: [batch or 1, kv_heads or 1, group x query, slots].

        The causal edge is at the bottom right: the last query token sees all. Rows of the `group` query
        heads that share keys follow each other, as `fold_rows` puts them.
        """
        if (dtype, group) not in self._masks:
            seen = self.seen()
            blank = torch.zeros((), dtype=dtype, device=seen.device)
            mask = torch.where(seen, blank, blank - torch.inf)
            self._masks[dtype, group] = mask.repeat(1, 1, group, 1)
        return self._masks[dtype, group]


AttentionKernel = Callable[[Tensor, Tensor, Tensor, Visible], Tensor]
"""Takes a query [batch, heads, query_tokens, key_dim], keys [batch, kv_heads, slots, key_dim], values [batch,
kv_heads, slots, value_dim] and what is visible; returns what the query reads, [batch, heads, query_tokens,
value_dim]."""


def fold_rows(query: Tensor, kv_heads: int) -> Tensor:
    """Return queries as [batch, kv_heads, group x query_tokens, head_dim]: one row beside the other."""
    batch, heads, tokens, head_dim = query.shape
    return query.reshape(batch, kv_heads, heads // kv_heads * tokens, head_dim)


def score_rows(query: Tensor, keys: Tensor, visible: Visible) -> Tensor:
    """Return ``q k / sqrt(head_dim)`` of the folded rows, -inf for slots that a row does not see."""
    kv_heads = keys.shape[1]
    scores: Tensor = fold_rows(query, kv_heads) @ keys.transpose(-1, -2) / query.shape[-1] ** 0.5
    return scores + visible.mask(query.dtype, query.shape[1] // kv_heads)


def packed(query: Tensor, keys: Tensor, values: Tensor, visible: Visible) -> Tensor:
    """Scaled dot-product attention with the query heads of a group folded into rows, the cache read once.

    With ``enable_gqa`` torch would read the keys once for every query head.
    """
    rows = fold_rows(query, keys.shape[1])
    mask = None if visible.everything else visible.mask(query.dtype, query.shape[1] // keys.shape[1])
    read = F.scaled_dot_product_attention(rows, keys, values, attn_mask=mask)
    return read.reshape(*query.shape[:-1], values.shape[-1])


def exact(query: Tensor, keys: Tensor, values: Tensor, visible: Visible) -> Tensor:
    """Attention by its definition, in float64: what every kernel is checked against."""
    weights = score_rows(query.double(), keys.double(), visible).softmax(-1)
    return (weights @ values.double()).reshape(*query.shape[:-1], values.shape[-1]).to(query.dtype)
