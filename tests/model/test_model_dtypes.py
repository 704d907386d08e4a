"""Quantised weights and caches: what shrinks, what stays, and how configs say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perfmodel.errors import SpecError
from perfmodel.hardware import HardwareProfile
from perfmodel.latency.linear import linear
from perfmodel.model import BYTES, ModelSpec
from perfmodel.model.dtypes import UNQUANTIZED

MODELS = Path(__file__).parents[2] / "perfmodel" / "data" / "models"
LLAMA: dict[str, Any] = json.loads((MODELS / "Llama-3.1-8B.json").read_text(encoding="utf-8"))


def config(**changes: Any) -> dict[str, Any]:
    """Config of Llama-3.1-8B with some keys changed, or left out where the change is `...`."""
    return {key: value for key, value in (LLAMA | changes).items() if value is not ...}


def test_quantising_keeps_embeddings_norms_router_and_head() -> None:
    for name in ("Llama-3.1-8B", "Mixtral-8x7B-v0.1"):
        model = ModelSpec.load(name)
        for dtype in sorted(set(BYTES) - set(UNQUANTIZED)):
            smaller = model.with_dtypes(weights=dtype)
            assert {layer.name: layer.dtype for layer in smaller.linears if layer.dtype != dtype} == {
                layer.name: "bf16" for layer in model.linears if layer.name in ("router", "lm_head")
            }
            matrices = sum(
                layer.n * layer.k * layer.count * max(layer.experts, 1)
                for layer in model.linears
                if layer.name not in ("router", "lm_head")
            )
            assert model.weight_bytes - smaller.weight_bytes == pytest.approx(matrices * (2 - BYTES[dtype]))
            assert smaller.with_dtypes(weights="bf16") == model


@pytest.mark.parametrize("name", ModelSpec.available())
def test_an_fp8_cache_takes_half_the_bytes(name: str) -> None:
    model = ModelSpec.load(name)
    assert model.with_dtypes(kv="fp8").kv_bytes(5000.0) == model.kv_bytes(5000.0) / 2


def test_gpt_oss_keeps_its_attention_in_bf16() -> None:
    dtypes = {layer.name: layer.dtype for layer in ModelSpec.load("gpt-oss-20b").linears}
    assert {name for name, dtype in dtypes.items() if dtype == "mxfp4"} == {"expert_gate_up", "expert_down"}


def test_dtypes_are_known_by_several_names_and_others_refused() -> None:
    model = ModelSpec.load("Llama-3.2-1B", weight_dtype="float8_e4m3fn", kv_dtype="bfloat16")
    assert (model.weight_dtype, model.kv_dtype) == ("fp8", "bf16")
    with pytest.raises(SpecError, match="Did you mean 'int4'"):
        model.with_dtypes(weights="int44")


QUANTISED = [
    ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", "bf16"),
    ({"quant_method": "fbgemm_fp8"}, "fp8", "bf16"),
    ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "int4", "bf16"),
    ({"quant_method": "awq", "bits": 4}, "int4", "bf16"),
    ({"quant_method": "gptq", "bits": 8}, "int8", "bf16"),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "nf4", "bf16"),
    (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
            "kv_cache_scheme": {"num_bits": 8, "type": "float"},
        },
        "fp8",
        "fp8",
    ),
    (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
        },
        "int4",
        "bf16",
    ),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}, "fp4", "fp8"),
    ({"quant_method": "mxfp4"}, "mxfp4", "bf16"),
]


@pytest.mark.parametrize(("quantization", "weights", "kv"), QUANTISED)
def test_quantisation_is_read_from_the_config(quantization: dict[str, Any], weights: str, kv: str) -> None:
    model = ModelSpec.from_config(config(quantization_config=quantization))
    assert (model.weight_dtype, model.kv_dtype, model.base_dtype) == (weights, kv, "bf16")


def test_an_unknown_quantisation_needs_a_stated_dtype() -> None:
    unknown = config(quantization_config={"quant_method": "secret"})
    with pytest.raises(SpecError, match="quant_method 'secret' is not known"):
        ModelSpec.from_config(unknown)
    assert ModelSpec.from_config(unknown, weight_dtype="int4").weight_dtype == "int4"


def test_attention_that_the_quantisation_leaves_out_stays_unquantised() -> None:
    skipped = {"quant_method": "fp8", "ignore": ["re:.*self_attn.*", "lm_head"]}
    dtypes = {
        layer.name: layer.dtype
        for layer in ModelSpec.from_config(config(quantization_config=skipped)).linears
    }
    assert (dtypes["qkv"], dtypes["gate_up"]) == ("bf16", "fp8")


def test_float32_checkpoints_are_served_in_bf16_and_say_so() -> None:
    model = ModelSpec.from_config(config(torch_dtype="float32"))
    assert model.base_dtype == "bf16"
    assert any("float32" in sentence for sentence in model.assumed)


@pytest.mark.parametrize("dtype", BYTES)
def test_every_dtype_has_arithmetic_and_fewer_bytes_never_stream_slower(dtype: str) -> None:
    h100 = HardwareProfile.load("H100-SXM-80GB")
    assert h100.peak(dtype) >= h100.peak("fp32")
    seconds = linear(h100, tokens=1, n=8192, k=8192, dtype=dtype, cold=True)
    assert 0 < seconds <= linear(h100, tokens=1, n=8192, k=8192, dtype="fp32", cold=True)
    assert h100.peak("mxfp8") == h100.peak("fp8") > h100.peak("int3") == h100.peak("bf16")
