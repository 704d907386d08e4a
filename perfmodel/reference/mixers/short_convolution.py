"""A gated convolution over the latest few tokens, as in LFM2."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from perfmodel.reference.layer import LayerWeights
from perfmodel.reference.mixers.base import LayerPass, Mixer
from perfmodel.reference.mixers.recurrence import convolve

__all__ = ["ShortConvolution"]


@dataclass(frozen=True)
class ShortConvolution(Mixer):
    """``W_o (c conv(b x))`` with two gates ``b`` and ``c``: it keeps its last inputs and no other state.

    Attributes
    ----------
    heads : channels.
    convolution : tokens that the convolution sees.
    """

    heads: int
    convolution: int = 3

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The window of the convolution."""
        return ((self.convolution - 1, self.heads),)

    def shapes(self, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Return the product of both gates and the input, the convolution and the output."""
        return {
            "qkv": (3 * self.heads, hidden_size),
            "output": (hidden_size, self.heads),
            "convolution": (self.heads, self.convolution),
        }

    def mix(self, hidden: Tensor, weights: LayerWeights, run: LayerPass) -> Tensor:
        """Return ``W_o (c conv(b x))``."""
        (window,) = run.state()
        before, after, entering = F.linear(hidden, weights.qkv).chunk(3, dim=-1)
        mixed, windows = convolve(window, before * entering, weights.extra["convolution"])
        run.leave(windows)
        return F.linear(after * mixed, weights.output)


mixer = ShortConvolution
