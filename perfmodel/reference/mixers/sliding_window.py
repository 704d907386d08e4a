"""Attention over a sliding window: a query reads the last entries only."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from perfmodel.reference.mixers.base import Entry
from perfmodel.reference.mixers.full_attention import FullAttention

__all__ = ["SlidingWindow"]


@dataclass(frozen=True)
class SlidingWindow(FullAttention):
    """Full attention whose entries before the window are hidden.

    Attributes
    ----------
    window : entries that a query reads, its own among them. [tokens]
    """

    window: int = 1

    @property
    def entry(self) -> Entry:
        """A bounded part of the context is read."""
        return replace(super().entry, grows=False)

    def seen_from(self, positions: Tensor) -> Tensor:
        """Return ``p - W + 1``."""
        return positions - (self.window - 1)


mixer = SlidingWindow
