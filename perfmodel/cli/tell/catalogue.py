"""What there is of each noun: its line in a list, and every figure or part with unit, range and source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmodel.cli.tell.tables import draw, left, line, lines, section
from perfmodel.files.units import SI_UNIT, format_bytes, format_quantity, format_rate, format_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.engine import EngineOverhead
    from perfmodel.files.quantity import Quantity
    from perfmodel.hardware import HardwareProfile
    from perfmodel.model import Layer, ModelSpec
    from strategies.base import DraftStrategy

__all__ = ["DETAILS", "SUMMARIES", "draw_details", "draw_rows", "taken_for"]

_OCCASIONS = {
    "pass": "every pass",
    "logits": "every pass",
    "round": "first pass of a round",
    "draft": "once for each draft",
}
_DIMENSION = {unit: dimension for dimension, unit in SI_UNIT.items() if unit}


def _figures(quantities: Mapping[str, Quantity]) -> list[dict[str, Any]]:
    """One row per figure, in people's units."""
    return [
        {
            "figure": path,
            "value": _show(quantity.value, quantity.unit),
            "low_to_high": _range(quantity),
            "kind": quantity.kind,
            "source": quantity.source,
        }
        for path, quantity in sorted(quantities.items())
    ]


def _show(value: Any, unit: str) -> str:
    array = np.asarray(value, dtype=float)
    if array.ndim:
        least, most = (_show(float(end), unit) for end in (array.min(), array.max()))
        return f"table of {array.size}, {least} to {most}"
    dimension = _DIMENSION.get(unit)
    return format_quantity(float(array), dimension) if dimension else f"{float(array):.6g}"


def _range(quantity: Quantity) -> str:
    low, high = np.asarray(quantity.low, dtype=float), np.asarray(quantity.high, dtype=float)
    if low.ndim or np.all(low == high):
        return ""
    return f"{_show(low, quantity.unit)} to {_show(high, quantity.unit)}"


def _detail_profile(profile: HardwareProfile | EngineOverhead) -> dict[str, Any]:
    return {"figures": _figures(profile.quantities), "assumed": list(profile.assumed)}


def _detail_model(model: ModelSpec) -> dict[str, Any]:
    return {
        **_kept(model),
        "weight_dtype": model.weight_dtype,
        "kv_dtype": model.kv_dtype,
        "hidden_size": model.hidden_size,
        "vocabulary": model.vocab_size,
        "source": model.source,
        **_detail_head(model),
        "matrices": [
            {
                "matrix": layer.name,
                "n": layer.n,
                "k": layer.k,
                "count": layer.count,
                "experts": f"{layer.experts_per_token} of {layer.experts}" if layer.experts else "",
                "dtype": layer.dtype,
                "split": layer.split,
                **({"runs": _OCCASIONS[layer.occasion]} if model.drafts else {}),
            }
            for layer in model.linears
        ],
        "layers_in_groups": [
            {"layers": layer.count, "kind": layer.label, **_detail_mixers(layer)} for layer in model.layers
        ],
        "cache_of_one_sequence": [
            {
                "context": context,
                "bytes": format_bytes(float(np.asarray(model.kv_bytes(float(context)))) + model.state_bytes),
            }
            for context in (1000, 8000, 32000, 128000)
        ],
        "assumed": [*model.assumed, *taken_for("models", model)],
    }


def taken_for(noun: str, spec: Any) -> list[str]:
    """Return what a model is taken to keep where engines differ, and what a head drafts as."""
    if noun != "models":
        return []
    sentences = []
    if spec.drafts is not None:
        sentences.append(f"it is {spec.drafts.article} {spec.drafts.kind} head, for --draft-model")
    kinds = {getattr(mixer, "index_dim", 0) for mixer, _ in spec.token_mixers} - {0}
    if kinds:
        width = max(kinds)
        sentences.append(
            f"index keys count in the cache's dtype, {spec.kv_dtype}; engines that keep them in fp8 hold "
            f"{width + width // 32} of {2 * width} bytes"
        )
    states = dict.fromkeys(
        state.dtype for mixer, _ in spec.token_mixers if (state := mixer.state) and state.elements
    )
    if states:
        kept = " and ".join(states)
        sentences.append(f"recurrent states are kept in {kept}; some engines keep them in 16 bits")
    return sentences


def _kept(model: ModelSpec) -> dict[str, Any]:
    """What of a model not every token touches, and what a sequence keeps however long it is."""
    from perfmodel.model import BYTES

    active, beyond = float(np.asarray(model.active_parameters())), float(model.kv_bytes_per_token(np.inf))
    windows = sum(
        count * cache.elements * cache.window * BYTES[model.kv_dtype]
        for cache, count in model.caches
        if cache.window is not None
    )
    kept: dict[str, Any] = {}
    if active < 0.999 * model.parameters:
        kept["active_parameters"] = f"{active / 1e9:.2f} B"
    if windows:
        kept["kv_per_token_beyond_windows"] = f"{format_bytes(beyond)} {model.kv_dtype}"
        kept["windows_of_a_sequence"] = format_bytes(windows)
    if model.state_bytes:
        kept["states_of_a_sequence"] = format_bytes(model.state_bytes)
    return kept


def _detail_head(model: ModelSpec) -> dict[str, Any]:
    """What a draft head drafts as; nothing for a model that serves by itself."""
    head = model.drafts
    if head is None:
        return {"layers_for_further_tokens": model.draft_layers} if model.draft_layers else {}
    shape = head.shape
    passes = "one for each draft"
    if shape.parallel:
        passes = "one for all drafts" if shape.block is None else f"one of {shape.block} tokens"
    own = model.owns_lm_head
    logits = next(layer.n for layer in model.linears if layer.name == "lm_head")
    return {
        "drafts_as": f"{head.kind} head, strategy {head.strategy}",
        "for_a_target_of": f"hidden size {head.target_hidden}, vocabulary {head.target_vocabulary}",
        "output_layer": f"its own, {logits} tokens" if own else f"the target's, {logits} tokens",
        "passes_of_a_round": passes,
        "longest_draft": f"{shape.longest:.0f} tokens" if np.isfinite(shape.longest) else "any",
    }


def _detail_mixers(layer: Layer) -> dict[str, Any]:
    """Heads of a group of layers, what each keeps per token and per sequence."""
    mixers = layer.token_mixers
    windows = [f"{mixer.reach:.0f}" for mixer in mixers if 0 < mixer.reach < np.inf]
    states = sum(state.bytes("bf16") for mixer in mixers if (state := mixer.state))
    elements = (cache.elements / cache.tokens_per_entry for mixer in mixers for cache in mixer.caches)
    return {
        "heads": " + ".join(str(mixer.heads) for mixer in mixers),
        "looks_back": " + ".join(windows) or ("all" if layer.reach else ""),
        "elements_per_token": f"{sum(elements):.6g}",
        "state": format_bytes(states) if states else "",
    }


def _detail_strategy(strategy: DraftStrategy) -> dict[str, Any]:
    law = strategy.acceptance
    named = {field.name: getattr(law, field.name) for field in fields(law)}
    for name in [name for name, value in named.items() if isinstance(value, Mapping)]:
        named |= {f"{name}: {key}": value for key, value in named.pop(name).items()}
    return {
        "source": strategy.source,
        "needs_draft_model": "yes" if strategy.needs_draft_model else "no",
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


def _summarise_hardware(profile: HardwareProfile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "memory": format_bytes(float(profile.memory_capacity)),
        "bandwidth": format_rate(float(profile.memory_bandwidth)),
        "bf16": format_rate(float(profile.peak_flops["bf16"]), "flops"),
        "also": ", ".join(profile.aliases),
        "description": profile.description,
    }


def _summarise_engine(engine: EngineOverhead) -> dict[str, Any]:
    return {
        "name": engine.name,
        "layer": format_seconds(float(engine.layer_s)),
        "round": format_seconds(float(engine.round_s)),
        "attention": " or ".join(filter(None, (engine.attention_kernel, engine.other_attention_kernel))),
        "all_reduce": engine.all_reduce,
        "description": engine.description,
    }


def _summarise_model(model: ModelSpec) -> dict[str, Any]:
    return {
        "name": model.name,
        "parameters": f"{model.parameters / 1e9:.2f} B",
        "layers": model.num_layers,
        "weights": f"{format_bytes(model.weight_bytes)} {model.weight_dtype}",
        "kv_per_token": f"{format_bytes(float(model.kv_bytes_per_token()))} {model.kv_dtype}",
        "longest_context": model.max_position,
    }


def _summarise_strategy(strategy: DraftStrategy) -> dict[str, Any]:
    return {
        "name": strategy.name,
        "drafters": ", ".join(strategy.drafters),
        "budgets": ", ".join(map(_show_budget, strategy.default_budgets)) or "none",
        "output": "lossless" if strategy.lossless else "lossy",
        "summary": strategy.summary,
    }


def _show_budget(budget: float) -> str:
    return f"{budget:.0f}" if np.isfinite(budget) else "all"


DETAILS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "hardware": _detail_profile, "engines": _detail_profile, "models": _detail_model,
    "strategies": _detail_strategy,
}  # fmt: skip
"""What `show` shows beside the line of `list`."""
SUMMARIES: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "hardware": _summarise_hardware, "engines": _summarise_engine, "models": _summarise_model,
    "strategies": _summarise_strategy,
}  # fmt: skip
"""The line of `list`."""


def draw_rows(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw mappings as a table of words; the last column may fold."""
    names = dict.fromkeys(key for row in rows for key in row)
    draw(console, [left(_title(name), partial(_cell, name)) for name in names], rows, folds=True)


def _cell(name: str, row: Mapping[str, Any]) -> Any:
    return row.get(name, "")


def _title(name: str) -> str:
    return name.replace("_", " ")


def draw_details(console: Console, details: Mapping[str, Any]) -> None:
    """Draw texts as lines, lists of mappings as tables, lists of texts indented."""
    for key, value in details.items():
        if not isinstance(value, list):
            line(console, f"{_title(key)}: {value}")
        elif value:
            section(console, _title(key))
            (draw_rows if isinstance(value[0], dict) else lines)(console, value)
