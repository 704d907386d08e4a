"""Kimi delta attention: the gated delta rule with a decay of its own for every channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers.base import MAX_WIDTH, Recurrent, Sizes, matrix
from perfmodel.model.mixers.gated_delta import delta_rule_chunk_flops

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind

_SECTION = "linear_attn_config"


@dataclass(frozen=True, kw_only=True)
class KimiDelta(Recurrent):
    """Kimi delta attention (arXiv 2510.26692).

    Parameters
    ----------
    heads, head_dim : each head has a state of ``head_dim x head_dim``. [1]
    convolution : width of the convolutions of queries, keys and values. [tokens]
    full_rank_gate, full_rank_decay : whether the output's gate, and the decay, are one matrix instead of two
        of rank `head_dim`.
    """

    words = ("linear_attention", "kda", "linear")
    marks = (
        "linear_attn_config.kda_layers", "linear_attn_config.num_heads", "linear_num_heads",
        "kda_lower_bound",
    )  # fmt: skip
    label = "Kimi delta attention"

    head_dim: int
    convolution: int
    full_rank_gate: bool = False
    full_rank_decay: bool = False

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:  # noqa: ARG003
        """Return the layer; a state whose dtype the config leaves out is kept in fp32."""
        full_rank = sizes.family.full_rank_gates
        return cls(
            heads=keys.size(f"{_SECTION}.num_heads", "linear_num_heads", high=MAX_WIDTH),
            head_dim=keys.size(f"{_SECTION}.head_dim", "linear_head_dim", high=MAX_WIDTH),
            convolution=keys.optional_size(
                f"{_SECTION}.short_conv_kernel_size", "linear_conv_kernel_dim", "short_conv_kernel_size",
                high=MAX_WIDTH, default=4,
            ),
            full_rank_gate=keys.flag(f"{_SECTION}.use_full_rank_gate", default=full_rank),
            full_rank_decay=full_rank,
            state_dtype=keys.state_dtype("fp32"),
        )

    @property
    def width(self) -> int:
        """Of queries, keys, values and the output alike. [1]"""
        return self.heads * self.head_dim

    @property
    def kept_inputs(self) -> int:
        """Inputs that the three convolutions keep. [1]"""
        return 3 * self.width * (self.convolution - 1)

    @property
    def state_elements(self) -> int:
        """A matrix per head. [1]"""
        return self.width * self.head_dim

    @property
    def row_elements(self) -> int:
        """Queries, keys, values, decays, and the output. [1]"""
        return 5 * self.width

    @property
    def step_flops(self) -> float:
        """Three products with the state. [FLOP]"""
        return 6.0 * self.state_elements

    @property
    def chunk_flops(self) -> float:
        """The delta rule in chunks. [FLOP]"""
        return delta_rule_chunk_flops(self.heads, self.head_dim, self.head_dim)

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """Queries, keys and values; the decay in two steps, the write strength, the gate, and the output."""
        width, rank = self.width, self.head_dim
        vectors = 3 * width * self.convolution + width + self.heads + rank
        return (
            matrix(
                "kda_qkv", 3 * width, hidden, "column",
                "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                block="recurrent", vectors=vectors,
            ),
            *self._gate("f", hidden, full_rank=self.full_rank_decay),
            matrix("beta", self.heads, hidden, "column", "self_attn.b_proj", block="recurrent"),
            *self._gate("g", hidden, full_rank=self.full_rank_gate),
            matrix("kda_o", hidden, width, "row", "self_attn.o_proj", block="recurrent"),
        )  # fmt: skip

    def _gate(self, name: str, hidden: int, *, full_rank: bool) -> tuple[LinearLayer, ...]:
        """Return a gate per channel, in one step or in two."""
        width, rank = self.width, self.head_dim
        if full_rank:
            return (matrix(name, width, hidden, "column", f"self_attn.{name}_proj", block="recurrent"),)
        return (
            matrix(f"{name}_a", rank, hidden, "none", f"self_attn.{name}_a_proj", block="recurrent"),
            matrix(f"{name}_b", width, rank, "column", f"self_attn.{name}_b_proj", block="recurrent"),
        )


mixer = KimiDelta
