"""What a model_type implies about a decoder that its config.json does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

__all__ = ["FAMILIES", "UNREADABLE_KEYS", "Family"]


@dataclass(frozen=True)
class Family:
    """Traits that all models of one model_type share and that their configs leave out.

    Parameters
    ----------
    norms : normalisation vectors of a layer. [1]
    qk_norm_over_heads : queries and keys are normalised over all heads together.
    gated_mlp, gated_experts : an MLP, an expert has a product that gates.
    output_gate : attention's output has a gate.
    shared_experts : those that the config leaves out. [1]
    parallel_recurrence : a recurrent mixer stands beside the attention of every layer.
    mixers_per_layer : attentions of a layer, each with an MLP of its own. [1]
    shared_layers_project : layers that read another's cache have projections all the same.
    draft_layers : layers for predicting further tokens that checkpoints have and the config leaves out. [1]
    window_pattern : n makes every n-th layer global. [layers]
    modules : how the names of matrices below a layer begin elsewhere, and in checkpoints of this family.
    defaults : sizes that a config of this family may omit, under their Hugging Face names.
    nested_defaults : sizes that it may omit where it is a part of a larger config.
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
    qk_norm_over_heads: bool = False
    gated_mlp: bool = True
    gated_experts: bool = True
    output_gate: bool = False
    shared_experts: int = 0
    draft_layers: int = 0
    parallel_recurrence: bool = False
    mixers_per_layer: int = 1
    shared_layers_project: bool = False
    tied_embeddings: bool = False
    learned_positions: bool = False
    window_needs_flag: bool = False
    window_pattern: int = 1
    modules: tuple[tuple[str, str], ...] = ()
    defaults: Mapping[str, int] = field(default_factory=dict)
    nested_defaults: Mapping[str, int] = field(default_factory=dict)


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

_SHARED_EXPERT = (("mlp.shared_experts.", "mlp.shared_expert."),)
_LLAMA_CLASS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}
_LLAMA = Family(nested_defaults=_LLAMA_CLASS)
_MISTRAL = Family(
    nested_defaults={
        **_LLAMA_CLASS,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
    }
)
_QWEN2 = Family(
    qkv_bias=True,
    window_needs_flag=True,
    modules=_SHARED_EXPERT,
    nested_defaults={
        **_LLAMA_CLASS,
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "max_position_embeddings": 32768,
    },
)
_QWEN3 = Family(qk_norm=True, window_needs_flag=True)
_QWEN3_NEXT = Family(qk_norm=True, output_gate=True, modules=_SHARED_EXPERT)
_QK_NORM = Family(qk_norm=True)
_ONE_MIXER = (("self_attn.", "mixer."), ("mlp.", "mixer."), ("mamba.", "mixer."))
_LLAMA4_MODULES = (
    ("mlp.gate_", "feed_forward.gate_"),
    ("mlp.gate", "feed_forward.router"),
    ("mlp.shared_experts.", "feed_forward.shared_expert."),
    ("mlp.", "feed_forward."),
)
_GEMMA4_MODULES = (("mlp.gate_", "mlp.gate_"), ("mlp.gate", "router"), ("mlp.experts.", "experts."))
_BLOCK_SPARSE_MODULES = (("mlp.", "block_sparse_moe."),)
_PER_LAYER_CACHES = Family(norms=4, qk_norm=True, tied_embeddings=True, window_pattern=1)

FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(("llama", "yi", "granite", "granitemoehybrid", "internlm2", "olmoe"), _LLAMA),
    **dict.fromkeys(("mistral", "ministral", "ministral3"), _MISTRAL),
    "mixtral": replace(_MISTRAL, modules=_BLOCK_SPARSE_MODULES),
    **dict.fromkeys(("phi3", "phi4", "smollm3", "seed_oss", "dbrx", "arctic", "jamba"), Family()),
    **dict.fromkeys(("deepseek", "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4"), Family()),
    **dict.fromkeys(("kimi_k2", "kimi_linear", "glm_moe_dsa", "glm4_moe", "glm4_moe_lite"), Family()),
    **dict.fromkeys(("ernie4_5", "ernie4_5_moe", "step3p5", "step3p7", "mimo_v2_flash", "mimo"), Family()),
    **dict.fromkeys(("inkling_text", "bailing_moe", "bailing_moe_linear", "bailing_hybrid"), _QK_NORM),
    **dict.fromkeys(("hunyuan", "hunyuan_v1_moe", "hunyuan_v1_dense", "minimax_m3"), _QK_NORM),
    **dict.fromkeys(("lfm2", "lfm2_moe"), _QK_NORM),
    **dict.fromkeys(("minimax_m1", "minimax", "minimax_text_01"), Family(modules=_BLOCK_SPARSE_MODULES)),
    "minimax_m2": Family(qk_norm_over_heads=True, modules=_BLOCK_SPARSE_MODULES),
    **dict.fromkeys(("olmo2", "olmo3"), Family(qk_norm_over_heads=True)),
    **dict.fromkeys(("exaone4", "exaone_moe"), _QK_NORM),
    **dict.fromkeys(("qwen2", "qwen2_moe"), _QWEN2),
    **dict.fromkeys(("qwen3", "qwen3_moe"), _QWEN3),
    **dict.fromkeys(
        ("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_6_moe_text"),
        _QWEN3_NEXT,
    ),
    "qwen3_next": replace(_QWEN3_NEXT, draft_layers=1),
    **dict.fromkeys(("llama4", "llama4_text"), Family(shared_experts=1, modules=_LLAMA4_MODULES)),
    "falcon_h1": Family(parallel_recurrence=True),
    "nemotron_h": Family(
        gated_mlp=False, gated_experts=False, modules=_ONE_MIXER
    ),
    "nemotron-nas": Family(),
    "phimoe": Family(norm_bias=True, qkv_bias=True),
    "longcat_flash": Family(norms=4, mixers_per_layer=2),
    **dict.fromkeys(("gemma3n", "gemma3n_text"), replace(_PER_LAYER_CACHES, shared_layers_project=True)),
    **dict.fromkeys(("gemma4", "gemma4_text"), replace(_PER_LAYER_CACHES, modules=_GEMMA4_MODULES)),
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
    "starcoder2": replace(_TIED, tied_embeddings=True),
    "bloom": _TIED,
    "apertus": Family(gated_mlp=False, qk_norm=True),
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

PLAIN_ACTIVATIONS = ("xielu", "relu2", "relu", "relu_squared", "gelu_new", "gelu_fast", "squared_relu")
"""Activations of MLPs without a gate; silu, swiglu and geglu belong to gated ones."""

_ANOTHER = "Price the nearest decoder that is modelled instead: its cache per token decides most"
UNREADABLE_KEYS: Mapping[str, tuple[str, str]] = {
    "is_encoder_decoder": ("it is an encoder-decoder", "Price a decoder-only model of its decoder's sizes"),
    "cross_attention_layers": (
        "some of its layers attend to another modality",
        "Remove the key for the decoder alone: text needs no more",
    ),
    "lru_width": ("its recurrent blocks are gated linear recurrent units", _ANOTHER),
    "rwkv_version": ("its layers are RWKV's time mixing", _ANOTHER),
    "ssm_cfg": ("a mapping of another library describes its layers", "Give the config of transformers"),
}
"""Keys that, unless false, zero or null, mark an architecture that is not modelled: why, and a way out."""
