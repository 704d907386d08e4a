"""What one forward pass runs through, and the kernels that a layer launches for it: counts, no seconds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np

from perfmodel.files.numbers import Numeric, as_floats
from perfmodel.model.linear import LinearLayer

__all__ = ["Attend", "Choose", "ForwardPass", "Multiply", "Recur", "Way"]


@dataclass(frozen=True, kw_only=True)
class ForwardPass:
    """What one forward pass runs through and reads; every field broadcasts against the others.

    Parameters
    ----------
    batch : sequences. [1]
    kv_tokens : cache entries that each sequence's queries may read, the new ones included. [tokens]
    query_tokens : tokens per sequence that enter the pass: 1 in a decode step, gamma + 1 in a verification.
        [tokens]
    weight_fraction, kv_fraction : bytes of a weight, of a cache entry, relative to the model's dtypes. [1]
    selection_kv_tokens : further entries read per sequence to choose what attention may see. [tokens]
    selection_launches : further kernels launched in each attention layer that chooses. [launches]
    drafting : whether it is a draft pass, whose cache of its own the engine keeps up.
    passes, drafted : of a draft pass, the passes of the round of which it is the mean one, and the tokens
        that small steps refine after it, one after the other. [1], [tokens]
    context_len : entries of the sequence where the pass may read only some of them, which layers of a window
        or chunk read by themselves; `kv_tokens` where None. [tokens]
    history : entries before a prefill, None outside of one. [tokens]
    kept_states, state_trips : in a verification, states that a recurrent layer writes for each token, and
        how often one is read and written again once the drafts are accepted. [1]
    """

    batch: Numeric
    kv_tokens: Numeric
    query_tokens: Numeric = 1.0
    weight_fraction: Numeric = 1.0
    kv_fraction: Numeric = 1.0
    selection_kv_tokens: Numeric = 0.0
    selection_launches: Numeric = 0.0
    drafting: bool = False
    passes: Numeric = 1.0
    drafted: Numeric = 0.0
    context_len: Numeric | None = None
    history: Numeric | None = None
    kept_states: Numeric = 1.0
    state_trips: Numeric = 0.0

    def __post_init__(self) -> None:
        """Hold counts in double precision: those of a large batch, multiplied, overflow 32-bit integers."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name != "drafting":
                object.__setattr__(self, field.name, as_floats(value)[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """What its fields broadcast to."""
        return np.broadcast_shapes(*(np.shape(getattr(self, field.name)) for field in fields(self)))

    @property
    def rows(self) -> Numeric:
        """Tokens of all sequences, the rows of a linear layer. [tokens]"""
        return np.multiply(self.batch, self.query_tokens)

    def runs(self, product: LinearLayer, logit_rows: Numeric) -> tuple[Numeric, Numeric]:
        """Rows of a product, and how often it runs in this pass. [tokens], [1]

        Parameters
        ----------
        logit_rows : tokens of all sequences whose logits are computed. [tokens]
        """
        if product.name == "lm_head" or product.occasion == "logits":
            return logit_rows, 1.0
        if product.occasion == "round" and self.drafting:
            return self.batch, np.divide(1.0, np.maximum(self.passes, 1.0))
        if product.occasion == "draft":
            return self.batch, self.drafted
        return self.rows, 1.0

    @property
    def chooses(self) -> bool:
        """Whether a draft pass scores entries to choose among them."""
        return bool(np.any(self.selection_launches))

    def entries(self, window: int | None = None) -> Numeric:
        """Entries that a layer of that window reads: at most the union of its queries' windows. [tokens]

        A window is read whole, whatever a draft's budget leaves out of the caches that grow. In a prefill
        it is the mean over the queries: the first ones read all there is, the rest their window.
        """
        if self.history is not None:
            return _mean_entries(self.history, self.query_tokens, window)
        if window is None:
            return np.add(self.kv_tokens, self.selection_kv_tokens)
        context = self.kv_tokens if self.context_len is None else self.context_len
        seen: Numeric = np.minimum(context, window + np.subtract(self.query_tokens, 1.0))
        return seen


def _mean_entries(history: Numeric, chunk: Numeric, window: int | None) -> Numeric:
    """Return the mean entries that a query of a prefill reads. [tokens]"""
    whole = chunk if window is None else np.clip(window - np.asarray(history), 0.0, chunk)
    beyond = 0.0 if window is None else np.subtract(chunk, whole) * window
    mean: Numeric = (whole * (history + (whole + 1.0) / 2.0) + beyond) / chunk
    return mean


@dataclass(frozen=True, kw_only=True)
class Attend:
    """One launch of an attention kernel: queries of every sequence against cache entries.

    Parameters
    ----------
    heads, kv_heads : query heads, and the heads that the cache has; GPUs share both. [1]
    key_dim, value_dim : elements of an entry that a query row multiplies, and that it accumulates. [1]
    entry_elements : elements of an entry that are read, per KV head. [1]
    kv_tokens : entries that are read. [tokens]
    query_tokens : queries that read the same entries. [tokens]
    choices : sets of queries in each sequence that read entries of their own. [1]
    copied : whether every GPU holds and runs it whole.
    dtype : of the entries; the cache's where None.
    """

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    entry_elements: int
    kv_tokens: Numeric
    query_tokens: Numeric = 1.0
    choices: Numeric = 1.0
    copied: bool = False
    dtype: str | None = None

    def heads_per_gpu(self, tensor_parallel: Numeric) -> tuple[Numeric, Numeric]:
        """Query heads and KV heads on each GPU; beyond their number KV heads are copied. [1], [1]"""
        gpus = 1.0 if self.copied else np.asarray(tensor_parallel, dtype=float)
        return np.maximum(self.heads / gpus, 1.0), np.maximum(self.kv_heads / gpus, 1.0)

    def flops(self, tensor_parallel: Numeric) -> Numeric:
        """FLOPs of a sequence on one GPU: two per multiply-add. [FLOP]"""
        heads, _ = self.heads_per_gpu(tensor_parallel)
        queries = np.multiply(self.query_tokens, self.choices)
        flops: Numeric = 2.0 * queries * heads * (self.key_dim + self.value_dim) * self.kv_tokens
        return flops

    def elements(self, tensor_parallel: Numeric) -> Numeric:
        """Cache elements of a sequence that one GPU reads. [1]"""
        _, kv_heads = self.heads_per_gpu(tensor_parallel)
        elements: Numeric = np.multiply(self.choices, self.kv_tokens) * kv_heads * self.entry_elements
        return elements


@dataclass(frozen=True, kw_only=True)
class Recur:
    """One pass over states of fixed size: read, advanced by each token, written.

    Parameters
    ----------
    heads : by which GPUs share the state. [1]
    state_bytes : of one sequence and layer. [B]
    reads, writes : how often the state crosses memory. [1]
    row_bytes : inputs and outputs of each token. [B]
    query_tokens : tokens of each sequence. [tokens]
    flops : of each sequence. [FLOP]
    tensor_cores : whether matrix units do the arithmetic.
    """

    heads: int
    state_bytes: float
    reads: Numeric
    writes: Numeric
    row_bytes: float
    query_tokens: Numeric
    flops: Numeric
    tensor_cores: bool = True

    def bytes_moved(self, tensor_parallel: Numeric) -> Numeric:
        """Bytes of a sequence that cross the memory of one GPU. [B]"""
        moved = np.add(self.reads, self.writes) * self.state_bytes
        moved = moved + np.multiply(self.query_tokens, self.row_bytes)
        shared: Numeric = moved / self.shards(tensor_parallel)
        return shared

    def shards(self, tensor_parallel: Numeric) -> Numeric:
        """GPUs that share the state. [GPUs]"""
        shards: Numeric = np.minimum(np.asarray(tensor_parallel, dtype=float), self.heads)
        return shards


@dataclass(frozen=True, kw_only=True)
class Multiply:
    """A product that attention needs beside the layer's own. [tokens of each sequence]"""

    product: LinearLayer
    tokens: Numeric


@dataclass(frozen=True, kw_only=True)
class Choose:
    """Kernels that choose among entries: scored and taken, on top of what is read. [launches]"""

    launches: Numeric


Launch: TypeAlias = Attend | Recur | Multiply | Choose
Way: TypeAlias = tuple[Launch, ...]
"""The kernels of one layer; where there are several ways, the fastest is taken."""
