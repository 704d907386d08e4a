"""What `show` shows of each noun: every figure with unit, range, kind and source, or every part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmodel.files.units import SI_UNIT, format_bytes, format_quantity

if TYPE_CHECKING:
    from perfmodel.engine import EngineOverhead
    from perfmodel.files.document import Quantity
    from perfmodel.hardware import HardwareProfile
    from perfmodel.model import ModelSpec
    from strategies.base import DraftStrategy

__all__ = ["DETAILS"]

_DIMENSION = {unit: dimension for dimension, unit in SI_UNIT.items() if unit}


def figures(quantities: Mapping[str, Quantity]) -> list[dict[str, Any]]:
    """One row per figure, in people's units."""
    return [
        {
            "figure": path,
            "value": _shown(quantity.value, quantity.unit),
            "low_to_high": _range(quantity),
            "kind": quantity.kind,
            "source": quantity.source,
        }
        for path, quantity in sorted(quantities.items())
    ]


def _shown(value: Any, unit: str) -> str:
    array = np.asarray(value, dtype=float)
    if array.ndim:
        least, most = (_shown(float(end), unit) for end in (array.min(), array.max()))
        return f"table of {array.size}, {least} to {most}"
    dimension = _DIMENSION.get(unit)
    return format_quantity(float(array), dimension) if dimension else f"{float(array):.6g}"


def _range(quantity: Quantity) -> str:
    low, high = np.asarray(quantity.low, dtype=float), np.asarray(quantity.high, dtype=float)
    if low.ndim or np.all(low == high):
        return ""
    return f"{_shown(low, quantity.unit)} to {_shown(high, quantity.unit)}"


def _of_profile(found: HardwareProfile | EngineOverhead) -> dict[str, Any]:
    return {"figures": figures(found.quantities), "assumed": list(found.assumed)}


def _of_model(found: ModelSpec) -> dict[str, Any]:
    return {
        "weight_dtype": found.weight_dtype,
        "kv_dtype": found.kv_dtype,
        "hidden_size": found.hidden_size,
        "vocabulary": found.vocab_size,
        "source": found.source,
        "matrices": [
            {
                "matrix": layer.name,
                "n": layer.n,
                "k": layer.k,
                "count": layer.count,
                "experts": f"{layer.experts_per_token} of {layer.experts}" if layer.experts else "",
                "dtype": layer.dtype,
                "split": layer.split,
            }
            for layer in found.linears
        ],
        "attention": [
            {
                "layers": group.count,
                "heads": group.heads,
                "kv_heads": group.kv_heads,
                "head_dim": group.head_dim,
                "window": group.window or "all",
                "elements_per_token": group.kv_elements,
            }
            for group in found.attentions
        ],
        "cache_of_one_sequence": [
            {"context": context, "bytes": format_bytes(float(np.asarray(found.kv_bytes(float(context)))))}
            for context in (1000, 8000, 32000, 128000)
        ],
        "assumed": list(found.assumed),
    }


def _of_strategy(found: DraftStrategy) -> dict[str, Any]:
    law = found.acceptance
    named = {field.name: getattr(law, field.name) for field in fields(law)}
    for name in [name for name, value in named.items() if isinstance(value, Mapping)]:
        named |= {f"{name}: {key}": value for key, value in named.pop(name).items()}
    return {
        "source": found.source,
        "needs_draft_model": "yes" if found.needs_draft_model else "no",
        "acceptance": [_law_row(name.replace("_", " "), value) for name, value in named.items()],
    }


def _law_row(name: str, value: Any) -> dict[str, str]:
    """One parameter of an acceptance law: a plain number, or a figure with its spread and source."""
    if not hasattr(value, "sd"):
        return {"figure": name, "value": f"{value:.4g}", "standard_deviation": "", "kind": "", "source": ""}
    spread = f"{value.sd:.3g}" if value.sd else ""
    return {
        "figure": name,
        "value": f"{value.value:.4g}",
        "standard_deviation": spread,
        "kind": value.kind,
        "source": value.source,
    }


DETAILS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "hardware": _of_profile, "engines": _of_profile, "models": _of_model, "strategies": _of_strategy,
}  # fmt: skip
