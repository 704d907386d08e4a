"""A batch of sequences under decoding: their tokens, the target's cache, and how far each has come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perfmodel.reference.cache import Counts, KVCache
from perfmodel.reference.decoder import Decoder

__all__ = ["Sequences", "fill_cache", "prefill"]

CHUNK = 512
"""Prompt tokens that one prefill pass takes. [tokens]"""


class Sequences:
    """Known tokens and the target's cache.

    Every known token but the last is in the cache: the last one is fed to the next pass.

    Attributes
    ----------
    tokens : [batch, capacity]; those of sequence b that are known are the first ``cache.lens[b] + 1``.
    prompt_lens : tokens that were given, [batch].
    """

    def __init__(self, tokens: Tensor, prompt_lens: Counts, cache: KVCache) -> None:
        self.tokens, self.prompt_lens, self.cache = tokens, prompt_lens, cache

    @property
    def generated(self) -> Counts:
        """Tokens generated so far, [batch]."""
        return self.cache.lens + 1 - self.prompt_lens

    def last(self, count: int) -> Tensor:
        """Return the last `count` known tokens of every sequence, [batch, count]."""
        lens = self.cache.lens
        if (lens == lens[0]).all():
            return self.tokens[:, int(lens[0]) + 1 - count : int(lens[0]) + 1]
        first = torch.as_tensor(lens, device=self.tokens.device) - (count - 1)
        return self.tokens.gather(1, first[:, None] + torch.arange(count, device=self.tokens.device))

    def append(
        self, drafts: Tensor, accepted: Tensor, bonus: Tensor, active: NDArray[np.bool_] | None = None
    ) -> Counts:
        """Take in the accepted drafts and the bonus token after them; return how many came, [batch].

        Entries of rejected drafts stay behind in the cache's slots past its lengths, to be written over: that
        is the roll-back. Sequences that are not `active` take in nothing.
        """
        going_on = np.ones_like(self.prompt_lens, dtype=np.bool_) if active is None else active
        writable = torch.as_tensor(going_on, device=drafts.device)[:, None]
        first = torch.as_tensor(self.cache.lens + 1, device=drafts.device)[:, None]
        self._put(first + torch.arange(drafts.shape[1], device=drafts.device), drafts, writable)
        self._put(first + accepted[:, None], bonus[:, None], writable)
        tokens = np.where(going_on, accepted.cpu().numpy() + 1, 0)
        self.cache.lens = self.cache.lens + tokens
        return tokens

    def output(self, count: int) -> Tensor:
        """Return the first `count` generated tokens of every sequence, [batch, count]."""
        first = torch.as_tensor(self.prompt_lens, device=self.tokens.device)[:, None]
        return self.tokens.gather(1, first + torch.arange(count, device=self.tokens.device))

    def _put(self, places: Tensor, tokens: Tensor, writable: Tensor) -> None:
        self.tokens.scatter_(1, places, torch.where(writable, tokens, self.tokens.gather(1, places)))


def prefill(
    target: Decoder, prompts: Sequence[Sequence[int]], room: int, cache: KVCache | None = None
) -> tuple[Sequences, Tensor]:
    """Run the prompts through the decoder; return the sequences and the logits after each prompt.

    Parameters
    ----------
    target : the decoder.
    prompts : token ids of each, of any lengths.
    room : further tokens that the cache must hold.
    cache : to be used instead of a new one.

    Returns
    -------
    The sequences, without a pending token yet, and logits [batch, vocab_size].
    """
    lens = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
    longest = int(lens.max())
    tokens = torch.zeros(len(prompts), longest + room, dtype=torch.long)
    if cache is None:
        cache = KVCache(target.architecture, *tokens.shape, dtype=target.dtype, device=target.device)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.as_tensor(prompt)
    tokens = tokens.to(target.device)
    logits = fill_cache(target, tokens[:, :longest], lens, cache)
    return Sequences(tokens, lens, cache), logits


def fill_cache(decoder: Decoder, tokens: Tensor, lens: Counts, cache: KVCache) -> Tensor:
    """Put the entries of prompts [batch, longest] into the cache, in chunks; return the logits after each.

    Entries past the end of a shorter prompt are computed and lie past its length. States are those at the end
    of each.
    """
    cache.states.clear()
    last = torch.zeros(len(lens), decoder.architecture.vocab_size, dtype=decoder.dtype, device=tokens.device)
    for start in range(0, tokens.shape[1], CHUNK):
        chunk = tokens[:, start : start + CHUNK]
        cache.lens = np.full(len(lens), start, dtype=np.int64)
        counted = np.clip(lens - start, 0, chunk.shape[1])
        logits = decoder.forward(chunk, cache.next(chunk.shape[1], counted=counted))
        ending = np.flatnonzero((lens > start) & (lens <= start + chunk.shape[1]))
        if ending.size:
            rows = torch.as_tensor(ending, device=tokens.device)
            last[rows] = logits[rows, torch.as_tensor(lens[ending] - 1 - start, device=tokens.device)]
    cache.lens = lens.copy()
    return last
