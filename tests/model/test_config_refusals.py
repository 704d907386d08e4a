"""What is not modelled is refused in one sentence: what it is, the nearest thing, and a remedy that works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmodel.errors import SpecError
from perfmodel.model import ModelSpec

MODELS = Path(__file__).parents[2] / "perfmodel" / "data" / "models"
LLAMA: dict[str, Any] = json.loads((MODELS / "Llama-3.1-8B.json").read_text(encoding="utf-8"))


def refusal(config: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        ModelSpec.from_config(config)
    return str(caught.value)


NOT_MODELLED = [
    ({"model_type": "t5", "num_decoder_layers": 6, "is_encoder_decoder": True}, "encoder-decoder"),
    ({"model_type": "whisper", "d_model": 384, "encoder_layers": 4, "decoder_layers": 4}, "encoder-decoder"),
    ({"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "type_vocab_size": 2}, "encoder"),
    ({"model_type": "rwkv", "hidden_size": 4096, "num_hidden_layers": 32, "rescale_every": 6}, "RWKV"),
    ({"model_type": "rwkv7", "hidden_size": 2048, "num_hidden_layers": 24, "head_dim": 64}, "RWKV"),
    ({"model_type": "recurrent_gemma", "hidden_size": 2560, "lru_width": 2560}, "RG-LRU"),
    ({"model_type": "falcon_mamba", "hidden_size": 4096, "state_size": 16}, "all of its layers are Mamba"),
    ({"model_type": "zamba2", "hidden_size": 3584, "num_mem_blocks": 2}, "share one set of weights"),
    (LLAMA | {"model_type": "phi4flash", "mb_per_layer": 2}, "gated memory units"),
    (LLAMA | {"model_type": "llada", "mask_token_id": 126336}, "diffusion"),
    (LLAMA | {"cross_attention_layers": [3, 8]}, "cross-attention"),
    (LLAMA | {"model_type": "jetmoe"}, "attention heads are experts"),
    ({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}, "pipeline"),
    (LLAMA | {"moe_num_experts": [64, 64]}, "experts of text and of images"),
    (LLAMA | {"moe_num_experts": 64, "moe_intermediate_size": [1536, 512]}, "experts of text and of images"),
    (LLAMA | {"cross_layer_interval": 4}, "cross-attention to image tokens"),
    (LLAMA | {"mamba_d_state": 16, "mamba_num_heads": 64}, "no key that is known says which layers"),
    (LLAMA | {"layer_types": ["retention"] * 32}, "kind 'retention' is not modelled"),
    (LLAMA | {"layer_types": ["linear_attention"] * 32}, "kind 'linear_attention' has no sizes"),
]


@pytest.mark.parametrize(("config", "what"), NOT_MODELLED)
def test_what_is_not_modelled_is_named_alone(config: dict[str, Any], what: str) -> None:
    text = refusal(config)
    assert what in text
    assert "\n" not in text  # the sizes that are missing beside it are no news
    assert "Choose a decoder-only transformer" not in text


def test_the_remedy_for_cross_attention_works() -> None:
    """Llama-3.2-11B-Vision: 40 layers, 8 of them cross-attention; text alone passes 32."""
    config = LLAMA | {"num_hidden_layers": 40, "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38]}
    assert "delete cross_attention_layers and lower num_hidden_layers" in refusal(config)
    config["num_hidden_layers"] -= len(config.pop("cross_attention_layers"))
    assert ModelSpec.from_config(config).kv_bytes_per_token() == 32 * 2 * 8 * 128 * 2


def test_the_remedy_for_unplaced_recurrent_layers_works() -> None:
    sizes = LLAMA | {"mamba_num_heads": 128, "mamba_head_dim": 64, "ssm_state_size": 128, "n_groups": 8}
    assert "Add layer_types" in refusal(sizes)
    hybrid = sizes | {"layer_types": (["linear_attention"] * 7 + ["full_attention"]) * 4}
    model = ModelSpec.from_config(hybrid)
    assert model.kv_bytes_per_token() == 4 * 2 * 8 * 128 * 2
    assert model.state_bytes > 0


def test_the_remedy_for_a_kind_without_sizes_works() -> None:
    config = LLAMA | {"layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 8}
    assert "linear_num_key_heads" in refusal(config)
    sizes = {"linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128,
             "linear_value_head_dim": 128}  # fmt: skip
    assert ModelSpec.from_config(config | sizes).kv_bytes_per_token() == 8 * 2 * 8 * 128 * 2


def test_windows_of_latent_attention_are_refused_and_the_remedy_works() -> None:
    config = json.loads((MODELS / "DeepSeek-V3.json").read_text(encoding="utf-8")) | {"sliding_window": 512}
    assert "layers of latent attention are sliding" in refusal(config)
    del config["sliding_window"]
    assert float(ModelSpec.from_config(config).kv_bytes_per_token(np.inf)) > 0


def test_a_vision_model_without_a_vocabulary_names_what_is_missing() -> None:
    vision = {"model_type": "siglip_vision_model", "hidden_size": 1152, "image_size": 384, "patch_size": 14,
              "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304}  # fmt: skip
    assert "it is a vision model" in refusal(vision)
