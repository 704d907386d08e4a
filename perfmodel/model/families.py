"""What a model_type implies about a decoder that its config.json does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

__all__ = ["FAMILIES", "UNREADABLE_KEYS", "Family"]


@dataclass(frozen=True)
class Family:
    """Traits that all models of one model_type share and that their configs leave out.

    `norms` counts normalisation vectors per layer; `window_pattern` n makes every n-th layer global;
    `defaults` are the sizes that a config of this family may omit, under their Hugging Face names.
    """

    norms: int = 2
    norm_bias: bool = False
    qk_norm: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    router_bias: bool = False
    expert_bias: bool = False
    attention_sinks: bool = False
    gated_mlp: bool = True
    tied_embeddings: bool = False
    learned_positions: bool = False
    window_needs_flag: bool = False
    window_pattern: int = 1
    defaults: Mapping[str, int] = field(default_factory=dict)


_PLAIN = Family(norm_bias=True, qkv_bias=True, output_bias=True, mlp_bias=True, gated_mlp=False)
_TIED = replace(_PLAIN, tied_embeddings=True)
_GEMMA3 = Family(
    norms=4,
    qk_norm=True,
    tied_embeddings=True,
    window_pattern=6,
    defaults={
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
)

FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(("llama", "mistral", "mixtral", "phi3", "yi", "granite", "internlm2", "olmoe"), Family()),
    **dict.fromkeys(("deepseek", "deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe", "ministral"), Family()),
    **dict.fromkeys(("qwen2", "qwen2_moe"), Family(qkv_bias=True, window_needs_flag=True)),
    **dict.fromkeys(("qwen3", "qwen3_moe"), Family(qk_norm=True, window_needs_flag=True)),
    "gemma": Family(tied_embeddings=True, defaults={"head_dim": 256}),
    "gemma2": Family(
        norms=4, tied_embeddings=True, window_pattern=2, defaults={"head_dim": 256, "sliding_window": 4096}
    ),
    **dict.fromkeys(("gemma3", "gemma3_text"), _GEMMA3),
    "gpt_oss": Family(
        qkv_bias=True,
        output_bias=True,
        router_bias=True,
        expert_bias=True,
        attention_sinks=True,
        window_pattern=2,
    ),
    **dict.fromkeys(("cohere", "cohere2"), Family(norms=1, tied_embeddings=True, window_pattern=4)),
    **dict.fromkeys(("gpt2", "gpt_bigcode", "opt"), replace(_TIED, learned_positions=True)),
    **dict.fromkeys(("gpt_neox", "phi"), _PLAIN),
    **dict.fromkeys(("starcoder2", "bloom"), _TIED),
    "falcon": Family(
        norms=1,
        norm_bias=True,
        gated_mlp=False,
        tied_embeddings=True,
        defaults={"max_position_embeddings": 2048},
    ),
    "gptj": Family(norms=1, norm_bias=True, mlp_bias=True, head_bias=True, gated_mlp=False),
    "mpt": Family(gated_mlp=False, tied_embeddings=True),
    "nemotron": Family(norm_bias=True, gated_mlp=False),
    "stablelm": Family(norm_bias=True),
}
"""Traits by model_type; the defaults are those of the configuration classes of Hugging Face transformers."""

_RECURRENT = "its recurrent or linear-attention layers keep a state instead of a growing cache"
_PER_LAYER = "its layers differ in shape from one another"
UNREADABLE_KEYS: Mapping[str, str] = {
    "is_encoder_decoder": "it is an encoder-decoder",
    "cross_attention_layers": "some of its layers attend to another modality",
    **dict.fromkeys(
        ("linear_num_key_heads", "linear_attn_config", "full_attention_interval", "lru_width"), _RECURRENT
    ),
    **dict.fromkeys(
        ("mamba_d_state", "ssm_cfg", "ssm_state_size", "state_size", "attn_layer_period"), _RECURRENT
    ),
    **dict.fromkeys(
        ("hybrid_override_pattern", "layers_block_type", "rwkv_version", "mamba_num_heads"), _RECURRENT
    ),
    "index_topk": "its attention reads a learned selection of the cache",
    "attention_chunk_size": "its attention restarts at every chunk of the context",
    **dict.fromkeys(("num_kv_shared_layers", "attention_k_eq_v"), "some of its layers share keys and values"),
    **dict.fromkeys(("num_global_key_value_heads", "global_head_dim", "block_configs"), _PER_LAYER),
    "hidden_size_per_layer_input": "its layers read embeddings of their own",
}
"""Keys that, unless false, zero or null, mark an architecture whose bytes are not modelled."""
