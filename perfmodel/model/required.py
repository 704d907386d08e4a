"""Keys without which a config of some family leaves out what its layers are."""

from __future__ import annotations

from collections.abc import Mapping

from perfmodel.model.channels.experts import CHOSEN, COUNTS
from perfmodel.model.families import modality_free
from perfmodel.model.keys import ConfigKeys

__all__ = ["refuse_disagreements", "refuse_left_out"]

Layout = tuple[str, ...]
_LISTS: Layout = ("layer_types", "layers_block_type")
_EXPERT_WIDTHS: Layout = ("moe_intermediate_size", "expert_intermediate_size", "expert_ffn_hidden_size")
_LAYOUTS: Mapping[str, Layout] = {
    **dict.fromkeys(
        ("qwen3_next", "qwen3_5", "qwen3_5_moe", "qwen3_6", "qwen3_6_moe"), ("full_attention_interval",)
    ),
    **dict.fromkeys(("minimax_m1", "minimax", "minimax_text_01"), ("attn_type_list",)),
    **dict.fromkeys(("lfm2", "lfm2_moe"), ("full_attn_idxs",)),
    "deepseek_v4": ("compress_ratios",),
    "kimi_linear": ("linear_attn_config",),
    "nemotron_h": ("hybrid_override_pattern",),
    "jamba": ("attn_layer_period",),
    "bailing_moe_linear": ("layer_group_size",),
    "mimo_v2_flash": ("hybrid_layer_pattern",),
    "inkling": ("local_layer_ids",),
    "gemma3n": ("sliding_window_pattern",),
    "gemma4": ("sliding_window_pattern",),
}
"""Families whose layers differ, and the key beside a list of all layers that says how."""
_WITH_EXPERTS = (
    "llama4", "mixtral", "qwen2_moe", "qwen3_moe", "qwen3_vl_moe", "qwen3_5_moe", "qwen3_6_moe", "glm4_moe",
    "glm4v_moe", "glm_moe_dsa", "deepseek_v3", "deepseek_v32", "deepseek_v4", "kimi_k2", "ernie4_5_moe",
    "gpt_oss", "minimax_m1", "minimax_m2", "minimax_m3", "mimo_v2_flash", "lfm2_moe", "phimoe",
    "longcat_flash", "bailing_moe_linear", "hunyuan", "hunyuan_v1_moe", "arctic", "dbrx",
)  # fmt: skip
"""Families all of whose models hold experts."""
_WITH_EXPERT_WIDTH = (
    "qwen2_moe", "qwen3_moe", "qwen3_vl_moe", "qwen3_next", "qwen3_5_moe", "qwen3_6_moe", "glm4_moe",
    "glm_moe_dsa", "deepseek_v3", "deepseek_v32", "deepseek_v4", "kimi_k2", "kimi_linear", "ernie4_5_moe",
    "mimo_v2_flash", "lfm2_moe", "bailing_moe_linear",
)  # fmt: skip
"""Families whose experts are never as wide as `intermediate_size`."""


_SAME: tuple[Layout, ...] = (
    ("num_hidden_layers", "n_layers", "n_layer"),
    tuple(name for name in COUNTS if "." not in name),
    tuple(name for name in CHOSEN if "." not in name),
    ("num_key_value_heads", "num_attention_groups", "n_kv_heads"),
)
"""Spellings of one size."""


def refuse_left_out(keys: ConfigKeys, model_type: str) -> None:
    """Note a fault for every key that a family needs and the config leaves to defaults of its class."""
    family = modality_free(model_type)
    layout = _LAYOUTS.get(family)
    if layout is not None and keys.find(*_LISTS, *layout) is None:
        _refuse(keys, layout[0], f"the layers of {model_type} differ, and no key says which is which")
    experts, chosen = keys.find(*COUNTS), keys.find(*CHOSEN)
    if experts is None and family in _WITH_EXPERTS:
        _refuse(keys, COUNTS[0], f"models of {model_type} hold experts, and no key says how many there are")
    elif experts is None and chosen is not None and chosen[1]:
        _refuse(keys, COUNTS[0], f"{chosen[0][-1]} chooses among experts, and no key says how many there are")
    has_experts = experts is not None and bool(experts[1])
    if has_experts and family in _WITH_EXPERT_WIDTH and keys.find(*_EXPERT_WIDTHS) is None:
        _refuse(keys, _EXPERT_WIDTHS[0], f"the experts of {model_type} have a width of their own")


def refuse_disagreements(keys: ConfigKeys) -> None:
    """Note a fault where two spellings of one size say different numbers."""
    for names in _SAME:
        stated = [(name, entry[1]) for name in names if (entry := keys.find(name)) is not None]
        numbers = [(name, value) for name, value in stated if isinstance(value, int) and value > 0]
        for name, value in numbers[1:]:
            if value != numbers[0][1]:
                keys.fault(
                    name, f"says {value}, {numbers[0][0]} says {numbers[0][1]}", "Keep the one that is right"
                )


def _refuse(keys: ConfigKeys, key: str, problem: str) -> None:
    keys.fault(
        key, f"is missing: {problem}",
        "Add it, or give the whole config, as AutoConfig.from_pretrained(...).to_dict() has it",
    )  # fmt: skip
