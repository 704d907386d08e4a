"""A dense MLP, gated or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfmodel.model.channels.base import ChannelMixer, mlp_products
from perfmodel.model.channels.experts import COUNTS
from perfmodel.model.linear import LinearLayer
from perfmodel.model.mixers.base import MAX_WIDTH, Sizes

if TYPE_CHECKING:
    from typing_extensions import Self

    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind

WIDTHS = (
    "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "hidden_dim", "ffn_config.ffn_hidden_size",
    "block_ff_dim",
)  # fmt: skip
RESIDUAL_MLP = "parallel_attn_mlp_res"
DENSE_WIDTHS = ("dense_intermediate_size", "intermediate_size_mlp")


@dataclass(frozen=True, kw_only=True)
class MLP(ChannelMixer):
    """Every token through ``hidden -> width -> hidden``.

    Parameters
    ----------
    width : inner width. [1]
    gated : whether a second product gates the first: ``3 h I`` elements instead of ``2 h I``.
    biased : whether both products have a bias.
    """

    words = ("mlp", "dense", "-")
    label = "MLP"

    width: int
    gated: bool = True
    biased: bool = False

    @classmethod
    def read(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> Self:
        """Return the MLP of a layer of that kind."""
        family = sizes.family
        return cls(width=_width(keys, sizes, kind), gated=family.gated_mlp, biased=family.mlp_bias)

    def products(self, hidden: int) -> tuple[LinearLayer, ...]:
        """Up and down."""
        return mlp_products("", self.width, hidden, gated=self.gated, biased=self.biased)


def _width(keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> int:
    """Return the inner width; where experts stand beside it, it may have a key of its own."""
    if kind.ffn_mult:
        wide = int(2 * kind.ffn_mult * sizes.hidden / 3)
        return -(-wide // 256) * 256
    if "experts" in kind.channels and keys.flag(RESIDUAL_MLP, default=False):
        return sizes.hidden
    if not kind.owns_cache and keys.flag("use_double_wide_mlp", default=False):
        return 2 * keys.size(*WIDTHS, high=MAX_WIDTH)
    if keys.find(*DENSE_WIDTHS) is not None:
        return keys.size(*DENSE_WIDTHS, high=MAX_WIDTH)
    shared = keys.find("shared_intermediate_size")
    if shared is not None and shared[1] and not keys.optional_size(*COUNTS, high=MAX_WIDTH, low=0, default=1):
        return keys.size("shared_intermediate_size", high=MAX_WIDTH)
    if sizes.family.halved_mlp:
        return keys.size(*WIDTHS, high=MAX_WIDTH) // 2
    if keys.flag("block_auto_adjust_ff_dim", default=keys.find("block_ff_dim") is not None):
        return _rounded_width(keys)
    if sizes.family.gated_mlp or keys.find(*WIDTHS) is not None:
        return keys.size(*WIDTHS, high=MAX_WIDTH)
    ratio = keys.optional_size("expansion_ratio", high=1000, default=4)
    return ratio * sizes.hidden


def _rounded_width(keys: ConfigKeys) -> int:
    """Return two thirds of the width that is stated, rounded up, as LFM2 does by default."""
    width = int(2 * keys.size("block_ff_dim", "intermediate_size", high=MAX_WIDTH) / 3)
    width = int(keys.optional_number("block_ffn_dim_multiplier", high=1000.0, default=1.0) * width)
    multiple = keys.optional_size("block_multiple_of", high=MAX_WIDTH, default=256)
    return -(-width // multiple) * multiple


mixer = MLP
