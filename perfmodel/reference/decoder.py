"""A Llama-style decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from perfmodel.reference.architecture import Architecture

__all__ = ["Decoder", "LayerWeights", "View", "Weights", "rotate"]


@dataclass(frozen=True)
class LayerWeights:
    """One layer; a matrix is stored as [outputs, inputs]."""

    attention_norm: Tensor
    qkv: Tensor
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    qkv_bias: Tensor | None = None


@dataclass(frozen=True)
class Weights:
    """All weights of a decoder; `lm_head` is `embedding` itself where the two are tied."""

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor
    lm_head: Tensor


class View(Protocol):
    """What one forward pass sees of a cache: where its tokens stand, and attention over what may be read."""

    @property
    def positions(self) -> Tensor:
        """Position of every token of the pass, shape [batch or 1, query_tokens]."""
        ...

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Put the new keys and values in their slots and return what the queries read.

        Parameters
        ----------
        layer : index from 0.
        query : [batch, heads, query_tokens, head_dim].
        key, value : [batch, kv_heads, query_tokens, head_dim].
        """
        ...


class Decoder:
    """A decoder and its weights; the cache is handed in with every pass.

    Parameters
    ----------
    architecture : sizes and constants.
    weights : on one device, of one dtype.
    layers : how many of the first layers run, all where None; the final norm and the head always run.
    """

    def __init__(self, architecture: Architecture, weights: Weights, layers: int | None = None) -> None:
        self.architecture, self.weights = architecture, weights
        self.layers = len(weights.layers) if layers is None else layers
        self.dtype, self.device = weights.lm_head.dtype, weights.lm_head.device
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        self._frequencies = torch.tensor(architecture.frequencies(), dtype=wide, device=self.device)

    def exit_after(self, layers: int) -> Decoder:
        """Return the same decoder that runs only its first `layers` layers."""
        return Decoder(self.architecture, self.weights, layers)

    def forward(self, tokens: Tensor, view: View, last_only: bool = False) -> Tensor:
        """Return the logits that follow every token, shape [batch, query_tokens, vocab_size].

        Parameters
        ----------
        tokens : [batch, query_tokens], at the positions of the view.
        view : what the pass reads and where it writes.
        last_only : compute logits after the last token only; query_tokens is then 1 in the result.
        """
        eps = self.architecture.norm_eps
        angles = view.positions[..., None].to(self._frequencies.dtype) * self._frequencies
        cosine, sine = angles.cos().to(self.dtype)[:, None], angles.sin().to(self.dtype)[:, None]
        hidden = self.weights.embedding[tokens]
        for index, layer in enumerate(self.weights.layers[: self.layers]):
            query, key, value = self._split_heads(normalize(hidden, layer.attention_norm, eps), layer)
            query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
            read = view.attend(index, query, key, value)
            hidden = hidden + F.linear(read.transpose(1, 2).flatten(2), layer.output)
            gate, up = F.linear(normalize(hidden, layer.mlp_norm, eps), layer.gate_up).chunk(2, dim=-1)
            hidden = hidden + F.linear(F.silu(gate) * up, layer.down)
        if last_only:
            hidden = hidden[:, -1:]
        return F.linear(normalize(hidden, self.weights.final_norm, eps), self.weights.lm_head)

    def _split_heads(self, hidden: Tensor, layer: LayerWeights) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each [batch, heads, query_tokens, head_dim]."""
        sizes = self.architecture
        fused = F.linear(hidden, layer.qkv, layer.qkv_bias)
        fused = fused.reshape(*fused.shape[:2], -1, sizes.head_dim).transpose(1, 2)
        until = sizes.heads + sizes.kv_heads
        return fused[:, : sizes.heads], fused[:, sizes.heads : until], fused[:, until:]


def normalize(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale to a root mean square of one, then by `weight`; at least in float32."""
    wide = hidden if hidden.dtype == torch.float64 else hidden.float()
    scale = (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    return (wide * scale).to(hidden.dtype) * weight


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair (i, i + head_dim / 2) of every head by its angle; the last axes are tokens and pairs."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
