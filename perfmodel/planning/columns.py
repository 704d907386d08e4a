"""Every number of an answer, described once: its field, JSON key and CSV column, and how people read it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from perfmodel.acceptance import alpha_from_mean_length
from perfmodel.files.numbers import FloatArray, Numeric
from perfmodel.planning.plan import NO_DRAFT, Cell, Plan

__all__ = [
    "COLUMNS", "SWEPT", "Column", "fill", "gain", "milliseconds", "number", "swept", "titled", "tokens",
]  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A number of the answer.

    Parameters
    ----------
    name : the field of `Cell`, the JSON key and the CSV column.
    unit : SI, or ``1``; empty for words.
    value : its values for the cells of an `Answer`; those that need only a `Priced` serve sweeps too.
    title : what stands above it in a printed table; not printed where empty.
    show : the text of a cell in a printed table.
    left : whether it is aligned to the left, as words are.
    printed : whether a plan's table needs it.
    """

    name: str
    unit: str
    value: Callable[[Any], Any]
    title: str = ""
    show: Callable[[Cell], str] = str
    left: bool = False
    printed: Callable[[Plan], bool] = lambda _: True


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, never in powers of ten; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 6)}f}"


def milliseconds(seconds: float | None) -> str:
    """Return seconds in milliseconds. [s] -> [ms]"""
    return number(None if seconds is None else seconds * 1e3)


def tokens(value: float | None) -> str:
    """Return a number of tokens, thousands apart; "all" where it is infinite, a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if math.isfinite(value) else "all"


def gain(value: float | None) -> str:
    """Return a speedup; a dash where there is none."""
    return "-" if value is None else f"{value:.2f}x"


def _drafting(answer: Any, values: Any) -> list[Any]:
    """Return one value per cell, None where nothing is drafted."""
    spread = np.broadcast_to(values, answer.shape).tolist()
    return [value if gamma > 0 else None for value, gamma in zip(spread, answer.gamma, strict=True)]


def _strategies(answer: Any) -> list[str]:
    name = answer.drafter.strategy.name if answer.drafter else NO_DRAFT
    return [value or NO_DRAFT for value in _drafting(answer, name)]


def _draft_models(answer: Any) -> list[str | None]:
    model = answer.drafter.draft_model if answer.drafter else None
    return _drafting(answer, model.name if model else None)


def _kv_budgets(answer: Any) -> list[int | None]:
    budgets = _drafting(answer, answer.kv_budget)
    return [int(budget) if budget is not None and math.isfinite(budget) else None for budget in budgets]


def _accepted(answer: Any, name: str) -> Any:
    """Return a field of what is believed of acceptance, None where nothing drafts."""
    acceptance = answer.round.acceptance
    return None if acceptance is None else getattr(acceptance, name)


def _break_even_alpha(answer: Any) -> Any:
    """Acceptance rate at which each round costs what plain decoding does; None where none drafts."""
    gamma = answer.gamma
    if not np.any(gamma > 0):
        return None
    needed = np.clip(answer.expand(answer.round.break_even_tokens), 1.0, gamma + 1.0)
    return np.atleast_1d(alpha_from_mean_length(needed, gamma))


def _cost_per_million_tokens(answer: Any) -> Numeric:
    """Rent of the GPUs over what they put out. [USD per million tokens]"""
    deployment = answer.deployment
    rent = deployment.hardware.price_per_hour * deployment.tensor_parallel / 3600.0
    return np.asarray(rent / answer.round.throughput * 1e6)


def _chosen_among(plan: Plan) -> int:
    """How many machines each cell was chosen among."""
    return len(plan.hardware.split(", ")) * len(plan.request.get("tensor_parallel") or [1])


def _between(cell: Cell) -> str:
    """The range that the speedup has 80 % of its chance in."""
    if cell.speedup_low is None or cell.speedup_high is None or not cell.speculates:
        return "-"
    return f"{cell.speedup_low:.2f}-{cell.speedup_high:.2f}"


def _judged(name: str) -> Callable[[Any], Any]:
    return lambda answer: answer.judged.get(name)


COLUMNS = (
    Column("batch_size", "1", lambda a: a.batch.astype(int), "batch", lambda cell: str(cell.batch_size)),
    Column(
        "context_len", "tokens", lambda a: a.context_len.astype(int), "context",
        lambda cell: tokens(cell.context_len),
    ),
    Column(
        "hardware", "", lambda a: str(a.deployment.hardware.name), "hardware", lambda cell: cell.hardware,
        left=True, printed=lambda plan: _chosen_among(plan) > 1,
    ),
    Column(
        "tensor_parallel", "GPUs", lambda a: int(a.deployment.tensor_parallel), "tp",
        lambda cell: str(cell.tensor_parallel), printed=lambda plan: _chosen_among(plan) > 1,
    ),
    Column(
        "strategy", "", _strategies, "strategy",
        lambda cell: cell.strategy if cell.speculates else "do not speculate", left=True,
    ),
    Column(
        "draft_model", "", _draft_models, "draft\nmodel",
        lambda cell: cell.draft_model or ("self" if cell.speculates else "-"), left=True,
        printed=lambda plan: any(cell.draft_model for cell in plan.cells),
    ),
    Column(
        "kv_budget", "tokens", _kv_budgets, "KV\nbudget",
        lambda cell: "all" if cell.kv_budget is None and cell.speculates else tokens(cell.kv_budget),
    ),
    Column("gamma", "tokens", lambda a: a.gamma.astype(int), "gamma", lambda cell: str(cell.gamma)),
    Column(
        "tokens_per_round", "tokens", lambda a: a.round.tokens_per_round, "tokens/\nround",
        lambda cell: f"{cell.tokens_per_round:.2f}",
    ),
    Column("tpot_s", "s", lambda a: a.round.tpot, "TPOT\nms", lambda cell: milliseconds(cell.tpot_s)),
    Column(
        "baseline_s", "s", lambda a: a.round.baseline.total, "baseline\nms",
        lambda cell: milliseconds(cell.baseline_s),
    ),
    Column("speedup", "1", lambda a: a.round.speedup, "speedup", lambda cell: gain(cell.speedup)),
    Column("draft_s", "s", lambda a: a.round.draft_s),
    Column("verify_s", "s", lambda a: a.round.verify.total),
    Column("round_s", "s", lambda a: a.round.round_s),
    Column("draft_ratio", "1", lambda a: a.round.draft_ratio),
    Column("verify_ratio", "1", lambda a: a.round.verify_ratio),
    Column("alpha", "1", lambda a: _accepted(a, "rest")),
    Column("alpha_first", "1", lambda a: _accepted(a, "first")),
    Column("alpha_sd", "1", lambda a: _accepted(a, "sd")),
    Column("alpha_kind", "", lambda a: a.alpha_kind),
    Column("break_even_alpha", "1", _break_even_alpha),
    Column("throughput_tokens_per_s", "tokens/s", lambda a: a.round.throughput),
    Column("cost_per_million_tokens_usd", "USD", _cost_per_million_tokens),
    Column("memory_bytes_per_gpu", "B", lambda a: a.round.memory.total),
    Column("tpot_low_s", "s", _judged("tpot_low_s")),
    Column("tpot_high_s", "s", _judged("tpot_high_s")),
    Column(
        "speedup_low", "1", _judged("speedup_low"), "80 %\nrange", _between, left=True,
        printed=lambda plan: any(cell.speedup_low is not None for cell in plan.cells),
    ),
    Column("speedup_high", "1", _judged("speedup_high")),
    Column("probability_beats_plain", "1", _judged("probability_beats_plain")),
    Column("runner_up", "", lambda a: a.runner_up),
    Column("runner_up_behind", "1", lambda a: np.nan_to_num(a.runner_up_behind)),
    Column("probability_runner_up_better", "1", _judged("probability_runner_up_better")),
    Column("regret_if_alpha_wrong", "1", _judged("regret_if_alpha_wrong")),
    Column("value_of_knowing_alpha", "1", _judged("value_of_knowing_alpha")),
    Column("round_by_gamma_s", "s", lambda a: [tuple(rounds) for rounds in a.round_by_gamma_s.tolist()]),
    Column("bound_by", "", lambda a: a.round.bound_by, "bound by", lambda cell: cell.bound_by, left=True),
    Column("why", "", lambda _: ""),  # `explain.reason` of the cell, once its numbers stand
)  # fmt: skip
"""The answer, column by column, in the order in which it is printed."""

SWEPT = ("tokens_per_round", "round_s", "tpot_s", "speedup", "throughput_tokens_per_s")
"""Columns of a sweep, beside its axes and whether a configuration fits."""

_BY_NAME = {column.name: column for column in COLUMNS}


def fill(answer: Any) -> list[Cell]:
    """Return the cells of an answer, one element of its arrays each."""
    values = {}
    for column in COLUMNS:
        value = column.value(answer)
        if isinstance(value, np.ndarray) or np.isscalar(value):
            spread = np.broadcast_to(value, answer.shape).tolist()
            value = [None if item != item else item for item in spread]
        values[column.name] = [value] * answer.shape[0] if value is None else value
    return [Cell(**dict(zip(values, row, strict=True))) for row in zip(*values.values(), strict=True)]


def swept(priced: Any, name: str) -> FloatArray:
    """Return one of `SWEPT` for every configuration."""
    column: FloatArray = priced.expand(_BY_NAME[name].value(priced))
    return column


def titled(plan: Plan) -> list[Column]:
    """Return the columns that a plan's printed table has."""
    return [column for column in COLUMNS if column.title and column.printed(plan)]
