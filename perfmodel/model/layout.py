"""Which layers of a config slide over a window and which hold experts."""

from __future__ import annotations

from perfmodel.errors import nearest_name
from perfmodel.files.document import Place
from perfmodel.model.families import Family
from perfmodel.model.keys import ConfigKeys

__all__ = ["MAX_LAYERS", "MAX_TOKENS", "count_expert_layers", "read_windows"]

MAX_LAYERS = 10_000
MAX_TOKENS = 1_000_000_000

_FULL = ("full_attention", "attention", "global", "global_attention", "full")
_SLIDING = ("sliding_attention", "local", "local_attention", "sliding_window", "sliding")


def count_expert_layers(keys: ConfigKeys, layers: int) -> int:
    """How many layers hold experts: after the first dense ones, every n-th, without those listed as dense."""
    first = keys.optional_size(
        "first_k_dense_replace", "moe_layer_start_index", high=layers, low=0, default=0
    )
    dense = keys.numbers("mlp_only_layers", high=layers)
    entry = keys.find("moe_layer_freq")
    if entry is not None and isinstance(entry[1], list):
        listed = keys.numbers("moe_layer_freq", high=1)
        if len(listed) != layers:
            _refuse_length(keys, entry[0], len(listed), layers)
        return sum(listed)
    every = keys.optional_size(
        "moe_layer_freq", "decoder_sparse_step", "moe_layer_interval", high=MAX_LAYERS, default=1
    )
    offset = 0 if keys.find("decoder_sparse_step") is None else 1
    return sum(1 for index in range(first, layers) if (index + offset) % every == 0 and index not in dense)


def read_windows(keys: ConfigKeys, family: Family, layers: int, max_position: int) -> tuple[int | None, ...]:
    """Sliding window of every layer; a window that spans every position is no window."""
    kinds = keys.words("layer_types", "attention_layers")
    sliding = _sliding_layers(keys, family, layers, kinds)
    window = None
    if keys.find("sliding_window", "window_size") is not None or "sliding_window" in keys.defaults:
        window = keys.size("sliding_window", "window_size", high=MAX_TOKENS)
    if not keys.flag("use_sliding_window", default=not family.window_needs_flag):
        window = None
    elif window is None and kinds and any(sliding):
        problem = "is missing although layer_types names sliding layers"
        keys.fault("sliding_window", problem, "Add the window in tokens")
    if window is None or window >= max_position:
        return (None,) * layers
    return tuple(window if slides else None for slides in sliding)


def _sliding_layers(
    keys: ConfigKeys, family: Family, layers: int, kinds: tuple[str, ...]
) -> tuple[bool, ...]:
    """Which layers slide if there is a window: as listed, by pattern, or from `max_window_layers` on."""
    if kinds:
        unknown = sorted({kind for kind in kinds if kind not in (*_FULL, *_SLIDING)})
        if unknown:
            problem = f"kind {unknown[0]!r} cannot be priced"
            nearest = nearest_name(unknown[0], (*_FULL, *_SLIDING))
            keys.fault("layer_types", problem, "Use full or sliding attention", nearest)
        elif len(kinds) != layers:
            _refuse_length(keys, "layer_types", len(kinds), layers)
        return tuple(kind in _SLIDING for kind in kinds)
    pattern = keys.optional_size(
        "sliding_window_pattern", "_sliding_window_pattern", high=MAX_LAYERS, default=family.window_pattern
    )
    if pattern > 1:
        return tuple((index + 1) % pattern != 0 for index in range(layers))
    first = keys.optional_size("max_window_layers", high=MAX_TOKENS, low=0, default=0)
    return tuple(index >= first for index in range(layers))


def _refuse_length(keys: ConfigKeys, field: str | Place, entries: int, layers: int) -> None:
    remedy = f"Give one entry for each of the {layers} layers"
    keys.fault(field, f"lists {entries} layers", remedy, given=("num_hidden_layers",))
