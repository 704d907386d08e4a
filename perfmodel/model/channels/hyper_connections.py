"""Several residual streams that every half layer mixes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from perfmodel.model.channels.base import ChannelMixer
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers.base import Sizes

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind


@dataclass(frozen=True, kw_only=True)
class HyperConnections(ChannelMixer):
    """Manifold-constrained hyper-connections (DeepSeek-V4): two fp32 matrices a layer.

    Parameters
    ----------
    streams : residual streams. [1]
    """

    label = "hyper-connections"
    reduces: ClassVar[bool] = False

    streams: int

    @classmethod
    def stands_in_every_layer(cls, keys: ConfigKeys) -> bool:
        """Whether the config counts several streams."""
        return keys.optional_size("hc_mult", high=1000, low=0, default=0) > 1

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:  # noqa: ARG003
        """Return them with their number."""
        return cls(streams=keys.size("hc_mult", high=1000))

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """The weights by which streams are read, mixed and written, before and after each half."""
        mixed = self.streams * (self.streams + 2)
        return (
            LinearLayer(
                "hyper_connections", mixed, self.streams * hidden, 2, "none", block="mlp", dtype="fp32",
                element_bytes=4.0, vectors=mixed + 3, keeps_precision=True,
            ),
        )  # fmt: skip


mixer = HyperConnections
