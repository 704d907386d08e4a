"""What a decoder holds of a batch: slots of entries, states, lengths, and what one pass sees of them."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from perfmodel.reference.architecture import Architecture
from perfmodel.reference.attention import AttentionKernel, Visible, packed
from perfmodel.reference.layer import IndexRows, State
from perfmodel.reference.mixers import Entry
from perfmodel.reference.states import Counts, States

__all__ = ["CacheView", "Codec", "Counts", "KVCache", "Stack"]

Codec = Callable[[Tensor], Tensor]


class Stack:
    """The slots of all layers that cache equal entries.

    Attributes
    ----------
    keys : [layers, batch, kv_heads, capacity, key_dim].
    values : [layers, batch, kv_heads, capacity, value_dim]; a part of the keys where an entry says so.
    index : [layers, batch, 1, capacity, index_dim]; None without an index.
    layers : which layers of the decoder these are.
    """

    def __init__(
        self, entry: Entry, layers: tuple[int, ...], batch: int, capacity: int,
        dtype: torch.dtype, device: torch.device | str,
    ) -> None:  # fmt: skip
        def make(heads: int, size: int) -> Tensor:
            return torch.zeros(len(layers), batch, heads, capacity, size, dtype=dtype, device=device)

        heads, inside = entry.kv_heads, entry.in_keys
        self.entry, self.layers = entry, layers
        self.keys = make(heads, entry.key_dim)
        self.values = self.keys[..., : entry.value_dim] if inside else make(heads, entry.value_dim)
        self.index = make(1, entry.index_dim) if entry.index_dim else None

    @property
    def stored(self) -> list[Tensor]:
        """The tensors that take memory: keys, values that are not part of them, index keys."""
        values = [] if self.entry.in_keys else [self.values]
        return [self.keys, *values, *([] if self.index is None else [self.index])]


class KVCache:
    """The entries and states of some tokens; a pass writes its tokens and reads up to them.

    Parameters
    ----------
    architecture : what its layers cache.
    batch : sequences.
    capacity : slots of each sequence.
    dtype : type of the entries.
    device : where the entries are.
    attention : the kernel that reads them.
    codec : applied to entries before they are stored.
    growing_only : hold the layers alone that read the whole context.

    Attributes
    ----------
    stacks : the slots, by what an entry is.
    states : of the recurrent layers.
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
        growing_only: bool = False,
    ) -> None:
        self.architecture, self.batch, self.capacity = architecture, batch, capacity
        self.attention, self.codec = attention, codec
        self.device = torch.empty(0, device=device).device
        self.stacks = {
            entry: Stack(entry, layers, batch, capacity, dtype, device)
            for entry, layers in architecture.entries.items()
            if entry.grows or not growing_only
        }
        self.dtype = dtype
        self.states = States(architecture, batch, dtype, device)
        self.lens: Counts = np.zeros(batch, dtype=np.int64)

    @property
    def keys(self) -> Tensor:
        """Keys where all layers cache equal entries, [layers, batch, kv_heads, capacity, key_dim]."""
        (stack,) = self.stacks.values()
        return stack.keys

    @property
    def values(self) -> Tensor:
        """Values where all layers do, [layers, batch, kv_heads, capacity, value_dim]."""
        (stack,) = self.stacks.values()
        return stack.values

    def place(self, layer: int) -> tuple[Stack, int]:
        """Return the stack that a layer reads, and its place there; another layer's where it shares one.

        Raises
        ------
        KeyError
            Where the layer has no entries here.
        """
        if (where := self.architecture.places[layer]) is None:
            raise KeyError(f"layer {layer} has states and no entries")
        entry, place = where
        return self.stacks[entry], place

    def next(self, query_tokens: int, ahead: int = 0, counted: Counts | None = None) -> CacheView:
        """Return what a pass over the next `query_tokens` tokens sees, `ahead` of the valid entries."""
        return self.view(self.lens + ahead, query_tokens, counted=counted)

    def view(
        self, first: Counts, query_tokens: int, positions: Counts | None = None, counted: Counts | None = None
    ) -> CacheView:
        """Return what a pass sees.

        Parameters
        ----------
        first : slot of its first token in every sequence, [batch].
        query_tokens : tokens of the pass in every sequence.
        positions : position of its first token, [batch]; that of its slot where None.
        counted : how many of its tokens are known to stay, [batch]; where None verification will tell, and
            recurrent layers leave a state for every length that it may accept.

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
        visible = Visible(slots, end, slots.shape[0] == 1)
        return CacheView(self, first, slots, places, visible, self.states, counted=counted)

    def write(self, layer: int, view: CacheView, entries: list[Tensor]) -> None:
        """Store new entries in the view's slots, in the order of `Stack.stored`.

        Each is [batch, kv_heads, query_tokens, elements].
        """
        stack, place = self.place(layer)
        for store, entering in zip(stack.stored, entries, strict=True):
            new, slots = entering if self.codec is None else self.codec(entering), store[place]
            if view.visible.aligned:
                first = int(view.first[0])
                slots[:, :, first : first + new.shape[2]] = new
            else:
                rows = torch.arange(self.batch, device=self.device)[:, None]
                slots.transpose(1, 2)[rows, view.slots] = new.transpose(1, 2)

    def copy(self, source: KVCache, sequences: Counts, from_slots: Counts, to_slots: Counts) -> None:
        """Copy single entries of `source`, in all layers and heads; one index of each array per entry."""
        if sequences.size == 0:
            return
        rows, here, there = (self._to_device(index) for index in (sequences, to_slots, from_slots))
        for entry, stack in self.stacks.items():
            for store, original in zip(stack.stored, source.stacks[entry].stored, strict=True):
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
        for stack in self.stacks.values():
            for entries in stack.stored:
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
    """One pass over a cache: its tokens stand in `slots` [batch or 1, query_tokens] at `positions`.

    Attributes
    ----------
    first : slot of the first token of every sequence, [batch].
    states : where recurrent layers find and leave their states.
    counted : tokens of each sequence that are known to stay, where they are known.
    """

    cache: KVCache
    first: Counts
    slots: Tensor
    positions: Tensor
    visible: Visible
    states: States
    counted: Counts | None = None

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        index: IndexRows | None = None,
    ) -> Tensor:
        """Store the new entries, then read the slots that the layer sees, up to each query's own."""
        self.write(layer, key, value, index)
        keys, values = self.entries(layer)
        return self.cache.attention(query, keys, values, self.visible_in(layer, index))

    def write(self, layer: int, key: Tensor | None, value: Tensor | None, index: IndexRows | None) -> None:
        """Store the new entries; nothing where the layer has none."""
        entries = [part for part in (key, value, None if index is None else index.key) if part is not None]
        if entries:
            self.cache.write(layer, self, entries)

    def entries(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return the keys and values that are read, each [batch, kv_heads, slots, elements]."""
        stack, place = self.cache.place(layer)
        slots = slice(self.visible.slots)
        return stack.keys[place][:, :, slots], stack.values[place][:, :, slots]

    def visible_in(self, layer: int, index: IndexRows | None = None) -> Visible:
        """Return what a layer sees: from its window or chunk on, and what its index chooses."""
        visible = self.visible
        since = self.cache.architecture.mixers[layer].seen_from(self.positions)
        if since is not None:
            visible = visible.from_slots(since)
        stack, place = self.cache.place(layer)
        if index is None or stack.index is None:
            return visible
        keys = stack.index[place][:, :, : visible.slots]
        return visible.with_chosen(index.choose(keys, visible.seen()))

    def state(self, layer: int) -> State:
        """Return the state of a recurrent layer before the first token of the pass."""
        return self.states.at(layer, self.first, self.counted)

    def leave(self, layer: int, after: State) -> None:
        """Keep the states after the tokens of the pass."""
        self.states.leave(layer, self.cache.lens, self.first, after, self.counted)
