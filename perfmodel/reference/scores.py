"""How important each cache entry looks to a query: what selectors choose by."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perfmodel.reference.attention import fold_rows, score_rows
from perfmodel.reference.cache import CacheView, KVCache
from perfmodel.reference.decoder import Decoder
from perfmodel.reference.layer import IndexRows
from perfmodel.reference.mixers import Entry
from perfmodel.reference.sequences import fill_cache

__all__ = ["ExactScores", "PageBounds", "PassScores", "observe_attention"]


class PassScores(Protocol):
    """Scores that are computed again in every draft pass."""

    def follow(self, source: KVCache) -> None:
        """Bring what is known of the entries up to the source's lengths."""
        ...

    def score(self, layer: int, query: Tensor, source: KVCache) -> NDArray[np.float64]:
        """Return the best score of a group's queries for every slot, [batch, kv_heads, slots in use]."""
        ...


class ExactScores:
    """The attention score itself, ``q k``: all keys are read."""

    def follow(self, source: KVCache) -> None:
        """Nothing is kept beside the keys."""

    def score(self, layer: int, query: Tensor, source: KVCache) -> NDArray[np.float64]:
        """Return ``max over the group of q k`` for every slot in use."""
        longest = int(source.lens.max())
        stack, place = source.place(layer)
        keys = stack.keys[place][:, :, :longest]
        return to_numpy((fold_rows(query, keys.shape[1]) @ keys.transpose(-1, -2)).amax(2))


class PageBounds:
    """Quest's bound on the scores in a page: ``sum_d max(q_d min_d, q_d max_d)`` from two vectors per page.

    Source: Quest, arXiv 2406.10774, Algorithm 1; equal to `strategies.quest.page_bounds`.
    """

    def __init__(self, source: KVCache, page: int) -> None:
        self.page = page
        self._followed = np.zeros(source.batch, dtype=np.int64)
        self._bounds: dict[Entry, tuple[Tensor, Tensor]] = {}
        for entry, stack in source.stacks.items():
            if entry.grows:
                layers, batch, kv_heads, capacity, key_dim = stack.keys.shape
                low = stack.keys.new_zeros(layers, batch, kv_heads, -(-capacity // page), key_dim)
                self._bounds[entry] = low, torch.zeros_like(low)

    def follow(self, source: KVCache) -> None:
        """Bring the pages up to date in which entries came or went."""
        for row, (before, now) in enumerate(zip(self._followed, source.lens, strict=True)):
            first = int(min(before, now)) // self.page
            for entry, (low, high) in self._bounds.items():
                entries = source.stacks[entry].keys[:, row, :, first * self.page : int(now)]
                if entries.shape[2] == 0:
                    continue
                # The last page may be open: its last entry, repeated, changes neither bound.
                rest = entries[:, :, -1:].expand(-1, -1, -entries.shape[2] % self.page, -1)
                paged = torch.cat((entries, rest), dim=2)
                paged = paged.reshape(*paged.shape[:2], -1, self.page, paged.shape[-1])
                pages = slice(first, first + paged.shape[2])
                low[:, row, :, pages], high[:, row, :, pages] = paged.amin(3), paged.amax(3)
        self._followed = source.lens.copy()

    def score(self, layer: int, query: Tensor, source: KVCache) -> NDArray[np.float64]:
        """Return for every slot the bound of its page, the largest over the queries of a group."""
        pages = -(-int(source.lens.max()) // self.page)
        stack, place = source.place(layer)
        low, high = (bound[place][:, :, :pages] for bound in self._bounds[stack.entry])
        rows = fold_rows(query, low.shape[1])
        bound = rows.clamp(min=0) @ high.transpose(-1, -2) + rows.clamp(max=0) @ low.transpose(-1, -2)
        return to_numpy(bound.amax(2).repeat_interleave(self.page, dim=-1))


def observe_attention(
    decoder: Decoder, cache: KVCache, tokens: Tensor, window: int
) -> list[dict[Entry, NDArray[np.float64]]]:
    """Return how much attention the last tokens of each prompt pay to every entry.

    Runs the last `window` prompt tokens once more and sums their attention over queries, heads of a group and
    layers that share the entries. Recurrent states cannot be taken back to before the window: with them the
    whole prompts run once more.

    Parameters
    ----------
    decoder : whose attention is observed.
    cache : holds the prompts.
    tokens : the prompts, [batch, at least the longest].
    window : how many of the last tokens are observed. [tokens]

    Returns
    -------
    one array per sequence and stack of layers, [layers, kv_heads, prompt_len].
    """
    window = min(window, int(cache.lens.min()))
    lens = cache.lens
    mass = {
        entry: stack.keys.new_zeros(*stack.keys.shape[:3], int(lens.max()))
        for entry, stack in cache.stacks.items()
    }
    if window > 0:
        if any(mixer.state_shapes for mixer in cache.architecture.mixers):
            cache = KVCache(
                cache.architecture, cache.batch, cache.capacity,
                dtype=cache.dtype, device=cache.device, attention=cache.attention,
            )  # fmt: skip
            fill_cache(decoder, tokens[:, : int(lens.max())], lens - window, cache)
        observer = _AttentionObserver(cache.view(lens - window, window), mass)
        places = observer.positions.expand(cache.batch, -1)
        decoder.forward(tokens.gather(1, places), observer, last_only=True)
    return [
        {entry: to_numpy(paid[:, row, :, : int(length)]) for entry, paid in mass.items()}
        for row, length in enumerate(lens)
    ]


class _AttentionObserver:
    """A view that notes where the attention goes."""

    def __init__(self, view: CacheView, mass: dict[Entry, Tensor]) -> None:
        self._view, self._mass, self.positions = view, mass, view.positions
        self.state, self.leave = view.state, view.leave

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        index: IndexRows | None = None,
    ) -> Tensor:
        read = self._view.attend(layer, query, key, value, index)
        keys, _ = self._view.entries(layer)
        stack, place = self._view.cache.place(layer)
        paid = score_rows(query, keys, self._view.visible_in(layer, index)).softmax(-1).sum(2)
        self._mass[stack.entry][place, ..., : paid.shape[-1]] += paid
        return read


def to_numpy(scores: Tensor) -> NDArray[np.float64]:
    return np.asarray(scores.detach().double().cpu().numpy(), dtype=np.float64)
