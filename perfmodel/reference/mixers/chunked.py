"""Chunked attention: the context restarts at every multiple of the chunk, as in Llama 4."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from perfmodel.reference.mixers.base import Entry
from perfmodel.reference.mixers.full_attention import FullAttention

__all__ = ["Chunked"]


@dataclass(frozen=True)
class Chunked(FullAttention):
    """Full attention that reads entries of its own chunk only.

    Attributes
    ----------
    chunk : positions from one restart to the next. [tokens]
    """

    chunk: int = 1

    @property
    def entry(self) -> Entry:
        """A bounded part of the context is read."""
        return replace(super().entry, grows=False)

    def seen_from(self, positions: Tensor) -> Tensor:
        """Return ``p - p mod C``."""
        return positions - positions % self.chunk


mixer = Chunked
