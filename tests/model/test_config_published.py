"""Configs as their makers publish them, with all their keys: size and growing cache are the model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmodel.model import ModelSpec

PUBLISHED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "published_configs.json").read_text(encoding="utf-8")
)
"""By Hugging Face id: billions of parameters as published, bytes that a token adds to the cache beyond every
window by hand from the keys (layers with a growing cache x 2 x KV heads x head size x 2 B), the config."""

KIB = 1024


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_gives_the_published_size_and_cache(name: str) -> None:
    row = PUBLISHED[name]
    model = ModelSpec.from_config(row["config"])
    assert model.parameters / 1e9 == pytest.approx(row["billions"], rel=row["tolerance"])
    assert float(model.kv_bytes_per_token(np.inf)) == row["growing_cache_bytes_per_token"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_gives_no_false_alarm(name: str) -> None:
    assumed = ModelSpec.from_config(PUBLISHED[name]["config"]).assumed
    alarms = ("was not read", "name different", "is not known")
    assert not [sentence for sentence in assumed if any(alarm in sentence for alarm in alarms)]


# What models of 2025 and 2026 say in keys of their own: (name, parameters in 1e9, KiB a token below, beyond
# every window, active parameters in 1e9, the whole embedding among them), by hand from the keys; totals are
# those the makers publish.
HUNYUAN_LARGE: dict[str, Any] = {
    "model_type": "hunyuan", "hidden_size": 6400, "intermediate_size": 18304, "num_hidden_layers": 64,
    "num_attention_heads": 80, "num_key_value_heads": 8, "attention_head_dim": 80, "vocab_size": 129024,
    "num_experts": 16, "moe_topk": 1, "num_shared_expert": 1, "use_mixed_mlp_moe": True, "use_cla": True,
    "cla_share_factor": 2, "max_position_embeddings": 131072, "hidden_act": "silu",
    "tie_word_embeddings": True, "use_qk_norm": True, "torch_dtype": "bfloat16",
}  # fmt: skip
BUNDLED = [
    ("Apertus-8B", 8.05, 128, 128, 8.05),
    ("Granite-4-Micro", 3.40, 80, 80, 3.40),
    ("Hunyuan-A13B", 80.4, 128, 128, 12.75),
    ("DBRX", 131.6, 160, 160, 36.47),
    ("MiMo-V2-Flash", 308.8, 217.5, 22.5, 15.45),
    ("LongCat-Flash", 560.7, 63, 63, 27.95),
    ("MiniMax-M1", 456.1, 40, 40, 48.40),
    ("Hunyuan-Large", 388.7, 80, 80, 51.32),
    ("Step-3.5-Flash", 196.9, 180, 48, 11.99),
    ("Arctic", 478.6, 140, 140, 17.32),
]


@pytest.mark.parametrize(("name", "billions", "below", "beyond", "active"), BUNDLED)
def test_keys_that_change_the_structure_are_read(
    name: str, billions: float, below: float, beyond: float, active: float
) -> None:
    model = ModelSpec.load(name).with_dtypes(kv="bf16")
    assert model.parameters / 1e9 == pytest.approx(billions, rel=1e-3)
    assert float(model.kv_bytes_per_token()) == below * KIB
    assert float(model.kv_bytes_per_token(np.inf)) == beyond * KIB
    assert float(model.active_parameters(1)) / 1e9 == pytest.approx(active, rel=1e-3)


def test_shared_caches_and_a_shared_expert_of_a_config_in_memory() -> None:
    model = ModelSpec.from_config(HUNYUAN_LARGE)
    alone = ModelSpec.from_config(HUNYUAN_LARGE | {"use_cla": False})
    assert float(alone.kv_bytes_per_token()) == 2 * float(model.kv_bytes_per_token())
    without = ModelSpec.from_config(HUNYUAN_LARGE | {"num_shared_expert": 0})
    assert model.parameters - without.parameters == 64 * 3 * 6400 * 18304


def test_experts_of_a_params_json() -> None:
    native = PUBLISHED["mistralai/Mixtral-8x7B-v0.1 (params.json)"]["config"]
    model = ModelSpec.from_config(native)
    assert float(model.active_parameters(1)) / 1e9 == pytest.approx(12.9, rel=0.01)
    assert model.parameters == pytest.approx(ModelSpec.load("Mixtral-8x7B-v0.1").parameters, rel=1e-6)


YARN: dict[str, Any] = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LONG_YARN = YARN | {"factor": 40, "original_max_position_embeddings": 4096}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
POSITIONS = [
    ({"max_position_embeddings": 32768, "rope_scaling": YARN}, 131072),
    ({"max_position_embeddings": 163840, "rope_scaling": LONG_YARN}, 163840),
    ({"max_position_embeddings": 131072, "rope_scaling": LLAMA3}, 131072),
    ({"max_position_embeddings": 32768, "rope_parameters": {"full_attention": YARN}}, 131072),
    ({"max_position_embeddings": 32768, "rope_scaling": {"type": "mrope", "mrope_section": [1]}}, 32768),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "longest"), POSITIONS)
def test_the_longest_context_is_the_larger_of_stated_and_scaled(keys: dict[str, Any], longest: int) -> None:
    base = PUBLISHED["Qwen/Qwen2.5-Coder-32B-Instruct"]["config"]
    assert ModelSpec.from_config(base | keys).max_position == longest
