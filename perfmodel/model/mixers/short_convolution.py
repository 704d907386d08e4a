"""Short convolution: a gated convolution over the latest few tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers.base import MAX_WIDTH, Recurrent, Sizes, matrix

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind


@dataclass(frozen=True, kw_only=True)
class ShortConvolution(Recurrent):
    """Gated short convolution (LFM2): it keeps its last inputs and no state.

    Parameters
    ----------
    heads : channels. [1]
    convolution : its width. [tokens]
    biased : whether it has a bias.
    """

    words = ("conv", "short_conv", "convolution")
    marks = ("conv_L_cache",)
    label = "short convolution"
    tensor_cores: ClassVar[bool] = False

    convolution: int
    biased: bool = False

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:  # noqa: ARG003
        """Return the layer."""
        return cls(
            heads=keys.optional_size("conv_dim", high=MAX_WIDTH, default=sizes.hidden),
            convolution=keys.size("conv_L_cache", high=MAX_WIDTH),
            biased=keys.flag("conv_bias", default=False),
        )

    @property
    def kept_inputs(self) -> int:
        """Inputs that it keeps. [1]"""
        return self.heads * (self.convolution - 1)

    @property
    def state_elements(self) -> int:
        """None. [1]"""
        return 0

    @property
    def row_elements(self) -> int:
        """Inputs, both gates, and the output. [1]"""
        return 4 * self.heads

    @property
    def step_flops(self) -> float:
        """One multiply-add per channel and tap. [FLOP]"""
        return 2.0 * self.convolution * self.heads

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """Inputs and gates, and the output."""
        vectors = self.heads * (self.convolution + self.biased)
        return (
            matrix(
                "in_proj", 3 * self.heads, hidden, "column", "conv.in_proj",
                block="recurrent", vectors=vectors,
            ),
            matrix("out_proj", hidden, self.heads, "row", "conv.out_proj", block="recurrent"),
        )  # fmt: skip


mixer = ShortConvolution
