"""Read the JSON of ``vllm bench serve --save-result`` and of the older benchmark_serving.py.

The keys are those of github.com/vllm-project/vllm, vllm/benchmarks/serve.py (before July 2025
benchmarks/benchmark_serving.py).
"""

from __future__ import annotations

from perfmodel.acceptance.logs.benchmarks import drafts_of_vllm
from perfmodel.benchmarks.result import Benchmark
from perfmodel.benchmarks.statistics import arrivals, mean_in_flight, milliseconds, per_request
from perfmodel.files.records import Record

__all__ = ["read_vllm_benchmark"]


def read_vllm_benchmark(record: Record, gamma: int | None) -> Benchmark:
    """Return one run; vLLM's burstiness is the shape of a gamma law of the gaps: their CV^2 is its inverse.

    Raises
    ------
    SpecError : a key that is missing or holds no number, or a run without an answered request.
    """
    requests = record.needed("completed")
    if not requests:
        raise record.refusal("completed", "no request was answered", "Take the benchmark again")
    rate, burstiness = arrivals(record)
    duration = record.number("duration")
    latency = milliseconds(record, "e2el")
    lengths = per_request(record, "input_lens", "output_lens")
    sent = record.number("num_prompts")
    failed = record.number("failed")
    remarks = []
    if record.words("ramp_up_strategy"):
        remarks.append(f"the request rate rose over the run ({record.words('ramp_up_strategy')})")
    return Benchmark(
        source=record.source,
        tool="vllm bench serve",
        model=record.words("model_id"),
        requests=int(requests),
        failed=int(failed if failed is not None else max((sent or requests) - requests, 0.0)),
        concurrency=record.number("max_concurrency", 1.0),
        mean_concurrency=mean_in_flight(record, requests, duration, latency.mean),
        request_rate=rate,
        burstiness=burstiness,
        duration=duration,
        prompt_tokens=record.needed("total_input_tokens") / requests,
        output_tokens=record.needed("total_output_tokens") / requests,
        prompt_lengths=None if lengths is None else lengths[0],
        output_lengths=None if lengths is None else lengths[1],
        output_throughput=record.number("output_throughput"),
        ttft=milliseconds(record, "ttft"),
        tpot=milliseconds(record, "tpot"),
        itl=milliseconds(record, "itl"),
        latency=latency,
        drafts=drafts_of_vllm(record, gamma),
        remarks=tuple(remarks),
    )
