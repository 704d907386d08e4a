"""Mamba: a state-space layer whose every channel decays at speeds of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from perfmodel.reference.layer import LayerWeights
from perfmodel.reference.mixers.base import LayerPass, Mixer, cut
from perfmodel.reference.mixers.recurrence import convolve, scan

__all__ = ["Mamba1"]


@dataclass(frozen=True)
class Mamba1(Mixer):
    """``s = exp(dt A) s + dt x B``, ``y = C s + D x`` of every channel. Source: arXiv 2312.00752, section 3.

    Attributes
    ----------
    heads : channels, each with a state of `state_size`.
    state_size : elements of what is written (``B``) and read (``C``), which all channels share.
    step_rank : elements that the steps ``dt`` of all channels are made of.
    convolution : tokens that the convolution in front sees.
    """

    heads: int
    state_size: int
    step_rank: int
    convolution: int = 4

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The window of the convolution, and the state."""
        return (self.convolution - 1, self.heads), (self.heads, self.state_size, 1)

    def shapes(self, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Return the product of input and gate, what the input makes of the state's maps, and the output."""
        return {
            "qkv": (2 * self.heads, hidden_size),
            "output": (hidden_size, self.heads),
            "convolution": (self.heads, self.convolution),
            "maps": (self.step_rank + 2 * self.state_size, self.heads),
            "step_up": (self.heads, self.step_rank),
            "decay": (self.heads, self.state_size),
            "step": (self.heads,),
            "skip": (self.heads,),
        }

    def mix(self, hidden: Tensor, weights: LayerWeights, run: LayerPass) -> Tensor:
        """Return ``W_o (y silu(z))``."""
        extra, (window, state) = weights.extra, run.state()
        entering, gate = F.linear(hidden, weights.qkv).chunk(2, dim=-1)
        entering, windows = convolve(window, entering, extra["convolution"])
        entering = F.silu(entering)
        step, written, asked = cut(F.linear(entering, extra["maps"]), self.step_rank, self.state_size)
        step = F.softplus(F.linear(step, extra["step_up"]) + extra["step"])
        key, query = (part[:, :, None].expand(-1, -1, self.heads, -1) for part in (written, asked))
        decay = (-extra["decay"].exp() * step[..., None]).exp()
        read, states = scan(state, query, key, (step * entering)[..., None], decay)
        run.leave(windows, states)
        return F.linear((read[..., 0] + extra["skip"] * entering) * F.silu(gate), weights.output)


mixer = Mamba1
