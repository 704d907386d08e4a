"""What a token mixer says of itself: its matrices, what a token leaves behind, and how tokens are mixed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from perfmodel.reference.layer import IndexRows, LayerWeights, State, View, normalize

__all__ = ["Entry", "LayerPass", "Mixer", "Turn", "cut", "join_heads", "split_heads", "split_last", "unit"]

Turn = Callable[[Tensor], Tensor]
"""Rotates heads [batch, heads, query_tokens, rotary_dim] to the positions of the pass."""


@dataclass(frozen=True)
class Entry:
    """What one token leaves in the cache of one layer; layers with equal entries are stored together.

    Attributes
    ----------
    kv_heads, key_dim, value_dim : elements of keys and values.
    in_keys : the values are the first `value_dim` elements of the keys, and are not stored again.
    index_dim : elements of an index key, 0 where there is none.
    grows : the layer reads the whole context; where not, only a bounded part of it.
    """

    kv_heads: int
    key_dim: int
    value_dim: int
    in_keys: bool = False
    index_dim: int = 0
    grows: bool = True

    @property
    def elements(self) -> int:
        """Elements stored per token. [elements]"""
        values = 0 if self.in_keys else self.value_dim
        return self.kv_heads * (self.key_dim + values) + self.index_dim


@dataclass(frozen=True)
class LayerPass:
    """One pass through one layer.

    Attributes
    ----------
    view : what the pass sees of the cache.
    layer : index from 0.
    turn : rotates heads of the mixer's `rotary_dim` elements.
    eps : constant of the norms.
    """

    view: View
    layer: int
    turn: Turn
    eps: float

    def attend(
        self, query: Tensor, key: Tensor | None, value: Tensor | None, index: IndexRows | None = None
    ) -> Tensor:
        """Put new keys and values in the layer's slots and return what the queries read."""
        return self.view.attend(self.layer, query, key, value, index)

    def state(self) -> State:
        """Return the layer's state before the pass."""
        return self.view.state(self.layer)

    def leave(self, *after: Tensor) -> None:
        """Keep the layer's states after each token."""
        self.view.leave(self.layer, after)

    def normalize(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Scale to a root mean square of one, then by `weight`."""
        return normalize(hidden, weight, self.eps)


@dataclass(frozen=True)
class Mixer(ABC):
    """A token mixer: attention of some kind, or a recurrence.

    Its weights are drawn for the shapes that it names; `qkv` and `output` are always among them.
    """

    @property
    def rotary_dim(self) -> int:
        """Elements of a head that are turned to their position. [elements]"""
        return 0

    @property
    def entry(self) -> Entry | None:
        """What a token leaves in the cache; None for a recurrence."""
        return None

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the tensors that a recurrence holds per sequence; empty for attention."""
        return ()

    @abstractmethod
    def shapes(self, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight by its name: matrices [outputs, inputs], vectors [elements]."""

    def seen_from(self, positions: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return the first position that the query at each position reads; None where it reads all."""
        return None

    @abstractmethod
    def mix(self, hidden: Tensor, weights: LayerWeights, run: LayerPass) -> Tensor:
        """Return what the layer adds to the residual stream, [batch, query_tokens, hidden_size].

        Parameters
        ----------
        hidden : normalised input, of the same shape.
        weights : those of the layer.
        run : the pass, with the layer's cache or state.
        """


def cut(fused: Tensor, *sizes: int) -> list[Tensor]:
    """Return the parts of the last axis, of the given sizes; what is left is one more part."""
    rest = fused.shape[-1] - sum(sizes)
    return list(torch.split(fused, [*sizes, rest], dim=-1))


def split_last(fused: Tensor, heads: int) -> Tensor:
    """Return [..., heads x d] as [..., heads, d]."""
    return fused.reshape(*fused.shape[:-1], heads, -1)


def split_heads(fused: Tensor, heads: int) -> Tensor:
    """Return [batch, query_tokens, heads x d] as [batch, heads, query_tokens, d]."""
    return split_last(fused, heads).transpose(1, 2)


def join_heads(read: Tensor) -> Tensor:
    """Return [batch, heads, query_tokens, d] as [batch, query_tokens, heads x d]."""
    return read.transpose(1, 2).flatten(2)


def unit(heads: Tensor) -> Tensor:
    """Return vectors of length one along the last axis."""
    return torch.nn.functional.normalize(heads, dim=-1)
