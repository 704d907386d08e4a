"""Whether speculation paid, and the best length, as users measured: agrees, disagrees, or cannot be told."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

import strategies
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.files.numbers import FloatArray
from perfmodel.hardware import HardwareProfile
from perfmodel.memory import count_memory
from perfmodel.model import ModelSpec
from perfmodel.speculation import Drafter, price_round

__all__ = ["CANNOT_TELL", "Trend", "check_trends"]

CANNOT_TELL = "cannot tell"
NEAR_BEST = 0.01
"""Published rates this close to the best one are as good: runs repeat no better. [1]"""
MACHINES = (("h100-sxm-80gb", 8), ("h200-sxm-141gb", 8), ("b200", 8))
"""Accelerators that are tried where a source names none, with their number."""
CONTEXTS = (500.0, 2000.0, 8000.0)
"""Contexts that are tried where a source states none. [tokens]"""
BATCHES = (1.0, 8.0, 32.0, 64.0)
"""Batch sizes that are tried where a source states none. [sequences]"""
DEVIATIONS = (-1.0, 0.0, 1.0)
"""Standard deviations of acceptance around its law that are tried: no source states it. [1]"""
_OPEN = {"hardware": "accelerator", "context_len": "context", "batch_size": "batch size"}


@dataclass(frozen=True)
class Trend:
    """One measured series beside what is computed over everything that its source leaves open.

    question : ``sign`` (does it pay) or ``length`` (the best one; at most 1 apart agrees). left_out : what
    the source does not state, or what is not bundled. agreeing : how many of the `tried` combinations of what
    is varied agree; none is tried without the model.
    """

    series: str
    question: str
    published: str
    computed: str
    left_out: str
    source: str
    agreeing: int = 0
    tried: int = 0

    @property
    def verdict(self) -> str:
        """``agrees`` where all combinations do, ``disagrees`` where none does, else ``cannot tell``."""
        if self.tried and self.agreeing in (0, self.tried):
            return "agrees" if self.agreeing else "disagrees"
        return CANNOT_TELL


def check_trends() -> tuple[Trend, ...]:
    """Hold every published series against the equations, with what its source leaves open varied together."""
    text = (files("perfmodel") / "data" / "measurements" / "trends.csv").read_text(encoding="utf-8")
    series: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(text.splitlines()):
        series.setdefault(row["series"], []).append(row)
    return tuple(trend for rows in series.values() for trend in _checked(rows))


def _checked(rows: Sequence[dict[str, str]]) -> Iterator[Trend]:
    """Yield the sign where plain decoding was measured too, the best length where several were."""
    row, rates = rows[0], {int(row["gamma"]): float(row["rate"]) for row in rows}
    lengths = [gamma for gamma in rates if gamma > 0]
    best_rate = max(rates[gamma] for gamma in lengths)
    best = [gamma for gamma in lengths if rates[gamma] >= best_rate * (1.0 - NEAR_BEST)]
    missing, left_out = _missing(rows), [words for column, words in _OPEN.items() if not row[column]]
    speedups = np.empty((0, len(lengths))) if missing else _speedups(row, lengths)
    pays = ["pays" if each.max() > 1.0 else "does not pay" for each in speedups]
    planned = [lengths[int(each.argmax())] for each in speedups]
    unstated = missing or ", ".join(left_out) or "acceptance"
    if 0 in rates:
        published = "pays" if best_rate > rates[0] else "does not pay"
        yield _trend(row, "sign", published, pays, unstated, [each == published for each in pays])
    if len(lengths) > 1:
        near = [min(abs(length - good) for good in best) <= 1 for length in planned]
        yield _trend(row, "length", " or ".join(map(str, best)), list(map(str, planned)), unstated, near)


def _trend(
    row: dict[str, str], question: str, published: str, answers: list[str], left_out: str, agree: list[bool]
) -> Trend:
    """Return a trend with how many combinations answer what."""
    computed = ", ".join(f"{answer} ({count})" for answer, count in sorted(Counter(answers).items()))
    return Trend(
        row["series"], question, published, computed, left_out, row["source"], sum(agree), len(agree)
    )


def _missing(rows: Sequence[dict[str, str]]) -> str:
    """Return what makes a series impossible to compute; empty where it can be."""
    row, unknown = rows[0], [each["unknown"] for each in rows if each["unknown"]]
    if not row["target_model"]:
        return "model"
    if row["target_model"].lower() not in map(str.lower, ModelSpec.available()):
        return "a bundled model"
    if row["hardware"] and row["hardware"] not in HardwareProfile.available():
        return "a bundled accelerator"
    if row["hardware"] and row["context_len"] and row["batch_size"] and not _fits(row):
        return "the batch that ran: what was asked for does not fit"
    return unknown[0] if unknown else ""


def _fits(row: dict[str, str]) -> bool:
    """Return whether the target alone holds the batch; what runs of a larger one is not known."""
    deployment = Deployment(
        HardwareProfile.load(row["hardware"]),
        ModelSpec.load(row["target_model"]),
        EngineOverhead.load("generic"),
        float(row["tensor_parallel"]),
    )
    batch, context_len = float(row["batch_size"]), float(row["context_len"])
    return bool(count_memory(deployment, batch=batch, context_len=context_len).fits)


def _speedups(row: dict[str, str], lengths: Sequence[int]) -> FloatArray:
    """Return speedups in every combination of what the source leaves open, axes (combination, length)."""
    machines = ((row["hardware"], int(row["tensor_parallel"])),) if row["hardware"] else MACHINES
    contexts = (float(row["context_len"]),) if row["context_len"] else CONTEXTS
    batches = (float(row["batch_size"]),) if row["batch_size"] else BATCHES
    by_machine = [
        price_round(
            HardwareProfile.load(name),
            ModelSpec.load(row["target_model"]),
            EngineOverhead.load("generic"),
            Drafter(strategies.load(row["strategy"])),
            context_len=np.reshape(contexts, (-1, 1, 1, 1)),
            batch=np.reshape(batches, (-1, 1, 1)),
            deviations=np.reshape(DEVIATIONS, (-1, 1)),
            kv_budget=float(row["kv_budget"] or np.inf),
            gamma=np.asarray(lengths, dtype=float),
            tensor_parallel=float(gpus),
        ).speedup
        for name, gpus in machines
    ]
    return np.concatenate([np.reshape(each, (-1, len(lengths))) for each in by_machine])
