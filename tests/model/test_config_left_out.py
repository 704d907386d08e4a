"""What a config leaves to its class is asked for by name, and what other files say is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmodel.errors import SpecError
from perfmodel.files.document import read_json
from perfmodel.model import ModelSpec
from perfmodel.model.names import bundled_models


def bundled(name: str) -> dict[str, Any]:
    return dict(read_json(bundled_models()[name]).data)


LEFT_OUT = [
    ("Llama-4-Scout", ["num_local_experts"], "num_local_experts"),
    ("MiniMax-M1", ["attn_type_list"], "attn_type_list"),
    ("Qwen3-Next-80B-A3B", ["full_attention_interval"], "full_attention_interval"),
    ("DeepSeek-V4-Flash", ["compress_ratios"], "compress_ratios"),
    ("MiMo-V2-Flash", ["hybrid_layer_pattern"], "hybrid_layer_pattern"),
    ("Inkling", ["local_layer_ids"], "local_layer_ids"),
    ("Ring-flash-linear-2.0", ["layer_group_size"], "layer_group_size"),
    ("LFM2-8B-A1B", ["layer_types"], "full_attn_idxs"),
    ("GLM-4.5-Air", ["moe_intermediate_size"], "moe_intermediate_size"),
    ("Kimi-K2", ["moe_intermediate_size"], "moe_intermediate_size"),
    ("MiMo-V2-Flash", ["n_routed_experts"], "num_local_experts"),
    ("Granite-4-H-Small", ["num_local_experts"], "num_local_experts"),
    ("Gemma-4-31B", ["layer_types"], "sliding_window_pattern"),
]


@pytest.mark.parametrize(("model", "without", "named"), LEFT_OUT)
def test_a_key_that_says_what_the_layers_are_is_asked_for(model: str, without: list[str], named: str) -> None:
    config = {key: value for key, value in bundled(model).items() if key not in without}
    with pytest.raises(SpecError, match=rf"{named}: is missing"):
        ModelSpec.from_config(config)


@pytest.mark.parametrize("model", ["OLMo-3-32B", "EXAONE-4-32B"])
def test_three_windows_to_one_full_layer_are_the_default_of_their_classes(model: str) -> None:
    config = {
        key: value
        for key, value in bundled(model).items()
        if key not in ("layer_types", "sliding_window_pattern")
    }
    left = ModelSpec.from_config(config)
    assert float(left.kv_bytes_per_token(np.inf)) == float(ModelSpec.load(model).kv_bytes_per_token(np.inf))


def test_layers_that_are_not_listed_as_full_are_what_the_model_has() -> None:
    """`full_attn_idxs` beside lightning attention leaves lightning attention, not convolutions."""
    config = bundled("MiniMax-M1")
    full = [index for index, kind in enumerate(config.pop("attn_type_list")) if kind]
    listed = ModelSpec.from_config(
        {**config, "full_attn_idxs": full, "layer_group_size": 8, "model_type": "unknown"}
    )
    assert listed.state_bytes == ModelSpec.load("MiniMax-M1").state_bytes


def test_layer_numbers_beyond_the_layers_are_refused() -> None:
    config = bundled("Kimi-Linear-48B-A3B")
    linear = config["linear_attn_config"]
    zero_based = [number - 1 for number in linear["kda_layers"]]
    with pytest.raises(SpecError, match=r"kda_layers: names layer 0\. Number the layers from 1 to 27"):
        ModelSpec.from_config({**config, "linear_attn_config": {**linear, "kda_layers": zero_based}})


@pytest.mark.parametrize(
    ("file", "said", "size"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 128, "sym": True}, 5_727_854_592),
        (
            "quant_config.json",
            {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"},
            5_727_854_592,
        ),
    ],
)
def test_files_of_older_quantisers_beside_a_config_are_read(
    tmp_path: Path, file: str, said: dict[str, Any], size: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(bundled("Llama-3.1-8B")), encoding="utf-8")
    assert ModelSpec.load(tmp_path).weight_dtype == "bf16"
    (tmp_path / file).write_text(json.dumps(said), encoding="utf-8")
    model = ModelSpec.load(tmp_path)
    assert model.weight_dtype == "int4"
    assert model.weight_bytes == size


def test_mxfp4_of_a_model_without_experts_is_of_all_its_layers() -> None:
    """AMD's Llama-3.3-70B in MXFP4: 40.6 GB."""
    dense = ModelSpec.load("amd/Llama-3.3-70B-Instruct-MXFP4")
    assert dense.weight_bytes == pytest.approx(40_569_946_112, rel=0.01)


def test_a_module_for_further_tokens_is_found_below_a_text_config() -> None:
    """Qwen3.5's own: one full-attention layer, 0.425 B, 4 KiB a token."""
    config = bundled("Qwen3.5-27B")
    kind = config["model_type"]
    nested = {"architectures": ["Qwen3_5MTP"], "model_type": "qwen3_5", "text_config": config}
    for data in (nested, {**config, "architectures": ["Qwen3_5MTP"], "model_type": kind}):
        head = ModelSpec.from_config(data)
        assert head.drafts is not None
        assert head.drafts.kind == "MTP"
        assert head.parameters == pytest.approx(424_699_392, rel=1e-5)
        assert float(head.kv_bytes_per_token(np.inf)) == 4096
        assert head.state_bytes == 0


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [("GLM-4.5-Air", "num_experts", 64), ("Qwen3-30B-A3B", "moe_topk", 4), ("Llama-3.1-8B", "n_layers", 16)],
)
def test_two_spellings_of_one_size_must_agree(model: str, key: str, value: int) -> None:
    config = bundled(model)
    with pytest.raises(SpecError, match=rf"{key}|says {value}"):
        ModelSpec.from_config({**config, key: value})


def test_true_is_no_number_of_layers() -> None:
    with pytest.raises(SpecError, match="num_hidden_layers: found True"):
        ModelSpec.from_config({**bundled("GLM-4.5-Air"), "num_hidden_layers": True})


@pytest.mark.parametrize("groups", [{"group_0": {"weights": "int4"}}, {"group_0": None}, {"group_0": 2}, {}])
def test_a_quantised_group_that_is_none_is_refused(groups: dict[str, Any]) -> None:
    quantisation = {"quant_method": "compressed-tensors", "config_groups": groups}
    with pytest.raises(SpecError, match="config_groups"):
        ModelSpec.from_config({**bundled("Llama-3.1-8B"), "quantization_config": quantisation})
