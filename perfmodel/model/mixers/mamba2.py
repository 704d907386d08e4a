"""Mamba-2: a state-space layer whose heads decay as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers.base import MAX_WIDTH, Recurrent, Sizes, matrix

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind


@dataclass(frozen=True, kw_only=True)
class Mamba2(Recurrent):
    """Mamba-2 (arXiv 2405.21060).

    Parameters
    ----------
    heads, head_dim, state_size : each head has a state of ``head_dim x state_size``. [1]
    groups : heads that share their input and output maps are one. [1]
    convolution, chunk : width of the convolution, and tokens that a prefill computes at once. [tokens]
    norm, biased : whether the output is normalised under its gate, and whether the convolution has a bias.
    """

    words = ("mamba", "mamba2", "M", "linear_attention", "linear")
    marks = ("mamba_num_heads", "mamba_n_heads")
    label = "Mamba-2"

    head_dim: int
    state_size: int
    groups: int
    convolution: int
    chunk: int
    norm: bool = True
    biased: bool = True

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:  # noqa: ARG003
        """Return the layer; a state whose dtype the config leaves out has the model's."""
        heads = keys.size("mamba_num_heads", "mamba_n_heads", high=MAX_WIDTH)
        inner = keys.optional_size("mamba_d_ssm", high=MAX_WIDTH, default=0)
        head_dim = keys.find("mamba_head_dim", "mamba_d_head")
        if head_dim is not None and head_dim[1] != "auto":
            width = keys.size("mamba_head_dim", "mamba_d_head", high=MAX_WIDTH)
        else:
            expand = keys.optional_size("mamba_expand", "expand", high=MAX_WIDTH, default=2)
            width = (inner or expand * sizes.hidden) // heads
        return cls(
            heads=heads,
            head_dim=width,
            state_size=keys.size("ssm_state_size", "mamba_d_state", "mamba_state_size", high=MAX_WIDTH),
            groups=keys.optional_size("n_groups", "mamba_n_groups", high=MAX_WIDTH, default=1),
            convolution=keys.optional_size("conv_kernel", "mamba_d_conv", high=MAX_WIDTH, default=4),
            chunk=keys.optional_size("chunk_size", "mamba_chunk_size", high=MAX_WIDTH, default=256),
            norm=keys.flag("mamba_rms_norm", default=True),
            biased=keys.flag("use_conv_bias", "mamba_conv_bias", default=True),
            state_dtype=keys.state_dtype(sizes.base),
        )

    @property
    def inner(self) -> int:
        """Width of all heads. [1]"""
        return self.heads * self.head_dim

    @property
    def channels(self) -> int:
        """Inputs, and the maps into and out of the state, which the convolution runs over. [1]"""
        return self.inner + 2 * self.groups * self.state_size

    @property
    def kept_inputs(self) -> int:
        """Inputs that the convolution keeps. [1]"""
        return self.channels * (self.convolution - 1)

    @property
    def state_elements(self) -> int:
        """A matrix per head. [1]"""
        return self.inner * self.state_size

    @property
    def row_elements(self) -> int:
        """What the convolution runs over, and the output. [1]"""
        return self.channels + self.inner

    @property
    def step_flops(self) -> float:
        """Decay, outer product, and read-out. [FLOP]"""
        return 5.0 * self.state_elements

    @property
    def chunk_flops(self) -> float:
        """Into and out of the state, and attention-like products within the chunk. [FLOP]"""
        within = 2.0 * self.chunk * (self.groups * self.state_size + self.inner)
        return 4.0 * self.state_elements + within

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """Gate, inputs, maps and steps in one product, and the output."""
        vectors = self.channels * (self.convolution + self.biased) + 3 * self.heads
        vectors += self.inner if self.norm else 0
        return (
            matrix(
                "in_proj", self.inner + self.channels + self.heads, hidden, "column",
                "mamba.in_proj", block="recurrent", vectors=vectors,
            ),
            matrix(
                "out_proj", hidden, self.inner, "row", "mamba.out_proj", block="recurrent"
            ),
        )  # fmt: skip


mixer = Mamba2
