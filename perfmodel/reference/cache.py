"""A static KV cache: slots of keys and values, a length per sequence, and what one pass sees of them."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perfmodel.reference.architecture import Architecture
from perfmodel.reference.attention import AttentionKernel, Visible, packed

__all__ = ["CacheView", "Codec", "Counts", "KVCache"]

Counts = NDArray[np.int64]
Codec = Callable[[Tensor], Tensor]


class KVCache:
    """The keys and values of some tokens; a pass writes its tokens and reads up to them.

    Parameters
    ----------
    architecture : heads and layers.
    batch : sequences.
    capacity : slots of each sequence.
    dtype : type of the entries.
    device : where the entries are.
    attention : the kernel that reads them.
    codec : applied to keys and values before they are stored.

    Attributes
    ----------
    keys, values : [layers, batch, kv_heads, capacity, head_dim].
    lens : valid entries of each sequence [tokens], shape [batch]. What lies beyond is written over.
    """

    def __init__(
        self,
        architecture: Architecture,
        batch: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        attention: AttentionKernel = packed,
        codec: Codec | None = None,
    ) -> None:
        self.architecture, self.batch, self.capacity = architecture, batch, capacity
        self.attention, self.codec = attention, codec
        shape = (architecture.layers, batch, architecture.kv_heads, capacity, architecture.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.device = self.keys.device
        self.lens: Counts = np.zeros(batch, dtype=np.int64)

    def next(self, query_tokens: int, ahead: int = 0) -> CacheView:
        """Return what a pass over the next `query_tokens` tokens sees, `ahead` of the valid entries."""
        return self.view(self.lens + ahead, query_tokens)

    def view(self, first: Counts, query_tokens: int, positions: Counts | None = None) -> CacheView:
        """Return what a pass sees.

        Parameters
        ----------
        first : slot of its first token in every sequence, [batch].
        query_tokens : tokens of the pass in every sequence.
        positions : position of its first token, [batch]; that of its slot where None.

        Raises
        ------
        IndexError
            Where the pass does not fit into the cache.
        """
        end = int(first.max()) + query_tokens
        if end > self.capacity:
            raise IndexError(f"the cache has {self.capacity} slots; a pass needs {end}")
        slots = self._count_from(first, query_tokens)
        places = slots if positions is None else self._count_from(positions, query_tokens)
        return CacheView(self, int(first[0]), slots, places, Visible(slots, end, slots.shape[0] == 1))

    def write(self, layer: int, view: CacheView, key: Tensor, value: Tensor) -> None:
        """Store keys and values [batch, kv_heads, query_tokens, head_dim] in the view's slots."""
        if self.codec is not None:
            key, value = self.codec(key), self.codec(value)
        for store, entries in ((self.keys[layer], key), (self.values[layer], value)):
            if view.visible.aligned:
                store[:, :, view.first : view.first + entries.shape[2]] = entries
            else:
                rows = torch.arange(self.batch, device=self.device)[:, None]
                store.transpose(1, 2)[rows, view.slots] = entries.transpose(1, 2)

    def copy(self, source: KVCache, sequences: Counts, from_slots: Counts, to_slots: Counts) -> None:
        """Copy single entries of `source`, in all layers and heads; one index of each array per entry."""
        if sequences.size == 0:
            return
        rows, here, there = (self._to_device(index) for index in (sequences, to_slots, from_slots))
        for store, original in ((self.keys, source.keys), (self.values, source.values)):
            entries = original[:, rows, :, there]
            store[:, rows, :, here] = entries if self.codec is None else self.codec(entries)

    def with_lens(self, lens: int) -> KVCache:
        """Return the same memory as a cache of that many valid entries in every sequence."""
        other = copy(self)
        other.lens = np.full(self.batch, lens, dtype=np.int64)
        return other

    def fill_randomly(self, lens: int) -> None:
        """Put random entries in the first `lens` slots: a context to take times with."""
        generator = torch.Generator(self.device).manual_seed(0)
        for entries in (self.keys, self.values):
            entries[:, :, :, :lens].normal_(generator=generator)
        self.lens = np.full(self.batch, lens, dtype=np.int64)

    def _count_from(self, first: Counts, count: int) -> Tensor:
        """Return ``first .. first + count - 1`` of every sequence, one row where all are alike."""
        if (first == first[0]).all():
            return torch.arange(int(first[0]), int(first[0]) + count, device=self.device)[None]
        return self._to_device(first)[:, None] + torch.arange(count, device=self.device)

    def _to_device(self, values: Counts) -> Tensor:
        return torch.as_tensor(values, device=self.device)


@dataclass(frozen=True)
class CacheView:
    """One pass over a cache: its tokens stand in `slots` [batch or 1, query_tokens] at `positions`."""

    cache: KVCache
    first: int
    slots: Tensor
    positions: Tensor
    visible: Visible

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Store the new entries, then read all slots up to each query's own."""
        self.cache.write(layer, self, key, value)
        keys, values = self.entries(layer)
        return self.cache.attention(query, keys, values, self.visible)

    def entries(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return the keys and values that are read, each [batch, kv_heads, slots, head_dim]."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        return keys[:, :, : self.visible.slots], values[:, :, : self.visible.slots]
