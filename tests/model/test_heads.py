"""Draft heads are recognised by their own config and have the sizes that were published with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import strategies
from perfmodel.errors import SpecError
from perfmodel.model import ModelSpec

QWEN3_8B = {
    "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960, "torch_dtype": "bfloat16",
    "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip
LLAMA_8B = QWEN3_8B | {"vocab_size": 128256, "intermediate_size": 14336, "max_position_embeddings": 8192}
FEATURES = {"target_layer_ids": [1, 9, 17, 25, 33]}
BLOCK = {**QWEN3_8B, "model_type": "qwen3", "num_hidden_layers": 5, "num_target_layers": 36}
HEADS: dict[str, tuple[dict[str, Any], str, str, int, float]] = {
    "EAGLE-3 for Llama-3.1-8B (SpecForge), 0.85 GB": (
        {**LLAMA_8B, "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama",
         "num_hidden_layers": 1, "draft_vocab_size": 32000},
        "EAGLE-3", "eagle", 424_689_664, 4096,
    ),
    "EAGLE-3 for Qwen3-Next-80B (SpecForge)": (
        {**QWEN3_8B, "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "hidden_size": 2048,
         "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256, "num_hidden_layers": 1,
         "intermediate_size": 16384,
         "draft_vocab_size": 32000},
        "EAGLE-3", "eagle", 208_150_528, 2048,
    ),
    "EAGLE for Llama-3-8B (SafeAILab)": (
        {**LLAMA_8B, "architectures": ["EagleLlamaForCausalLM"], "model_type": "eagle",
         "num_hidden_layers": 1},
        "EAGLE", "eagle", 251_666_432, 4096,
    ),
    "P-EAGLE for Qwen3-8B (SpecForge)": (
        {**QWEN3_8B, "architectures": ["PEagleDraftModel"], "model_type": "llama", "num_hidden_layers": 4,
         "draft_vocab_size": 32000},
        "P-EAGLE", "p_eagle", 978_374_656, 16384,
    ),
    "DFlash for Qwen3-8B (SpecForge)": (
        {**BLOCK, "architectures": ["DFlashDraftModel"], "block_size": 16, "dflash_config": FEATURES},
        "DFlash", "dflash", 1_048_626_432, 20480,
    ),
    "Domino for Qwen3-8B (SpecForge)": (
        {**BLOCK, "architectures": ["DominoDraftModel"], "block_size": 16,
         "dflash_config": FEATURES | {"emb_dim": 256, "gru_hidden_dim": 1024}},
        "Domino", "domino", 1_104_561_408, 20480,
    ),
    "DSpark for Qwen3-8B (SpecForge)": (
        {**BLOCK, "architectures": ["DSparkDraftModel"], "block_size": 7,
         "dflash_config": FEATURES | {"markov_rank": 256, "enable_confidence_head": True,
                                      "confidence_head_with_markov": True}},
        "DSpark", "dspark", 1_126_422_017, 20480,
    ),
    "Medusa for Vicuna-7B": (
        {"architectures": ["MedusaModel"], "model_type": "medusa", "hidden_size": 4096, "vocab_size": 32000,
         "num_heads": 5, "num_hidden_layers": 1, "torch_dtype": "float16"},
        "Medusa", "medusa", 739_246_080, 0,
    ),
}  # fmt: skip


def head_of(label: str) -> ModelSpec:
    return ModelSpec.from_config(HEADS[label][0], label)


@pytest.mark.parametrize("label", HEADS)
def test_a_head_is_what_its_config_says_with_its_own_sizes(label: str) -> None:
    _, kind, strategy, parameters, cache = HEADS[label]
    head = head_of(label)
    assert head.drafts is not None
    assert (head.drafts.kind, head.drafts.strategy) == (kind, strategy)
    assert head.parameters == parameters
    assert float(head.kv_bytes_per_token(np.inf)) == cache
    assert strategy in strategies.available()


def test_the_map_of_a_small_vocabulary_is_stored_too() -> None:
    """d2t has an int64 for each of 32,000 drafts, t2d a byte for each of the target's tokens."""
    head = head_of("EAGLE-3 for Llama-3.1-8B (SpecForge), 0.85 GB")
    assert head.weight_bytes == 2 * 424_689_664 + 8 * 32_000 + 128_256


@pytest.mark.parametrize(
    ("target", "parameters"),
    [("DeepSeek-V3", 11_610_068_224), ("DeepSeek-V3.2", 11_624_027_648), ("GLM-5", 9_952_920_576),
     ("Qwen3.5-27B", 424_699_392), ("Nemotron-3-Super-120B-A12B", 2_942_325_248)],
)  # fmt: skip
def test_layers_that_a_model_ships_are_those_of_its_checkpoint(target: str, parameters: int) -> None:
    model = ModelSpec.load(target)
    assert model.draft_layers == 1
    head = model.head(shape=strategies.load("mtp").head)
    assert head.parameters == pytest.approx(parameters, rel=1e-5)


@pytest.mark.parametrize("target", ["DeepSeek-V3", "Qwen3-30B-A3B", "Qwen3-Next-80B-A3B", "Kimi-K3"])
def test_an_eagle_head_is_dense_and_plain_whatever_its_target(target: str) -> None:
    head = ModelSpec.load(target).head(shape=strategies.load("eagle").head)
    ((mixer, count),) = head.token_mixers
    assert (type(mixer).__name__, count) == ("FullAttention", 1)
    assert not any(product.experts for product in head.linears)
    assert head.state_bytes == 0


def test_a_head_of_a_model_with_latents_has_the_published_size() -> None:
    """SpecForge's EAGLE-3 head for DeepSeek-V3: 56 heads of 128 over 8, 1.448 B."""
    head = ModelSpec.load("DeepSeek-V3").head(shape=strategies.load("eagle").head)
    assert head.parameters == pytest.approx(1_447_849_984, rel=0.05)


@pytest.mark.parametrize(
    ("architecture", "nearest"),
    [("ReDrafterModel", "Medusa"), ("HydraModel", "Medusa"), ("MLPSpeculatorPreTrainedModel", "Medusa")],
)
def test_a_head_that_is_not_modelled_is_refused_with_the_nearest(architecture: str, nearest: str) -> None:
    with pytest.raises(SpecError, match=rf"not modelled.*{nearest}"):
        ModelSpec.from_config({**QWEN3_8B, "architectures": [architecture], "num_hidden_layers": 1})


def test_a_model_of_its_own_is_no_head() -> None:
    assert ModelSpec.load("Qwen3-8B").drafts is None
    small = {**QWEN3_8B, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_hidden_layers": 1}
    assert ModelSpec.from_config(small).drafts is None
