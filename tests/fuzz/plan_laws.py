"""What every plan says of itself, written down apart from the reader that holds it to be so."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["problem_of_plan"]

# Figures of a cell that are 0 or more wherever they are given.
FIGURES = (
    "tokens_per_round", "tpot_s", "baseline_s", "speedup", "draft_s", "verify_s", "round_s", "draft_ratio",
    "verify_ratio", "alpha", "alpha_first", "alpha_rest", "alpha_sd", "match_share", "break_even_alpha",
    "throughput_tokens_per_s", "cost_per_million_tokens_usd", "memory_bytes_per_gpu", "tpot_low_s",
    "tpot_high_s", "speedup_low", "speedup_high", "probability_beats_plain", "runner_up_behind",
    "probability_runner_up_better", "regret_if_alpha_wrong", "value_of_knowing_alpha", "cache_share",
    "state_share", "kept_state_ratio",
)  # fmt: skip
SHARES = (
    "alpha", "alpha_first", "alpha_rest", "match_share", "probability_beats_plain",
    "probability_runner_up_better", "cache_share", "state_share",
)  # fmt: skip
NEAR = 1e-6


class _TwiceError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _TwiceError
    return dict(pairs)


def problem_of_plan(text: str) -> str:
    """Return what in a plan file cannot be, empty where all can."""
    try:
        plan = json.loads(text, object_pairs_hook=_once)
    except _TwiceError:
        return "a key twice"
    cells = plan["cells"]
    batches, contexts = plan["request"]["batch_sizes"], plan["request"]["context_lens"]
    for axis in (batches, contexts, plan["gammas"]):
        if axis != sorted(set(axis)) or not all(type(item) is int and 0 <= item < 10**10 for item in axis):
            return f"an axis {axis}"
    places = [(cell["batch_size"], cell["context_len"]) for cell in cells]
    if len(set(places)) != len(places) or not set(places) <= {(b, c) for b in batches for c in contexts}:
        return f"cells at {places}"
    return next(filter(None, (_of_cell(cell, plan, index) for index, cell in enumerate(cells))), "")


def _of_cell(cell: dict[str, Any], plan: dict[str, Any], index: int) -> str:
    for name in FIGURES:
        number = cell.get(name)
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0.0 <= number < 1e20:
            return f"cells.{index}.{name} {number!r}"
        if name in SHARES and number > 1.0 + NEAR:
            return f"cells.{index}.{name} {number!r}"
    gamma, tokens, speedup = cell["gamma"], cell["tokens_per_round"], cell["speedup"]
    if gamma not in plan["gammas"]:
        return f"cells.{index}: gamma {gamma}"
    longest = max(plan["gammas"]) if cell.get("topk") else gamma
    if not 1.0 - NEAR <= tokens <= longest + 1.0 + NEAR or speedup > longest + 1.0 + NEAR:
        return f"cells.{index}: {tokens} tokens, speedup {speedup} at gamma {gamma}"
    if not math.isclose(speedup, cell["baseline_s"] / cell["tpot_s"], rel_tol=1e-3):
        return f"cells.{index}: speedup {speedup} of {cell['baseline_s']} over {cell['tpot_s']}"
    if not math.isclose(cell["tpot_s"], cell["round_s"] / tokens, rel_tol=1e-3):
        return f"cells.{index}: tpot {cell['tpot_s']} of {cell['round_s']} over {tokens}"
    for low, value, high in (
        ("speedup_low", "speedup", "speedup_high"),
        ("tpot_low_s", "tpot_s", "tpot_high_s"),
    ):
        if not cell[low] <= cell[value] * (1.0 + NEAR) or not cell[value] <= cell[high] * (1.0 + NEAR):
            return f"cells.{index}: {value} outside its interval"
    return ""
