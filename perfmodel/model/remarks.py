"""What is said about a config that was read: keys that nobody read, and guesses that decide much."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from perfmodel.model.families import Family
from perfmodel.model.keys import ConfigKeys
from perfmodel.model.layers import Layer
from perfmodel.model.mixers.base import Recurrent

__all__ = ["remark_gate", "remark_unread"]

_SPEAKS = re.compile(
    "layer|head|expert|attention|attn|shar|compress|moe|window|sparse|latent|rank|mamba|ssm|conv|recurr|linear|"
    "block|mixer|hybrid|kv_|loop|depth|index|memory|state_|n_?gram"
)
"""Names that speak of structure."""

_WITHOUT_EFFECT: Mapping[str, str] = {
    "arithmetic within a layer": "dropout|norm(?!_rank)|eps|bias|bidirectional|mamba_use_mlp|attn_res_|max_attn_value|parallel_(block|attn|resid)|full_attn_mod|clip|cap(ping)?$|temp|alpha|beta|softmax|in_fp32|float32|multiplier|"
    "scal|_act$|act_fn|swiglu|limit|sink|value_residual|hc_|sinkhorn|time_step|dt_(min|max)|a_log|neg_eig|decay|_gate_l|"
    "lower_bound|factor$|interleaved",
    "positions": "rope|rotary|position|alibi|yarn|nope|qk_head_dim|logn",
    "training": "init|loss|coef|aux|jitter|drop|checkpoint|pretraining|lora|finetun|xavier|prune|regular",
    "routing": "group|topk_method|score|router|routed_scaling|selection|norm_topk|capacity|token_drop|ep_size|"
    "combin|bias_update|hash",
    "how an engine runs it": "implementation|kernel|fused|flash|cache_implementation|use_cache|return|output_|"
    "tensor_parallel|overlap|dtype|quant|compile|logits_to_keep|chunk_size_feed|_backend|_method$",
    "another part of the model": "vision|audio|image|video|projector|deepstack|talker|speech|mtp|nextn|speculator|"
    "visual|resampler|vit_|embd_layer|img_",
    "names": "ignore_index|class|id2label|label2id|type_ids|token|architectures|auto_map|template|version|_type$",
}
"""Parts of names that have no effect on bytes or times here, by what they are about."""

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


def remark_unread(keys: ConfigKeys, layers: Iterable[Layer]) -> None:
    """Remark on keys that nobody read although their names speak of structure.

    Silent are keys without effect here, keys that a stronger one answers, and sizes of mixers where the
    layers are listed and none is of that kind.
    """
    recurs = any(isinstance(mixer, Recurrent) for layer in layers for mixer in layer.token_mixers)
    placed = any(keys.find(name) is not None for name in ("layer_types", "layers_block_type"))
    without_effect = re.compile("|".join(_WITHOUT_EFFECT.values()))
    for name in keys.unread:
        entry = keys.find(name)
        if entry is None or entry[1] in (False, 0, [], {}, "") or isinstance(entry[1], str) and entry[1] == "none":
            continue
        plain = name.lower()
        answered = any(keys.find(stronger) is not None for stronger in _ANSWERED.get(name, ()))
        of_no_layer = placed and not recurs and _KIND_KEYS.match(plain)
        differs = isinstance(entry[1], list) and len(entry[1]) == keys.layers and len({*map(str, entry[1])}) > 1
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
        f"kind would be {100 * share:.0f} % {sign}"
    )
