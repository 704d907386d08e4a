"""What a draft reads: the cache in place, a copy of what a selector keeps, or entries chosen per pass.

Whatever is kept, is kept of layers that read their whole context. Layers with a window or chunks are read in
place, as many of their entries as the others keep; recurrent layers run on a scratch copy of their states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perfmodel.reference.attention import Visible
from perfmodel.reference.cache import CacheView, Codec, Counts, KVCache
from perfmodel.reference.layer import IndexRows, State, View
from perfmodel.reference.mixers import Entry
from perfmodel.reference.scores import PassScores
from perfmodel.reference.states import States
from strategies.base import KVSelector

__all__ = ["CompactCache", "DraftCache", "InPlaceCache", "PerPassCache", "PromptScores"]

PromptScores = Callable[[int], dict[Entry, NDArray[np.float64]]]
"""Sequence -> importance of its entries when the prompt ends, [layers, kv_heads, context_len] by stack."""


class DraftCache(Protocol):
    """The cache of a drafter: begun at the end of the prompt, extended by drafts, rolled back each round.

    `source` holds the valid entries: the target's own cache, or a draft model's. `drafted` counts the tokens
    drafted in this round.
    """

    source: KVCache
    drafted: int

    def begin(self) -> None:
        """Take in the entries of the prompt."""
        ...

    def next(self, query_tokens: int) -> View:
        """Return what the next draft pass sees: what is kept, and the tokens drafted so far."""
        ...

    def roll_back(self) -> None:
        """Forget the drafts and follow `source`, whose lengths now are those after the verification."""
        ...


class _Surroundings:
    """What a draft sees of `source` itself: its states, or a scratch copy of them, and layers read in place.

    Drafts go past the valid entries, to where verification puts its own. A draft model's own states follow
    its drafts, as what is accepted of them stays.
    """

    def __init__(self, source: KVCache, owns_source: bool) -> None:
        self._source, self._owns_source = source, owns_source
        self._scratch: States = source.states

    def view(self, drafted: int, query_tokens: int) -> CacheView:
        """Return what a pass sees that follows `drafted` tokens of its round."""
        if drafted == 0 and not self._owns_source:
            self._scratch = self._source.states.fork()
        view = self._source.next(query_tokens, ahead=drafted)
        return replace(view, states=self._scratch)


class _MixedView:
    """One pass of a decoder of which some layers only obey a draft's choice of entries."""

    def __init__(self, growing: View, around: CacheView) -> None:
        self._growing, self._around, self.positions = growing, around, around.positions
        self._mixers = around.cache.architecture.mixers

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        index: IndexRows | None = None,
    ) -> Tensor:
        entry = self._mixers[layer].entry
        view = self._growing if entry is not None and entry.grows else self._around
        return view.attend(layer, query, key, value, index)

    def state(self, layer: int) -> State:
        return self._around.state(layer)

    def leave(self, layer: int, after: State) -> None:
        self._around.leave(layer, after)


class InPlaceCache:
    """Read all of `source`; drafts go past its valid entries, to where verification puts its own."""

    def __init__(self, source: KVCache, owns_source: bool = False) -> None:
        self.source, self.drafted = source, 0
        self._surroundings = _Surroundings(source, owns_source)

    def begin(self) -> None:
        """Nothing is copied."""

    def next(self, query_tokens: int) -> View:
        """Return what the next pass sees of the source itself."""
        view = self._surroundings.view(self.drafted, query_tokens)
        self.drafted += query_tokens
        return view

    def roll_back(self) -> None:
        """Forget the drafts."""
        self.drafted = 0


class CompactCache:
    """A compact copy of what a selector keeps of the layers that read their whole context.

    For selectors that choose by position or once per prompt.

    Parameters
    ----------
    source : where the valid entries are.
    selector : says which of them are kept.
    kv_budget : how many of them are kept at most. [tokens]
    room : slots for the drafts of one round and, where the choice is made once, for all later tokens.
    scores : importance at the end of the prompt, for selectors that need it.
    codec : applied to every entry that is copied or drafted, e.g. rounding to four bits.
    owns_source : drafts belong into `source` too, as it is the draft model's own cache.

    Attributes
    ----------
    kept : the copy; its `lens` say how many entries are kept, without the drafts.
    positions : position of the entry in every slot, [batch, capacity]; -1 where there is none.
    """

    def __init__(
        self,
        source: KVCache,
        selector: KVSelector,
        kv_budget: float,
        *,
        room: int,
        scores: PromptScores | None = None,
        codec: Codec | None = None,
        owns_source: bool = False,
    ) -> None:
        self.source, self.selector, self.kv_budget = source, selector, kv_budget
        self.scores, self.owns_source, self.drafted = scores, owns_source, 0
        self.kept = KVCache(
            source.architecture, source.batch, int(min(kv_budget, source.capacity)) + room,
            dtype=source.dtype, device=source.device, attention=source.attention, codec=codec,
            growing_only=True,
        )  # fmt: skip
        self._surroundings = _Surroundings(source, owns_source)
        self.positions = np.full((source.batch, self.kept.capacity), -1, dtype=np.int64)
        self._followed = np.zeros_like(source.lens)

    def begin(self) -> None:
        """Copy what is kept of the prompt."""
        if self.selector.moment != "prompt":
            self.roll_back()
            return
        for sequence in range(self.source.batch):
            self._copy_prompt(sequence)
        self._followed = self.source.lens.copy()

    def next(self, query_tokens: int) -> View:
        """Return what the next pass sees: kept entries, drafts so far, and its own tokens."""
        drafted, self.drafted = self.drafted, self.drafted + query_tokens
        view: View = self.kept.view(self.kept.lens + drafted, query_tokens, self.source.lens + drafted)
        if self.source.architecture.all_grow and not self.owns_source:
            return view
        around = self._surroundings.view(drafted, query_tokens)
        if self.owns_source:
            view = _WriteThrough(view, around)
        return _MixedView(view, around)

    def roll_back(self) -> None:
        """Forget the drafts; copy the entries that are kept now and were not before over those that left."""
        self.drafted = 0
        moves = [self._find_moves(sequence) for sequence in range(self.source.batch)]
        sequences = np.repeat(np.arange(len(moves)), [entering.size for entering, _ in moves])
        entering, slots = (np.concatenate(parts) for parts in zip(*moves, strict=True))
        self.kept.copy(self.source, sequences, entering, slots)
        self.positions[sequences, slots] = entering
        self._followed = self.source.lens.copy()

    def _find_moves(self, sequence: int) -> tuple[Counts, Counts]:
        """Return the positions that enter the copy of one sequence and their slots, and count them in."""
        context_len, filled = int(self.source.lens[sequence]), int(self.kept.lens[sequence])
        if self.selector.moment == "prompt":
            entering = np.arange(self._followed[sequence], context_len)
            self.kept.lens[sequence] += entering.size
            return entering, np.arange(filled, filled + entering.size)
        wanted = self.selector.keep(context_len, self.kv_budget)
        present = self.positions[sequence, :filled]
        entering = np.setdiff1d(wanted, present, assume_unique=True)
        free = np.flatnonzero(~np.isin(present, wanted, assume_unique=True))
        self.kept.lens[sequence] = wanted.size
        return entering, np.concatenate([free, np.arange(filled, wanted.size)])

    def _copy_prompt(self, sequence: int) -> None:
        """Copy what the selector keeps of one sequence's prompt, per layer and head."""
        context_len = int(self.source.lens[sequence])
        scores = {} if self.scores is None else self.scores(sequence)
        for entry, stack in self.kept.stacks.items():
            wanted = self.selector.keep(context_len, self.kv_budget, scores.get(entry))
            count = wanted.shape[-1]
            by_head = np.broadcast_to(wanted, (len(stack.layers), entry.kv_heads, count))
            index = torch.as_tensor(by_head.copy(), device=self.source.device)[..., None]
            for store, original in zip(stack.stored, self.source.stacks[entry].stored, strict=True):
                every = index.expand(-1, -1, -1, store.shape[-1])
                store[:, sequence, :, :count] = original[:, sequence].gather(2, every)
            self.kept.lens[sequence] = count


class _WriteThrough:
    """A view whose new entries also go to the draft model's own cache, from where later copies are made."""

    def __init__(self, view: View, own: CacheView) -> None:
        self._view, self._own, self.positions = view, own, view.positions
        self.state, self.leave = own.state, own.leave

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        index: IndexRows | None = None,
    ) -> Tensor:
        self._own.write(layer, key, value, index)
        return self._view.attend(layer, query, key, value, index)


class PerPassCache:
    """Entries of `source` chosen anew in every pass and layer by the scores of the pass's own queries.

    The tokens drafted in this round are read on top of the kept ones; they stand in the slots past the valid
    entries of `source`.
    """

    def __init__(
        self,
        source: KVCache,
        selector: KVSelector,
        kv_budget: float,
        scores: PassScores,
        owns_source: bool = False,
    ) -> None:
        self.source, self.selector, self.kv_budget, self.scores = source, selector, kv_budget, scores
        self.drafted = 0
        self._surroundings = _Surroundings(source, owns_source)

    def begin(self) -> None:
        """Prepare the scores of the prompt's entries."""
        self.scores.follow(self.source)

    def next(self, query_tokens: int) -> View:
        """Return what the next pass sees."""
        around = self._surroundings.view(self.drafted, query_tokens)
        self.drafted += query_tokens
        view = _PerPassView(self, around, self.drafted)
        return view if self.source.architecture.all_grow else _MixedView(view, around)

    def roll_back(self) -> None:
        """Forget the drafts; the scores take the verified entries in."""
        self.drafted = 0
        self.scores.follow(self.source)


class _PerPassView:
    """One pass of `PerPassCache`: kept entries first, then the drafts so far and the pass's own tokens."""

    def __init__(self, draft_cache: PerPassCache, view: CacheView, drafted: int) -> None:
        self._draft_cache, self._view, self._drafted = draft_cache, view, drafted
        self.positions, self.state, self.leave = view.positions, view.state, view.leave

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        index: IndexRows | None = None,
    ) -> Tensor:
        source = self._draft_cache.source
        self._view.write(layer, key, value, index)
        slots, counted = self._choose_slots(layer, query)

        def take(entries: Tensor) -> Tensor:
            return entries.gather(2, slots[..., None].expand(-1, -1, -1, entries.shape[-1]))

        stack, place = source.place(layer)
        visible = Visible.of_aligned(query.shape[2], slots.shape[-1], query.device).with_chosen(counted)
        if index is not None and stack.index is not None:
            visible = visible.with_chosen(index.choose(take(stack.index[place]), visible.seen()))
        return source.attention(query, take(stack.keys[place]), take(stack.values[place]), visible)

    def _choose_slots(self, layer: int, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return slots to read [batch, kv_heads, kept + drafted], and which count where some keep fewer.

        What counts is [batch, 1, 1, kept + drafted].
        """
        draft_cache, drafted = self._draft_cache, self._drafted
        source = draft_cache.source
        scores = draft_cache.scores.score(layer, query, source)
        kept = [
            draft_cache.selector.keep(int(context_len), draft_cache.kv_budget, scores[row][..., :context_len])
            for row, context_len in enumerate(source.lens)
        ]
        most = max(positions.shape[-1] for positions in kept)
        slots = np.zeros((source.batch, scores.shape[1], most + drafted), dtype=np.int64)
        counted = np.ones((source.batch, 1, 1, most + drafted), dtype=bool)
        slots[..., most:] = (source.lens[:, None] + np.arange(drafted))[:, None]
        for row, positions in enumerate(kept):
            slots[row, :, : positions.shape[-1]] = positions
            counted[row, ..., positions.shape[-1] : most] = False
        chosen = None if counted.all() else torch.as_tensor(counted, device=query.device)
        return torch.as_tensor(slots, device=query.device), chosen
