"""Whether speculation paid, and the best length, as users measured: agrees, disagrees, or cannot tell."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

import strategies
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.speculation import Drafter, price_round

__all__ = ["Trend", "check_trends"]

AGREES, DISAGREES, CANNOT_TELL = "agrees", "disagrees", "cannot tell"
NEAR_BEST = 0.01
"""Published rates this close to the best one are as good: runs repeat no better. [1]"""
UNSTATED = (("h100-sxm-80gb", 8), ("h200-sxm-141gb", 8), ("b200", 8))
"""Accelerators that are tried where a source names none, with their number."""
CONTEXTS = (500.0, 2000.0, 8000.0)
"""Contexts that are tried where a source states none. [tokens]"""
BATCHES = (1.0, 8.0, 32.0, 64.0)
"""Batch sizes that are tried where a source states none. [sequences]"""
DEVIATIONS = (-1.0, 0.0, 1.0)
"""Standard deviations of acceptance around its law that are tried: no source states it. [1]"""


@dataclass(frozen=True)
class Trend:
    """One measured series beside what is computed over everything that its source leaves open.

    question : ``sign`` (does it pay) or ``length`` (the best one). agreeing : how many of `tried` agree.
    """

    series: str
    question: str
    published: str
    computed: str
    verdict: str
    reason: str
    source: str
    agreeing: int = 0
    tried: int = 0


@dataclass(frozen=True)
class _Series:
    name: str
    row: dict[str, str]
    rates: dict[int, float]
    unknown: str


def check_trends() -> tuple[Trend, ...]:
    """Hold every published series against the equations.

    Inputs that a source leaves open are varied together. The verdict is "agrees" where all combinations
    agree, "disagrees" where none does, and "cannot tell" where it depends on what is not stated, or where the
    model or the accelerator is not known here. Lengths agree when they are at most 1 apart.
    """
    return tuple(trend for series in _published() for trend in _checked(series))


def _published() -> list[_Series]:
    text = (files("perfmodel") / "data" / "measurements" / "trends.csv").read_text(encoding="utf-8")
    grouped: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(text.splitlines()):
        grouped.setdefault(row["series"], []).append(row)
    return [
        _Series(
            name,
            rows[0],
            {int(row["gamma"]): float(row["rate"]) for row in rows},
            "; ".join(dict.fromkeys(row["unknown"] for row in rows if row["unknown"])),
        )
        for name, rows in grouped.items()
    ]


def _checked(series: _Series) -> list[Trend]:
    """The sign where plain decoding was measured too, the best length where several were."""
    lengths = [gamma for gamma in series.rates if gamma > 0]
    best_rate = max(series.rates[gamma] for gamma in lengths)
    best = [gamma for gamma in lengths if series.rates[gamma] >= best_rate * (1.0 - NEAR_BEST)]
    asked: list[tuple[str, str]] = []
    if 0 in series.rates:
        asked.append(("sign", "pays" if best_rate > series.rates[0] else "does not pay"))
    if len(lengths) > 1:
        asked.append(("length", " or ".join(map(str, best))))
    missing = _missing(series)
    if missing:
        return [
            Trend(series.name, question, published, "", CANNOT_TELL, missing, series.row["source"])
            for question, published in asked
        ]
    speedups = _computed(series, lengths)
    trends = []
    for question, published in asked:
        if question == "sign":
            answers = ["pays" if row.max() > 1.0 else "does not pay" for row in speedups]
            agree = [row == published for row in answers]
        else:
            at = [lengths[int(np.argmax(row))] for row in speedups]
            answers = list(map(str, at))
            agree = [min(abs(gamma - good) for good in best) <= 1 for gamma in at]
        trends.append(_judged(series, question, published, answers, agree))
    return trends


def _missing(series: _Series) -> str:
    """What makes a series impossible to compute; empty where it can be."""
    row = series.row
    if series.unknown:
        return f"the source does not state the {series.unknown}"
    if not row["target_model"]:
        return "the source does not name the model"
    try:
        ModelSpec.load(row["target_model"])
    except SpecError:
        return f"{row['target_model']} is not among the bundled models"
    if row["hardware"]:
        try:
            HardwareProfile.load(row["hardware"])
        except SpecError:
            return f"there is no profile of {row['hardware']}"
    return ""


def _computed(series: _Series, lengths: Sequence[int]) -> list[np.ndarray]:
    """Speedup by length in every combination of what the source leaves open."""
    row = series.row
    target = ModelSpec.load(row["target_model"])
    engine = EngineOverhead.load("generic")
    drafter = Drafter(strategies.load(row["strategy"]))
    machines = ((row["hardware"], int(row["tensor_parallel"])),) if row["hardware"] else UNSTATED
    contexts = (float(row["context_len"]),) if row["context_len"] else CONTEXTS
    batches = (float(row["batch_size"]),) if row["batch_size"] else BATCHES
    budget = float(row["kv_budget"] or np.inf)
    speedups = [
        price_round(
            HardwareProfile.load(name),
            target,
            engine,
            drafter,
            context_len=np.reshape(contexts, (-1, 1, 1, 1)),
            batch=np.reshape(batches, (-1, 1, 1)),
            deviations=np.reshape(DEVIATIONS, (-1, 1)),
            kv_budget=budget,
            gamma=np.asarray(lengths, dtype=float),
            tensor_parallel=float(width),
        ).speedup
        for name, width in machines
    ]
    return [row for of_machine in speedups for row in np.reshape(of_machine, (-1, len(lengths)))]


def _judged(
    series: _Series, question: str, published: str, answers: Sequence[str], agree: Sequence[bool]
) -> Trend:
    tried, agreeing = len(agree), sum(agree)
    computed = ", ".join(f"{answer} ({count})" for answer, count in sorted(Counter(answers).items()))
    verdict = AGREES if agreeing == tried else DISAGREES if agreeing == 0 else CANNOT_TELL
    names = {
        "hardware": "accelerators",
        "context_len": "context",
        "batch_size": "batch size",
    }
    left = [words for column, words in names.items() if not series.row[column]]
    reason = f"{agreeing} of {tried} combinations of {', '.join([*left, 'acceptance'])} agree"
    return Trend(
        series.name,
        question,
        published,
        computed,
        verdict,
        reason,
        series.row["source"],
        agreeing,
        tried,
    )
