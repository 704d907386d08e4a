"""Read the report of ``trtllm-bench throughput`` and ``latency`` (``--report_json``).

Keys: github.com/NVIDIA/TensorRT-LLM, tensorrt_llm/bench/dataclasses/reporting.py.
"""

from __future__ import annotations

from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.logs.lines import counts_of_rows
from perfmodel.benchmarks.result import Benchmark, Times
from perfmodel.errors import SpecError
from perfmodel.files.records import Record

__all__ = ["read_trtllm_report"]


def read_trtllm_report(record: Record) -> Benchmark:
    """Return one run; times to the first token and per token are told of streaming runs alone.

    Raises
    ------
    SpecError : a key that is missing or holds no number, or a run without a request.
    """
    requests = record.needed("request_info.num_requests")
    if not requests:
        raise record.refusal("request_info.num_requests", "no request was answered", "Take it again")
    duration = record.number("performance.total_latency_ms")
    return Benchmark(
        source=record.source,
        tool="trtllm-bench",
        model=record.words("engine.model"),
        requests=int(requests),
        mean_concurrency=record.number("request_info.avg_num_concurrent_requests"),
        duration=None if duration is None else duration / 1e3,
        prompt_tokens=record.needed("request_info.avg_input_length"),
        output_tokens=record.needed("request_info.avg_output_length"),
        output_throughput=record.number("performance.system_output_throughput_tok_s"),
        ttft=_times(record, "streaming_metrics.ttft_percentiles"),
        tpot=_times(record, "streaming_metrics.tpot_percentiles"),
        latency=_times(record, "performance.request_latency_percentiles_ms"),
        drafts=_drafts(record, requests),
        remarks=("trtllm-bench does not tell the concurrency that was set, only its mean",),
    )


def _times(record: Record, place: str) -> Times:
    parts = {"mean": "average", "median": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
    values = {part: record.number(f"{place}.{key}") for part, key in parts.items()}
    return Times(**{part: None if value is None else value / 1e3 for part, value in values.items()})


def _drafts(record: Record, requests: float) -> AcceptanceCounts | None:
    """Return the drafts of a run: a request puts out its accepted tokens and one more per round."""
    drafted = record.number("decoding_stats.num_draft_tokens_percentiles.average")
    accepted = record.number("decoding_stats.num_accepted_draft_tokens_percentiles.average")
    if not drafted or accepted is None:
        return None
    rounds = record.needed("request_info.avg_output_length") - accepted
    if rounds <= 0.0 or accepted > drafted:
        problem = f"{accepted:g} accepted of {drafted:g} drafted in {rounds:g} rounds a request"
        raise record.refusal("decoding_stats.num_accepted_draft_tokens_percentiles", problem)
    longest = float(max(round(drafted / rounds), 1))
    row = (rounds * requests, drafted * requests, accepted * requests, longest, list[float]())
    try:
        return counts_of_rows("total", [row], requests)
    except SpecError as refused:
        raise refused.located(record.file, record.line_of("decoding_stats"), "decoding_stats") from None
