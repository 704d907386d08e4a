"""Every spelling of a config.json is read, and no config can do anything but be read or be refused."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from perfmodel.errors import SpecError
from perfmodel.model import ModelSpec

MODELS = Path(__file__).parents[2] / "perfmodel" / "data" / "models"
LLAMA: dict[str, Any] = json.loads((MODELS / "Llama-3.1-8B.json").read_text(encoding="utf-8"))


def config(**changes: Any) -> dict[str, Any]:
    """Config of Llama-3.1-8B with some keys changed, or left out where the change is `...`."""
    return {key: value for key, value in (LLAMA | changes).items() if value is not ...}


OLD_SPELLINGS = [
    # openai-community/gpt2, 124 439 808 parameters
    (
        {
            "model_type": "gpt2",
            "n_embd": 768,
            "n_head": 12,
            "n_layer": 12,
            "n_positions": 1024,
            "vocab_size": 50257,
        },
        124439808,
    ),
    # EleutherAI/gpt-neox-20b, 20 554 567 680 parameters (arXiv 2204.06745 table 1)
    (
        {
            "model_type": "gpt_neox",
            "hidden_size": 6144,
            "intermediate_size": 24576,
            "num_attention_heads": 64,
            "num_hidden_layers": 44,
            "max_position_embeddings": 2048,
            "vocab_size": 50432,
            "tie_word_embeddings": False,
        },
        20554567680,
    ),
    # Qwen/Qwen1.5-MoE-A2.7B, 14 315 784 192 parameters
    (
        {
            "model_type": "qwen2_moe",
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "num_experts": 60,
            "num_experts_per_tok": 4,
            "decoder_sparse_step": 1,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "num_hidden_layers": 24,
            "max_position_embeddings": 8192,
            "vocab_size": 151936,
        },
        14315784192,
    ),
]


@pytest.mark.parametrize(("sizes", "parameters"), OLD_SPELLINGS, ids=["gpt2", "gpt-neox-20b", "Qwen1.5-MoE"])
def test_other_spellings_give_the_published_parameter_count(sizes: dict[str, Any], parameters: int) -> None:
    assert ModelSpec.from_config(sizes).parameters == parameters


WINDOWS = [
    (config(), {None: 32}),
    (config(sliding_window=4096), {4096: 32}),
    (config(sliding_window=None), {None: 32}),
    (config(sliding_window=131072), {None: 32}),
    (config(model_type="qwen2", sliding_window=4096), {None: 32}),
    (
        config(model_type="qwen2", sliding_window=4096, use_sliding_window=True, max_window_layers=28),
        {None: 28, 4096: 4},
    ),
    (config(sliding_window=512, sliding_window_pattern=6), {512: 27, None: 5}),
    (config(model_type="gemma3_text", sliding_window=512), {512: 27, None: 5}),
    (config(model_type="gemma2"), {4096: 16, None: 16}),
    (
        config(sliding_window=64, layer_types=["full_attention"] * 30 + ["sliding_attention"] * 2),
        {None: 30, 64: 2},
    ),
]


@pytest.mark.parametrize(("sizes", "windows"), WINDOWS)
def test_sliding_layers_follow_the_config(sizes: dict[str, Any], windows: dict[int | None, int]) -> None:
    mixers = ModelSpec.from_config(sizes).token_mixers
    assert {getattr(mixer, "window", None): count for mixer, count in mixers} == windows


MOE_LAYERS = [
    ({}, 32),
    ({"first_k_dense_replace": 3}, 29),
    ({"moe_layer_freq": 2}, 16),
    ({"first_k_dense_replace": 1, "moe_layer_freq": 2}, 15),
    ({"moe_layer_freq": [0] * 2 + [1] * 30}, 30),
    ({"decoder_sparse_step": 4}, 8),
    ({"mlp_only_layers": [0, 5]}, 30),
]


@pytest.mark.parametrize(("keys", "layers"), MOE_LAYERS)
def test_expert_layers_follow_the_config(keys: dict[str, Any], layers: int) -> None:
    sizes = config(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=64, **keys)
    assert {layer.name: layer.count for layer in ModelSpec.from_config(sizes).linears}["router"] == layers


def test_a_nested_text_config_is_the_decoder() -> None:
    nested = {"model_type": "gemma3", "text_config": config(), "vision_config": {"hidden_size": 1}}
    model = ModelSpec.from_config(nested)
    assert model.parameters == ModelSpec.load("Llama-3.1-8B").parameters
    assert any("text_config" in sentence for sentence in model.assumed)


def test_sizes_that_a_family_leaves_out_are_reported_as_assumed() -> None:
    short = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    model = ModelSpec.from_config(
        {"model_type": "gemma3", "text_config": short | {"model_type": "gemma3_text"}}
    )
    assert model.kv_bytes_per_token() == ModelSpec.load("Gemma-3-4b").kv_bytes_per_token()
    assert {sentence.split()[0] for sentence in model.assumed} >= {
        "num_attention_heads",
        "head_dim",
        "vocab_size",
    }


def test_every_fault_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    wrong = config(
        hidden_size=..., hiden_size=4096, num_hidden_layers=-3, num_attention_heads="32", vocab_size=True
    )
    file.write_text(json.dumps(wrong, indent=2))
    with pytest.raises(SpecError) as refusal:
        ModelSpec.load(file)
    lines = {fault.field: fault.line for fault in refusal.value.faults}
    text = file.read_text().splitlines()
    for key in ("num_hidden_layers", "num_attention_heads", "vocab_size"):
        assert f'"{key}"' in text[(lines[key] or 0) - 1]
    assert {"hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"} == set(lines)
    assert "Did you mean 'hiden_size'?" in str(refusal.value)


CLASHES = [
    (config(num_key_value_heads=7), "divisor of the 32"),
    (config(hidden_size=4097), "cannot share a hidden size"),
    (config(num_experts=4, num_experts_per_tok=8), "at most the 4 experts"),
    (config(layer_types=["full_attention"] * 31), "lists 31 layers"),
    (config(layer_types=["sliding_attention"] * 32), "is missing although layer_types"),
    (config(layer_types=["linear_attention"] * 32), "cannot be priced"),
    (config(max_position_embeddings=...), "max_position_embeddings: is missing"),
    (config(vocab_size=10**30), "beyond 10\\^18"),
    (config(hidden_size=math.nan), "hidden_size: found nan"),
    (config(quantization_config="fp8"), "Give a mapping"),
    (config(torch_dtype="int3"), "torch_dtype"),
    (config(is_encoder_decoder=True), "encoder-decoder"),
    (config(mamba_d_state=16), "recurrent"),
    (config(num_kv_shared_layers=20), "share keys and values"),
    (config(index_topk=2048), "learned selection"),
]


@pytest.mark.parametrize(("sizes", "message"), CLASHES)
def test_sizes_that_cannot_be_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ModelSpec.from_config(sizes)


def test_not_a_number_is_refused_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config(vocab_size=math.nan)))
    with pytest.raises(SpecError, match="vocab_size: found NaN"):
        ModelSpec.load(file)


NUMBERS: list[Any] = [-1, 0, 1, 1.5, math.nan, math.inf, 10**9, 10**25, 10**400]
OTHERS: list[Any] = [
    None,
    True,
    False,
    "",
    "8",
    "nan",
    "full_attention",
    [],
    [1],
    ["x"],
    [[[]]],
    [None],
    {},
    {"a": 1},
]
QUANTISATIONS: list[Any] = [{"quant_method": []}, {"config_groups": {"g": {"weights": 3}}}]
STRANGE = NUMBERS + OTHERS + QUANTISATIONS + ["\ud800"]
BASES = ["Llama-3.1-8B", "Gemma-3-1b", "gpt-oss-20b", "DeepSeek-V3", "Qwen3-30B-A3B", "Mistral-7B-v0.1"]


def _mutated(dice: random.Random, base: dict[str, Any]) -> str:
    """Text of a config after one to three small accidents."""
    sizes = dict(base)
    for _ in range(dice.randint(1, 3)):
        key = dice.choice(sorted(sizes))
        accident = dice.choice(["delete", "replace", "scale", "nest", "rename"])
        if accident == "delete":
            del sizes[key]
        elif accident == "rename":
            sizes[key[:-1] or "x"] = sizes.pop(key)
        elif accident == "scale" and isinstance(sizes[key], int):
            sizes[key] = dice.choice([-1, 0, 1000, 0.5, 10**12]) * sizes[key]
        elif accident == "nest":
            sizes = {"text_config": sizes, key: dice.choice(STRANGE)}
        else:
            sizes[key] = dice.choice(STRANGE)
        if not sizes:
            break
    text = json.dumps(sizes, indent=dice.choice([None, 2]))
    if dice.random() < 0.2:
        cut = dice.randrange(len(text))
        text = text[:cut] + dice.choice(["", "}", "\x00", "NaN", ","]) + text[cut + dice.randint(1, 9) :]
    return text


def test_a_damaged_config_is_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    bases = [json.loads((MODELS / f"{name}.json").read_text()) for name in BASES]
    dice = random.Random(20240820)
    file = tmp_path / "config.json"
    outcomes = {"read": 0, "refused": 0}
    for turn in range(600):
        file.write_text(_mutated(dice, bases[turn % len(bases)]), encoding="utf-8", errors="surrogatepass")
        try:
            model = ModelSpec.load(file)
        except SpecError:
            outcomes["refused"] += 1
        else:
            assert model.parameters > 0
            assert 0 < model.weight_bytes_read(4.0) < math.inf
            assert 0 < model.kv_bytes(1000.0) < math.inf
            assert model.head().parameters > 0
            outcomes["read"] += 1
    assert min(outcomes.values()) > 100


@pytest.mark.parametrize("strange", STRANGE, ids=ascii)
def test_any_value_under_any_key_is_read_or_refused(strange: Any) -> None:
    for key in (
        *LLAMA,
        "sliding_window",
        "layer_types",
        "moe_layer_freq",
        "num_experts",
        "quantization_config",
    ):
        try:
            parameters = ModelSpec.from_config(config(**{key: strange})).parameters
        except SpecError:
            continue
        assert parameters > 0
