"""Gated delta net: linear attention whose state forgets by a gate and corrects what it held before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers.base import MAX_WIDTH, Recurrent, Sizes, matrix

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind

CHUNK = 64
"""Tokens that the kernels of the delta rule compute at once (arXiv 2412.06464). [tokens]"""


def delta_rule_chunk_flops(heads: int, key_dim: int, value_dim: int) -> float:
    """FLOPs of a token where a chunk is computed at once: the state's three products, and within the chunk
    ``K K^T``, its triangular inverse times K and V, ``Q K^T`` and its product with the values. [FLOP]"""
    return heads * (6.0 * key_dim * value_dim + 2.0 * CHUNK * (3 * key_dim + 2 * value_dim))


@dataclass(frozen=True, kw_only=True)
class GatedDelta(Recurrent):
    """Gated delta net (arXiv 2412.06464).

    Parameters
    ----------
    heads : value heads, each with a state of ``key_dim x value_dim``. [1]
    key_heads, key_dim, value_dim : key heads, and the widths of keys and values. [1]
    convolution : width of the convolution in front. [tokens]
    """

    words = ("linear_attention", "gated_deltanet", "linear")
    marks = ("linear_num_key_heads",)
    label = "gated delta net"

    key_heads: int
    key_dim: int
    value_dim: int
    convolution: int

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:  # noqa: ARG003
        """Return the layer; a state whose dtype the config leaves out is kept in fp32."""
        return cls(
            heads=keys.size("linear_num_value_heads", high=MAX_WIDTH),
            key_heads=keys.size("linear_num_key_heads", high=MAX_WIDTH),
            key_dim=keys.size("linear_key_head_dim", high=MAX_WIDTH),
            value_dim=keys.size("linear_value_head_dim", high=MAX_WIDTH),
            convolution=keys.optional_size("linear_conv_kernel_dim", high=MAX_WIDTH, default=4),
            state_dtype=keys.state_dtype("fp32"),
        )

    @property
    def channels(self) -> int:
        """Queries, keys and values of all heads, which the convolution runs over. [1]"""
        return 2 * self.key_heads * self.key_dim + self.heads * self.value_dim

    @property
    def kept_inputs(self) -> int:
        """Inputs that the convolution keeps. [1]"""
        return self.channels * (self.convolution - 1)

    @property
    def state_elements(self) -> int:
        """A matrix per value head. [1]"""
        return self.heads * self.key_dim * self.value_dim

    @property
    def row_elements(self) -> int:
        """Queries, keys, values, and the output. [1]"""
        return self.channels + self.heads * self.value_dim

    @property
    def step_flops(self) -> float:
        """Decay and read, correct, and read out: three products with the state. [FLOP]"""
        return 6.0 * self.state_elements

    @property
    def chunk_flops(self) -> float:
        """The delta rule in chunks. [FLOP]"""
        return delta_rule_chunk_flops(self.heads, self.key_dim, self.value_dim)

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """Queries, keys and values; the gate of the output; decay and write strength; the output."""
        values = self.heads * self.value_dim
        vectors = self.channels * self.convolution + 2 * self.heads + self.value_dim
        return (
            matrix(
                "in_proj", self.channels, hidden, "column", "linear_attn.in_proj_qkv",
                block="recurrent", vectors=vectors,
            ),
            matrix("in_gate", values, hidden, "column", "linear_attn.in_proj_z", block="recurrent"),
            matrix(
                "in_steps", 2 * self.heads, hidden, "column",
                "linear_attn.in_proj_a", "linear_attn.in_proj_b", block="recurrent",
            ),
            matrix("out_proj", hidden, values, "row", "linear_attn.out_proj", block="recurrent"),
        )  # fmt: skip


mixer = GatedDelta
