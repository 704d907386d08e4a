"""Chunked attention: it starts anew at every multiple of the chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from perfmodel.files.numbers import Numeric
from perfmodel.model.launches import ForwardPass, Way
from perfmodel.model.mixers.base import MAX_TOKENS, Sizes
from perfmodel.model.mixers.softmax import Softmax

if TYPE_CHECKING:
    from perfmodel.model.keys import ConfigKeys



@dataclass(frozen=True, kw_only=True)
class Chunked(Softmax):
    """Attention to the tokens of the same chunk: position ``p`` sees ``p mod chunk + 1``. [tokens]"""

    words = ("chunked_attention", "chunked", "chunk")
    marks = ("attention_chunk_size",)
    label = "chunked"

    chunk: int

    @classmethod
    def read_reach(cls, keys: ConfigKeys, sizes: Sizes) -> dict[str, int]:  # noqa: ARG003
        """Return the chunk."""
        return {"chunk": keys.size("attention_chunk_size", high=MAX_TOKENS)}

    @property
    def bound(self) -> int:
        """The chunk. [tokens]"""
        return self.chunk

    @property
    def reach(self) -> float:
        """The chunk. [tokens]"""
        return float(self.chunk)

    def ways(self, forward: ForwardPass) -> tuple[Way, ...]:
        """Return one launch over the chunk, whose queries share what they read."""
        return ((self.attend(self.entries(forward), forward.query_tokens),),)

    def entries(self, forward: ForwardPass) -> Numeric:
        """Entries that are read: all of a context within one chunk, beyond it the mean over positions."""
        if forward.history is not None:
            last = np.add(forward.history, forward.query_tokens)
            return (self._seen(last) - self._seen(forward.history)) / forward.query_tokens
        context = forward.kv_tokens if forward.context_len is None else forward.context_len
        first = np.subtract(context, np.subtract(forward.query_tokens, 1.0))  # what the first query sees
        return np.where(first <= self.chunk, context, (self.chunk + 1.0) / 2.0)

    def _seen(self, positions: Numeric) -> Numeric:
        """Entries that the queries of the first so many positions see together. [tokens]"""
        whole, rest = np.divmod(positions, self.chunk)
        return whole * self.chunk * (self.chunk + 1.0) / 2.0 + rest * (rest + 1.0) / 2.0


mixer = Chunked
