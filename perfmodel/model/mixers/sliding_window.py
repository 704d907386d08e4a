"""Sliding-window attention: a query sees the latest tokens only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfmodel.model.launches import ForwardPass, Way
from perfmodel.model.mixers.base import MAX_TOKENS, MAX_WIDTH, Sizes
from perfmodel.model.mixers.softmax import Softmax

if TYPE_CHECKING:
    from perfmodel.model.families import Family
    from perfmodel.model.keys import ConfigKeys
    from perfmodel.model.layer_kind import LayerKind

WINDOW_KEYS = ("sliding_window", "window_size", "sliding_window_size")


@dataclass(frozen=True, kw_only=True)
class SlidingWindow(Softmax):
    """Attention to the latest `window` tokens. [tokens]"""

    words = ("sliding_attention", "local", "local_attention", "sliding_window", "sliding", "window")
    label = "sliding window"

    window: int

    @classmethod
    def read_heads(cls, keys: ConfigKeys, sizes: Sizes, kind: LayerKind) -> dict[str, int]:
        """Return the heads; some configs give window layers heads of their own."""
        heads = super().read_heads(keys, sizes, kind)
        spellings = {
            "heads": (
                "swa_num_attention_heads",
                "attention_other_setting.num_attention_heads",
                "num_sliding_attention_heads",
            ),
            "kv_heads": (
                "swa_num_key_value_heads",
                "attention_other_setting.num_attention_groups",
                "attention_other_setting.num_key_value_heads",
            ),
            "head_dim": ("swa_head_dim", "attention_other_setting.head_dim"),
            "value_dim": ("swa_v_head_dim",),
        }
        return {
            size: keys.optional_size(*names, high=MAX_WIDTH, default=heads[size])
            for size, names in spellings.items()
        }

    @classmethod
    def read_reach(cls, keys: ConfigKeys, sizes: Sizes) -> dict[str, int]:  # noqa: ARG003
        """Return the window."""
        return {"window": keys.size(*WINDOW_KEYS, high=MAX_TOKENS)}

    @classmethod
    def has_sinks(cls, keys: ConfigKeys, family: Family) -> bool:
        """Whether every head of a window layer has a sink."""
        return keys.flag("add_swa_attention_sink_bias", default=family.attention_sinks)

    @property
    def bound(self) -> int:
        """The window. [tokens]"""
        return self.window

    @property
    def reach(self) -> float:
        """The window. [tokens]"""
        return float(self.window)

    def ways(self, forward: ForwardPass) -> tuple[Way, ...]:
        """Return one launch over the window, whose queries share what they read."""
        return ((self.attend(forward.entries(self.window), forward.query_tokens),),)


mixer = SlidingWindow
