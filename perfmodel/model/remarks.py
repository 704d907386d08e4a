"""What is said about a config that was read: keys that nobody read, and guesses that decide much."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence

from perfmodel.model.channels.experts import COUNTS
from perfmodel.model.families import Family
from perfmodel.model.keys import ConfigKeys
from perfmodel.model.layers import Layer
from perfmodel.model.mixers.base import Recurrent
from perfmodel.model.names import bundled_models

__all__ = ["remark_gate", "remark_unread"]

_SPEAKS = re.compile(
    "layer|head|expert|attention|attn|shar|compress|moe|window|sparse|latent|rank|mamba|ssm|conv|recurr|linear|"
    "block|mixer|hybrid|kv_|loop|depth|index|memory|state_|n_?gram"
)
"""Names that speak of structure."""

_WITHOUT_EFFECT: Mapping[str, str] = {
    "arithmetic within a layer": (
        "dropout drop pdrop swiglu scalar activation_sparsity_pattern number_of_conv_states norm(?!_rank) "
        "norms layernorms? postnorm eps epsilon bias clip clamp cap softcap softcapping capping temp "
        "temperature alpha beta softmax fp32 float32 multipliers? scale scaling scaled act act_fn limits? "
        "residual hc sinkhorn time_step dt_min dt_max a_log_min a_log_max allow_neg_eigval decay "
        "kda_safe_gate lower_bound bidirectional mamba_use_mlp attn_res_block_size max_attn_value "
        "full_attn_mod parallel_block parallel_residual shared_expert_sink log_scaling rms gate_bias "
        "shared_experts_scale"
    ),
    "positions": (
        "rope rotary order_of_interleaved_layers rotarypct positions? position alibi yarn nope "
        "qk_head_dim logn mrope emb"
    ),
    "training": (
        "init initializer loss coef aux jitter checkpointing pretraining pretrain lora xavier prune "
        "pruned regularization freeze z_loss dense_list out_init_scale classification"
    ),
    "routing": (
        "index_kpool_always_select_tail n_group topk_group expert_groups? num_limited_groups topk_method "
        "scores? scoring router routing "
        "routed route selection_fn norm_topk_prob capacity ep_size combine combination_strategy "
        "bias_update hash moe_renormalize"
    ),
    "how an engine runs it": (
        "implementation impl kernels? fused fusion flash return output cache overlap dtype quant "
        "quantization quantization_config compile logits_to_keep chunk_size_feed_forward backend method "
        "tp grouped_mm"
    ),
    "another part of the model": (
        "vision visual audio image video projector projectors deepstack talker speech mtp nextn "
        "speculator resampler vit embd_layer img anyres mm code2wav token2wav"
    ),
    "names": (
        "ignore_index class classes id2label label2id type_ids tokens? architectures auto_map template "
        "version expert_type kind"
    ),
}
"""Words of names that have no effect on bytes or times here, by what they are about."""

_ANSWERED: Mapping[str, tuple[str, ...]] = {
    "head_dim": ("kv_lora_rank",),
    "num_key_value_heads": ("kv_lora_rank", "multi_query"),
    "n_kv_heads": ("kv_lora_rank",),
    "expand": ("mamba_num_heads",),
    "mamba_expand": ("mamba_n_heads", "mamba_num_heads"),
    "sliding_window": ("use_sliding_window", "layer_types"),
    "max_window_layers": ("layer_types", "use_sliding_window"),
    "layer_switch": ("layer_types", "sliding_window_pattern"),
    "num_layers_per_block": ("layers_block_type",),
    "attn_layer_offset": ("layers_block_type", "layer_types"),
    "cla_share_factor": ("use_cla",),
    "use_mixed_mlp_moe": ("num_shared_expert",),
    "vocab_size_per_layer_input": ("hidden_size_per_layer_input",),
    "block_ffn_dim_multiplier": ("intermediate_size", "block_ff_dim"),
    "block_dim": ("hidden_size",),
    "conv_dim_out": ("hidden_size",),
    "shared_moe_mode": ("shared_intermediate_size",),
    "moe_gate": ("moe_num_experts",),
    "compression_ratio": ("model_type",),
    "block_multiple_of": ("intermediate_size", "block_ff_dim"),
    "first_k_dense_replace": ("mlp_layer_types",),
    "linear_attn_config": ("layer_types",),
    "attention_chunk_size": ("sliding_window",),
    "no_rope_layers": ("sliding_window",),
    "num_mem_blocks": ("layers_block_type",),
    "block_size": ("attn_type_list", "layer_types"),
    "parallel_attn": ("new_decoder_architecture", "multi_query"),
}
"""Keys that a stronger key of the same file answers, be its value false or zero."""

_KIND_KEYS = re.compile("^(mamba|ssm|linear|conv|index|kda|short_conv|sparse|compress|full_attn|attn_layer)")
"""Beginnings of keys that size one kind of mixer: without layers of that kind they have no effect."""


def remark_unread(keys: ConfigKeys, layers: Sequence[Layer]) -> None:
    """Remark on keys that nobody read although their names speak of structure.

    Silent are keys without effect here, keys that a stronger one answers, and sizes of mixers where the
    layers are listed and none is of that kind.
    """
    recurs = any(isinstance(mixer, Recurrent) for layer in layers for mixer in layer.token_mixers)
    slides = any(0 < mixer.reach < math.inf for layer in layers for mixer in layer.token_mixers)
    has_experts = any(product.experts for layer in layers for product in layer.products)
    no_experts = not has_experts and keys.find(*COUNTS) is not None
    placed = any(keys.find(name) is not None for name in ("layer_types", "layers_block_type"))
    without_effect = re.compile(f"(^|_)({'|'.join(' '.join(_WITHOUT_EFFECT.values()).split())})(_|$)")
    for name in keys.unread:
        entry = keys.find(name)
        if entry is None or entry[1] in (False, 0, [], {}, "", "none"):
            continue
        plain = name.lower()
        answered = any(keys.find(stronger) is not None for stronger in _ANSWERED.get(name, ()))
        of_no_layer = placed and not recurs and _KIND_KEYS.match(plain)
        of_no_layer = of_no_layer or (placed and not slides and re.match("swa_|num_sliding|sliding", plain))
        of_no_layer = of_no_layer or (no_experts and re.search("expert|moe", plain))
        differs = isinstance(entry[1], list) and len(entry[1]) == keys.layers and keys.differs(name)
        if answered or of_no_layer or without_effect.search(plain) or not (differs or _SPEAKS.search(plain)):
            continue
        keys.assumed.append(f"{name} was not read; if it changes a layer, bytes and times are off")


def remark_gate(keys: ConfigKeys, family: Family, layers: tuple[Layer, ...]) -> None:
    """Remark on what a guess about the MLP would change, where the model_type is not known."""
    if family.known:
        return
    products = [(layer.count, product) for layer in layers for product in layer.products]
    total = sum(count * product.parameters for count, product in products)
    up = sum(
        count * product.parameters
        for count, product in products
        if product.name.removeprefix("expert_").removeprefix("shared_") in ("gate_up", "up")
    )
    share = (up / 2 if family.gated_mlp else up) / max(total, 1)
    kind, sign = ("a gated MLP", "less") if family.gated_mlp else ("an MLP without a gate", "more")
    keys.assumed.append(
        f"model_type {keys.word('model_type')!r} is not known; assumed {kind} by its activation; the other "
        f"kind would be {100 * share:.0f} % {sign}; of the bundled models {_nearest(keys)} has the keys most "
        "like it"
    )


def _nearest(keys: ConfigKeys) -> str:
    """Return the bundled model whose config shares the largest part of both configs' keys (Jaccard index)."""
    own = set(keys.names)

    def likeness(name: str) -> float:
        others = {key for key in json.loads(bundled_models()[name].read_bytes()) if not key.startswith("_")}
        return len(own & others) / len(own | others)

    return max(bundled_models(), key=likeness)
