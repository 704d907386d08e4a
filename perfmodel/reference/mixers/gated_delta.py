"""Linear attention by the gated delta rule with a short convolution, as in Qwen3-Next."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from perfmodel.reference.layer import LayerWeights
from perfmodel.reference.mixers.base import LayerPass, Mixer, cut, split_last, unit
from perfmodel.reference.mixers.recurrence import convolve, log_decay, scan

__all__ = ["GatedDelta"]


@dataclass(frozen=True)
class GatedDelta(Mixer):
    """A state per value head that decays by a gate and is corrected by the delta rule.

    Source: gated delta networks, arXiv 2412.06464.

    Attributes
    ----------
    heads, value_dim : of values and of the state, ``[key_dim, value_dim]`` each.
    key_heads, key_dim : of queries and keys; value heads share them in groups.
    convolution : tokens that the convolution in front of queries, keys and values sees.
    """

    heads: int
    value_dim: int
    key_heads: int
    key_dim: int
    convolution: int = 4

    @property
    def channels(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.key_heads * self.key_dim + self.heads * self.value_dim

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The window of the convolution, and the state."""
        return (self.convolution - 1, self.channels), (self.heads, self.key_dim, self.value_dim)

    def shapes(self, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Return the product of queries, keys, values and gates, the convolution and the output."""
        values = self.heads * self.value_dim
        return {
            "qkv": (self.channels + values + 2 * self.heads, hidden_size),
            "output": (hidden_size, values),
            "convolution": (self.channels, self.convolution),
            "decay": (self.heads,),
            "step": (self.heads,),
            "gate_norm": (self.value_dim,),
        }

    def mix(self, hidden: Tensor, weights: LayerWeights, run: LayerPass) -> Tensor:
        """Return ``W_o (norm(S^T q) silu(z))``."""
        extra, (window, state) = weights.extra, run.state()
        keys, values = self.key_heads * self.key_dim, self.heads * self.value_dim
        fused = F.linear(hidden, weights.qkv)
        mixed, gate, strength, step = cut(fused, self.channels, values, self.heads)
        mixed, windows = convolve(window, mixed, extra["convolution"])
        query, key, value = cut(F.silu(mixed), keys, keys)
        group = self.heads // self.key_heads
        query, key = (
            unit(split_last(part, self.key_heads)).repeat_interleave(group, dim=2) for part in (query, key)
        )
        decay = log_decay(extra["decay"], step + extra["step"]).exp()
        read, states = scan(
            state, query * self.key_dim**-0.5, key, split_last(value, self.heads),
            decay[..., None], strength.sigmoid()[..., None],
        )  # fmt: skip
        run.leave(windows, states)
        gated = run.normalize(read, extra["gate_norm"]).flatten(2) * F.silu(gate)
        return F.linear(gated, weights.output)


mixer = GatedDelta
