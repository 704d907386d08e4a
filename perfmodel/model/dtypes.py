"""Bytes per stored element of every dtype, and the spellings of their names."""

from __future__ import annotations

from collections.abc import Mapping

from perfmodel.errors import SpecError, nearest_name

__all__ = ["BYTES", "UNQUANTIZED", "dtype_name", "known_dtype"]

BYTES: Mapping[str, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "mxfp8": 1.0 + 1.0 / 32,
    "int8": 1.0,
    "int4": 0.5 + (2.0 + 0.5) / 128,
    "int3": 0.375 + (2.0 + 0.375) / 128,
    "int2": 0.25 + (2.0 + 0.25) / 128,
    "nf4": 0.5 + (1.0 + 4.0 / 256) / 64,
    "fp4": 0.5 + 1.0 / 16,
    "mxfp4": 0.5 + 1.0 / 32,
}
"""Bytes per element, block scales included, where no file says how large its groups are. [B]

``int4``, ``int3`` and ``int2`` carry a two-byte scale and a zero point per 128 elements (GPTQ and AWQ),
``nf4`` a byte per 64 and four bytes per 256 of these (double quantisation of QLoRA, arXiv 2305.14314),
``fp4`` a one-byte scale per 16 (NVFP4), ``mxfp4`` and ``mxfp8`` one per 32 (OCP microscaling specification
1.0). Left out are the scales of ``fp8`` and ``int8``, one per channel or per 128 x 128 block: they add less
than 0.1 %.
"""

UNQUANTIZED = ("fp32", "bf16", "fp16")

_SPELLINGS: Mapping[str, str] = {
    **dict.fromkeys(("bfloat16", "torch.bfloat16"), "bf16"),
    **dict.fromkeys(("float16", "torch.float16", "half"), "fp16"),
    **dict.fromkeys(("float32", "torch.float32", "float"), "fp32"),
    **dict.fromkeys(
        ("float8", "fp8_e4m3", "fp8_e5m2", "float8_e4m3fn", "float8_e5m2", "fp8-e4m3", "fp8_e4m3fn"), "fp8"
    ),
    **dict.fromkeys(("w4a16", "awq", "gptq", "uint4"), "int4"),
    **dict.fromkeys(("w8a8", "w8a16", "uint8"), "int8"),
    **dict.fromkeys(("w3a16", "uint3"), "int3"),
    **dict.fromkeys(("w2a16", "uint2"), "int2"),
    **dict.fromkeys(("bnb-nf4", "bnb4", "nf4_dq"), "nf4"),
    "nvfp4": "fp4",
}


def known_dtype(text: object) -> str | None:
    """Return the key of `BYTES` that `text` spells, None where there is none."""
    name = str(text).strip().lower()
    name = _SPELLINGS.get(name, name)
    return name if name in BYTES else None


def dtype_name(text: str, *, field: str = "dtype", file: str = "request") -> str:
    """Return the key of `BYTES` that `text` spells, e.g. ``bfloat16`` -> ``bf16``.

    Raises
    ------
    SpecError
        When no such type is known.
    """
    name = known_dtype(text)
    if name is None:
        known = ", ".join(BYTES)
        raise SpecError.single(
            file, field, f"found {text!r}", f"Give one of {known}", nearest_name(str(text).lower(), BYTES)
        )
    return name
