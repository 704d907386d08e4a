"""Mamba-2: a state-space layer whose heads decay by one number per token."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from perfmodel.reference.layer import LayerWeights
from perfmodel.reference.mixers.base import LayerPass, Mixer, cut, split_last
from perfmodel.reference.mixers.recurrence import convolve, log_decay, scan

__all__ = ["Mamba2"]


@dataclass(frozen=True)
class Mamba2(Mixer):
    """``S = exp(dt A) S + dt B x^T``, ``y = S^T C + D x``. Source: arXiv 2405.21060, section 7.

    Attributes
    ----------
    heads, head_dim : of the input and of the state, ``[state_size, head_dim]`` each.
    groups : heads of one group share what is written (``B``) and read (``C``).
    state_size : elements of ``B`` and ``C``.
    convolution : tokens that the convolution in front of the input, ``B`` and ``C`` sees.
    """

    heads: int
    head_dim: int
    groups: int
    state_size: int
    convolution: int = 4

    @property
    def channels(self) -> int:
        """Channels of the convolution: the input, ``B`` and ``C``."""
        return self.heads * self.head_dim + 2 * self.groups * self.state_size

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The window of the convolution, and the state."""
        return (self.convolution - 1, self.channels), (self.heads, self.state_size, self.head_dim)

    def shapes(self, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Return the product of gate, input, ``B``, ``C`` and steps, the convolution and the output."""
        width = self.heads * self.head_dim
        return {
            "qkv": (self.channels + width + self.heads, hidden_size),
            "output": (hidden_size, width),
            "convolution": (self.channels, self.convolution),
            "decay": (self.heads,),
            "step": (self.heads,),
            "skip": (self.heads,),
            "gate_norm": (width,),
        }

    def mix(self, hidden: Tensor, weights: LayerWeights, run: LayerPass) -> Tensor:
        """Return ``W_o norm(y silu(z))``."""
        extra, (window, state) = weights.extra, run.state()
        width, shared = self.heads * self.head_dim, self.groups * self.state_size
        gate, mixed, step = cut(F.linear(hidden, weights.qkv), width, self.channels)
        mixed, windows = convolve(window, mixed, extra["convolution"])
        entering, written, asked = cut(F.silu(mixed), width, shared)
        key, query = (
            split_last(part, self.groups).repeat_interleave(self.heads // self.groups, dim=2)
            for part in (written, asked)
        )
        value, step = split_last(entering, self.heads), step + extra["step"]
        decay = log_decay(extra["decay"], step).exp()[..., None]
        read, states = scan(state, query, key, F.softplus(step)[..., None] * value, decay)
        run.leave(windows, states)
        read = (read + extra["skip"][:, None] * value).flatten(2)
        return F.linear(run.normalize(read * F.silu(gate), extra["gate_norm"]), weights.output)


mixer = Mamba2
