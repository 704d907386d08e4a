"""The forms of weights that the name of a release states, such as -FP8 or -AWQ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.errors import SpecError

__all__ = ["FORMS", "form_of", "store_as", "take_form"]


def _compressed(bits: int, strategy: Mapping[str, object]) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": "int", "symmetric": True, **strategy}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head"]}


FORMS: Mapping[str, Mapping[str, Any]] = {
    "BF16": {},
    "FP16": {},
    "FP8": {"quant_method": "fp8", "fmt": "e4m3"},
    "INT8": _compressed(8, {"strategy": "channel"}),
    "INT4": _compressed(4, {"strategy": "group", "group_size": 128}),
    "AWQ": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
    "GPTQ": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "GPTQ-INT8": {"quant_method": "gptq", "bits": 8, "group_size": 128},
    "NF4": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "NVFP4": {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]},
    "MXFP4": {"quant_method": "mxfp4"},
}
"""The quantization_config that a release of each form usually has; empty where nothing is quantised."""

_TORCH = {"BF16": "bfloat16", "FP16": "float16"}

_WORDS: Mapping[frozenset[str], str] = {
    frozenset(words.split()): form
    for form, spellings in {
        "BF16": "bf16, bfloat16",
        "FP16": "fp16, float16, f16",
        "FP8": "fp8, float8, fp8 w8a8",
        "INT8": "int8, w8a8, w8a16, 8bit, int8 w8a8, int8 w8a16",
        "INT4": "int4, w4a16, int4 w4a16",
        "AWQ": "awq, awq int4, awq 4bit, awq w4a16, int4 awq w4a16",
        "GPTQ": "gptq, gptq int4, gptq 4bit, gptq w4a16, int4 gptq w4a16",
        "GPTQ-INT8": "gptq int8, gptq 8bit, gptq w8a16",
        "NF4": "nf4, bnb, bnb 4bit, bnb nf4, bnb nf4 4bit, 4bit",
        "NVFP4": "nvfp4, fp4, nvfp4 fp4",
        "MXFP4": "mxfp4",
    }.items()
    for words in spellings.split(", ")
}
_KINDS = frozenset().union(*_WORDS)
_MANNERS = frozenset(
    ("dynamic", "static", "block", "channel", "tensor", "quantized", "quant", "g128", "sym", "asym")
)
_UNREAD = frozenset(("gguf", "ggml", "exl2", "exl3", "mlx", "hqq", "aqlm", "autoround", "marlin"))


def take_form(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the form that the words of a name state, a key of `FORMS` or empty, and the other words.

    A form that `FORMS` lacks is returned as its words.
    """
    kinds = [word for word in words if word in _KINDS or word in _UNREAD]
    if not kinds:
        return "", list(words)
    form = _WORDS.get(frozenset(kinds), " ".join(kinds).upper())
    return form, [word for word in words if word not in kinds and word not in _MANNERS]


def form_of(config: Mapping[str, Any]) -> str:
    """Return the form in which a bundled config stores its weights, a key of `FORMS` or empty."""
    stored = config.get("quantization_config")
    if not stored:
        return next((form for form, dtype in _TORCH.items() if dtype == config.get("torch_dtype")), "")
    groups = stored.get("config_groups", {}).values()
    weights = [(group["weights"]["type"], group["weights"]["num_bits"]) for group in groups]
    by_weights = {("int", 8): "INT8", ("int", 4): "INT4", ("float", 4): "MXFP4", ("float", 8): "FP8"}
    method = str(stored["quant_method"])
    by_method = {"bitsandbytes": "NF4", "modelopt": str(stored.get("quant_algo"))}
    return by_weights[weights[0]] if weights else by_method.get(method, method.upper())


def store_as(config: dict[str, Any], model: str, form: str) -> str:
    """Store the weights of a bundled config in another form; return what is to be told about it.

    Raises
    ------
    SpecError
        Where the form is none of `FORMS`: no config.json states its bytes.
    """
    if form not in FORMS:
        problem = f"the {form} release of {model} is not bundled, and its name does not state its bytes"
        remedy = f"Name its own config.json, or {model} with --weight-dtype, such as int4"
        raise SpecError.single("request", "model", problem, remedy)
    if form == form_of(config):
        return ""
    config.pop("quantization_config", None)
    if FORMS[form]:
        config["quantization_config"] = dict(FORMS[form])
    else:
        config["torch_dtype"] = _TORCH[form]
    return (
        f"the {form} release of {model} is not bundled; assumed the sizes of {model} and weights in the "
        f"usual {form} form, which its own config.json states exactly"
    )
