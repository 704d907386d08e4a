"""What a draft reads: the cache in place, a copy of what a selector keeps, or entries chosen per pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perfmodel.reference.attention import Visible
from perfmodel.reference.cache import Codec, Counts, KVCache, Slots, SlotView
from perfmodel.reference.decoder import View
from perfmodel.reference.scores import PassScores
from strategies.base import KVSelector

__all__ = ["Chosen", "DraftCache", "InPlace", "Kept", "PromptScores"]

PromptScores = Callable[[int], NDArray[np.float64]]
"""Sequence -> importance of its entries at the end of the prompt, [layers, kv_heads, context_len]."""


class DraftCache(Protocol):
    """The cache of a drafter: begun at the end of the prompt, extended by drafts, settled each round.

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

    def settle(self) -> None:
        """Forget the drafts and follow `source`, whose lengths now are those after the verification."""
        ...


class InPlace:
    """Read all of `source`; drafts go past its valid entries, to where verification puts its own."""

    def __init__(self, source: KVCache) -> None:
        self.source = source
        self.drafted = 0

    def begin(self) -> None:
        """Nothing is copied."""

    def next(self, query_tokens: int) -> View:
        """Return what the next pass sees of the source itself."""
        view = self.source.next(query_tokens, ahead=self.drafted)
        self.drafted += query_tokens
        return view

    def settle(self) -> None:
        """Forget the drafts."""
        self.drafted = 0


class Kept:
    """A compact copy of what a selector keeps, for selectors that choose by position or once per prompt.

    Parameters
    ----------
    source : where the valid entries are. selector, kv_budget : what is kept of them.
    room : slots for the drafts of one round and, where the choice is made once, for all later tokens.
    scores : importance at the end of the prompt, for selectors that need it.
    codec : applied to every entry that is copied or drafted, e.g. rounding to four bits.
    owns_source : drafts belong into `source` too, as it is the draft model's own cache.
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
        self.slots = Slots(
            source.architecture,
            source.batch,
            int(min(kv_budget, source.capacity)) + room,
            dtype=source.keys.dtype,
            device=source.device,
            attention=source.attention,
            codec=codec,
        )
        self.filled: Counts = np.zeros(source.batch, dtype=np.int64)
        self.positions = np.full((source.batch, self.slots.capacity), -1, dtype=np.int64)
        self._taken: Counts = np.zeros(source.batch, dtype=np.int64)

    def begin(self) -> None:
        """Copy what is kept of the prompt."""
        if self.selector.moment != "prompt":
            self.settle()
            return
        for sequence in range(self.source.batch):
            self._choose_once(sequence)
        self._taken = self.source.lens.copy()

    def next(self, query_tokens: int) -> View:
        """Return what the next pass sees: kept entries, drafts so far, and its own tokens."""
        places = self.source.lens + self.drafted
        view = self.slots.view(self.filled + self.drafted, query_tokens, places)
        self.drafted += query_tokens
        if not self.owns_source:
            return view
        return _WriteThrough(view, self.source, self.source.view(places, query_tokens, places))

    def settle(self) -> None:
        """Forget the drafts; copy the entries that are kept now and were not before over those that left."""
        self.drafted = 0
        moves = [self._moves(sequence) for sequence in range(self.source.batch)]
        sequences = np.repeat(np.arange(len(moves)), [entering.size for entering, _ in moves])
        entering, slots = (np.concatenate(parts) for parts in zip(*moves, strict=True))
        self.slots.copy(self.source, sequences, entering, slots)
        self.positions[sequences, slots] = entering
        self._taken = self.source.lens.copy()

    def _moves(self, sequence: int) -> tuple[Counts, Counts]:
        """Positions that enter the copy of one sequence, and the slots they take."""
        context_len, filled = int(self.source.lens[sequence]), int(self.filled[sequence])
        if self.selector.moment == "prompt":
            entering = np.arange(self._taken[sequence], context_len)
            self.filled[sequence] += entering.size
            return entering, np.arange(filled, filled + entering.size)
        kept = self.selector.keep(context_len, self.kv_budget)
        held = self.positions[sequence, :filled]
        entering = np.setdiff1d(kept, held, assume_unique=True)
        free = np.flatnonzero(~np.isin(held, kept, assume_unique=True))
        self.filled[sequence] = kept.size
        return entering, np.concatenate([free, np.arange(filled, kept.size)])

    def _choose_once(self, sequence: int) -> None:
        """Copy what the selector keeps of one sequence's prompt, per layer and head."""
        architecture, context_len = self.source.architecture, int(self.source.lens[sequence])
        scores = None if self.scores is None else self.scores(sequence)
        kept = self.selector.keep(context_len, self.kv_budget, scores)
        count = kept.shape[-1]
        each = np.broadcast_to(kept, (architecture.layers, architecture.kv_heads, count))
        index = torch.as_tensor(np.array(each), device=self.source.device)
        wide = index[..., None].expand(-1, -1, -1, architecture.head_dim)
        for mine, theirs in (
            (self.slots.keys, self.source.keys),
            (self.slots.values, self.source.values),
        ):
            mine[:, sequence, :, :count] = theirs[:, sequence].gather(2, wide)
        self.filled[sequence] = count


class _WriteThrough:
    """A view whose new entries also go to the draft model's own cache, from where later copies are made."""

    def __init__(self, view: SlotView, source: KVCache, places: SlotView) -> None:
        self._view, self._source, self._places = view, source, places
        self.positions = view.positions

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        self._source.write(layer, self._places, key, value)
        return self._view.attend(layer, query, key, value)


class Chosen:
    """Entries of `source` chosen anew in every pass and layer by the scores of the pass's own queries.

    The tokens drafted in this round are read on top of the kept ones; they stand in the slots past the valid
    entries of `source`.
    """

    def __init__(self, source: KVCache, selector: KVSelector, kv_budget: float, scores: PassScores) -> None:
        self.source, self.selector, self.kv_budget, self.scores = source, selector, kv_budget, scores
        self.drafted = 0

    def begin(self) -> None:
        """Prepare the scores of the prompt's entries."""
        self.scores.follow(self.source)

    def next(self, query_tokens: int) -> View:
        """Return what the next pass sees."""
        view = _ChosenView(self, self.source.next(query_tokens, ahead=self.drafted), self.drafted)
        self.drafted += query_tokens
        return view

    def settle(self) -> None:
        """Forget the drafts; the scores take the verified entries in."""
        self.drafted = 0
        self.scores.follow(self.source)


class _ChosenView:
    """One pass of `Chosen`: kept entries first, then the drafts so far and the pass's own tokens."""

    def __init__(self, cache: Chosen, places: SlotView, drafted: int) -> None:
        self._cache, self._places, self._drafted = cache, places, drafted
        self.positions = places.positions

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        source = self._cache.source
        source.write(layer, self._places, key, value)
        index, kept = self._entries(layer, query)
        wide = index[..., None].expand(-1, -1, -1, key.shape[-1])
        keys, values = (part[layer].gather(2, wide) for part in (source.keys, source.values))
        tail = torch.arange(query.shape[2], device=query.device) + (index.shape[-1] - query.shape[2])
        return source.attention(query, keys, values, Visible(tail[None], index.shape[-1], True, kept))

    def _entries(self, layer: int, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """Slots to read [batch, kv_heads, width], and which count where sequences keep unequally many."""
        cache, kv_heads = self._cache, self._cache.source.architecture.kv_heads
        lens, new = cache.source.lens, self._drafted + query.shape[2]
        scores = cache.scores.of(layer, query, cache.source)
        kept = [
            cache.selector.keep(int(length), cache.kv_budget, scores[row][..., :length])
            for row, length in enumerate(lens)
        ]
        most = max(positions.shape[-1] for positions in kept)
        index = np.zeros((len(kept), kv_heads, most + new), dtype=np.int64)
        counts = np.zeros((len(kept), 1, most + new), dtype=bool)
        for row, positions in enumerate(kept):
            index[row, :, : positions.shape[-1]] = positions
            counts[row, :, : positions.shape[-1]] = True
            index[row, :, most:] = lens[row] + np.arange(new)
        counts[:, :, most:] = True
        device = query.device
        chosen = None if counts.all() else torch.as_tensor(counts, device=device)
        return torch.as_tensor(index, device=device), chosen
