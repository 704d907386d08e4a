"""Which layer of a config is which: how its tokens mix, and what each passes through alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from perfmodel.files.document import Place
from perfmodel.model.channels import channels
from perfmodel.model.channels.mlp import RESIDUAL_MLP
from perfmodel.model.expert_layers import expert_layers
from perfmodel.model.families import Family
from perfmodel.model.keys import ConfigKeys
from perfmodel.model.layer_kind import LayerKind
from perfmodel.model.token_layers import (
    LINEAR,
    MAX_LAYERS,
    mixer_of,
    refuse_length,
    refuse_word,
    remark_contradiction,
    token_words,
)

__all__ = ["layer_kinds"]

_PATTERN_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_BESIDE = ("enable_moe_block", RESIDUAL_MLP, "residual_moe")
_VARYING = (
    "intermediate_size", "moe_intermediate_size", "moe_topk", "num_shared_expert", "num_key_value_heads",
    "num_attention_heads", "num_attention_heads_per_layer", "num_key_value_heads_per_layer",
    "num_query_heads", "num_kv_heads", "head_dim", "num_experts", "num_local_experts", "n_routed_experts",
    "num_experts_per_tok",
)  # fmt: skip


def layer_kinds(keys: ConfigKeys, family: Family, layers: int, max_position: int) -> tuple[LayerKind, ...]:
    """Return the kind of every layer, by whichever keys the config has for it."""
    if (blocks := _listed_blocks(keys, layers)) is not None:
        kinds = [_block_kind(word) for word in blocks]
    else:
        words = token_words(keys, family, layers, max_position)
        experts = expert_layers(keys, layers)
        beside = keys.flag(*_BESIDE, default=False)
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
    if any(keys.differs(name) for name in _VARYING) or keys.find("per_layer_config") is not None:
        kinds = [replace(kind, index=index) for index, kind in enumerate(kinds)]
    everywhere = tuple(name for name, kind in channels().items() if kind.stands_in_every_layer(keys))
    return tuple(replace(kind, channels=(*kind.channels, *everywhere)) for kind in kinds)


def _listed_blocks(keys: ConfigKeys, layers: int) -> Sequence[str] | None:
    """Words of layers that hold one mixer each, of tokens or of channels; None where layers hold both."""
    pattern = keys.find("hybrid_override_pattern")
    if pattern is not None:
        word = keys.word("hybrid_override_pattern") or ""
        words: Sequence[str] = [_PATTERN_LETTERS.get(letter, letter) for letter in word.replace("|", "")]
        place: Place = pattern[0]
        other = keys.words("layers_block_type") if keys.find("layers_block_type") is not None else ()
        if other and [_mixes(keys, word) for word in other] != [_mixes(keys, word) for word in words]:
            remark_contradiction(keys, "hybrid_override_pattern", "layers_block_type", "layers")
    else:
        lists = (name for name in ("layers_block_type", "layer_types") if keys.find(name) is not None)
        name = next((name for name in lists if {"moe", "mlp"}.intersection(keys.words(name))), None)
        if name is None:
            return None
        words, place = keys.words(name), (keys.find(name) or ((),))[0]
    unknown = [word for word in words if not _is_channel(word) and mixer_of(keys, word) is None]
    if unknown:
        refuse_word(keys, place, unknown[0])
    elif len(words) != layers:
        refuse_length(keys, place, len(words), layers)
    return words


def _is_channel(word: str) -> bool:
    return any(word in kind.words for kind in channels().values())


def _mixes(keys: ConfigKeys, word: str) -> object:
    """What a word for a layer of one mixer means."""
    return _block_kind(word).channels or mixer_of(keys, word)


def _block_kind(word: str) -> LayerKind:
    name = next((name for name, kind in channels().items() if word in kind.words), None)
    return LayerKind((), (name,)) if name else LayerKind((word,), ())


def _share_caches(keys: ConfigKeys, kinds: list[LayerKind]) -> list[LayerKind]:
    """Return the kinds with those marked that read the cache of an earlier layer."""
    last = keys.optional_size("num_kv_shared_layers", high=len(kinds), low=0, default=0)
    shared = set(range(len(kinds) - last, len(kinds)))
    if keys.flag("use_cla", default=False):
        factor = keys.optional_size("cla_share_factor", high=MAX_LAYERS, default=2)
        shared |= {index for index in range(len(kinds)) if index % factor}
    if keys.find("kv_source_layers") is not None:
        sources = keys.cut(keys.numbers("kv_source_layers", high=MAX_LAYERS))
        if len(sources) != len(kinds):
            refuse_length(keys, "kv_source_layers", len(sources), len(kinds))
        shared |= {index for index, source in enumerate(sources) if source != index}
    if shared and keys.find("kv_lora_rank") is not None:
        keys.fault(
            "kv_lora_rank",
            "layers of latent attention share caches, which is not modelled",
            "Nearest is a cache in every layer: delete the keys that share; the cache is then "
            f"{len(kinds)} / {max(len(kinds) - len(shared), 1)} times as large",
        )
    return [replace(kind, owns_cache=index not in shared) for index, kind in enumerate(kinds)]


def _share_indexes(keys: ConfigKeys, kinds: list[LayerKind]) -> list[LayerKind]:
    """Return the kinds with those marked that take over an earlier layer's choice of entries."""
    if keys.find("indexer_types") is not None:
        name, words = "indexer_types", keys.cut(keys.words("indexer_types"))
    elif letters := keys.word("index_topk_pattern"):
        name = "index_topk_pattern"
        words = keys.cut(["full" if letter == "F" else "shared" for letter in letters])
    else:
        every = keys.optional_size("index_topk_freq", high=MAX_LAYERS, default=1)
        first = keys.optional_size("index_skip_topk_offset", high=MAX_LAYERS, low=0, default=2)
        places = range(1 - first, len(kinds) + 1 - first)
        name, words = "index_topk_freq", ["shared" if max(place, 0) % every else "full" for place in places]
    unknown = next((word for word in words if word not in ("full", "shared")), None)
    if unknown is not None:
        keys.fault(name, f"kind {unknown[:60]!r} is not modelled", "Give full or shared for each layer")
    if len(words) != len(kinds):
        refuse_length(keys, name, len(words), len(kinds))
        return kinds
    return [replace(kind, owns_index=word == "full") for kind, word in zip(kinds, words, strict=True)]


def _compress(keys: ConfigKeys, kinds: list[LayerKind]) -> list[LayerKind]:
    """Return the kinds with the ratios of compressed attention; modules that predict further tokens have
    entries of their own at the end."""
    if isinstance((keys.find("compress_rates") or ((), None))[1], dict):
        return [
            replace(
                kind,
                ratio=keys.optional_size(f"compress_rates.{word}", high=MAX_LAYERS, low=0, default=0),
            )
            for kind in kinds
            for word in kind.tokens
        ]
    if keys.find("compress_ratios") is None:
        return kinds
    ratios = keys.numbers("compress_ratios", high=MAX_LAYERS)
    if len(ratios) < len(kinds):
        refuse_length(keys, "compress_ratios", len(ratios), len(kinds))
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
