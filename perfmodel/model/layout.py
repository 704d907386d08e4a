"""Which layer of a config is which: how its tokens mix, and what each passes through alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from perfmodel.errors import nearest_name
from perfmodel.files.document import Place
from perfmodel.model.channels import channels
from perfmodel.model.channels.experts import COUNTS
from perfmodel.model.channels.mlp import RESIDUAL_MLP
from perfmodel.model.families import Family
from perfmodel.model.keys import ConfigKeys
from perfmodel.model.mixers import TokenMixer, mixers
from perfmodel.model.mixers.sliding_window import WINDOW_KEYS

__all__ = ["MAX_LAYERS", "MAX_TOKENS", "LayerKind", "layer_kinds", "mixer_of"]

MAX_LAYERS = 10_000
MAX_TOKENS = 1_000_000_000

FULL, WINDOW, CHUNK, LINEAR, CONVOLUTION = "full", "sliding", "chunked", "linear", "conv"
_PATTERN_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe", "L": WINDOW, "G": FULL}
_VARYING = (
    "intermediate_size", "moe_intermediate_size", "moe_topk", "num_shared_expert", "num_key_value_heads",
    "num_attention_heads",
)  # fmt: skip


@dataclass(frozen=True)
class LayerKind:
    """What a config says about one layer.

    Parameters
    ----------
    tokens, channels : words for how its tokens mix, and for what each passes through alone.
    owns_cache, owns_index : False where it reads the cache, takes the choice, of an earlier layer.
    ratio : tokens to a compressed entry; 0 for none. [tokens]
    heads_in_group, ffn_mult : query heads to a KV head, and width of its MLP, where layers differ in them.
    index : its place, where a key lists a value of its own for it.
    """

    tokens: tuple[str, ...]
    channels: tuple[str, ...]
    owns_cache: bool = True
    owns_index: bool = True
    ratio: int = 0
    heads_in_group: int = 0
    ffn_mult: float = 0.0
    index: int | None = None


def layer_kinds(keys: ConfigKeys, family: Family, layers: int, max_position: int) -> tuple[LayerKind, ...]:
    """Return the kind of every layer, by whichever keys the config has for it."""
    if (blocks := _listed_blocks(keys, layers)) is not None:
        kinds = [_block_kind(word) for word in blocks]
    else:
        words = _token_words(keys, family, layers, max_position)
        experts = _expert_layers(keys, layers)
        beside = keys.flag("enable_moe_block", RESIDUAL_MLP, default=False)
        kinds = [
            LayerKind(
                tokens=(word, LINEAR) if family.parallel_recurrence else (word,) * family.mixers_per_layer,
                channels=("experts",) if has_experts and not beside else
                ("mlp", "experts") if has_experts else ("mlp",),
            )
            for word, has_experts in zip(words, experts, strict=True)
        ]  # fmt: skip
        if family.mixers_per_layer > 1:
            kinds = [replace(kind, channels=("mlp", "mlp", *kind.channels)) for kind in kinds]
    kinds = _share_caches(keys, kinds)
    kinds = _share_indexes(keys, kinds)
    kinds = _compress(keys, kinds)
    kinds = _shape_blocks(keys, kinds)
    if any(keys.differs(name) for name in _VARYING):
        kinds = [replace(kind, index=index) for index, kind in enumerate(kinds)]
    everywhere = tuple(name for name, kind in channels().items() if kind.stands_in_every_layer(keys))
    return tuple(replace(kind, channels=(*kind.channels, *everywhere)) for kind in kinds)


def mixer_of(keys: ConfigKeys, word: str) -> type[TokenMixer] | None:
    """Return the mixer that a word for a layer means: of those that it may, one whose marks are there.

    Of several the one with the rarest name for it, so a more special mixer goes before the plain one.
    """
    able = [kind for kind in mixers().values() if word in kind.words]
    marked = [kind for kind in able if kind.marks and any(_is_set(keys, mark) for mark in kind.marks)]
    plain = [kind for kind in able if not kind.marks]
    return max(marked, key=lambda kind: len(kind.__mro__), default=next(iter(plain), None))


def _is_set(keys: ConfigKeys, mark: str) -> bool:
    entry = keys.find(mark)
    return entry is not None and entry[1] not in (False, 0, [])


def _known_words() -> list[str]:
    return sorted({word for kind in mixers().values() for word in kind.words if len(word) > 1})


def _listed_blocks(keys: ConfigKeys, layers: int) -> Sequence[str] | None:
    """Words of layers that hold one mixer each, of tokens or of channels; None where layers hold both."""
    pattern = keys.find("hybrid_override_pattern")
    if pattern is not None:
        word = keys.word("hybrid_override_pattern") or ""
        words: Sequence[str] = [_PATTERN_LETTERS.get(letter, letter) for letter in word.replace("|", "")]
        place: Place = pattern[0]
    else:
        words = keys.words("layers_block_type")
        entry = keys.find("layers_block_type")
        alone = {name for kind in channels().values() for name in kind.words}
        if entry is None or not alone.intersection(words):
            return None
        place = entry[0]
    unknown = [word for word in words if not _is_channel(word) and mixer_of(keys, word) is None]
    if unknown:
        _refuse_word(keys, place, unknown[0])
    elif len(words) != layers:
        _refuse_length(keys, place, len(words), layers)
    return words


def _is_channel(word: str) -> bool:
    return any(word in kind.words for kind in channels().values())


def _block_kind(word: str) -> LayerKind:
    name = next((name for name, kind in channels().items() if word in kind.words), None)
    return LayerKind((), (name,)) if name else LayerKind((word,), ())


def _token_words(keys: ConfigKeys, family: Family, layers: int, max_position: int) -> Sequence[str]:
    """Return how the tokens of each layer mix, by the first key that says so."""
    words = _listed_words(keys, layers) or _patterned_words(keys, layers)
    if words is None:
        words = _chunked_words(keys, layers) or _window_words(keys, family, layers)
    return _without_idle_windows(keys, family, words, max_position)


def _listed_words(keys: ConfigKeys, layers: int) -> Sequence[str] | None:
    """Words for every layer in a list of their own."""
    for name in ("layer_types", "attention_layers", "layers_block_type"):
        if (words := keys.words(name)) and keys.find(name) is not None:
            unknown = sorted({word for word in words if mixer_of(keys, word) is None})
            if unknown:
                _refuse_word(keys, name, unknown[0])
            elif len(words) != layers:
                _refuse_length(keys, name, len(words), layers)
            else:
                return words
            return (FULL,) * layers
    return None


def _refuse_word(keys: ConfigKeys, field: str | Place, word: str) -> None:
    known = _known_words()
    keys.fault(
        field,
        f"kind {word[:60]!r} is not modelled",
        f"Known are {', '.join(known)}; the nearest of them prices an approximation",
        nearest_name(word, known),
    )


def _refuse_length(keys: ConfigKeys, field: str | Place, entries: int, layers: int) -> None:
    remedy = f"Give one entry for each of the {layers} layers"
    keys.fault(field, f"lists {entries} layers", remedy, given=("num_hidden_layers",))


def _patterned_words(keys: ConfigKeys, layers: int) -> Sequence[str] | None:
    """Words by the keys that number the layers of one kind, or say after how many another comes."""

    def by_flags(name: str, off: str, on: str) -> Sequence[str] | None:
        if keys.find(name) is None:
            return None
        flags = keys.numbers(name, high=1)
        if len(flags) < layers:
            _refuse_length(keys, name, len(flags), layers)
        return [on if flag else off for flag in flags[:layers]]

    def by_places(name: str, inside: str, outside: str, first: int = 0) -> Sequence[str] | None:
        if keys.find(name) is None:
            return None
        places = {place - first for place in keys.numbers(name, high=MAX_LAYERS)}
        return [inside if index in places else outside for index in range(layers)]

    def every(name: str, offset: str | None, inside: str, outside: str) -> Sequence[str] | None:
        if keys.find(name) is None:
            return None
        period = keys.size(name, high=MAX_LAYERS)
        start = keys.optional_size(offset, high=MAX_LAYERS, low=0, default=0) if offset else period - 1
        whole = layers - layers % period if name == "layer_group_size" else layers
        return [
            inside if index % period == start % period or index >= whole else outside
            for index in range(layers)
        ]

    tries: tuple[Callable[[], Sequence[str] | None], ...] = (
        lambda: by_flags("attn_type_list", LINEAR, FULL),
        lambda: by_places("linear_attn_config.kda_layers", LINEAR, FULL, first=1),
        lambda: every("full_attention_interval", None, FULL, LINEAR),
        lambda: every("layer_group_size", None, FULL, LINEAR),
        lambda: every("attn_layer_period", "attn_layer_offset", FULL, LINEAR),
        lambda: by_places("full_attn_idxs", FULL, CONVOLUTION),
        lambda: by_places("attn_layer_indices", FULL, LINEAR),
        lambda: by_flags("hybrid_layer_pattern", FULL, WINDOW),
        lambda: by_places("local_layer_ids", WINDOW, FULL),
        lambda: by_flags("sparse_attention_config.sparse_attention_freq", FULL, "block_sparse"),
        lambda: ("compressed",) * layers if keys.find("compress_ratios") is not None else None,
    )
    return next((words for attempt in tries if (words := attempt()) is not None), None)


def _chunked_words(keys: ConfigKeys, layers: int) -> Sequence[str] | None:
    """Llama 4's: layers without rotary positions are full, every fourth where none is listed."""
    if keys.find("attention_chunk_size") is None or keys.find("sliding_window", "sliding_window_size"):
        return None
    rotary = keys.numbers("no_rope_layers", high=1) if keys.find("no_rope_layers") is not None else ()
    period = keys.optional_size("no_rope_layer_interval", high=MAX_LAYERS, default=4)
    if len(rotary) != layers:
        rotary = tuple(int((index + 1) % period != 0) for index in range(layers))
    return [CHUNK if turns else FULL for turns in rotary]


def _window_words(keys: ConfigKeys, family: Family, layers: int) -> Sequence[str]:
    """Which layers slide if there is a window: by a pattern, or from `max_window_layers` on."""
    names = ("sliding_window_pattern", "_sliding_window_pattern")
    entry = keys.find(*names)
    if entry is not None and isinstance(entry[1], str):
        letters = re.sub(r"[^A-Za-z]", "", entry[1]).upper() or "G"
        return [_PATTERN_LETTERS.get(letters[index % len(letters)], FULL) for index in range(layers)]
    pattern = keys.optional_size(*names, high=MAX_LAYERS, default=family.window_pattern)
    if pattern > 1:
        return [WINDOW if (index + 1) % pattern else FULL for index in range(layers)]
    first = keys.optional_size("max_window_layers", high=MAX_TOKENS, low=0, default=0)
    return [WINDOW if index >= first else FULL for index in range(layers)]


def _without_idle_windows(
    keys: ConfigKeys, family: Family, words: Sequence[str], max_position: int
) -> Sequence[str]:
    """Return the words with windows that are switched off, or span every position, as what they are: full."""
    slides = {word for word in words if (kind := mixer_of(keys, word)) and kind.__name__ == "SlidingWindow"}
    if not slides:
        return words
    window = None
    if keys.find(*WINDOW_KEYS) is not None or WINDOW_KEYS[0] in keys.defaults:
        window = keys.size(*WINDOW_KEYS, high=MAX_TOKENS)
    if not keys.flag("use_sliding_window", default=not family.window_needs_flag):
        window = None
    elif window is None and keys.find("layer_types", "attention_layers", "hybrid_layer_pattern") is not None:
        problem = "is missing although layer_types names sliding layers"
        keys.fault("sliding_window", problem, "Add the window in tokens")
    if window is None or window >= max_position:
        return [FULL if word in slides else word for word in words]
    return words


def _expert_layers(keys: ConfigKeys, layers: int) -> Sequence[bool]:
    """Return which layers hold experts: all, after the first dense ones, every n-th, or as listed."""
    if not keys.optional_size(*COUNTS, high=1_000_000, low=0, default=0):
        return (False,) * layers
    dense = set(keys.numbers("mlp_only_layers", high=layers))
    entry = keys.find("moe_layers_enum")
    if entry is not None:
        listed = {int(place) for place in re.findall(r"\d+", str(entry[1])[:100_000])}
        return [index in listed for index in range(layers)]
    entry = keys.find("moe_layers")
    if entry is not None and entry[1]:
        listed = set(keys.numbers("moe_layers", high=MAX_LAYERS))
        return [index in listed for index in range(layers)]
    entry = keys.find("mlp_layer_types")
    if entry is not None:
        words = keys.words("mlp_layer_types")
        if len(words) != layers:
            _refuse_length(keys, entry[0], len(words), layers)
            return (False,) * layers
        return [word not in ("dense", "mlp") for word in words]
    entry = keys.find("moe_layer_freq")
    if entry is not None and isinstance(entry[1], list):
        flags = keys.numbers("moe_layer_freq", high=1)
        if len(flags) != layers:
            _refuse_length(keys, entry[0], len(flags), layers)
            return (False,) * layers
        return [bool(flag) for flag in flags]
    first = keys.optional_size(
        "first_k_dense_replace", "moe_layer_start_index", "num_dense_layers", "dense_mlp_idx",
        "moe.first_k_dense_replace", high=MAX_LAYERS, low=0, default=0,
    )  # fmt: skip
    last = keys.optional_size("moe_layer_end_index", high=MAX_LAYERS, low=0, default=layers - 1)
    period_names = (
        "moe_layer_freq", "moe_layer_frequency", "decoder_sparse_step", "moe_layer_interval",
        "interleave_moe_layer_step", "expert_layer_period", "moe.route_every_n",
    )  # fmt: skip
    every = keys.optional_size(*period_names, high=MAX_LAYERS, default=1)
    period = keys.find(*period_names)
    from_end = period is not None and period[0][-1] in (
        "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval"
    )
    offset = keys.optional_size("expert_layer_offset", high=MAX_LAYERS, low=0, default=0)
    return [
        first <= index <= last
        and (index + (1 if from_end else -offset)) % every == 0
        and index not in dense
        for index in range(layers)
    ]


def _share_caches(keys: ConfigKeys, kinds: list[LayerKind]) -> list[LayerKind]:
    """Return the kinds with those marked that read the cache of an earlier layer."""
    last = keys.optional_size("num_kv_shared_layers", high=len(kinds), low=0, default=0)
    shared = set(range(len(kinds) - last, len(kinds)))
    if keys.flag("use_cla", default=False):
        factor = keys.optional_size("cla_share_factor", high=MAX_LAYERS, default=2)
        shared |= {index for index in range(len(kinds)) if index % factor}
    return [replace(kind, owns_cache=index not in shared) for index, kind in enumerate(kinds)]


def _share_indexes(keys: ConfigKeys, kinds: list[LayerKind]) -> list[LayerKind]:
    """Return the kinds with those marked that take over an earlier layer's choice of entries."""
    if keys.find("indexer_types") is None:
        return kinds
    words = keys.words("indexer_types")
    if len(words) != len(kinds):
        _refuse_length(keys, "indexer_types", len(words), len(kinds))
        return kinds
    return [replace(kind, owns_index=word == "full") for kind, word in zip(kinds, words, strict=True)]


def _compress(keys: ConfigKeys, kinds: list[LayerKind]) -> list[LayerKind]:
    """Return the kinds with the ratios of compressed attention; modules that predict further tokens have
    entries of their own at the end."""
    if keys.find("compress_ratios") is None:
        return kinds
    ratios = keys.numbers("compress_ratios", high=MAX_LAYERS)
    if len(ratios) < len(kinds):
        _refuse_length(keys, "compress_ratios", len(ratios), len(kinds))
        return kinds
    return [replace(kind, ratio=ratio) for kind, ratio in zip(kinds, ratios[: len(kinds)], strict=True)]


def _shape_blocks(keys: ConfigKeys, kinds: list[LayerKind]) -> list[LayerKind]:
    """Return the kinds with the shapes of `block_configs`, in which any layer may lack either half."""
    entry = keys.find("block_configs")
    if entry is None:
        return kinds
    place, blocks = entry
    if not isinstance(blocks, list) or len(blocks) != len(kinds):
        keys.fault(place, "does not describe every layer", "Give one block for each layer")
        return kinds
    shaped = []
    for index, (kind, block) in enumerate(zip(kinds, blocks, strict=True)):
        halves = (block.get(half) if isinstance(block, dict) else None for half in ("attention", "ffn"))
        attention, ffn = (half if isinstance(half, dict) else {} for half in halves)
        if attention.get("replace_with_linear") or ffn.get("replace_with_linear"):
            keys.fault((*place, index), "replaces a half by a linear layer, which is not modelled",
                       "Set replace_with_linear to false for an approximation")  # fmt: skip
        group, width = attention.get("n_heads_in_group"), ffn.get("ffn_mult")
        shaped.append(
            replace(
                kind,
                tokens=() if attention.get("no_op") else kind.tokens,
                channels=() if ffn.get("no_op") else kind.channels,
                heads_in_group=group if isinstance(group, int) and group > 0 else 0,
                ffn_mult=float(width) if isinstance(width, int | float) and 0 < width < 1000 else 0.0,
            )
        )
    return shaped
