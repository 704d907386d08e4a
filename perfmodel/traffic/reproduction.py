"""A benchmark as the question to reproduce: its requests as a trace, its figures beside simulated ones."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.benchmarks import Benchmark
from perfmodel.files.lines import LONGEST_LINE
from perfmodel.files.numbers import FloatArray
from perfmodel.files.opening import TRACE, first_bytes, text_of
from perfmodel.traffic.metrics import NO_WARM_UP, Metrics, WarmUp
from perfmodel.traffic.synthetic import synthetic_trace
from perfmodel.traffic.trace import Trace
from perfmodel.traffic.trace_forms import ARRIVAL, OUTPUT, PROMPT

__all__ = [
    "Figure", "drafted_by", "figures_beside", "in_flight_of", "is_benchmark", "remarks_on", "scaled_to",
    "trace_of",
]  # fmt: skip

_FULL_DRAFTS = 0.9
"""Drafts of one length are at least this share of it: the last of a request may be cut short. [1]"""
_SCALINGS = 20
"""How often lengths are scaled and cut: their mean is then within a token of what was asked for. [1]"""


@dataclass(frozen=True)
class Figure:
    """One figure of a benchmark beside the simulated one; `scale` brings both to people's unit."""

    name: str
    measured: float
    simulated: float
    unit: str
    scale: float = 1.0

    @property
    def error(self) -> float:
        """Simulated over measured, less 1. [1]"""
        return self.simulated / self.measured - 1.0 if self.measured else math.nan

    def row(self) -> dict[str, Any]:
        """The figure as plain values, in SI units."""
        return {
            "figure": self.name, "unit": "s" if self.unit in ("s", "ms") else self.unit,
            "measured": self.measured, "simulated": self.simulated, "error": self.error,
        }  # fmt: skip


def trace_of(benchmark: Benchmark, *, spread: float = 0.0, seed: int = 0) -> Trace:
    """Return the requests of a benchmark: as many, of its lengths, sent at its rate.

    What is drawn has exactly the means that the benchmark tells: the lengths, and the gaps between arrivals,
    as `vllm bench serve` has it.

    Parameters
    ----------
    benchmark : what was run; lengths are its own where it has them request by request.
    spread : standard deviation of the logarithm of both lengths where it has only their means. [1]
    seed : of what is drawn: gaps between arrivals, and those lengths.
    """
    prompts, outputs = benchmark.prompt_lengths, benchmark.output_lengths
    drawn = synthetic_trace(
        requests=benchmark.requests, qps=benchmark.request_rate, burstiness=benchmark.burstiness,
        prompt_tokens=max(benchmark.prompt_tokens, 1.0), output_tokens=max(benchmark.output_tokens, 1.0),
        spread=spread, seed=seed,
    )  # fmt: skip
    arrival = drawn.arrival
    if arrival[-1] > 0.0:
        arrival = arrival * ((len(drawn) - 1) / benchmark.request_rate / arrival[-1])
    if prompts is None or outputs is None or not prompts.size == outputs.size == len(drawn):
        prompts = scaled_to(benchmark.prompt_tokens, drawn.prompt_tokens)
        outputs = scaled_to(benchmark.output_tokens, drawn.output_tokens)
    name = f"{benchmark.tool}, {benchmark.source}"
    return Trace(name, arrival, np.maximum(prompts, 1), np.maximum(outputs, 1))


def scaled_to(mean: float, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return lengths scaled to a mean, none of them below 1. [tokens]"""
    scaled: NDArray[np.float64] = np.maximum(lengths.astype(float), 1.0)
    for _ in range(_SCALINGS):
        scaled = np.maximum(scaled * (mean / scaled.mean()), 1.0)
    whole: NDArray[np.int64] = np.rint(scaled).astype(np.int64)
    return whole


def in_flight_of(benchmark: Benchmark) -> int | None:
    """Requests that it had in flight at most; None where nothing held them back."""
    return None if benchmark.concurrency is None else max(1, round(benchmark.concurrency))


def remarks_on(benchmark: Benchmark, model: str = "", spread: float = 0.0) -> list[str]:
    """What the benchmark does not tell, and what is taken instead.

    Parameters
    ----------
    model : whose serving is simulated; empty where the benchmark's own is.
    spread : with which lengths are drawn. [1]
    """
    remarks = list(benchmark.remarks)
    if model and benchmark.names_another(model):
        remarks.append(
            f"the benchmark calls its model {benchmark.model}, {model} is simulated: the difference means "
            "nothing unless they are the same"
        )
    if benchmark.in_bundles:
        remarks.append(
            "chunks reached the client in bundles: times between tokens are those of the client, not of steps"
        )
    if benchmark.failed:
        remarks.append(f"{benchmark.failed} requests failed: what they cost the others is not simulated")
    gamma, _ = drafted_by(benchmark)
    if gamma and benchmark.drafts is not None:
        mean = float(benchmark.drafts.drafted.sum() / benchmark.drafts.rounds.sum())
        if mean < _FULL_DRAFTS * gamma:
            remarks.append(
                f"a round drafted {mean:.2f} tokens on average, {gamma} at most: all simulated rounds draft "
                f"{gamma} and keep the measured tokens per round, so their times are upper bounds"
            )
    if benchmark.prompt_lengths is None or benchmark.output_lengths is None:
        drawn = f"drawn with a spread of {spread:g}" if spread else "all taken as equal"
        remarks.append(f"lengths are known by their means only, {drawn}; p99 depends on them")
    return remarks


def figures_beside(benchmark: Benchmark, outcome: Metrics, warm_up: WarmUp = NO_WARM_UP) -> list[Figure]:
    """Return every figure that the benchmark has, beside the simulated one.

    As benchmark tools do, the time per output token leaves out requests of a single one.

    Parameters
    ----------
    warm_up : what is left out of what was simulated.
    """
    counted, _ = outcome.counted(warm_up)
    several = outcome.trace.output_tokens[counted] > 1
    throughput = benchmark.output_throughput
    if throughput is None and benchmark.duration:
        throughput = benchmark.requests * benchmark.output_tokens / benchmark.duration
    summary = outcome.summary(warm_up=warm_up)
    figures = []
    if throughput is not None:
        simulated = summary["throughput_tokens_per_s"]
        figures.append(Figure("output throughput", throughput, simulated, "tokens/s"))
    per_request: Sequence[tuple[str, Any, FloatArray, str, float]] = (
        ("TTFT", benchmark.ttft, outcome.ttft[counted], "ms", 1e3),
        ("TPOT", benchmark.tpot, outcome.tpot[counted][several], "ms", 1e3),
        ("latency", benchmark.latency, outcome.end_to_end[counted], "s", 1.0),
    )
    for name, times, values, unit, scale in per_request:
        for statistic, percentile in _STATISTICS.items():
            measured = getattr(times, statistic)
            if measured is not None and values.size:
                simulated = float(values.mean() if percentile is None else np.percentile(values, percentile))
                figures.append(Figure(f"{name} {statistic}", measured, simulated, unit, scale))
    for statistic, percentile in _STATISTICS.items():
        measured = getattr(benchmark.itl, statistic)
        if measured is not None:
            key = "itl_mean_s" if percentile is None else f"itl_p{percentile}_s"
            figures.append(Figure(f"ITL {statistic}", measured, summary[key], "ms", 1e3))
    return figures


_STATISTICS: dict[str, int | None] = {"mean": None, "median": 50, "p90": 90, "p95": 95, "p99": 99}


def drafted_by(benchmark: Benchmark) -> tuple[int, float]:
    """Return the longest draft, and tokens per round, bonus token included; 0 and 1 where nothing drafts."""
    drafts = benchmark.drafts
    if drafts is None or not drafts.drafted.sum() or not drafts.rounds.sum():
        return 0, 1.0
    rounds = float(drafts.rounds.sum()) + (0.0 if drafts.idle is None else float(drafts.idle.sum()))
    return int(drafts.gamma.max()), 1.0 + float(drafts.accepted.sum()) / rounds


def is_benchmark(path: str) -> bool:
    """Return whether a file holds JSON that is no trace: an object without the columns of one.

    A longer object than a row of a trace may be is none. Raises SpecError where it cannot be read.
    """
    start = first_bytes(path, TRACE, LONGEST_LINE)
    text = text_of(start, path, or_utf_16=True, errors="replace").lstrip()
    if not text.startswith(("{", "[")):
        return False
    try:
        first, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return len(start) == LONGEST_LINE
    row = first[0] if isinstance(first, list) and first else first
    if not isinstance(row, dict):
        return False
    keys = {str(key).strip().lower().replace(" ", "_") for key in row}
    return not keys & set(ARRIVAL) and not (keys & set(PROMPT) and keys & set(OUTPUT))
