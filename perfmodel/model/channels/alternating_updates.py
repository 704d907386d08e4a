"""Several residual streams, of which a layer computes one and predicts the others."""

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


@dataclass(frozen=True, kw_only=True)
class AlternatingUpdates(ChannelMixer):
    """AltUp (arXiv 2301.13310) and a low-rank residual beside it (Gemma 3n).

    Parameters
    ----------
    streams, rank : residual streams, and rank of the learned residual. [1]
    """

    label = "alternating updates"
    reduces: ClassVar[bool] = False

    streams: int
    rank: int

    @classmethod
    def stands_in_every_layer(cls, keys: ConfigKeys) -> bool:
        """Whether the config counts several streams."""
        return keys.optional_size("altup_num_inputs", high=1000, low=0, default=0) > 1

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:  # noqa: ARG003
        """Return it with its streams."""
        return cls(
            streams=keys.size("altup_num_inputs", high=1000),
            rank=keys.optional_size("laurel_rank", high=MAX_WIDTH, low=0, default=0),
        )

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """The router of the streams with its coefficients, and both halves of the residual."""
        coefficients = self.streams**3 + self.streams**2 + 3 * hidden
        router = LinearLayer(
            "altup_router", self.streams, hidden, 1, "none", block="mlp", vectors=coefficients,
            keeps_precision=True,
        )  # fmt: skip
        if not self.rank:
            return (router,)
        left, right = ("laurel.linear_left",), ("laurel.linear_right",)
        return (
            router,
            LinearLayer("laurel_in", self.rank, hidden, 1, "none", block="mlp", modules=left),
            LinearLayer("laurel_out", hidden, self.rank, 1, "none", block="mlp", modules=right),
        )


mixer = AlternatingUpdates
