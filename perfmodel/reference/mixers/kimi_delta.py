"""Kimi delta attention: the delta rule with a decay per channel of the key."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from perfmodel.reference.layer import LayerWeights
from perfmodel.reference.mixers.base import LayerPass, Mixer, cut, split_last, unit
from perfmodel.reference.mixers.recurrence import convolve, log_decay, scan

__all__ = ["KimiDelta"]


@dataclass(frozen=True)
class KimiDelta(Mixer):
    """A state per head whose rows decay apart. Source: Kimi Linear, arXiv 2510.26692.

    Attributes
    ----------
    heads, head_dim : of queries, keys, values and of the state, ``[head_dim, head_dim]`` each.
    convolution : tokens that the convolution in front of queries, keys and values sees.
    """

    heads: int
    head_dim: int
    convolution: int = 4

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The window of the convolution, and the state."""
        width = self.heads * self.head_dim
        return (self.convolution - 1, 3 * width), (self.heads, self.head_dim, self.head_dim)

    def shapes(self, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Return the product of queries, keys, values and inner gates, what gates become, and the output."""
        width = self.heads * self.head_dim
        return {
            "qkv": (3 * width + 2 * self.head_dim + self.heads, hidden_size),
            "output": (hidden_size, width),
            "convolution": (3 * width, self.convolution),
            "decay_up": (width, self.head_dim),
            "gate_up": (width, self.head_dim),
            "decay": (self.heads,),
            "step": (width,),
            "gate_norm": (self.head_dim,),
        }

    def mix(self, hidden: Tensor, weights: LayerWeights, run: LayerPass) -> Tensor:
        """Return ``W_o (norm(S^T q) sigmoid(z))``."""
        extra, (window, state) = weights.extra, run.state()
        width, fused = self.heads * self.head_dim, F.linear(hidden, weights.qkv)
        mixed, slow, gate, strength = cut(fused, 3 * width, self.head_dim, self.head_dim)
        mixed, windows = convolve(window, mixed, extra["convolution"])
        query, key, value = (split_last(part, self.heads) for part in F.silu(mixed).chunk(3, dim=-1))
        step = split_last(F.linear(slow, extra["decay_up"]) + extra["step"], self.heads)
        read, states = scan(
            state, unit(query) * self.head_dim**-0.5, unit(key), value,
            log_decay(extra["decay"][:, None], step).exp(), strength.sigmoid()[..., None],
        )  # fmt: skip
        run.leave(windows, states)
        gate = F.linear(gate, extra["gate_up"]).sigmoid()
        return F.linear(run.normalize(read, extra["gate_norm"]).flatten(2) * gate, weights.output)


mixer = KimiDelta
