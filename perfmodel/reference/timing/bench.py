"""What all timed shapes share: the grid of shapes, and the decoder, caches and matrices that they run on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from perfmodel.evidence.machine.points import MachinePoint
from perfmodel.reference.attention import Visible
from perfmodel.reference.cache import KVCache
from perfmodel.reference.decoder import Decoder
from perfmodel.reference.timing.attention_kernels import FastestAttention
from perfmodel.reference.timing.stopwatch import Stopwatch, Work

__all__ = ["Bench", "Job", "ShapeGrid", "Subject"]


@dataclass(frozen=True)
class Job:
    """What is timed: work on the device, then the host's part; `after`, untimed, puts things back.

    `runs` says how often the work does what is timed.
    """

    work: Work
    host: Work | None = None
    after: Work | None = None
    runs: int = 1


@dataclass(frozen=True)
class Subject:
    """One shape to time: the point without its times, and what allocates and returns its job."""

    point: MachinePoint
    make: Callable[[], Job]


@dataclass(frozen=True)
class ShapeGrid:
    """The shapes to time.

    Attributes
    ----------
    cells : (batch, context_len) of passes and attention.
    verify : query tokens of passes.
    queries : query tokens of attention over the longest context.
    tokens : rows of linear layers.
    budgets : draft KV budgets.
    rounds : (batch, context_len, kv_budget, gamma).
    stream : values to stream.
    """

    cells: tuple[tuple[int, int], ...]
    verify: tuple[int, ...]
    queries: tuple[int, ...]
    tokens: tuple[int, ...]
    budgets: tuple[int, ...]
    rounds: tuple[tuple[int, int, int, int], ...]
    stream: int

    @property
    def longest(self) -> tuple[int, int]:
        """The cell of most entries."""
        return max(self.cells, key=lambda cell: cell[0] * cell[1])

    def context(self, batch: int) -> int:
        """Longest context at that batch or more."""
        return max((context for size, context in self.cells if size >= batch), default=0)


class Bench:
    """Memory that all subjects share: weights, caches and a pool for kernels.

    Parameters
    ----------
    decoder : its weights and architecture are timed.
    grid : what is timed.
    stopwatch : times the attention kernels that are chosen from.
    cache_bytes : last-level cache. [B]
    """

    def __init__(self, decoder: Decoder, grid: ShapeGrid, stopwatch: Stopwatch, cache_bytes: float) -> None:
        self.decoder, self.grid, self.cache_bytes = decoder, grid, cache_bytes
        self.attention = FastestAttention(stopwatch)
        self._caches: dict[int, KVCache] = {}
        self._matrices: dict[tuple[int, int], Sequence[Tensor]] = {}

    def cache(self, batch: int, context_len: int) -> KVCache:
        """Return a filled cache of `batch` sequences, `context_len` entries each; all share their memory."""
        room = max(*self.grid.verify, *(gamma for *_, gamma in self.grid.rounds)) + 2
        if batch not in self._caches:
            longest = self.grid.context(batch)
            self._caches[batch] = KVCache(
                self.decoder.architecture, batch, longest + room,
                dtype=self.decoder.dtype, device=self.decoder.device, attention=self.attention,
            )  # fmt: skip
            self._caches[batch].fill_randomly(longest)
        return self._caches[batch].with_lens(context_len)

    def forget(self) -> None:
        """Give the memory of caches and matrices back."""
        self._caches.clear()
        self._matrices.clear()

    def draw(self, *shape: int) -> Tensor:
        """Return normal numbers in the decoder's dtype and on its device."""
        return torch.randn(shape, device=self.decoder.device).to(self.decoder.dtype)

    def query(self, batch: int, query_tokens: int) -> Tensor:
        """Return a random query [batch, heads, query_tokens, head_dim]."""
        sizes = self.decoder.architecture
        return self.draw(batch, sizes.heads, query_tokens, sizes.head_dim)

    def matrices(self, n: int, k: int) -> Sequence[Tensor]:
        """Return matrices [n, k] that take twice the last-level cache together, to be used in turn."""
        if (n, k) not in self._matrices:
            size = n * k * self.decoder.weights.lm_head.element_size()
            copies = int(np.clip(2.0 * self.cache_bytes / size, 1, 256))
            self._matrices[n, k] = tuple(self.draw(copies, n, k))
        return self._matrices[n, k]

    def choose_kernels(self) -> None:
        """Find the fastest attention over the longest context: for one query token, and for several."""
        batch, context_len = self.grid.longest
        cache = self.cache(batch, context_len)
        keys, values = cache.keys[0][:, :, :context_len], cache.values[0][:, :, :context_len]
        several = [count for count in (*self.grid.verify, *self.grid.queries) if count > 1]
        for count in (1, *sorted(several)[len(several) // 2 :][:1]):
            visible = Visible.of_aligned(count, context_len, cache.device)
            self.attention.choose(self.query(batch, count), keys, values, visible)
            if count > 1:
                self.attention.apply_to(count, several)
