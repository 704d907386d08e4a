"""Lightning attention: linear attention whose heads decay at fixed speeds, as in MiniMax-M1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from perfmodel.reference.layer import LayerWeights
from perfmodel.reference.mixers.base import LayerPass, Mixer, split_last
from perfmodel.reference.mixers.recurrence import scan

__all__ = ["Lightning"]


@dataclass(frozen=True)
class Lightning(Mixer):
    """A state per head that decays by ``exp(-2**(-8 h / H))`` a token. Source: arXiv 2401.04658.

    Attributes
    ----------
    heads, head_dim : of queries, keys, values and of the state, ``[head_dim, head_dim]`` each.
    """

    heads: int
    head_dim: int

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The state alone."""
        return ((self.heads, self.head_dim, self.head_dim),)

    def shapes(self, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Return the product of queries, keys, values and the gate, and the output."""
        width = self.heads * self.head_dim
        return {"qkv": (4 * width, hidden_size), "output": (hidden_size, width), "gate_norm": (width,)}

    def mix(self, hidden: Tensor, weights: LayerWeights, run: LayerPass) -> Tensor:
        """Return ``W_o (norm(S^T q) sigmoid(z))``."""
        *mixed, gate = F.linear(hidden, weights.qkv).chunk(4, dim=-1)
        query, key, value = (split_last(F.silu(part), self.heads) for part in mixed)
        heads = torch.arange(1, self.heads + 1, dtype=hidden.dtype, device=hidden.device)
        decay = torch.exp(-(2.0 ** (-8.0 * heads / self.heads)))[:, None].expand(*query.shape[:3], 1)
        (state,) = run.state()
        read, states = scan(state, query, key, value, decay)
        run.leave(states)
        gated = run.normalize(read.flatten(2), weights.extra["gate_norm"]) * gate.sigmoid()
        return F.linear(gated, weights.output)


mixer = Lightning
