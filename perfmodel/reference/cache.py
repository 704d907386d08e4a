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

__all__ = ["KVCache", "SlotView", "Slots"]

Counts = NDArray[np.int64]
Codec = Callable[[Tensor], Tensor]


class Slots:
    """Room for the keys and values of some tokens; a pass writes its tokens and reads up to them.

    Parameters
    ----------
    architecture : heads and layers. batch : sequences. capacity : slots of each.
    attention : the kernel that reads them. codec : applied to keys and values before they are stored.

    Attributes
    ----------
    keys, values : [layers, batch, kv_heads, capacity, head_dim].
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
        self.architecture, self.capacity, self.attention, self.codec = (
            architecture,
            capacity,
            attention,
            codec,
        )
        shape = (architecture.layers, batch, architecture.kv_heads, capacity, architecture.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def batch(self) -> int:
        """Sequences."""
        return self.keys.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the slots are."""
        return self.keys.device

    def view(self, first: Counts, query_tokens: int, positions: Counts) -> SlotView:
        """Return what a pass sees whose tokens go to slots `first` on, at `positions` on; both [batch]."""
        width = int(first.max()) + query_tokens
        if width > self.capacity:
            raise IndexError(f"the cache has {self.capacity} slots; a pass needs {width}")
        slots, places = self._from(first, query_tokens), self._from(positions, query_tokens)
        return SlotView(self, int(first[0]), slots, places, Visible(slots, width, slots.shape[0] == 1))

    def write(self, layer: int, view: SlotView, key: Tensor, value: Tensor) -> None:
        """Store keys and values [batch, kv_heads, query_tokens, head_dim] in the view's slots."""
        if self.codec is not None:
            key, value = self.codec(key), self.codec(value)
        if view.visible.aligned:
            until = view.first + key.shape[2]
            self.keys[layer][:, :, view.first : until] = key
            self.values[layer][:, :, view.first : until] = value
        else:
            rows = torch.arange(self.batch, device=self.device)[:, None]
            self.keys[layer].transpose(1, 2)[rows, view.slots] = key.transpose(1, 2)
            self.values[layer].transpose(1, 2)[rows, view.slots] = value.transpose(1, 2)

    def copy(self, source: Slots, sequences: Counts, from_slots: Counts, to_slots: Counts) -> None:
        """Copy single entries of `source`, in all layers and heads; one index of each array per entry."""
        if sequences.size == 0:
            return
        rows, here, there = (self._on_device(index) for index in (sequences, to_slots, from_slots))
        for mine, theirs in ((self.keys, source.keys), (self.values, source.values)):
            entries = theirs[:, rows, :, there]
            mine[:, rows, :, here] = entries if self.codec is None else self.codec(entries)

    def _from(self, first: Counts, count: int) -> Tensor:
        """Return ``first .. first + count - 1`` of every sequence, one row where all are alike."""
        if (first == first[0]).all():
            return torch.arange(int(first[0]), int(first[0]) + count, device=self.device)[None]
        return self._on_device(first)[:, None] + torch.arange(count, device=self.device)

    def _on_device(self, values: Counts) -> Tensor:
        return torch.as_tensor(values, device=self.device)


@dataclass(frozen=True)
class SlotView:
    """One pass over `Slots`: its tokens stand in `slots` [batch or 1, query_tokens] at `positions`."""

    storage: Slots
    first: int
    slots: Tensor
    positions: Tensor
    visible: Visible

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Store the new entries, then read all slots up to each query's own."""
        storage, width = self.storage, self.visible.width
        storage.write(layer, self, key, value)
        keys, values = storage.keys[layer][:, :, :width], storage.values[layer][:, :, :width]
        return storage.attention(query, keys, values, self.visible)


class KVCache(Slots):
    """The whole cache of one decoder: the entry of a token is in the slot of its position.

    Attributes
    ----------
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
    ) -> None:
        super().__init__(architecture, batch, capacity, dtype=dtype, device=device, attention=attention)
        self.lens: Counts = np.zeros(batch, dtype=np.int64)

    def next(self, query_tokens: int, ahead: int = 0) -> SlotView:
        """Return what a pass over the next `query_tokens` tokens sees, `ahead` of the valid entries."""
        first = self.lens + ahead
        return self.view(first, query_tokens, first)

    def holding(self, lens: int) -> KVCache:
        """Return the same memory as a cache of that many valid entries in every sequence."""
        other = copy(self)
        other.lens = np.full(self.batch, lens, dtype=np.int64)
        return other

    def fill(self, lens: int, seed: int = 0) -> None:
        """Put random entries in the first `lens` slots: a context to take times with."""
        generator = torch.Generator(self.device).manual_seed(seed)
        for part in (self.keys, self.values):
            part[:, :, :, :lens].normal_(generator=generator)
        self.lens = np.full(self.batch, lens, dtype=np.int64)
