"""What is said about keys that nobody read, about guesses, and about keys that contradict one another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perfmodel.model import ModelSpec

MODELS = Path(__file__).parents[2] / "perfmodel" / "data" / "models"


def bundled(name: str, **changes: Any) -> dict[str, Any]:
    """Config of a bundled model with some keys changed, or left out where the change is `...`."""
    config = json.loads((MODELS / f"{name}.json").read_text(encoding="utf-8")) | changes
    return {key: value for key, value in config.items() if value is not ...}


def remarks(config: dict[str, Any]) -> list[str]:
    return list(ModelSpec.from_config(config).assumed)


UNREAD = [
    ("Llama-3.1-8B", "shared_layer_groups", [[0, 1]]),
    ("Llama-3.1-8B", "attention_sink_heads", 4),
    ("Llama-3.1-8B", "mixer_types", ["a"] * 16 + ["b"] * 16),
    ("Llama-3.1-8B", "kv_sharing", {"every": 2}),
    ("Qwen3-30B-A3B", "expert_clusters", 4),
    ("DeepSeek-V3", "latent_bottleneck", 64),
    ("Granite-4-Micro", "gated_norm_rank", 16),
]


@pytest.mark.parametrize(("name", "key", "value"), UNREAD)
def test_an_unread_key_whose_name_speaks_of_structure_is_named(name: str, key: str, value: Any) -> None:
    assert [sentence for sentence in remarks(bundled(name, **{key: value})) if sentence.startswith(key)]


SILENT = [
    ("Llama-3.1-8B", {"attention_dropout": 0.1, "use_cache": True, "mlp_type": "x"}),
    ("Llama-3.1-8B", {"shared_layer_groups": [], "attention_sink_heads": 0, "kv_sharing": None}),
    ("Llama-3.1-8B", {"attn_logit_softcapping": 50.0, "attn_scale": 0.1, "rope_layers": [1]}),
    ("Granite-4-Micro", {"mamba_n_heads": 128, "mamba_expand": 2, "mamba_d_state": 256}),
    ("DeepSeek-V3", {"head_dim": 64, "qk_head_dim": 192, "num_key_value_heads": 128}),
    ("Qwen3.5-27B", {"full_attention_interval": 4}),
    ("Falcon-H1-34B", {"mamba_use_mlp": True, "mamba_expand": 2}),
    ("Gemma-4-31B", {"vocab_size_per_layer_input": 262144}),
    ("EXAONE-4-32B", {"sliding_window_pattern": "LLLG"}),
    ("Qwen2.5-7B", {"use_sliding_window": False, "max_window_layers": 28}),
]


@pytest.mark.parametrize(("name", "keys"), SILENT)
def test_keys_without_effect_are_silent(name: str, keys: dict[str, Any]) -> None:
    assert not [line for line in remarks(bundled(name, **keys)) if "not read" in line or "differ" in line]


@pytest.mark.parametrize("file", sorted(MODELS.glob("*.json")), ids=lambda path: path.stem)
def test_a_bundled_model_is_known_and_read_whole(file: Path) -> None:
    said = remarks(json.loads(file.read_text(encoding="utf-8")))
    alarms = ("not read", "not known", "different layers")
    assert not [line for line in said if any(alarm in line for alarm in alarms)]


CONTRADICTIONS = [
    ("Qwen3.5-27B", {"full_attention_interval": 8}, ("layer_types", "full_attention_interval")),
    ("EXAONE-4-32B", {"sliding_window_pattern": 3}, ("layer_types", "sliding_window_pattern")),
    ("GLM-5.2", {"first_k_dense_replace": 5}, ("mlp_layer_types", "first_k_dense_replace")),
]


@pytest.mark.parametrize(("name", "keys", "both"), CONTRADICTIONS)
def test_keys_that_contradict_one_another_are_both_named(
    name: str, keys: dict[str, Any], both: tuple[str, str]
) -> None:
    config = bundled(name)
    if "layer_types" in both and "layer_types" not in config.get("text_config", config):
        pytest.skip("its layers are not listed")
    target = config.get("text_config", config)
    target.update(keys)
    said = [line for line in remarks(config) if "different layers" in line]
    assert said
    assert all(name in said[0] for name in both)
    assert said[0].endswith(f"{both[0]} counts")


def test_two_parts_of_a_file_that_disagree_about_the_head_are_both_named() -> None:
    nested = {"tie_word_embeddings": True, "text_config": bundled("Llama-3.1-8B")}
    assert not ModelSpec.from_config(nested).owns_lm_head
    said = " ".join(remarks(nested))
    assert "text_config.tie_word_embeddings and tie_word_embeddings differ" in said


GATES = [
    ("silu", True), ("swiglu", True), ("geglu", True), ("xielu", False), ("relu2", False), ("relu", False),
    ("gelu_new", False), ("gelu_fast", False),
]  # fmt: skip


@pytest.mark.parametrize(("activation", "gated"), GATES)
def test_the_activation_decides_the_gate_of_an_unknown_model(activation: str, gated: bool) -> None:
    config = bundled("Llama-3.1-8B", model_type="nobody_knows", hidden_act=activation)
    model = ModelSpec.from_config(config)
    up = next(layer for layer in model.linears if layer.name in ("gate_up", "up"))
    assert up.n == (2 if gated else 1) * 14336
    # 32 layers of 3 x 4096 x 14336 and 2 x 4096 x (4096 + 1024): a third of the MLP more or less
    total = 32 * ((3 if gated else 2) * 4096 * 14336 + 2 * 4096 * (4096 + 1024))
    share = round(100 * 32 * 4096 * 14336 / total)
    sentence = next(line for line in model.assumed if "nobody_knows" in line)
    assert f"the other kind would be {share} % {'less' if gated else 'more'}" in sentence


def test_gelu_gates_where_the_norm_is_an_rms_norm() -> None:
    old = bundled("Llama-3.1-8B", model_type="nobody_knows", hidden_act="gelu", rms_norm_eps=...)
    assert "an MLP without a gate" in remarks(old)[-1]
    assert "a gated MLP" in remarks(old | {"rms_norm_eps": 1e-5})[-1]


def test_an_unknown_model_is_told_which_bundled_one_has_its_keys() -> None:
    config = bundled("Qwen3-30B-A3B", model_type="nobody_knows")
    assert "Qwen3" in remarks(config)[-1].rpartition("bundled models ")[2]


def test_an_architecture_names_the_family_where_the_type_does_not() -> None:
    config = bundled("Qwen2.5-7B", model_type="something", architectures=["Qwen2ForCausalLM"])
    assert ModelSpec.from_config(config).parameters == ModelSpec.load("Qwen2.5-7B").parameters
    assert not [line for line in remarks(config) if "not known" in line]
