"""Sizes that the configuration classes of Hugging Face transformers assume, by model_type."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["CLASS_DEFAULTS"]

_ORDER = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "max_position_embeddings", "sliding_window",
)  # fmt: skip

_SIZES: Mapping[str, tuple[int | None, ...]] = {
    "llama": (32000, 4096, 11008, 32, 32, None, None, 2048),
    "mistral": (32000, 4096, 14336, 32, 32, 8, None, 131072, 4096),
    "mixtral": (32000, 4096, 14336, 32, 32, 8, None, 131072),
    "ministral3": (131072, 4096, 14336, 34, 32, 8, 128, 262144),
    "qwen2": (151936, 4096, 22016, 32, 32, 32, None, 32768, 4096),
    "qwen2_moe": (151936, 2048, 5632, 24, 16, 16, None, 32768, 4096),
    "qwen2_vl_text": (152064, 8192, 29568, 80, 64, 8, None, 32768, 4096),
    "qwen2_5_vl_text": (152064, 8192, 29568, 80, 64, 8, None, 32768, 4096),
    "qwen2_5_omni_text": (152064, 3584, 18944, 28, 28, 4, None, 32768),
    "qwen3": (151936, 4096, 22016, 32, 32, 32, 128, 32768, 4096),
    "qwen3_moe": (151936, 2048, 6144, 24, 32, 4, None, 32768, 4096),
    "qwen3_vl_text": (151936, 4096, 22016, 32, 32, 32, 128, 128000),
    "qwen3_vl_moe_text": (151936, 2048, 5632, 24, 16, 16, 128, 128000),
    "qwen3_5_text": (248320, 4096, 12288, 32, 16, 4, 256, 32768),
    "qwen3_5_moe_text": (248320, 2048, None, 40, 16, 2, 256, 32768),
    "gemma": (256000, 3072, 24576, 28, 16, 16, 256, 8192),
    "gemma2": (256000, 2304, 9216, 26, 8, 4, 256, 8192, 4096),
    "gemma3_text": (262208, 2304, 9216, 26, 8, 4, 256, 131072, 4096),
    "gemma3n_text": (262400, 2048, 16384, 35, 8, 2, 256, 32768, 512),
    "gemma4_text": (262144, 2304, 9216, 30, 8, 4, 256, 131072, 512),
    "llama4_text": (202048, 5120, 8192, 48, 40, 8, 128, 131072),
    "phi": (51200, 2048, 8192, 24, 32, None, None, 2048),
    "phi3": (32064, 3072, 8192, 32, 32, None, None, 4096),
    "cohere": (256000, 8192, 22528, 40, 64, None, None, 8192),
    "cohere2": (256000, 8192, 22528, 40, 64, None, None, 8192, 4096),
    "granite": (32000, 4096, 11008, 32, 32, None, None, 2048),
    "opt": (50272, 768, 3072, 12, 12, None, None, 2048),
    "smollm3": (128256, 2048, 11008, 36, 16, 4, None, 32768),
    "lfm2": (65536, 2560, 12288, 32, 32, 8, None, 128000),
    "glm4": (151552, 4096, 13696, 40, 32, 2, 128, 131072),
    "glm4v_text": (151552, 4096, 13696, 40, 32, 2, None, 32768),
    "glm4v_moe_text": (151424, 4096, 10944, 46, 96, 8, None, 65536),
    "glm4_moe": (151552, 4096, 10944, 46, 96, 8, None, 131072),
    "ernie4_5": (103424, 1024, 3072, 18, 16, 2, 128, 131072),
    "ernie4_5_moe": (103424, 2560, 12288, 28, 20, 4, None, 131072),
    "helium": (48000, 2560, 7040, 24, 20, 20, 128, 4096),
    "starcoder2": (49152, 3072, 12288, 30, 24, 2, None, 4096),
    "exaone4": (102400, 4096, 16384, 32, 32, 32, None, 2048, 4096),
    "olmo2": (50304, 4096, 11008, 32, 32, None, None, 2048),
    "olmo3": (50304, 4096, 11008, 32, 32, None, None, 2048, 4096),
}

CLASS_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    model_type: {name: size for name, size in zip(_ORDER, sizes, strict=False) if size is not None}
    for model_type, sizes in _SIZES.items()
}
"""A nested config is written with what differs from these alone (transformers 5, `to_diff_dict`)."""
