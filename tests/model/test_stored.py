"""Weights as stored: bytes of published checkpoints, and what each format says of bits, groups and scales."""

from __future__ import annotations

import time
from typing import Any

import pytest
from stored_families import (
    DEEPSEEK_V3,
    GPT_OSS_120B,
    KIMI_K2,
    LLAMA_8B,
    LLAMA_70B,
    NEMOTRON_3_NANO,
    QWEN_3_6,
    Matrix,
    weight_bytes,
)

from perfmodel.errors import SpecError
from perfmodel.files.document import Document
from perfmodel.model import BYTES
from perfmodel.model.keys import ConfigKeys
from perfmodel.model.stored import Stored, StoredWeights, read_stored_weights


def read(
    quantization: dict[str, Any] | None = None,
    *,
    beside: dict[str, Any] | None = None,
    weight_dtype: str | None = None,
    kv_dtype: str | None = None,
    **config: Any,
) -> StoredWeights:
    """How a checkpoint with that quantization_config, or that quantisation file beside, is stored."""
    config |= {"torch_dtype": "bfloat16"}
    if quantization is not None:
        config["quantization_config"] = quantization
    document = Document("config.json", config)
    if beside is not None:
        document.beside["hf_quant_config.json"] = Document("hf_quant_config.json", {"quantization": beside})
    keys = ConfigKeys(document)
    stored = read_stored_weights(keys, weight_dtype=weight_dtype, kv_dtype=kv_dtype)
    keys.raise_faults()
    return stored


def group(bits: int, kind: str = "int", *, targets: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """One group of compressed-tensors."""
    return {"targets": targets or ["Linear"], "weights": {"num_bits": bits, "type": kind, **more}}


def compressed(*groups: dict[str, Any], **more: Any) -> dict[str, Any]:
    named = {f"group_{number}": each for number, each in enumerate(groups)}
    return {"quant_method": "compressed-tensors", "config_groups": named, "ignore": ["lm_head"], **more}


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}
W4A16 = compressed(group(4, symmetric=True, group_size=128, strategy="group"), format="pack-quantized")
KIMI = compressed(
    group(4, symmetric=True, group_size=32, strategy="group"),
    format="pack-quantized",
    ignore=["re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"],
)
BLOCKS = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
QUARK = {
    "quant_method": "quark",
    "exclude": ["lm_head"],
    "global_quant_config": {
        "weight": {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0"}
    },
}
MXFP4 = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
}

PUBLISHED = [
    pytest.param(LLAMA_8B, GPTQ, 5_727_854_592, id="Llama-3.1-8B GPTQ 4 bit"),
    pytest.param(LLAMA_8B, {**GPTQ, "bits": 3}, 4_848_623_616, id="Llama-3.1-8B GPTQ 3 bit"),
    pytest.param(LLAMA_70B, AWQ, 39_767_785_472, id="Llama-3.3-70B AWQ"),
    pytest.param(LLAMA_8B, NF4, 5_702_295_552, id="Llama-3.1-8B NF4, double quantisation"),
    pytest.param(
        LLAMA_8B, compressed(group(8, strategy="channel", symmetric=True)), 9_081_200_640, id="int8 channels"
    ),
    pytest.param(
        LLAMA_70B, compressed(group(8, "float", strategy="channel")), 72_656_371_712, id="fp8 channels"
    ),
    pytest.param(LLAMA_70B, W4A16, 39_500_398_592, id="Llama-3.3-70B w4a16"),
    pytest.param(LLAMA_70B, QUARK, 40_569_946_112, id="Llama-3.3-70B Quark MXFP4"),
    pytest.param(DEEPSEEK_V3, BLOCKS, 673_150_575_280, id="DeepSeek-V3"),
    pytest.param(KIMI_K2, KIMI, 594_205_305_856, id="Kimi-K2.5"),
    pytest.param(GPT_OSS_120B, MXFP4, 65_248_815_744, id="gpt-oss-120b"),
]
"""Sums over every matrix of the architectures; those of gpt-oss-120b and Kimi-K2.5 (594 GB) are the sizes of
the released files. Configs: huggingface.co under the models' names, github.com/ai-dynamo/aiconfigurator."""


@pytest.mark.parametrize(("family", "quantization", "bytes_"), PUBLISHED)
def test_weight_bytes_of_published_checkpoints(
    family: tuple[list[Matrix], int], quantization: dict[str, Any], bytes_: int
) -> None:
    assert weight_bytes(read(quantization), *family) == bytes_


def test_nemotron_nvfp4_leaves_out_what_the_file_beside_names() -> None:
    """github.com/ai-dynamo/aiconfigurator, model_configs of NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4."""
    excluded = ["lm_head"]
    for layer in (4, 11, 18, 25, 32, 41):
        excluded += [f"backbone.layers.{layer}.mixer.{name}_proj" for name in ("in", "out")]
        excluded += [f"backbone.layers.{layer + 1}.mixer.{name}_proj" for name in "qkvo"]
    quantisation = {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "group_size": 16}
    stored = read(beside={**quantisation, "exclude_modules": excluded})
    assert weight_bytes(stored, *NEMOTRON_3_NANO) == 19_323_901_056
    assert (stored.base, stored.weights, stored.kv) == ("bf16", "fp4", "fp8")


def mixed_precision() -> dict[str, dict[str, Any]]:
    """`quantized_layers` of nvidia/Qwen3.6-35B-A3B-NVFP4."""
    fp8, fp4 = {"quant_algo": "FP8"}, {"quant_algo": "W4A16_NVFP4", "group_size": 16}
    layers: dict[str, dict[str, Any]] = {"lm_head": fp4}
    for layer in range(40):
        names = ["linear_attn.in_proj_qkv", "linear_attn.in_proj_z", "linear_attn.out_proj"]
        if layer % 4 == 3:
            names = [f"self_attn.{name}_proj" for name in "qkvo"]
        around = f"model.language_model.layers.{layer}."
        layers |= {around + name: fp8 for name in names}
        layers |= {f"{around}mlp.shared_expert.{name}_proj": fp4 for name in ("gate", "up", "down")}
        layers[f"{around}mlp.experts"] = fp4
    return layers


def test_qwen_mixed_precision_is_read_from_either_file_and_either_list() -> None:
    """Experts, shared experts and head in NVFP4, projections in FP8, the rest bf16."""
    layers = mixed_precision()
    by_layer = {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers, "kv_cache_quant_algo": "FP8"}
    targets = {algo: [name for name, layer in layers.items() if layer["quant_algo"] == algo]
               for algo in ("FP8", "W4A16_NVFP4")}  # fmt: skip
    groups = {
        "group_0": group(8, "float", targets=targets["FP8"]),
        "group_1": group(4, "float", group_size=16, targets=targets["W4A16_NVFP4"]),
    }
    by_target = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "config_groups": groups}
    for stored in (read(by_layer), read(beside=by_layer), read(by_target, beside=by_layer)):
        assert weight_bytes(stored, *QWEN_3_6) == 20_824_909_056
        assert stored.of(None, ("lm_head",), keeps_precision=True) == Stored("fp4", 0.5625)
        assert stored.of(0, ("mlp.gate",), keeps_precision=True).dtype == "bf16"
        assert (stored.weights, stored.kv) == ("fp4", "fp8")


def test_experts_of_deepseek_v4_are_mxfp4_and_the_rest_fp8_blocks() -> None:
    """config.json of deepseek-ai/DeepSeek-V4-Flash."""
    stored = read({**BLOCKS, "scale_fmt": "ue8m0"}, expert_dtype="fp4")
    assert stored.of(5, ("mlp.experts.gate_proj",)) == Stored("mxfp4", 0.5 + 1 / 32)
    assert stored.of(5, ("mlp.shared_experts.gate_proj",)) == Stored("fp8", 1 + 1 / 128**2)
    assert read(BLOCKS, expert_dtype="bf16").of(5, ("mlp.experts.gate_proj",)).dtype == "bf16"
    assert read(BLOCKS, expert_dtype="fp8").of(5, ("mlp.experts.gate_proj",)).dtype == "fp8"
    with pytest.raises(SpecError, match="expert_dtype: found 'fp3'"):
        read(BLOCKS, expert_dtype="fp3")


FORMS: list[tuple[dict[str, Any], str, float]] = [
    (GPTQ, "int4", 0.5 + 2.5 / 128),
    ({**GPTQ, "bits": 8, "group_size": 32}, "int8", 1 + 3 / 32),
    ({**GPTQ, "bits": 2, "group_size": 64}, "int2", 0.25 + 2.25 / 64),
    ({**GPTQ, "group_size": -1}, "int4", 0.5),
    ({"bits": 4, "group_size": 64, "sym": False}, "int4", 0.5 + 2.5 / 64),
    ({**AWQ, "zero_point": False}, "int4", 0.5 + 2 / 128),
    ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, "int4", 0.5 + 2.5 / 64),
    ({"group_size": 64, "bits": 4}, "int4", 0.5 + 4 / 64),
    ({"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True}, "int4", 0.5 + 2.5 / 128),
    ({**NF4, "bnb_4bit_use_double_quant": False}, "nf4", 0.5 + 4 / 64),
    ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8", 1.0),
    (compressed(group(4, symmetric=False, group_size=32)), "int4", 0.5 + 2.5 / 32),
    (compressed(group(4, "float", group_size=16), format="nvfp4-pack-quantized"), "fp4", 0.5625),
    (compressed(group(4, "float"), format="mxfp4-pack-quantized"), "mxfp4", 0.53125),
    (compressed(group(4, "float", scale_dtype="torch.uint8", group_size=32)), "mxfp4", 0.53125),
    (compressed(group(8, "float", scale_dtype="torch.uint8", group_size=32)), "mxfp8", 1.03125),
    (compressed(group(8, "float", strategy="block", block_structure=[128, 128])), "fp8", 1 + 4 / 128**2),
    ({"quant_method": "fp8"}, "fp8", 1.0),
    ({"quant_method": "fbgemm_fp8"}, "fp8", 1.0),
    ({"weight_block_size": [128, 128]}, "fp8", 1 + 4 / 128**2),
    ({"quant_method": "fp8", "weight_block_size": [1, 32], "scale_fmt": "ue8m0"}, "mxfp8", 1.03125),
    ({"quant_method": "mxfp8"}, "mxfp8", 1.03125),
    ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8", 1.0),
    ({"quant_algo": "FP8_PB_WO"}, "fp8", 1 + 4 / 128**2),
    ({"quant_algo": "W4A16_AWQ", "group_size": 128}, "int4", 0.5 + 2 / 128),
    ({"quant_algo": "W4A8_NVFP4_FP8", "group_size": 16}, "fp4", 0.5625),
    ({"quant_method": "modelopt", "quantization": {"quant_algo": "NVFP4"}}, "fp4", 0.5625),
    ({"global_quant_config": {"weight": {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}}}, "fp8", 1.0),
    ({"global_quant_config": {"weight": {"dtype": "uint4", "group_size": 128}}}, "int4", 0.5 + 2.5 / 128),
    ({"quant_method": "w4afp8"}, "fp8", 1 + 4 / 128**2),
]


@pytest.mark.parametrize(("quantization", "dtype", "element_bytes"), FORMS)
def test_each_format_says_its_bits_groups_and_scales(
    quantization: dict[str, Any], dtype: str, element_bytes: float
) -> None:
    for stored in (read(quantization), read(text_config={"quantization_config": quantization})):
        assert stored.of(1, ("mlp.down_proj",)) == Stored(dtype, element_bytes)
        assert stored.of(1, ("mlp.gate",), keeps_precision=True) == Stored("bf16", 2.0)


def test_mxfp4_quantises_experts_alone_and_gptq_what_it_lists() -> None:
    stored = read({"quant_method": "mxfp4"}, num_local_experts=32)
    assert stored.of(0, ("mlp.experts.down_proj",)).dtype == "mxfp4"
    assert stored.of(0, ("mlp.down_proj",)).dtype == "bf16"
    stored = read({**GPTQ, "modules_in_block_to_quantize": [["mlp.up_proj", "mlp.gate_proj"]]})
    assert [stored.of(0, (name,)).dtype for name in ("mlp.up_proj", "mlp.down_proj")] == ["int4", "bf16"]
    dynamic = {"-:.*o_proj": {}, r"+:.*\.3\..*down.*": {"bits": 8, "group_size": 32}}
    stored = read({**GPTQ, "dynamic": dynamic, "lm_head": True})
    assert stored.of(3, ("self_attn.o_proj",)).dtype == "bf16"
    assert stored.of(3, ("mlp.down_proj",)) == Stored("int8", 1 + 3 / 32)
    assert stored.of(4, ("mlp.down_proj",)).dtype == "int4"
    assert stored.of(None, ("lm_head",), keeps_precision=True).dtype == "int4"


CACHES: list[tuple[dict[str, Any], str]] = [
    ({"kv_cache_scheme": {"num_bits": 8, "type": "float"}}, "fp8"),
    ({"kv_cache_scheme": {"num_bits": 8, "type": "int"}}, "int8"),
    ({"kv_cache_scheme": "FP8"}, "fp8"),
    ({"kv_cache_quant_algo": "NVFP4"}, "fp4"),
    ({"kv_cache_quant_algo": None}, "bf16"),
    ({"kv_cache_scheme": "auto"}, "bf16"),
]


@pytest.mark.parametrize(("cache", "dtype"), CACHES)
def test_the_cache_is_stored_as_the_file_says(cache: dict[str, Any], dtype: str) -> None:
    assert read({"quant_algo": "FP8", **cache}).kv == dtype
    assert read(beside={"quant_algo": "FP8", **cache}).kv == dtype
    assert read({"quant_algo": "FP8", **cache}, kv_dtype="fp16").kv == "fp16"
    weights = {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}
    quark = {"global_quant_config": {"weight": weights}, "kv_cache_group": ["*k_proj"]}
    assert read(quark).kv == "fp8"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({**GPTQ, "bits": 5}, r"quantization_config\.bits: found 5.*--weight-dtype with one of .*int3"),
    ({**GPTQ, "group_size": "many"}, r"quantization_config\.group_size: found 'many'"),
    ({"quant_method": "gtpq"}, r"quant_method: quant_method 'gtpq' is not known.*Did you mean 'gptq'"),
    ({"format": "secret"}, r"quantization_config: names no quant_method"),
    (compressed(group(6)), r"config_groups\.group_0\.weights\.num_bits: found 6"),
    (compressed(group(4, targets=["Strange"])), r"group_0\.targets: 'Strange' is no class"),
    (compressed(), "config_groups holds no group"),
    (compressed(group(4), sparsity_config={"format": "sparse-24-bitmask"}), r"sparsity_config\.format"),
    ({"quant_algo": "SECRET"}, r"quantization_config\.quant_algo: 'SECRET' is not known"),
    ({"quant_method": "modelopt"}, "names no quant_algo"),
    ({"global_quant_config": {"weight": {"dtype": "fp6"}}}, r"global_quant_config\.weight\.dtype: 'fp6'"),
    ({"quant_method": "bitsandbytes"}, "neither loads in 4 bits nor in 8"),
    ({**BLOCKS, "weight_block_size": [0, 128]}, r"weight_block_size: found \[0, 128\]"),
]  # fmt: skip


@pytest.mark.parametrize(("quantization", "message"), REFUSED)
def test_what_is_not_known_is_refused_under_its_own_key_and_the_remedy_works(
    quantization: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        read(quantization)
    stored = read({"ignore": ["re:.*self_attn.*"], **quantization}, weight_dtype="int3")
    assert stored.of(0, ("mlp.down_proj",)) == Stored("int3", BYTES["int3"])


def test_unknown_cache_types_are_refused_unless_one_is_stated() -> None:
    refused = (("FP3", "kv_cache_scheme: found 'FP3'"), ({"num_bits": 3}, "num_bits: found 3 bits"))
    for scheme, message in refused:
        with pytest.raises(SpecError, match=message + ".*--kv-dtype"):
            read({"quant_algo": "FP8", "kv_cache_scheme": scheme})
        assert read({"quant_algo": "FP8", "kv_cache_scheme": scheme}, kv_dtype="fp8").kv == "fp8"


def test_a_stated_dtype_wins_over_all_that_the_file_does_not_leave_out() -> None:
    stored = read(KIMI, weight_dtype="fp8")
    assert stored.of(2, ("mlp.experts.up_proj",)) == Stored("fp8", 1.0)
    assert stored.of(2, ("self_attn.o_proj",)).dtype == "bf16"
    assert read(KIMI, weight_dtype="int4").of(2, ("mlp.experts.up_proj",)) == Stored("int4", 0.5625)
    assert read(MXFP4, weight_dtype="int4").of(2, ("self_attn.q_proj",)).dtype == "bf16"
    assert read(None, weight_dtype="int8").of(2, ("self_attn.q_proj",)).dtype == "int8"
    plain = read(KIMI, weight_dtype="fp16")
    assert (plain.base, plain.weights, plain.of(2, ("mlp.experts.up_proj",)).dtype) == ("fp16",) * 3


def test_asking_for_every_product_of_a_long_list_takes_milliseconds() -> None:
    names = ("self_attn*", "linear_attn*", "mlp.shared_expert*", "mlp.shared_expert_gate", "mlp.gate", "x")
    excluded = [f"model.language_model.layers.{layer}.{name}" for layer in range(500) for name in names]
    stored = read({"quant_algo": "NVFP4", "ignore": [*excluded, "re:.*indexer.*", "*.mlp.shared_expert.*"]})
    products = [(f"self_attn.p{number}", "mlp.experts.gate_proj") for number in range(15)]
    start = time.process_time()
    forms = {stored.of(layer, modules).dtype for layer in range(100) for modules in products}
    assert time.process_time() - start < 1.0
    assert forms == {"bf16"}
