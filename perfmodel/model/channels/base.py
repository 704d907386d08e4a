"""What a channel mixer has to say: the matrix products that a token passes through on its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from perfmodel.model.linear import Block, LinearLayer

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind
    from perfmodel.model.mixers.base import Sizes

__all__ = ["ChannelMixer", "mlp_products"]


@dataclass(frozen=True, kw_only=True)
class ChannelMixer(ABC):
    """The part of a layer that every token passes through alone; ``channels/<name>.py`` holds one like this.

    ``words`` are its names in the lists by which configs say what each layer is; ``reduces`` says whether the
    GPUs add up what it puts out.
    """

    words: ClassVar[tuple[str, ...]] = ()
    label: ClassVar[str] = ""
    reduces: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:
        """Return the mixer of a layer of that kind as a config describes it; faults are noted in `keys`."""

    @classmethod
    def stands_in_every_layer(cls, keys: ConfigKeys) -> bool:  # noqa: ARG003
        """Whether the config puts it into every layer, beside whatever else is there."""
        return False

    @abstractmethod
    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """Its matrix products in their order."""


def mlp_products(
    prefix: str,
    width: int,
    hidden: int,
    *,
    gated: bool,
    biased: bool = False,
    experts: tuple[int, float] = (0, 0),
    block: Block = "mlp",
    module: str = "mlp",
) -> tuple[LinearLayer, LinearLayer]:
    """Return the two products of an MLP, gate and up fused."""
    inner = 2 * width if gated else width
    up = ("gate_proj", "up_proj") if gated else ("up_proj",)
    return (
        LinearLayer(
            prefix + ("gate_up" if gated else "up"), inner, hidden, 1, "column", *experts,
            block=block, vectors=inner if biased else 0, modules=tuple(f"{module}.{name}" for name in up),
        ),
        LinearLayer(
            prefix + "down", hidden, width, 1, "row", *experts,
            block=block, vectors=hidden if biased else 0, modules=(f"{module}.down_proj",),
        ),
    )  # fmt: skip
