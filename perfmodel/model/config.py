"""Reading a Hugging Face config.json, of whatever spelling, into the sizes of a decoder."""

from __future__ import annotations

from dataclasses import dataclass, replace

from perfmodel.files.document import Document
from perfmodel.model.families import FAMILIES, UNREADABLE_KEYS, Family
from perfmodel.model.keys import ConfigKeys
from perfmodel.model.layout import MAX_LAYERS, MAX_TOKENS, count_expert_layers, read_windows
from perfmodel.model.stored import StoredDtypes, read_stored_dtypes

__all__ = ["DecoderConfig", "ExpertSizes", "LatentSizes", "read_config"]

MAX_WIDTH = 1_000_000
MAX_VOCABULARY = 100_000_000


@dataclass(frozen=True)
class LatentSizes:
    """Multi-head latent attention: one latent per token for all heads; `q_rank` 0: plain queries."""

    q_rank: int
    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int


@dataclass(frozen=True)
class ExpertSizes:
    """Mixture of experts in `layers` layers: `per_token` of `experts` of `width`, and shared ones beside."""

    layers: int
    experts: int
    per_token: int
    width: int
    shared_width: int
    shared_gate: bool


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a decoder-only transformer, checked against each other.

    `windows` holds each layer's sliding window in tokens, None where a layer attends to the whole context.
    """

    hidden_size: int
    num_layers: int
    vocab_size: int
    max_position: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    tied_embeddings: bool
    windows: tuple[int | None, ...]
    latent: LatentSizes | None
    experts: ExpertSizes | None
    family: Family
    dtypes: StoredDtypes
    assumed: tuple[str, ...]


def read_config(
    document: Document, *, weight_dtype: str | None = None, kv_dtype: str | None = None
) -> DecoderConfig:
    """Return the decoder's sizes; unknown keys are ignored, as every model adds its own.

    Raises
    ------
    SpecError
        Naming every key that is missing, of the wrong type, absurd or at odds with another, with its line;
        also where the cache is not one entry per token and layer (recurrent, encoder-decoder, shared).
    """
    keys = ConfigKeys(document)
    _refuse_unreadable(keys)
    family = _family(keys)
    hidden = keys.size("hidden_size", "n_embd", "d_model", "model_dim", "dim", high=MAX_WIDTH)
    layers = keys.size("num_hidden_layers", "n_layer", "n_layers", "num_layers", high=MAX_LAYERS)
    heads = keys.size("num_attention_heads", "n_head", "n_heads", "num_heads", high=MAX_WIDTH)
    vocabulary = keys.size("vocab_size", "padded_vocab_size", high=MAX_VOCABULARY)
    max_position = keys.size(
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "seq_length",
        "n_ctx",
        "max_sequence_length",
        "model_max_length",
        high=MAX_TOKENS,
    )
    latent = _latent_sizes(keys)
    kv_heads = _kv_heads(keys, heads)
    head_dim = _head_dim(keys, hidden, heads) if latent is None else latent.nope_dim + latent.rope_dim
    if latent is None and heads % kv_heads:
        keys.fault(
            "num_key_value_heads",
            f"found {kv_heads}",
            f"Give a divisor of the {heads} attention heads",
            given=("num_attention_heads",),
        )
    experts = _expert_sizes(keys, layers)
    windows = read_windows(keys, family, layers, max_position)
    dtypes = read_stored_dtypes(keys, layers=layers, weight_dtype=weight_dtype, kv_dtype=kv_dtype)
    mlp_width = 0
    if experts is None or experts.layers < layers:
        mlp_width = _mlp_width(keys, family, hidden)
    tied = keys.flag("tie_word_embeddings", default=family.tied_embeddings)
    keys.raise_faults()
    return DecoderConfig(
        hidden_size=hidden,
        num_layers=layers,
        vocab_size=vocabulary,
        max_position=max_position,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_width=mlp_width,
        tied_embeddings=tied,
        windows=windows,
        latent=latent,
        experts=experts,
        family=family,
        dtypes=dtypes,
        assumed=tuple(keys.assumed),
    )


def _refuse_unreadable(keys: ConfigKeys) -> None:
    """Note a fault for every sign of an architecture whose bytes are not modelled."""
    for key, reason in UNREADABLE_KEYS.items():
        value = keys.find(key)
        if value is not None and value[1]:
            keys.fault(
                value[0], f"this architecture cannot be priced: {reason}", "Choose a decoder-only transformer"
            )


def _family(keys: ConfigKeys) -> Family:
    """Traits of the model_type, with the biases that the config states itself."""
    model_type = keys.word("model_type")
    family = FAMILIES.get(model_type or "", Family())
    if model_type not in FAMILIES:
        keys.assumed.append(
            f"model_type {model_type!r} is not known; assumed a Llama-like layer with a gated MLP"
        )
    keys.defaults = family.defaults
    qkv = keys.flag(
        "attention_bias",
        "qkv_bias",
        "use_qkv_bias",
        "add_qkv_bias",
        "use_bias",
        "bias",
        default=family.qkv_bias,
    )
    return replace(
        family,
        qkv_bias=qkv,
        output_bias=keys.flag("attention_bias", "use_bias", "bias", default=family.output_bias),
        mlp_bias=keys.flag("mlp_bias", "use_bias", "bias", default=family.mlp_bias),
        qk_norm=keys.flag("use_qk_norm", default=family.qk_norm),
    )


def _kv_heads(keys: ConfigKeys, heads: int) -> int:
    """Key and value heads: stated, one under multi-query attention, else as many as query heads."""
    one_for_all = keys.flag("multi_query", default=False) and not keys.flag(
        "new_decoder_architecture", default=False
    )
    names = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads", "multi_query_group_num")
    if names[0] in keys.defaults:
        return keys.size(*names, high=MAX_WIDTH)
    return keys.optional_size(*names, high=MAX_WIDTH, default=1 if one_for_all else heads)


def _head_dim(keys: ConfigKeys, hidden: int, heads: int) -> int:
    """Width of one head: stated, implied by the family, else an even share of the hidden size."""
    names = ("head_dim", "kv_channels", "head_size")
    if keys.find(*names) is not None or names[0] in keys.defaults:
        return keys.size(*names, high=MAX_WIDTH)
    if hidden % heads:
        keys.fault(
            "num_attention_heads",
            f"{heads} heads cannot share a hidden size of {hidden}",
            "Add head_dim",
            given=("hidden_size",),
        )
    return max(hidden // heads, 1)


def _mlp_width(keys: ConfigKeys, family: Family, hidden: int) -> int:
    """Inner width of the dense MLP; four times the hidden size where a plain MLP leaves it out."""
    names = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "hidden_dim")
    if family.gated_mlp:
        return keys.size(*names, high=MAX_WIDTH)
    ratio = keys.optional_size("expansion_ratio", high=1000, default=4)
    return keys.optional_size(*names, high=MAX_WIDTH, default=ratio * hidden)


def _latent_sizes(keys: ConfigKeys) -> LatentSizes | None:
    """Sizes of multi-head latent attention, None where the config names no latent."""
    if keys.find("kv_lora_rank") is None:
        return None
    return LatentSizes(
        q_rank=keys.optional_size("q_lora_rank", high=MAX_WIDTH, low=0, default=0),
        kv_rank=keys.size("kv_lora_rank", high=MAX_WIDTH),
        rope_dim=keys.size("qk_rope_head_dim", high=MAX_WIDTH, low=0),
        nope_dim=keys.size("qk_nope_head_dim", high=MAX_WIDTH),
        value_dim=keys.size("v_head_dim", high=MAX_WIDTH),
    )


def _expert_sizes(keys: ConfigKeys, layers: int) -> ExpertSizes | None:
    """Sizes of the mixture of experts, None for a dense model."""
    names = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    experts = keys.optional_size(*names, high=MAX_WIDTH, low=0, default=0)
    moe_layers = count_expert_layers(keys, layers) if experts else 0
    if not moe_layers:
        return None
    per_token = keys.size(
        "num_experts_per_tok", "experts_per_token", "moe_top_k", "moe_topk", "moe_k", high=MAX_WIDTH
    )
    if per_token > experts:
        keys.fault(
            "num_experts_per_tok",
            f"found {per_token}",
            f"Give at most the {experts} experts",
            given=("num_local_experts",),
        )
    width = keys.size(
        "moe_intermediate_size", "expert_intermediate_size", "intermediate_size", high=MAX_WIDTH
    )
    shared = keys.optional_size(
        "n_shared_experts", "num_shared_experts", "moe_num_shared_experts", high=MAX_WIDTH, low=0, default=0
    )
    shared_width = keys.optional_size(
        "shared_expert_intermediate_size",
        "shared_intermediate_size",
        high=MAX_WIDTH,
        low=0,
        default=shared * width,
    )
    return ExpertSizes(
        layers=moe_layers,
        experts=experts,
        per_token=per_token,
        width=width,
        shared_width=shared_width,
        shared_gate=keys.find("shared_expert_intermediate_size") is not None and shared_width > 0,
    )
