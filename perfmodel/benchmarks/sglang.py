"""Read the JSON lines of ``sglang.bench_serving``, one line a run.

Keys: github.com/sgl-project/sglang, python/sglang/bench_serving.py, later sglang/benchmark/serving.py.
"""

from __future__ import annotations

import numpy as np

from perfmodel.acceptance.logs.benchmarks import drafts_of_server, drafts_of_sglang
from perfmodel.benchmarks.result import Benchmark
from perfmodel.benchmarks.statistics import arrivals, milliseconds, per_request
from perfmodel.files.records import Record

__all__ = ["read_sglang_benchmark"]


def read_sglang_benchmark(record: Record, gamma: int | None) -> Benchmark:
    """Return one run; gaps between arrivals are exponential (``request_rate`` is a Poisson process).

    Raises
    ------
    SpecError : a key that is missing or holds no number, or a run without an answered request.
    """
    requests = record.needed("completed")
    if not requests:
        raise record.refusal("completed", "no request was answered", "Take the benchmark again")
    duration = record.number("duration")
    remarks = []
    rate = np.inf
    if record.value("request_rate") == "trace":
        rate = requests / duration if duration else np.inf
        remarks.append("requests arrived as in a trace; the rate is their mean")
    else:
        rate, _ = arrivals(record)
    if record.words("backend") in ("sglang", "sglang-native"):
        remarks.append("times between tokens are spread over the tokens of a chunk")
    drafts = None
    if record.number("accept_length"):
        if gamma or drafts_of_server(record):
            drafts = drafts_of_sglang(record, gamma)
            remarks += drafts.remarks if drafts else ()
        else:
            length = record.number("accept_length")
            remarks.append(f"{length:g} tokens per round are told, not how many are drafted: give gamma")
    outputs = record.numbers("output_lens") or []
    lengths = per_request(record, "input_lens", "output_lens")
    return Benchmark(
        source=record.source,
        tool="sglang.bench_serving",
        model=record.words("server_info.served_model_name") or record.words("server_info.model_path")
        or record.words("model_id"),
        requests=int(requests),
        failed=max(len(outputs) - int(requests), 0),
        concurrency=record.number("max_concurrency", 1.0),
        mean_concurrency=record.number("concurrency"),
        request_rate=rate,
        duration=duration,
        prompt_tokens=record.needed("total_input_tokens") / requests,
        output_tokens=record.needed("total_output_tokens") / requests,
        prompt_lengths=None if lengths is None else lengths[0],
        output_lengths=None if lengths is None else lengths[1],
        output_throughput=record.number("output_throughput"),
        ttft=milliseconds(record, "ttft"),
        tpot=milliseconds(record, "tpot"),
        itl=milliseconds(record, "itl"),
        latency=milliseconds(record, "e2e_latency"),
        drafts=drafts,
        remarks=tuple(remarks),
    )
