"""How the tokens of each layer mix: by whichever keys of a config say so, the strongest first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from perfmodel.errors import nearest_name
from perfmodel.files.document import Place
from perfmodel.model.families import Family
from perfmodel.model.keys import ConfigKeys
from perfmodel.model.mixers import TokenMixer, mixers
from perfmodel.model.mixers.base import Recurrent
from perfmodel.model.mixers.sliding_window import WINDOW_KEYS

__all__ = [
    "LINEAR", "MAX_LAYERS", "MAX_TOKENS", "mixer_of", "refuse_length", "refuse_word",
    "remark_contradiction", "token_words",
]  # fmt: skip

MAX_LAYERS = 10_000
MAX_TOKENS = 1_000_000_000

FULL, WINDOW, CHUNK, LINEAR, CONVOLUTION = "full", "sliding", "chunked", "linear", "conv"
LISTS = ("layer_types", "attention_layers", "layers_block_type")
_HYBRID = {"hybrid": FULL, "hybrid_sliding": WINDOW}
"""Attention with convolutions around it, or with a recurrent mixer beside it, as transformers calls both."""

_SPARSE = "sparse_attention_config.sparse_attention_freq"
_WINDOW_PATTERNS = (
    "sliding_window_pattern", "_sliding_window_pattern", "global_attn_every_n_layers", "global_attn_every_n",
)  # fmt: skip
_RECURRENT_SIZES = (
    "mamba_num_heads", "mamba_n_heads", "mamba_d_state", "mamba_d_ssm", "ssm_state_size",
    "linear_num_key_heads",
    "linear_num_heads", "linear_attn_config", "conv_L_cache", "kda_lower_bound",
)  # fmt: skip


def token_words(keys: ConfigKeys, family: Family, layers: int, max_position: int) -> Sequence[str]:
    """Return a word for each layer; where further keys name others, the first counts and a remark says so."""
    stated = list(_stated(keys, family, layers))
    for name, words in stated[1:]:
        if [_is_full(keys, word) for word in words] != [_is_full(keys, word) for word in stated[0][1]]:
            remark_contradiction(keys, stated[0][0], name, "layers")
    words = stated[0][1] if stated else _unlisted(keys, family, layers)
    if not stated and not family.parallel_recurrence:
        _refuse_unplaced(keys)
    words = _without_idle_windows(keys, family, words, max_position)
    limited = next((word for word in words if keys.find("kv_lora_rank") and _is_limited(keys, word)), None)
    if limited is not None:
        keys.fault(
            "kv_lora_rank",
            f"layers of latent attention are {limited}, which is not modelled",
            "Nearest is latent attention in every layer: delete the window's keys; the cache is too large",
        )
    return words


def mixer_of(keys: ConfigKeys, word: str) -> type[TokenMixer] | None:
    """Return the mixer that a word for a layer means: of those that it may, one whose marks are there.

    Of several the one with the rarest name for it, so a more special mixer goes before the plain one.
    """
    able = [kind for kind in mixers().values() if word in kind.words]
    marked = [kind for kind in able if kind.marks and any(_is_set(keys, mark) for mark in kind.marks)]
    plain = [kind for kind in able if not kind.marks]
    return max(marked, key=lambda kind: len(kind.__mro__), default=next(iter(plain), None))


def refuse_word(keys: ConfigKeys, field: str | Place, word: str) -> None:
    """Note that no mixer goes by that word."""
    marks = sorted({mark for kind in mixers().values() if word in kind.words for mark in kind.marks})
    if marks:
        remedy = f"Add those of its mixer, one of {', '.join(marks)} first"
        keys.fault(field, f"kind {word!r} has no sizes", remedy)
        return
    known = sorted({word for kind in mixers().values() for word in kind.words if len(word) > 1})
    keys.fault(
        field,
        f"kind {word[:60]!r} is not modelled",
        f"Known are {', '.join(known)}; the nearest of them prices an approximation",
        nearest_name(word, known),
    )


def refuse_length(keys: ConfigKeys, field: str | Place, entries: int, layers: int) -> None:
    """Note that a list does not describe every layer."""
    remedy = f"Give one entry for each of the {layers} layers"
    keys.fault(field, f"lists {entries} layers", remedy, given=("num_hidden_layers",))


def remark_contradiction(keys: ConfigKeys, first: str, other: str, what: str) -> None:
    """Say that two keys name different layers, and that the first counts."""
    keys.assumed.append(f"{first} and {other} name different {what}; {first} counts")


def _is_set(keys: ConfigKeys, mark: str) -> bool:
    entry = keys.find(mark)
    return entry is not None and entry[1] not in (False, 0)


def _is_full(keys: ConfigKeys, word: str) -> bool:
    kind = mixer_of(keys, word)
    return kind is not None and not issubclass(kind, Recurrent) and not _is_limited(keys, word)


def _is_limited(keys: ConfigKeys, word: str) -> bool:
    kind = mixer_of(keys, word)
    return kind is not None and kind.__name__ in ("SlidingWindow", "Chunked")


def _stated(keys: ConfigKeys, family: Family, layers: int) -> Iterator[tuple[str, Sequence[str]]]:
    """Words for every layer by each key that states them, the strongest first."""
    others = LINEAR if keys.find("conv_L_cache") is None else CONVOLUTION
    attempts: list[tuple[str, Callable[[str], Sequence[str]]]] = [
        *((name, partial(_listed, keys, family, layers)) for name in LISTS),
        ("attn_type_list", partial(_by_flags, keys, layers, LINEAR, FULL)),
        ("linear_attn_config.kda_layers", partial(_by_places, keys, layers, LINEAR, FULL, first=1)),
        ("full_attention_interval", partial(_every, keys, layers, None, FULL, LINEAR)),
        ("layer_group_size", partial(_every, keys, layers, None, FULL, LINEAR)),
        ("attn_layer_period", partial(_every, keys, layers, "attn_layer_offset", FULL, LINEAR)),
        ("full_attn_idxs", partial(_by_places, keys, layers, FULL, others)),
        ("attn_layer_indices", partial(_by_places, keys, layers, FULL, LINEAR)),
        ("hybrid_layer_pattern", partial(_by_flags, keys, layers, FULL, WINDOW)),
        ("local_layer_ids", partial(_by_places, keys, layers, WINDOW, FULL)),
        (_SPARSE, partial(_by_flags, keys, layers, FULL, "block_sparse")),
        ("compress_ratios", lambda _: ("compressed",) * layers),
        *((name, partial(_by_window_pattern, keys, layers)) for name in _WINDOW_PATTERNS),
    ]
    sparse = keys.flag("sparse_attention_config.use_sparse_attention", default=True)
    for name, attempt in attempts:
        if keys.find(name) is not None and (sparse or name != _SPARSE):
            yield name, attempt(name)


def _listed(keys: ConfigKeys, family: Family, layers: int, name: str) -> Sequence[str]:
    """Words in a list of their own."""
    convolved = keys.find("d_rel") is not None
    spelt = _HYBRID if family.parallel_recurrence or convolved else {}
    words = keys.cut([spelt.get(word, word) for word in keys.words(name)])
    unknown = sorted({word for word in words if mixer_of(keys, word) is None})
    if unknown:
        refuse_word(keys, name, unknown[0])
    elif len(words) == layers:
        return words
    else:
        refuse_length(keys, name, len(words), layers)
    return (FULL,) * layers


def _by_flags(keys: ConfigKeys, layers: int, off: str, on: str, name: str) -> Sequence[str]:
    """Words by a list of 0 and 1; layers that predict further tokens may have entries at the end."""
    flags = keys.numbers(name, high=1)
    if len(flags) < layers:
        refuse_length(keys, name, len(flags), layers)
        return (FULL,) * layers
    return [on if flag else off for flag in flags[:layers]]


def _by_places(
    keys: ConfigKeys, layers: int, inside: str, outside: str, name: str, *, first: int = 0
) -> Sequence[str]:
    """Words by the numbers of the layers of one kind."""
    numbers = keys.numbers(name, high=MAX_LAYERS)
    if beyond := [number for number in numbers if not first <= number < layers + first]:
        entry = keys.find(name)
        keys.fault(
            entry[0] if entry else name, f"names layer {beyond[0]}",
            f"Number the layers from {first} to {layers + first - 1}", given=("num_hidden_layers",),
        )  # fmt: skip
    places = {number - first for number in numbers}
    return [inside if index in places else outside for index in range(layers)]


def _every(
    keys: ConfigKeys, layers: int, offset: str | None, inside: str, outside: str, name: str
) -> Sequence[str]:
    """Words by a period; the layers of a group that is not whole are all of the rarer kind."""
    period = keys.size(name, high=MAX_LAYERS)
    start = keys.optional_size(offset, high=MAX_LAYERS, low=0, default=0) if offset else period - 1
    whole = layers - layers % period if name == "layer_group_size" else layers
    return [
        inside if index % period == start % period or index >= whole else outside for index in range(layers)
    ]


def _by_window_pattern(keys: ConfigKeys, layers: int, name: str) -> Sequence[str]:
    """Words by letters that repeat, L for local and G for global, or a number whose multiples are global."""
    entry = keys.find(name)
    if entry is not None and isinstance(entry[1], str):
        letters = re.sub(r"[^A-Za-z]", "", entry[1]).upper()
        if not letters or set(letters) - set("LG"):
            keys.fault(entry[0], f"found {entry[1][:60]!r}", "Give letters L and G, or a whole number")
            return (FULL,) * layers
        return [WINDOW if letters[index % len(letters)] == "L" else FULL for index in range(layers)]
    period = keys.optional_size(name, high=MAX_LAYERS, low=0, default=1)
    return [WINDOW if period < 2 or (index + 1) % period else FULL for index in range(layers)]


def _unlisted(keys: ConfigKeys, family: Family, layers: int) -> Sequence[str]:
    """Words where no key names layers: chunks, windows as the model_type implies, or windows everywhere."""
    if keys.find("attention_chunk_size") is not None and keys.find(*WINDOW_KEYS) is None:
        return _chunked(keys, layers)
    if family.window_pattern > 1:
        return [WINDOW if (index + 1) % family.window_pattern else FULL for index in range(layers)]
    first = keys.optional_size("max_window_layers", high=MAX_TOKENS, low=0, default=0)
    return [WINDOW if index >= first else FULL for index in range(layers)]


def _chunked(keys: ConfigKeys, layers: int) -> Sequence[str]:
    """Llama 4's: layers without rotary positions are full, every fourth where none is listed."""
    rotary = keys.numbers("no_rope_layers", high=1) if keys.find("no_rope_layers") is not None else ()
    period = keys.optional_size("no_rope_layer_interval", high=MAX_LAYERS, default=4)
    if len(rotary) != layers:
        rotary = tuple(int((index + 1) % period != 0) for index in range(layers))
    return [CHUNK if turns else FULL for turns in rotary]


def _refuse_unplaced(keys: ConfigKeys) -> None:
    """Note a fault where recurrent layers have sizes and no key says which layers they are."""
    sizes = next((name for name in _RECURRENT_SIZES if _is_set(keys, name)), None)
    if sizes is not None:
        keys.fault(
            sizes,
            "sizes layers that keep a state, and no key that is known says which layers these are",
            "Add layer_types, linear_attention or full_attention for each layer; as attention all would "
            "count several times the cache",
        )


def _without_idle_windows(
    keys: ConfigKeys, family: Family, words: Sequence[str], max_position: int
) -> Sequence[str]:
    """Return the words with windows that are switched off, or span every position, as what they are: full."""
    slides = {word for word in words if (kind := mixer_of(keys, word)) and kind.__name__ == "SlidingWindow"}
    if not slides:
        return words
    window = None
    if keys.find(*WINDOW_KEYS) is not None or WINDOW_KEYS[0] in keys.defaults:
        window = keys.optional_size(*WINDOW_KEYS, high=MAX_TOKENS, low=-1, default=None)
        window = keys.defaults.get(WINDOW_KEYS[0]) if window is None else window
    if not keys.flag("use_sliding_window", default=not family.window_needs_flag):
        window = None
    elif window is None and keys.find("layer_types", "attention_layers", "hybrid_layer_pattern") is not None:
        problem = "is missing although layer_types names sliding layers"
        keys.fault("sliding_window", problem, "Add the window in tokens")
    if not window or not 0 < window < max_position:
        return [FULL if word in slides else word for word in words]
    return words
