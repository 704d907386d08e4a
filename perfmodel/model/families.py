"""What a model_type implies about a decoder that its config.json does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from perfmodel.model.class_defaults import CLASS_DEFAULTS

__all__ = ["FAMILIES", "PLAIN_ACTIVATIONS", "Family", "family_of"]


@dataclass(frozen=True)
class Family:
    """Traits that all models of one model_type share and that their configs leave out.

    Parameters
    ----------
    known : it was found by its model_type.
    norms : normalisation vectors of a layer. [1]
    qk_norm, qk_norm_over_heads : queries and keys are normalised; over all heads together, not each alone.
    gated_mlp, gated_experts : an MLP, an expert has a product that gates.
    output_gate : attention's output has a gate.
    full_rank_gates : Kimi delta attention makes its gates in one step instead of two.
    shared_experts : those that the config leaves out. [1]
    parallel_recurrence : a recurrent mixer stands beside the attention of every layer.
    mixers_per_layer : attentions of a layer, each with an MLP of its own. [1]
    shared_layers_project : layers that read another's cache have projections all the same.
    halved_mlp : its `intermediate_size` is the width of gate and up together.
    draft_layers : layers for predicting further tokens that checkpoints have and the config leaves out. [1]
    window_pattern : n makes every n-th layer global. [layers]
    modules : how the names of matrices below a layer begin elsewhere, and in checkpoints of this family.
    defaults : sizes that a config of this family may omit, under their Hugging Face names.
    """

    known: bool = True
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
    full_rank_gates: bool = False
    shared_experts: int = 0
    draft_layers: int = 0
    parallel_recurrence: bool = False
    mixers_per_layer: int = 1
    shared_layers_project: bool = False
    tied_embeddings: bool = False
    learned_positions: bool = False
    window_needs_flag: bool = False
    halved_mlp: bool = False
    window_pattern: int = 1
    modules: tuple[tuple[str, str], ...] = ()
    defaults: Mapping[str, int] = field(default_factory=dict)


_PLAIN = Family(norm_bias=True, qkv_bias=True, output_bias=True, mlp_bias=True, gated_mlp=False)
_TIED = replace(_PLAIN, tied_embeddings=True)
_GEMMA3 = Family(
    norms=4, qk_norm=True, tied_embeddings=True, window_pattern=6, defaults=CLASS_DEFAULTS["gemma3_text"]
)

_SHARED_EXPERT = (("mlp.shared_experts.", "mlp.shared_expert."),)
_QWEN2 = Family(qkv_bias=True, window_needs_flag=True, modules=_SHARED_EXPERT)
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

_LLAMA_LIKE = (
    "llama, yi, granite, granite_swa, granitemoehybrid, granitemoeshared, internlm, internlm2, "
    "internlm3, phi3, phi4, phi4_multimodal, smollm3, seed_oss, dbrx, arctic, jamba, bamba, deepseek, "
    "deepseek_v2, deepseek_v3, deepseek_v32, deepseek_v4, kimi_k2, kimi_k25, kimi_linear, glm, "
    "glm_moe_dsa, glm4_moe, glm4_moe_lite, glm4v_moe, glm5_next, ernie4_5, ernie4_5_moe, step3p5, "
    "step3p7, mimo_v2_flash, mimo, chatglm, baichuan, exaone, helium, aria, solar_open, solar, "
    "openpangu_embedded, cwm, nemotron_nas, deci, ministral, mistral, bailing_moe, xverse, aquila, "
    "orion, emu3, hyperclovax, iquestcoder"
)
_QK_NORMED = (
    "inkling, bailing_moe_v2, bailing_moe_linear, hunyuan, hunyuan_v1_moe, hunyuan_v1_dense, "
    "hunyuan_moe, hunyuan_v1, hy_v3, minimax_m3, exaone_moe, laguna, dots1, mellum"
)

FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(_LLAMA_LIKE.split(", "), Family()),
    **dict.fromkeys(_QK_NORMED.split(", "), _QK_NORM),
    "ministral3": Family(),
    "mixtral": Family(modules=_BLOCK_SPARSE_MODULES),
    **dict.fromkeys(("minimax_m1", "minimax", "minimax_text_01"), Family(modules=_BLOCK_SPARSE_MODULES)),
    "minimax_m2": Family(qk_norm=True, qk_norm_over_heads=True, modules=_BLOCK_SPARSE_MODULES),
    **dict.fromkeys(("olmo2", "olmoe", "flex_olmo"), Family(qk_norm=True, qk_norm_over_heads=True)),
    "olmo3": Family(qk_norm=True, qk_norm_over_heads=True, window_pattern=4),
    "exaone4": Family(qk_norm=True, window_pattern=4),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen2_5"), _QWEN2),
    "qwen": Family(qkv_bias=True, halved_mlp=True),
    **dict.fromkeys(("qwen3", "qwen3_moe"), _QWEN3),
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe", "qwen3_6", "qwen3_6_moe"), _QWEN3_NEXT),
    "qwen3_next": replace(_QWEN3_NEXT, draft_layers=1),
    **dict.fromkeys(("qwen3_8", "qwen3_8_moe"), _QWEN3_NEXT),
    "granitemoe": Family(modules=_BLOCK_SPARSE_MODULES),
    "llama4": Family(shared_experts=1, modules=_LLAMA4_MODULES),
    "glm4": Family(norms=4),
    "glm4v": Family(norms=4),
    "glm_ocr": Family(norms=4),
    "minicpm": Family(tied_embeddings=True),
    "minicpm3": Family(tied_embeddings=True, defaults={"v_head_dim": 64}),
    "phi4mm": Family(),
    "afmoe": Family(norms=4, qk_norm=True, output_gate=True),
    **dict.fromkeys(("lfm2", "lfm2_moe"), Family(qk_norm=True, tied_embeddings=True)),
    "lfm3": Family(norms=4, qk_norm=True, tied_embeddings=True),
    "hy_v4": Family(output_gate=True),
    **dict.fromkeys(("muse_spark", "muse_glimmer"), Family(norms=4, output_gate=True)),
    "grok_1": Family(norms=4),
    "bailing_hybrid": Family(full_rank_gates=True),
    "falcon_h1": Family(parallel_recurrence=True),
    "nemotron_h": Family(gated_mlp=False, gated_experts=False, modules=_ONE_MIXER),
    "phimoe": Family(norm_bias=True, qkv_bias=True),
    "longcat_flash": Family(norms=4, mixers_per_layer=2),
    "gemma3n": replace(_PER_LAYER_CACHES, shared_layers_project=True),
    "gemma4": replace(_PER_LAYER_CACHES, modules=_GEMMA4_MODULES),
    "gemma": Family(tied_embeddings=True, defaults={"head_dim": 256}),
    "gemma2": Family(
        norms=4, tied_embeddings=True, window_pattern=2, defaults={"head_dim": 256, "sliding_window": 4096}
    ),
    "vaultgemma": Family(window_pattern=1),
    "gemma3": _GEMMA3,
    "gpt_oss": Family(
        qkv_bias=True,
        output_bias=True,
        router_bias=True,
        expert_bias=True,
        attention_sinks=True,
        window_pattern=2,
    ),
    "cohere": Family(norms=1, qk_norm_over_heads=True, tied_embeddings=True, window_pattern=4),
    "cohere2": Family(norms=1, tied_embeddings=True, window_pattern=4),
    "cohere2_moe": Family(norms=1, tied_embeddings=True, window_pattern=4),
    **dict.fromkeys(("gpt2", "gpt_bigcode", "opt"), replace(_TIED, learned_positions=True)),
    "gpt_neox": _PLAIN,
    "phi": replace(_PLAIN, norms=1, head_bias=True),
    "starcoder2": _TIED,
    "bloom": replace(_TIED, defaults={"max_position_embeddings": 2048}),
    "apertus": Family(gated_mlp=False, qk_norm=True),
    "arcee": Family(gated_mlp=False),
    "persimmon": replace(_PLAIN, qk_norm=True),
    "jais2": replace(_PLAIN, qkv_bias=True),
    "nanochat": Family(gated_mlp=False),
    "bitnet": Family(),
    "falcon": Family(
        norms=1,
        norm_bias=True,
        gated_mlp=False,
        tied_embeddings=True,
        defaults={"max_position_embeddings": 2048},
    ),
    "gptj": Family(norms=1, norm_bias=True, mlp_bias=True, head_bias=True, gated_mlp=False),
    "codegen": Family(norms=1, norm_bias=True, mlp_bias=True, head_bias=True, gated_mlp=False),
    "mpt": Family(gated_mlp=False, tied_embeddings=True),
    "nemotron": Family(norm_bias=True, gated_mlp=False),
    "stablelm": Family(norm_bias=True, qk_norm_over_heads=True),
    "modernbert_decoder": Family(tied_embeddings=True, window_pattern=3),
}
"""Traits by model_type, without the words that say which inputs a model takes (`modality_free`)."""

_MODALITIES = frozenset(
    ("text", "vl", "omni", "audio", "unified", "model", "thinker", "vision", "vlm", "o", "v")
)


def modality_free(model_type: str) -> str:
    """Return a model_type as `FAMILIES` spells it: ``qwen3_vl_moe_text`` is a ``qwen3_moe``."""
    words = model_type.lower().replace("-", "_").split("_")
    return "_".join(word for word in words if word not in _MODALITIES)


def family_of(model_type: str, architecture: str = "") -> tuple[Family, bool]:
    """Return the traits of a model_type, else of an architecture's name, and whether either is known."""
    name = modality_free(model_type)
    if name not in FAMILIES:
        squeezed = architecture.lower().removesuffix("forcausallm")
        name = next((known for known in FAMILIES if known.replace("_", "") == squeezed), name)
    return FAMILIES.get(name, Family()), name in FAMILIES


PLAIN_ACTIVATIONS = ("xielu", "relu2", "relu", "relu_squared", "gelu_new", "gelu_fast", "squared_relu")
"""Activations of MLPs without a gate; silu, swiglu and geglu belong to gated ones."""
