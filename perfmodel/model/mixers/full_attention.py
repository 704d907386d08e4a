"""Full attention: every query sees the whole context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfmodel.model.mixers.base import MAX_WIDTH, Sizes
from perfmodel.model.mixers.softmax import Softmax

if TYPE_CHECKING:
    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind


@dataclass(frozen=True, kw_only=True)
class FullAttention(Softmax):
    """Attention to every token before."""

    words = ("full_attention", "attention", "global", "global_attention", "full")
    label = "full attention"

    @classmethod
    def read_heads(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> dict[str, int]:
        """Return the heads; some configs give full layers, called global, heads of their own."""
        heads = super().read_heads(keys, sizes, kind)
        heads["head_dim"] = keys.optional_size(
            "global_head_dim", high=MAX_WIDTH, default=heads["head_dim"]
        )
        if keys.find("num_global_key_value_heads") is not None:
            heads["kv_heads"] = keys.size("num_global_key_value_heads", high=MAX_WIDTH)
        return heads

    @classmethod
    def reads_one_projection(cls, keys: ConfigKeys) -> bool:
        """Whether the config says that keys and values come from one projection."""
        return keys.flag("attention_k_eq_v", default=False)


mixer = FullAttention
