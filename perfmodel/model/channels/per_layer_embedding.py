"""Embeddings of its own that every layer adds to each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from perfmodel.model.channels.base import ChannelMixer
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers.base import MAX_WIDTH, Sizes

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind

WIDTH = "hidden_size_per_layer_input"


@dataclass(frozen=True, kw_only=True)
class PerLayerEmbedding(ChannelMixer):
    """A row of a table per token and layer, between two products (Gemma 3n, Gemma 4 E).

    Parameters
    ----------
    width : of a row. [1]
    """

    label = "embedding per layer"
    reduces: ClassVar[bool] = False

    width: int

    @classmethod
    def stands_in_every_layer(cls, keys: ConfigKeys) -> bool:
        """Whether the config gives such rows a width."""
        return bool(keys.optional_size(WIDTH, high=MAX_WIDTH, low=0, default=0))

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:  # noqa: ARG003
        """Return it with its width."""
        return cls(width=keys.size(WIDTH, high=MAX_WIDTH))

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """The gate and the way back."""
        gate, back = "per_layer_input_gate", "per_layer_projection"
        return (
            LinearLayer(gate, self.width, hidden, 1, "none", block="mlp", modules=(gate,)),
            LinearLayer(back, hidden, self.width, 1, "none", block="mlp", vectors=hidden, modules=(back,)),
        )


mixer = PerLayerEmbedding
