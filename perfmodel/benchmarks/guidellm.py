"""Read the benchmarks in a report of guidellm.

Keys: github.com/vllm-project/guidellm, src/guidellm/benchmark/schemas (0.4 to 0.8) and benchmark/benchmark.py
(0.2 and 0.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.benchmarks.result import LONGEST_TEXT, Benchmark, Times
from perfmodel.errors import shown
from perfmodel.files.records import Record

__all__ = ["read_guidellm_report"]

_REMARK = (
    "time per token is guidellm's inter-token latency: its time per output token holds the first token too"
)


def read_guidellm_report(record: Record) -> Iterator[Benchmark]:
    """Yield the benchmarks of a report, of each the requests that succeeded.

    Raises
    ------
    SpecError : a key that is missing or holds no number, or a benchmark without an answered request.
    """
    entries = record.value("benchmarks")
    if not isinstance(entries, list) or not entries:
        raise record.refusal("benchmarks", "holds no benchmark", "Give the report as guidellm wrote it")
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise record.refusal("benchmarks", f"found {shown(entry)}, not an object")
        yield _benchmark(record.within(entry, f"benchmarks.{place}"), record)


def _benchmark(entry: Record, report: Record) -> Benchmark:
    requests = _first_number(entry, [f"{place}.successful" for place in _TOTALS])
    if not requests:
        place = "metrics.request_totals.successful"
        raise entry.refusal(place, "no request was answered", "Take the benchmark again")
    concurrency, rate, burstiness = _arrivals(entry)
    prompts, outputs = _lengths(entry, "prompt_tokens"), _lengths(entry, "output_tokens")
    return Benchmark(
        source=entry.source,
        tool="guidellm",
        model=_model(entry) or _model(report),
        requests=int(requests),
        failed=int(_first_number(entry, [f"{place}.errored" for place in _TOTALS]) or 0),
        concurrency=concurrency,
        mean_concurrency=entry.number("metrics.request_concurrency.successful.mean"),
        request_rate=rate,
        burstiness=burstiness,
        duration=_first_number(entry, ["duration"]),
        prompt_tokens=entry.needed("metrics.prompt_token_count.successful.mean"),
        output_tokens=entry.needed("metrics.output_token_count.successful.mean"),
        prompt_lengths=prompts,
        output_lengths=outputs,
        output_throughput=entry.number("metrics.output_tokens_per_second.successful.mean"),
        ttft=_times(entry, "time_to_first_token_ms", 1e-3),
        tpot=_times(entry, "inter_token_latency_ms", 1e-3),
        latency=_times(entry, "request_latency", 1.0),
        remarks=(_REMARK,),
    )


_TOTALS = (
    "metrics.request_totals", "request_totals", "scheduler_metrics.requests_made", "run_stats.requests_made",
)  # fmt: skip


def _first_number(entry: Record, keys: list[str]) -> float | None:
    return next((value for key in keys if (value := entry.number(key)) is not None), None)


def _arrivals(entry: Record) -> tuple[float | None, float, float]:
    """Return concurrency, rate [1/s] and CV^2 of the gaps, as the strategy sets them."""
    place = next(
        (name for name in ("config.strategy", "args.strategy", "scheduler.strategy")
         if isinstance(entry.value(name), dict)), "config.strategy",
    )  # fmt: skip
    kind = entry.words(f"{place}.type_")
    most = entry.number(f"{place}.max_concurrency", 1.0)
    if kind == "synchronous":
        return 1.0, np.inf, 1.0
    if kind == "concurrent":
        return entry.needed(f"{place}.streams", 1.0), np.inf, 1.0
    if kind == "throughput":
        return most, np.inf, 1.0
    if kind in ("constant", "poisson"):
        return most, entry.needed(f"{place}.rate"), 0.0 if kind == "constant" else 1.0
    known = "synchronous, concurrent, throughput, constant, poisson"
    raise entry.refusal(f"{place}.type_", f"found {shown(kind)}", f"Understood are {known}")


def _times(entry: Record, name: str, unit: float) -> Times:
    """Return the statistics of a metric over the requests that succeeded, in seconds."""
    place = f"metrics.{name}.successful"
    values = {part: entry.number(f"{place}.{part}") for part in ("mean", "median")}
    values |= {part: entry.number(f"{place}.percentiles.{part}") for part in ("p90", "p95", "p99")}
    return Times(**{part: None if value is None else value * unit for part, value in values.items()})


def _lengths(entry: Record, key: str) -> NDArray[np.int64] | None:
    """Return lengths request by request where all that succeeded are listed."""
    listed = entry.value("requests.successful")
    if not isinstance(listed, list) or not listed:
        return None
    values = [request.get(key) if isinstance(request, dict) else None for request in listed]
    lengths = [value for value in values if type(value) is int and value >= 0]
    if len(lengths) < len(values):
        return None
    if max(lengths) > LONGEST_TEXT:
        raise entry.refusal(key, f"found {shown(max(lengths))}", f"Give at most {LONGEST_TEXT:g} tokens")
    return np.array(lengths, dtype=np.int64)


def _model(record: Record) -> str:
    def inside(value: Any, depth: int) -> str:
        if not isinstance(value, dict) or depth > 4:
            return ""
        model = value.get("model")
        if isinstance(model, str) and model:
            return model
        return next((name for part in value.values() if (name := inside(part, depth + 1))), "")

    places = ("config.backend", "config.spec", "config", "args", "worker", "benchmarker")
    return next((name for place in places if (name := inside(record.value(place), 0))), "")
