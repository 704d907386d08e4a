"""Keys of siblings: what changes a layer is read, by hand from the keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmodel.errors import SpecError
from perfmodel.model import ModelSpec

MODELS = Path(__file__).parents[2] / "perfmodel" / "data" / "models"


def bundled(name: str, **changes: Any) -> dict[str, Any]:
    """Config of a bundled model, its decoder with keys changed, or left out where the change is `...`."""
    config: dict[str, Any] = json.loads((MODELS / f"{name}.json").read_text(encoding="utf-8"))
    decoder = config.get("text_config", config)
    decoder |= changes
    for key in [key for key, value in decoder.items() if value is ...]:
        del decoder[key]
    return config


def growing(config: dict[str, Any]) -> float:
    """Cache bytes that a token adds far into a sequence."""
    return float(ModelSpec.from_config(config, kv_dtype="bf16").kv_bytes_per_token(np.inf))


GEMMA_4_E2B: dict[str, Any] = {
    "model_type": "gemma4_text", "hidden_size": 1536, "num_hidden_layers": 35, "intermediate_size": 6144,
    "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "global_head_dim": 512,
    "vocab_size": 262144, "vocab_size_per_layer_input": 262144, "hidden_size_per_layer_input": 256,
    "num_kv_shared_layers": 20, "sliding_window": 512, "max_position_embeddings": 131072,
    "use_double_wide_mlp": True, "torch_dtype": "bfloat16",
    "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7,
}  # fmt: skip


def test_layers_that_share_a_cache_may_be_twice_as_wide() -> None:
    """google/gemma-4-E2B: 20 of 35 layers share; 3 full layers of 512 elements keep keys and values."""
    model = ModelSpec.from_config(GEMMA_4_E2B)
    plain = ModelSpec.from_config(GEMMA_4_E2B | {"use_double_wide_mlp": False})
    assert model.parameters - plain.parameters == 20 * 3 * 1536 * 6144
    assert model.parameters == pytest.approx(4.6286e9, rel=1e-5)  # as transformers builds it
    assert growing(GEMMA_4_E2B) == 3 * 2 * 512 * 2


def test_an_index_may_run_in_every_few_layers_only() -> None:
    """GLM-5.2 without its list: every fourth layer after the third, 21 of 78 own an index key of 128."""
    config = bundled("GLM-5.2", indexer_types=..., index_topk_freq=4, index_skip_topk_offset=3)
    assert growing(config) == (78 * 576 + 21 * 128) * 2
    lettered = bundled("GLM-5.2", indexer_types=..., index_topk_pattern="F" + "S" * 77)
    assert growing(lettered) == (78 * 576 + 128) * 2


def test_an_index_key_may_stand_for_several_tokens() -> None:
    config = bundled("DeepSeek-V3.2", index_kpool=16)
    assert growing(config) == 61 * (576 + 128 / 16) * 2


def test_heads_may_differ_from_layer_to_layer() -> None:
    """poolside Laguna: 72 query heads in window layers, 48 in full ones, and a gate for each head."""
    llama = bundled("Llama-3.1-8B")
    heads = [32, 64] * 16
    model = ModelSpec.from_config(llama | {"num_attention_heads_per_layer": heads, "head_dim": 128})
    assert model.parameters - ModelSpec.load("Llama-3.1-8B").parameters == 16 * 32 * 128 * 4096 * 2
    gated = ModelSpec.from_config(llama | {"gating": "per-head"})
    assert gated.parameters - ModelSpec.load("Llama-3.1-8B").parameters == 32 * 32 * 4096
    with pytest.raises(SpecError, match="gating: found 'sometimes'"):
        ModelSpec.from_config(llama | {"gating": "sometimes"})


def test_a_dense_mlp_may_stand_beside_the_experts() -> None:
    """xai-org/grok-2, `residual_moe`: 64 x 3 x 8192 x 32768 beside eight experts of width 16384."""
    config = bundled("Llama-3.1-8B", num_local_experts=8, num_experts_per_tok=2, moe_intermediate_size=7168)
    alone = ModelSpec.from_config(config)
    beside = ModelSpec.from_config(config | {"residual_moe": True})
    assert beside.parameters - alone.parameters == 32 * 3 * 4096 * 14336


def test_experts_may_work_in_a_narrower_width() -> None:
    config = bundled("Llama-3.1-8B", num_local_experts=8, num_experts_per_tok=2, moe_intermediate_size=7168)
    narrow = ModelSpec.from_config(config | {"moe_hidden_size": 1024})
    experts = next(product for product in narrow.linears if product.name == "expert_gate_up")
    assert experts.k == 1024
    assert {"latent_in", "latent_out"} <= {product.name for product in narrow.linears}


def test_one_word_of_transformers_means_the_mixer_whose_keys_are_there() -> None:
    """Version 5 writes linear_attention for every recurrent layer and full_attention for latent ones."""
    for name, own in (("Granite-4-H-Small", "mamba"), ("Qwen3.5-27B", "linear_attention")):
        config = bundled(name)
        decoder = config.get("text_config", config)
        decoder["layer_types"] = [
            {own: "linear_attention", "attention": "full_attention"}.get(word, word)
            for word in decoder["layer_types"]
        ]
        assert ModelSpec.from_config(config).layers == ModelSpec.from_config(bundled(name)).layers
    indexed = bundled("DeepSeek-V3.2", layer_types=["indexed_attention"] * 61)
    assert ModelSpec.from_config(indexed).layers == ModelSpec.load("DeepSeek-V3.2").layers


def test_layers_of_one_mixer_may_be_listed_by_word_or_by_letter() -> None:
    config = bundled("Nemotron-3-Nano-30B-A3B")
    words = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
    listed = [words[letter] for letter in config.pop("hybrid_override_pattern")]
    for key in ("layers_block_type", "layer_types"):
        model = ModelSpec.from_config(config | {key: listed})
        assert model.layers == ModelSpec.load("Nemotron-3-Nano-30B-A3B").layers


def test_a_state_size_of_latent_models_is_that_of_their_own_heads() -> None:
    """Ring 2.5: lightning attention beside latent attention in the last layer of each group."""
    plain = ModelSpec.load("Ring-flash-linear-2.0")
    latent = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
    model = ModelSpec.from_config(bundled("Ring-flash-linear-2.0", **latent))
    assert model.state_bytes == plain.state_bytes > 0
    layers = sum(count for mixer, count in model.token_mixers if mixer.label == "latent")
    assert model.kv_bytes_per_token() == layers * 576 * 2


def test_latent_layers_that_share_a_cache_are_refused() -> None:
    sources = [0, 0, *range(2, 61)]
    with pytest.raises(SpecError, match="share caches, which is not modelled"):
        ModelSpec.from_config(bundled("DeepSeek-V3", kv_source_layers=sources))
    alone = bundled("DeepSeek-V3", kv_source_layers=list(range(61)))
    assert growing(alone) == 61 * 576 * 2


def test_a_window_of_minus_one_is_none() -> None:
    assert growing(bundled("Llama-3.1-8B", sliding_window=-1)) == 32 * 2 * 8 * 128 * 2
    assert growing(bundled("Llama-3.1-8B", sliding_window=4096)) == 0
