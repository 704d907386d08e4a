"""Read the JSON export of AIPerf, and of GenAI-Perf, whose form it keeps.

Keys: github.com/ai-dynamo/aiperf, docs/reference/json-export-schema.md; the load is ``input_config.loadgen``
in early releases and ``input_config.phases`` later. GenAI-Perf: github.com/triton-inference-server.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from perfmodel.acceptance.logs.benchmarks import drafts_of_aiperf
from perfmodel.benchmarks.result import Benchmark, Times
from perfmodel.errors import shown
from perfmodel.files.records import Record

__all__ = ["read_aiperf_export"]

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0, "min": 60.0}


def read_aiperf_export(record: Record, gamma: int | None) -> Benchmark:
    """Return one run; AIPerf's inter-token latency is a mean per request, here ``tpot``.

    Raises
    ------
    SpecError : a key that is missing or holds no number, a unit that is no time, or a run without an answered
        request.
    """
    requests = _requests(record)
    duration = _times(record, "benchmark_duration").mean
    prompt_tokens = record.needed("input_sequence_length.avg")
    output_tokens = record.needed("output_sequence_length.avg")
    throughput = record.number("output_token_throughput.avg")
    latency = _times(record, "request_latency")
    if duration is None:
        rate = record.number("request_throughput.avg")
        duration = requests / rate if rate else None
    concurrency, rate, burstiness, remarks = _arrivals(record)
    if record.value("is_complete") is False or record.value("was_cancelled") is True:
        remarks = (*remarks, "the run ended before it was complete")
    flight = requests * latency.mean / duration if duration and latency.mean is not None else None
    return Benchmark(
        source=record.source,
        tool="AIPerf" if record.value("aiperf_version") or record.value("schema_version") else "GenAI-Perf",
        model=_model(record),
        requests=int(requests),
        failed=int(record.number("error_request_count.avg") or 0),
        concurrency=concurrency,
        mean_concurrency=flight,
        request_rate=rate,
        burstiness=burstiness,
        duration=duration,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        output_throughput=throughput,
        ttft=_times(record, "time_to_first_token"),
        tpot=_times(record, "inter_token_latency"),
        itl=_times(record, "inter_chunk_latency"),
        latency=latency,
        drafts=drafts_of_aiperf(record, gamma),
        remarks=remarks,
    )


def _requests(record: Record) -> float:
    for key in ("request_count.avg", "request_latency.count", "output_sequence_length.count"):
        if requests := record.number(key):
            return requests
    raise record.refusal("request_count", "no request was answered", "Take the benchmark again")


def _times(record: Record, name: str) -> Times:
    """Return the statistics of a metric in seconds, by its own unit."""
    if record.value(name) is None:
        return Times()
    unit = record.words(f"{name}.unit")
    if unit not in _UNITS:
        raise record.refusal(f"{name}.unit", f"found {shown(unit)}", f"One of {', '.join(_UNITS)}")
    parts = {"mean": "avg", "median": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
    values = {part: record.number(f"{name}.{key}") for part, key in parts.items()}
    return Times(**{part: None if value is None else value * _UNITS[unit] for part, value in values.items()})


def _arrivals(record: Record) -> tuple[float | None, float, float, tuple[str, ...]]:
    """Return concurrency, rate [1/s], CV^2 of the gaps, and what is not told."""
    load = _load(record)
    concurrency, rate = load.number("concurrency", 1.0), load.number("rate")
    rate = load.number("request_rate") if rate is None else rate
    if rate is None:
        remarks = () if concurrency else ("neither a concurrency nor a request rate is told",)
        return concurrency, np.inf, 1.0, remarks
    kind = load.words("type") or load.words("request_rate_mode") or "poisson"
    if kind not in ("poisson", "gamma", "constant", "concurrency_burst", "concurrency"):
        return concurrency, rate, 1.0, (f"arrivals of the kind {kind} are read as a Poisson process",)
    if kind == "constant":
        return concurrency, rate, 0.0, ()
    shape = load.number("smoothness") or load.number("arrival_smoothness") or 1.0
    return concurrency, rate, 1.0 / shape if kind == "gamma" else 1.0, ()


def _load(record: Record) -> Record:
    """Return the settings of the measured load: the last phase that is no warm-up, or ``loadgen``."""
    phases = record.value("input_config.phases")
    measured = [
        phase
        for phase in (phases if isinstance(phases, list) else [])
        if isinstance(phase, dict) and "warmup" not in (phase.get("kind"), phase.get("name"))
    ]
    places: list[Any] = measured[-1:]
    places += [
        record.value(f"input_config.{place}")
        for place in ("loadgen", "perf_analyzer.stimulus", "load_generator")
    ]
    settings = next((place for place in places if isinstance(place, dict)), {})
    return record.within(settings, record.entry)


def _model(record: Record) -> str:
    items = record.value("input_config.models.items")
    listed = items if isinstance(items, list) else []
    names = [item.get("name") for item in listed if isinstance(item, dict)]
    for place in ("input_config.endpoint.model_names", "input_config.model_names", "input_config.models"):
        value = record.value(place)
        names += value if isinstance(value, list) else []
    return next((name for name in names if isinstance(name, str)), "")
