"""Bytes per stored element, and how a config.json says that its weights and cache are quantised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perfmodel.errors import SpecError, nearest_name
from perfmodel.model.keys import ConfigKeys

__all__ = ["BYTES", "UNQUANTIZED", "StoredDtypes", "dtype_name", "read_stored_dtypes"]

BYTES: Mapping[str, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5 + (2.0 + 0.5) / 128,
    "fp4": 0.5 + 1.0 / 16,
    "mxfp4": 0.5 + 1.0 / 32,
}
"""Bytes per element, block scales included. [B]

``int4`` carries a two-byte scale and a four-bit zero point per 128 elements (GPTQ and AWQ), ``fp4`` a
one-byte scale per 16 (NVFP4), ``mxfp4`` one per 32 (OCP microscaling specification 1.0). Left out are
the scales of ``fp8`` and ``int8``, one per channel or per 128 x 128 block: they add less than 0.1 %.
"""

UNQUANTIZED = ("fp32", "bf16", "fp16")

_SPELLINGS: Mapping[str, str] = {
    **dict.fromkeys(("bfloat16", "torch.bfloat16"), "bf16"),
    **dict.fromkeys(("float16", "torch.float16", "half"), "fp16"),
    **dict.fromkeys(("float32", "torch.float32", "float"), "fp32"),
    **dict.fromkeys(("float8", "fp8_e4m3", "fp8_e5m2", "float8_e4m3fn", "float8_e5m2", "fp8-e4m3"), "fp8"),
    **dict.fromkeys(("w4a16", "awq", "gptq", "uint4"), "int4"),
    **dict.fromkeys(("w8a8",), "int8"),
    "nvfp4": "fp4",
}


@dataclass(frozen=True)
class StoredDtypes:
    """How a checkpoint is stored: what stays unquantised in `base`, attention too if `plain_attention`."""

    base: str
    weights: str
    kv: str
    plain_attention: bool = False


def dtype_name(text: str, *, field: str = "dtype", file: str = "request") -> str:
    """Return the key of `BYTES` that `text` spells, e.g. ``bfloat16`` -> ``bf16``.

    Raises
    ------
    SpecError
        When no such type is known.
    """
    name = str(text).strip().lower()
    name = _SPELLINGS.get(name, name)
    if name not in BYTES:
        known = ", ".join(BYTES)
        raise SpecError.single(
            file, field, f"found {text!r}", f"Give one of {known}", nearest_name(name, BYTES)
        )
    return name


def read_stored_dtypes(
    keys: ConfigKeys, *, layers: int, weight_dtype: str | None, kv_dtype: str | None
) -> StoredDtypes:
    """Return how weights and cache are stored; a stated `weight_dtype` or `kv_dtype` wins over the config."""
    base = _base_dtype(keys)
    entry = keys.find("quantization_config", "compression_config")
    weights, kv, plain_attention = base, base, False
    if entry is not None:
        path, value = entry
        if not isinstance(value, Mapping):
            keys.fault(path, f"found {value!r}"[:80], "Give a mapping with quant_method")
        else:
            weights = _quantized_weights(value) or ""
            kv = _quantized_cache(value) or base
            plain_attention = weights == "mxfp4" or _skips_attention(value, layers)
            if not weights and weight_dtype is None:
                keys.fault(
                    path, f"quant_method {value.get('quant_method')!r} is not known", "State the weight dtype"
                )
    if weight_dtype is not None:
        weights = dtype_name(weight_dtype, field="weight_dtype")
        base = weights if weights in UNQUANTIZED else base
    if kv_dtype is not None:
        kv = dtype_name(kv_dtype, field="kv_dtype")
    return StoredDtypes(base, weights, kv, plain_attention)


def _base_dtype(keys: ConfigKeys) -> str:
    """Type of the unquantised weights; checkpoints in float32 are served in bf16, as engines load them."""
    entry = keys.find("torch_dtype", "dtype")
    if entry is None or entry[1] == "auto":
        keys.assumed.append("torch_dtype is not in the config; assumed bf16")
        return "bf16"
    name = _SPELLINGS.get(str(entry[1]).lower(), str(entry[1]).lower())
    if name == "fp32":
        keys.assumed.append("torch_dtype is float32; assumed to be served in bf16, as engines do")
        return "bf16"
    if name not in UNQUANTIZED:
        keys.fault(entry[0], f"found {entry[1]!r}"[:80], "Give bfloat16, float16 or float32")
        return "bf16"
    return name


def _quantized_weights(config: Mapping[str, object]) -> str | None:
    """Dtype of the quantised weights, None for a method that is not known."""
    method = str(config.get("quant_method", "")).lower()
    if method in ("fp8", "fbgemm_fp8", "mxfp4"):
        return method.removeprefix("fbgemm_")
    if method == "compressed-tensors":
        groups = config.get("config_groups")
        for group in groups.values() if isinstance(groups, Mapping) else ():
            weights = group.get("weights") if isinstance(group, Mapping) else None
            if isinstance(weights, Mapping):
                return _by_bits(weights.get("num_bits"), floating=weights.get("type") == "float")
        return None
    if method == "bitsandbytes":
        return "int4" if config.get("load_in_4bit") is True else "int8"
    if method.startswith("modelopt") or "quant_algo" in config:
        algorithm = str(config.get("quant_algo", "")).upper()
        return {"FP8": "fp8", "NVFP4": "fp4", "W4A16_AWQ": "int4", "MXFP4": "mxfp4"}.get(algorithm)
    return _by_bits(config.get("bits"), floating=False)


def _by_bits(bits: object, *, floating: bool) -> str | None:
    """Dtype of that many bits per weight, None where there is none."""
    if not isinstance(bits, int):
        return None
    return ({4: "fp4", 8: "fp8"} if floating else {4: "int4", 8: "int8"}).get(bits)


def _quantized_cache(config: Mapping[str, object]) -> str | None:
    """Dtype of the KV cache where the quantisation prescribes one."""
    scheme = config.get("kv_cache_scheme")
    if isinstance(scheme, Mapping):
        return _by_bits(scheme.get("num_bits"), floating=scheme.get("type") == "float")
    return {"FP8": "fp8", "NVFP4": "fp4"}.get(str(config.get("kv_cache_quant_algo", "")).upper())


def _skips_attention(config: Mapping[str, object], layers: int) -> bool:
    """Whether the modules left unquantised name the attention of every layer."""
    for key in ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules"):
        listed = config.get(key)
        if isinstance(listed, list):
            attention = [str(module) for module in listed if "self_attn" in str(module)]
            if len(attention) >= layers or any("*" in module for module in attention):
                return True
    return False
