"""Mamba: a state-space layer whose channels decay each on its own."""

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
class Mamba1(Recurrent):
    """Mamba (arXiv 2312.00752), elementwise: matrix units have no part in it.

    Parameters
    ----------
    heads : channels, each with a state of `state_size`. [1]
    state_size, step_rank, convolution : of the state, of the step's projection, of the convolution. [1]
    biased : whether the convolution has a bias.
    """

    words = ("mamba", "mamba1", "linear")
    label = "Mamba"
    tensor_cores: ClassVar[bool] = False

    state_size: int
    step_rank: int
    convolution: int
    biased: bool = True

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:  # noqa: ARG003
        """Return the layer; a state whose dtype the config leaves out is kept in fp32."""
        rank = keys.find("mamba_dt_rank")
        given = rank is not None and rank[1] != "auto"
        return cls(
            heads=keys.optional_size("mamba_expand", high=MAX_WIDTH, default=2) * sizes.hidden,
            state_size=keys.size("mamba_d_state", high=MAX_WIDTH),
            step_rank=keys.size("mamba_dt_rank", high=MAX_WIDTH) if given else -(-sizes.hidden // 16),
            convolution=keys.optional_size("mamba_d_conv", high=MAX_WIDTH, default=4),
            biased=keys.flag("mamba_conv_bias", default=True),
            state_dtype=keys.state_dtype("fp32"),
        )

    @property
    def kept_inputs(self) -> int:
        """Inputs that the convolution keeps. [1]"""
        return self.heads * (self.convolution - 1)

    @property
    def state_elements(self) -> int:
        """A vector per channel. [1]"""
        return self.heads * self.state_size

    @property
    def row_elements(self) -> int:
        """Inputs, steps and output of every channel, and the maps. [1]"""
        return 3 * self.heads + 2 * self.state_size

    @property
    def step_flops(self) -> float:
        """Discretise, advance and read out. [FLOP]"""
        return 9.0 * self.state_elements

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """Inputs and gate, the maps and the step's rank, the steps, and the output."""
        maps = self.step_rank + 2 * self.state_size
        vectors = self.heads * (self.convolution + self.biased + self.state_size + 1) + maps
        return (
            matrix(
                "in_proj", 2 * self.heads, hidden, "column", "mamba.in_proj",
                block="recurrent", vectors=vectors,
            ),
            matrix("x_proj", maps, self.heads, "row", "mamba.x_proj", block="recurrent"),
            matrix(
                "dt_proj", self.heads, self.step_rank, "column", "mamba.dt_proj",
                block="recurrent", vectors=self.heads,
            ),
            matrix("out_proj", hidden, self.heads, "row", "mamba.out_proj", block="recurrent"),
        )  # fmt: skip


mixer = Mamba1
