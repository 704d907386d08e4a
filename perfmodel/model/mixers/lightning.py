"""Lightning attention: linear attention whose state decays at a fixed rate per head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers.base import Recurrent, Sizes, matrix

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind

CHUNK = 256
"""Tokens that the kernels compute at once (arXiv 2401.04658). [tokens]"""


@dataclass(frozen=True, kw_only=True)
class Lightning(Recurrent):
    """Lightning attention (arXiv 2401.04658): as many key as query heads, and an output gate.

    Parameters
    ----------
    heads, head_dim : each head has a state of ``head_dim x head_dim``. [1]
    """

    words = ("linear_attention", "lightning_attention", "lightning", "linear")
    marks = ("attn_type_list", "layer_group_size", "linear_attn_alpha_factor")
    label = "lightning attention"

    head_dim: int

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:  # noqa: ARG003
        """Return the layer; a state whose dtype the config leaves out is kept in fp32."""
        return cls(heads=sizes.heads, head_dim=sizes.head_dim, state_dtype=keys.state_dtype("fp32"))

    @property
    def width(self) -> int:
        """Of queries, keys, values and the output alike. [1]"""
        return self.heads * self.head_dim

    @property
    def state_elements(self) -> int:
        """A matrix per head. [1]"""
        return self.width * self.head_dim

    @property
    def row_elements(self) -> int:
        """Queries, keys, values, and the output. [1]"""
        return 4 * self.width

    @property
    def step_flops(self) -> float:
        """One product into the state, one out of it. [FLOP]"""
        return 4.0 * self.state_elements

    @property
    def chunk_flops(self) -> float:
        """Both, and within the chunk ``Q K^T`` and its product with the values. [FLOP]"""
        return self.step_flops + 4.0 * CHUNK * self.width

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """Queries, keys and values; the gate; the output."""
        return (
            matrix(
                "linear_qkv", 3 * self.width, hidden, "column",
                "self_attn.qkv_proj", block="recurrent", vectors=self.width,
            ),
            matrix(
                "linear_gate", self.width, hidden, "column",
                "self_attn.output_gate", block="recurrent",
            ),
            matrix(
                "linear_o", hidden, self.width, "row",
                "self_attn.out_proj", block="recurrent",
            ),
        )  # fmt: skip


mixer = Lightning
