"""Draft heads by their own config.json: what they are, what they hold, what they are refused for."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel import ModelSpec, SpecError
from strategies.eagle import EAGLE_3

LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
    "num_hidden_layers": 1, "vocab_size": 128256, "max_position_embeddings": 2048, "model_type": "llama",
    "hidden_act": "silu", "torch_dtype": "float16",
}  # fmt: skip
EAGLE3_8B = {**LLAMA_8B, "architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 32000}
QWEN_8B = {
    "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 128, "num_hidden_layers": 5, "vocab_size": 151936, "max_position_embeddings": 40960,
    "model_type": "qwen3", "hidden_act": "silu", "dtype": "bfloat16",
}  # fmt: skip
TAPS = {"target_layer_ids": [1, 9, 17, 25, 33]}
DFLASH = {**QWEN_8B, "architectures": ["DFlashDraftModel"], "block_size": 16, "dflash_config": TAPS}
DSPARK = {
    **QWEN_8B, "architectures": ["DSparkDraftModel"], "block_size": 7,
    "dflash_config": {
        **TAPS, "markov_rank": 256, "markov_head_type": "vanilla", "enable_confidence_head": True,
        "confidence_head_with_markov": True,
    },
}  # fmt: skip
DOMINO = {
    **QWEN_8B, "architectures": ["DominoDraftModel"], "block_size": 16,
    "dflash_config": {**TAPS, "gru_hidden_dim": 1024, "emb_dim": 256},
}  # fmt: skip
P_EAGLE = {
    **QWEN_8B, "architectures": ["PEagleDraftModel"], "model_type": "llama", "num_hidden_layers": 4,
    "draft_vocab_size": 32000,
}  # fmt: skip
MEDUSA = {
    "architectures": ["MedusaModel"], "model_type": "medusa", "hidden_size": 4096, "vocab_size": 32000,
    "num_heads": 5, "num_hidden_layers": 1, "torch_dtype": "float16",
}  # fmt: skip
EAGLE_1 = {
    **LLAMA_8B, "architectures": ["EagleLlamaForCausalLM"], "model_type": "eagle", "torch_dtype": "bfloat16"
}  # fmt: skip
NEXT_80B = {
    **EAGLE3_8B, "hidden_size": 2048, "intermediate_size": 16384, "num_attention_heads": 16,
    "num_key_value_heads": 2, "head_dim": 256, "vocab_size": 151936, "torch_dtype": "bfloat16",
}  # fmt: skip
DEEPSEEK = {
    **EAGLE3_8B, "hidden_size": 7168, "intermediate_size": 40960, "num_attention_heads": 56,
    "vocab_size": 129280,
}  # fmt: skip
NEXTN = {
    "architectures": ["DeepseekV3ForCausalLMNextN"], "model_type": "deepseek_v3", "hidden_size": 7168,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1,
    "num_experts_per_tok": 8, "first_k_dense_replace": 0, "num_hidden_layers": 1, "num_attention_heads": 128,
    "num_key_value_heads": 128, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 129280, "max_position_embeddings": 163840,
    "num_nextn_predict_layers": 1, "torch_dtype": "bfloat16",
}  # fmt: skip


def head(config: dict[str, object], name: str = "head", **more: object) -> ModelSpec:
    return ModelSpec.from_config({**config, **more}, name)


@pytest.mark.parametrize(
    ("config", "kind", "strategy", "parameters", "cache", "longest"),
    [
        (EAGLE3_8B, "EAGLE-3", "eagle", 424_689_664, 4096, np.inf),
        (NEXT_80B, "EAGLE-3", "eagle", 208_150_528, 2048, np.inf),
        (DEEPSEEK, "EAGLE-3", "eagle", 1_447_849_984, 4096, np.inf),
        (P_EAGLE, "P-EAGLE", "p_eagle", 978_374_656, 16384, np.inf),
        (DFLASH, "DFlash", "dflash", 1_048_626_432, 20480, 15),
        (DOMINO, "Domino", "domino", 1_104_561_408, 20480, 15),
        (DSPARK, "DSpark", "dspark", 1_126_422_017, 20480, 7),
        (MEDUSA, "Medusa", "medusa", 739_246_080, 0, 5),
        (EAGLE_1, "EAGLE", "eagle", 251_666_432, 4096, np.inf),
        (NEXTN, "MTP", "mtp", 11_610_068_224, 1152, np.inf),
    ],
)
def test_a_head_is_known_by_its_config_and_holds_what_was_published(
    config: dict[str, object], kind: str, strategy: str, parameters: int, cache: int, longest: float
) -> None:
    """Configs of sgl-project/SpecForge, SafeAILab/EAGLE, vLLM's medusa.py and lmsys/DeepSeek-V3-NextN. [B]"""
    model = head(config)
    assert model.drafts is not None
    assert (model.drafts.kind, model.drafts.strategy) == (kind, strategy)
    assert model.parameters == pytest.approx(parameters, rel=1e-7)
    assert model.kv_bytes_per_token() == cache
    assert model.drafts.shape.longest == longest
    assert model.drafts.target_hidden == config["hidden_size"]


def test_a_released_head_weighs_its_weights_and_the_map_between_both_vocabularies() -> None:
    """EAGLE3-LLaMA3.1-Instruct-8B: 0.85 GB; 32000 places of 8 bytes there, 128256 marks of one back."""
    assert head(EAGLE3_8B).weight_bytes == 2 * 424_689_664 + 8 * 32_000 + 128_256


def test_the_head_made_for_a_target_is_the_one_trained_for_it() -> None:
    made = ModelSpec.load("Llama-3.1-8B").head(shape=EAGLE_3)
    read = head(EAGLE3_8B)
    assert (made.parameters, made.weight_bytes) == (read.parameters, read.weight_bytes)
    assert made.kv_bytes_per_token() == read.kv_bytes_per_token()


@pytest.mark.parametrize(
    ("target", "heads", "kv_heads"),
    [("DeepSeek-V3", 56, 8), ("DeepSeek-V3.2", 56, 8), ("Qwen3-Next-80B-A3B", 16, 2)],
)
def test_a_head_is_dense_with_plain_attention_whatever_its_target_has(
    target: str, heads: int, kv_heads: int
) -> None:
    """As the published heads of DeepSeek-V3 and Qwen3-Next (SpecForge)."""
    made = ModelSpec.load(target).head(shape=EAGLE_3)
    ((mixer, count),) = made.token_mixers
    assert (mixer.label, mixer.heads, count) == ("full attention", heads, 1)
    assert made.caches[0][0].kv_heads == kv_heads
    assert not any(product.experts for product in made.linears)


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"architectures": ["LlamaForCausalLM"], "draft_vocab_size": 32000}, "EAGLE-3"),
        ({"architectures": ["LlamaForCausalLM"], "eagle_config": {"use_aux_hidden_state": True}}, "EAGLE-3"),
        ({"architectures": ["Eagle3LlamaForCausalLM"]}, "EAGLE-3"),
        ({"architectures": ["LlamaForCausalLMEagle3"], "parallel_drafting": True}, "P-EAGLE"),
        ({"architectures": ["LlamaForCausalLMPeagle"]}, "P-EAGLE"),
        ({"architectures": ["Qwen3NextMTP"]}, "MTP"),
        ({"num_nextn_predict_layers": 1}, "MTP"),
        ({"architectures": ["Any"], "block_size": 8, "dflash_config": TAPS}, "DFlash"),
        ({"block_size": 8, "dflash_config": {**TAPS, "markov_rank": 64}}, "DSpark"),
    ],
)
def test_a_head_is_known_by_what_its_keys_mean(more: dict[str, object], kind: str) -> None:
    drafts = head(LLAMA_8B, **more).drafts
    assert drafts is not None and drafts.kind == kind


@pytest.mark.parametrize("section", ["transformer_layer_config", "model"])
def test_the_sizes_may_stand_in_a_section_of_their_own(section: str) -> None:
    """Those of speculators, and of vLLM's first EAGLE heads."""
    outer = {"speculators_model_type": "eagle3", "draft_vocab_size": 32000, "torch_dtype": "float16"}
    assert head({**outer, section: LLAMA_8B}).parameters == 424_689_664


def test_what_only_a_name_says_is_believed_and_told() -> None:
    """Heads of SafeAILab name LlamaForCausalLM and one layer; without the name it is a small model."""
    named = head({**LLAMA_8B, "architectures": ["LlamaForCausalLM"]}, "yuhuili/EAGLE-LLaMA3.1-Instruct-8B")
    assert named.drafts is not None and named.drafts.kind == "EAGLE"
    assert any("its name says so" in sentence for sentence in named.assumed)
    assert head({**LLAMA_8B, "architectures": ["LlamaForCausalLM"]}, "tiny").drafts is None


def test_a_model_that_ships_layers_for_further_tokens_is_no_head() -> None:
    for name in ("DeepSeek-V3", "Qwen3.5-27B", "Llama-3.1-8B", "Gemma-3-4b"):
        assert ModelSpec.load(name).drafts is None


def test_experts_that_a_file_took_over_from_its_target_make_no_head_sparse() -> None:
    left = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
    assert head(EAGLE3_8B, **left, decoder_sparse_step=1).parameters == 424_689_664


def test_a_head_narrower_than_its_target_reads_wide_features_and_embeds_itself() -> None:
    plain, wide = head(EAGLE3_8B), head(EAGLE3_8B, target_hidden_size=8192)
    assert wide.parameters - plain.parameters == 3 * 4096 * 4096 + 128256 * 4096
    assert wide.drafts is not None and wide.drafts.target_hidden == 8192


@pytest.mark.parametrize(
    ("architecture", "says"),
    [
        ("DFlash2DraftModel", "DFlash2"),
        ("MLPSpeculatorPreTrainedModel", "MLP speculator"),
        ("Gemma4AssistantForCausalLM", "reads its target's cache"),
        ("HydraModel", "Hydra"),
    ],
)
def test_a_head_that_is_not_modelled_is_refused_with_the_nearest(architecture: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as refusal:
        head({**QWEN_8B, "architectures": [architecture], "block_size": 8})
    assert "nearest head that is modelled" in str(refusal.value)


def test_what_a_head_lacks_is_named() -> None:
    for config, key in ((DFLASH, "block_size"), (MEDUSA, "vocab_size"), (DOMINO, "dflash_config")):
        with pytest.raises(SpecError, match=r"gru_hidden_dim|block_size|vocab_size"):
            ModelSpec.from_config({name: value for name, value in config.items() if name != key})


def test_of_several_modules_a_pass_runs_one_and_memory_holds_all() -> None:
    one, three = head(NEXTN), head(NEXTN, num_nextn_predict_layers=3)
    assert three.parameters == 3 * one.parameters
    assert three.one_module().parameters == pytest.approx(one.parameters, rel=1e-5)
    assert three.drafts is not None and three.drafts.shape.longest == 3


@pytest.mark.parametrize(
    ("target", "parameters"),
    [
        ("DeepSeek-V3", 11_610_068_224),
        ("DeepSeek-V3.2", 11_624_027_648),
        ("GLM-4.5-Air", 2_375_059_584),
        ("GLM-5", 9_952_920_576),
        ("Nemotron-3-Super-120B-A12B", 2_942_325_248),
        ("Nemotron-3.5-Lightning-30B-A3B", 1_335_325_952),
        ("Qwen3.5-27B", 424_699_392),
        ("Qwen3.5-35B-A3B", 844_640_768),
        ("Qwen3.5-397B-A17B", 6_595_568_128),
    ],
)
def test_the_layer_that_a_model_ships_has_its_published_size(target: str, parameters: int) -> None:
    """Full attention with the model's experts: makers' checkpoints and modelling code."""
    model = ModelSpec.load(target)
    assert model.draft_layers == 1
    assert model.head().parameters == pytest.approx(parameters, rel=1e-4)


def test_a_checkpoint_may_ship_a_layer_that_its_config_does_not_announce() -> None:
    assert ModelSpec.load("Qwen3-Next-80B-A3B").draft_layers == 1
    assert ModelSpec.load("Llama-3.1-8B").draft_layers == 0
