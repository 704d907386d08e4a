"""A decoder: RMSNorm, a token mixer per layer, SwiGLU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from perfmodel.reference.architecture import Architecture
from perfmodel.reference.layer import LayerWeights, View, normalize, rotate
from perfmodel.reference.mixers.base import LayerPass, Turn

__all__ = ["Decoder", "LayerWeights", "View", "Weights", "rotate"]


@dataclass(frozen=True)
class Weights:
    """All weights of a decoder; `lm_head` is `embedding` itself where the two are tied."""

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor
    lm_head: Tensor


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
        self._frequencies = {
            size: torch.tensor(architecture.frequencies(size), dtype=wide, device=self.device)
            for size in {mixer.rotary_dim for mixer in architecture.mixers}
        }

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
        eps, mixers = self.architecture.norm_eps, self.architecture.mixers
        turns = {size: self._turn(rates, view.positions) for size, rates in self._frequencies.items()}
        hidden = self.weights.embedding[tokens]
        for index, layer in enumerate(self.weights.layers[: self.layers]):
            mixer, normal = mixers[index], normalize(hidden, layer.attention_norm, eps)
            run = LayerPass(view, index, turns[mixer.rotary_dim], eps)
            hidden = hidden + mixer.mix(normal, layer, run)
            gate, up = F.linear(normalize(hidden, layer.mlp_norm, eps), layer.gate_up).chunk(2, dim=-1)
            hidden = hidden + F.linear(F.silu(gate) * up, layer.down)
        if last_only:
            hidden = hidden[:, -1:]
        return F.linear(normalize(hidden, self.weights.final_norm, eps), self.weights.lm_head)

    def _turn(self, frequencies: Tensor, positions: Tensor) -> Turn:
        """Return what rotates heads to their positions, for heads of two elements per frequency."""
        if not frequencies.numel():
            return lambda heads: heads
        angles = positions[..., None].to(frequencies.dtype) * frequencies
        cosine, sine = angles.cos().to(self.dtype)[:, None], angles.sin().to(self.dtype)[:, None]
        return partial(rotate, cosine=cosine, sine=sine)
