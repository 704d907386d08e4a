"""What a draft reads: the cache in place, a copy of what a selector keeps, or entries chosen per pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perfmodel.reference.attention import Visible
from perfmodel.reference.cache import CacheView, Codec, Counts, KVCache
from perfmodel.reference.decoder import View
from perfmodel.reference.scores import PassScores
from strategies.base import KVSelector

__all__ = ["CompactCache", "DraftCache", "InPlaceCache", "PerPassCache", "PromptScores"]

PromptScores = Callable[[int], NDArray[np.float64]]
"""Sequence -> importance of its entries at the end of the prompt, [layers, kv_heads, context_len]."""


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


class InPlaceCache:
    """Read all of `source`; drafts go past its valid entries, to where verification puts its own."""

    def __init__(self, source: KVCache) -> None:
        self.source, self.drafted = source, 0

    def begin(self) -> None:
        """Nothing is copied."""

    def next(self, query_tokens: int) -> View:
        """Return what the next pass sees of the source itself."""
        view = self.source.next(query_tokens, ahead=self.drafted)
        self.drafted += query_tokens
        return view

    def roll_back(self) -> None:
        """Forget the drafts."""
        self.drafted = 0


class CompactCache:
    """A compact copy of what a selector keeps, for selectors that choose by position or once per prompt.

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
            dtype=source.keys.dtype, device=source.device, attention=source.attention, codec=codec,
        )  # fmt: skip
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
        places = self.source.lens + self.drafted
        view = self.kept.view(self.kept.lens + self.drafted, query_tokens, places)
        self.drafted += query_tokens
        return _WriteThrough(view, self.source.view(places, query_tokens)) if self.owns_source else view

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
        sizes, scores = self.source.architecture, self.scores and self.scores(sequence)
        wanted = self.selector.keep(int(self.source.lens[sequence]), self.kv_budget, scores)
        count = wanted.shape[-1]
        by_head = np.broadcast_to(wanted, (sizes.layers, sizes.kv_heads, count))
        index = torch.as_tensor(by_head.copy(), device=self.source.device)[..., None]
        index = index.expand(-1, -1, -1, sizes.head_dim)
        self.kept.keys[:, sequence, :, :count] = self.source.keys[:, sequence].gather(2, index)
        self.kept.values[:, sequence, :, :count] = self.source.values[:, sequence].gather(2, index)
        self.kept.lens[sequence] = count


class _WriteThrough:
    """A view whose new entries also go to the draft model's own cache, from where later copies are made."""

    def __init__(self, view: CacheView, own: CacheView) -> None:
        self._view, self._own, self.positions = view, own, view.positions

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        self._own.cache.write(layer, self._own, key, value)
        return self._view.attend(layer, query, key, value)


class PerPassCache:
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
        view = self.source.next(query_tokens, ahead=self.drafted)
        self.drafted += query_tokens
        return _PerPassView(self, view, self.drafted)

    def roll_back(self) -> None:
        """Forget the drafts; the scores take the verified entries in."""
        self.drafted = 0
        self.scores.follow(self.source)


class _PerPassView:
    """One pass of `PerPassCache`: kept entries first, then the drafts so far and the pass's own tokens."""

    def __init__(self, draft_cache: PerPassCache, view: CacheView, drafted: int) -> None:
        self._draft_cache, self._view, self._drafted = draft_cache, view, drafted
        self.positions = view.positions

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        source = self._draft_cache.source
        source.write(layer, self._view, key, value)
        slots, counted = self._choose_slots(layer, query)
        index = slots[..., None].expand(-1, -1, -1, key.shape[-1])
        keys, values = (entries[layer].gather(2, index) for entries in (source.keys, source.values))
        visible = Visible.of_aligned(query.shape[2], slots.shape[-1], query.device)
        visible.chosen = counted
        return source.attention(query, keys, values, visible)

    def _choose_slots(self, layer: int, query: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return slots to read [batch, kv_heads, kept + drafted], and which count where some keep fewer."""
        draft_cache, drafted = self._draft_cache, self._drafted
        source = draft_cache.source
        scores = draft_cache.scores.score(layer, query, source)
        kept = [
            draft_cache.selector.keep(int(context_len), draft_cache.kv_budget, scores[row][..., :context_len])
            for row, context_len in enumerate(source.lens)
        ]
        most = max(positions.shape[-1] for positions in kept)
        slots = np.zeros((source.batch, source.architecture.kv_heads, most + drafted), dtype=np.int64)
        counted = np.ones((source.batch, 1, most + drafted), dtype=bool)
        slots[..., most:] = (source.lens[:, None] + np.arange(drafted))[:, None]
        for row, positions in enumerate(kept):
            slots[row, :, : positions.shape[-1]] = positions
            counted[row, :, positions.shape[-1] : most] = False
        chosen = None if counted.all() else torch.as_tensor(counted, device=query.device)
        return torch.as_tensor(slots, device=query.device), chosen
