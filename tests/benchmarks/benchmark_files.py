"""Result files of benchmark tools, as short as they can be, with the keys that the tools write."""

from __future__ import annotations

from typing import Any

VLLM: dict[str, Any] = {
    "date": "20260801-120000",
    "backend": "openai",
    "model_id": "org/model",
    "num_prompts": 4,
    "request_rate": "inf",
    "burstiness": 1.0,
    "max_concurrency": 2,
    "duration": 2.0,
    "completed": 4,
    "failed": 0,
    "total_input_tokens": 400,
    "total_output_tokens": 200,
    "request_throughput": 2.0,
    "output_throughput": 100.0,
    "spec_decode_num_drafts": 100,
    "spec_decode_draft_tokens": 300,
    "spec_decode_accepted_tokens": 100,
    "spec_decode_per_position_acceptance_rates": [0.6, 0.3, 0.1],
    "mean_ttft_ms": 120.0,
    "median_ttft_ms": 100.0,
    "p99_ttft_ms": 300.0,
    "mean_tpot_ms": 10.0,
    "median_tpot_ms": 9.5,
    "p99_tpot_ms": 20.0,
    "mean_itl_ms": 20.0,
    "median_itl_ms": 19.0,
    "p99_itl_ms": 40.0,
}
SGLANG: dict[str, Any] = {
    "tag": None,
    "backend": "sglang",
    "dataset_name": "random",
    "request_rate": float("inf"),
    "max_concurrency": 2,
    "random_input_len": 100,
    "random_output_len": 50,
    "random_range_ratio": 1.0,
    "server_info": {"model_path": "org/model", "speculative_num_steps": 3, "speculative_num_draft_tokens": 4},
    "duration": 2.0,
    "completed": 4,
    "total_input_tokens": 400,
    "total_output_tokens": 204,
    "total_output_tokens_retokenized": 200,
    "request_throughput": 2.0,
    "output_throughput": 102.0,
    "mean_e2e_latency_ms": 900.0,
    "median_e2e_latency_ms": 880.0,
    "mean_ttft_ms": 120.0,
    "median_ttft_ms": 100.0,
    "p99_ttft_ms": 300.0,
    "mean_tpot_ms": 10.0,
    "median_tpot_ms": 9.5,
    "mean_itl_ms": 20.0,
    "concurrency": 1.8,
    "accept_length": 2.5,
}
VLLM_BLOCK = """\
Namespace(backend='vllm', model='org/model', request_rate=inf)
Traffic request rate: 4.0
Burstiness factor: 0.5 (Gamma distribution)
Maximum request concurrency: 2
============ Serving Benchmark Result ============
Successful requests:                     4
Failed requests:                         1
Benchmark duration (s):                  2.00
Total input tokens:                      400
Total generated tokens:                  200
Request throughput (req/s):              2.00
Output token throughput (tok/s):         100.00
---------------Time to First Token----------------
Mean TTFT (ms):                          120.00
Median TTFT (ms):                        100.00
P99 TTFT (ms):                           300.00
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          10.00
Median TPOT (ms):                        9.50
---------------Inter-token Latency----------------
P99 ITL (ms):                            40.00
---------------Speculative Decoding---------------
Acceptance rate (%):                     33.33
Acceptance length:                       2.00
Drafts:                                  100
Draft tokens:                            300
Accepted tokens:                         100
Per-position acceptance (%):
  Position 0:                            60.00
  Position 1:                            30.00
  Position 2:                            10.00
==================================================
"""
SGLANG_BLOCK = """\
============ Serving Benchmark Result ============
Backend:                                 sglang-oai
Traffic request rate:                    inf
Max request concurrency:                 not set
Successful requests:                     4
Benchmark duration (s):                  2.00
Total input tokens:                      400
Total input text tokens:                 400
Total generated tokens:                  204
Total generated tokens (retokenized):    200
Concurrency:                             1.80
Accept length:                           2.50
----------------End-to-End Latency----------------
Mean E2E Latency (ms):                   900.00
P90 E2E Latency (ms):                    950.00
Mean TTFT (ms):                          120.00
==================================================
"""


def _guided(mean: float) -> dict[str, Any]:
    percentiles = {"p90": mean * 2, "p95": mean * 3, "p99": mean * 4}
    part = {"mean": mean, "median": mean * 0.9, "percentiles": percentiles}
    return {"successful": part, "errored": None, "incomplete": None, "total": part}


def guided(strategy: dict[str, Any]) -> dict[str, Any]:
    """A benchmark in a report of guidellm."""
    return {
        "type_": "generative_benchmark",
        "config": {"strategy": strategy, "backend": {"model": "org/model"}},
        "duration": 30.0,
        "metrics": {
            "request_totals": {"successful": 40, "errored": 2, "incomplete": 1, "total": 43},
            "request_concurrency": _guided(3.9),
            "request_latency": _guided(2.0),
            "prompt_token_count": _guided(100.0),
            "output_token_count": _guided(50.0),
            "time_to_first_token_ms": _guided(120.0),
            "time_per_output_token_ms": _guided(40.0),
            "inter_token_latency_ms": _guided(10.0),
            "output_tokens_per_second": _guided(66.0),
        },
        "requests": {"successful": [{"prompt_tokens": 100, "output_tokens": 50 + k} for k in range(3)]},
    }


def _stat(unit: str, avg: float, **more: float) -> dict[str, Any]:
    return {"unit": unit, "avg": avg, **more}


AIPERF: dict[str, Any] = {
    "schema_version": "1.4",
    "aiperf_version": "0.13.0",
    "request_throughput": _stat("requests/sec", 2.0),
    "request_latency": _stat("ms", 900.0, p50=880.0, p90=950.0, p95=960.0, p99=990.0),
    "request_count": _stat("requests", 4.0),
    "error_request_count": _stat("requests", 1.0),
    "time_to_first_token": _stat("ms", 120.0, p50=100.0, p99=300.0),
    "inter_token_latency": _stat("ms", 10.0, p50=9.5),
    "inter_chunk_latency": _stat("ms", 20.0, p50=19.0),
    "output_token_throughput": _stat("tokens/sec", 100.0),
    "output_sequence_length": _stat("tokens", 50.0),
    "input_sequence_length": _stat("tokens", 100.0),
    "benchmark_duration": _stat("sec", 2.0),
    "total_draft_tokens": _stat("tokens", 60.0),
    "total_accepted_draft_tokens": _stat("tokens", 30.0),
    "pooled_spec_decode_acceptance_histogram": {"0": 8, "2": 6, "3": 6},
    "input_config": {
        "models": {"items": [{"name": "org/model"}]},
        "phases": [
            {"name": "warmup", "kind": "warmup", "type": "concurrency", "concurrency": 1},
            {"name": "profiling", "kind": "profiling", "type": "concurrency", "concurrency": 2},
        ],
    },
}
TRTLLM: dict[str, Any] = {
    "engine": {"model": "org/model", "version": "1.1.0"},
    "world_info": {"tp_size": 1, "max_batch_size": 8},
    "request_info": {
        "num_requests": 4, "avg_num_concurrent_requests": 1.8, "avg_input_length": 100.0,
        "avg_output_length": 50.0,
    },
    "performance": {
        "total_latency_ms": 2000.0, "system_output_throughput_tok_s": 100.0,
        "request_latency_percentiles_ms": {"average": 900.0, "p50": 880.0, "p99": 990.0},
    },
    "streaming_metrics": {
        "ttft_percentiles": {"average": 120.0, "p50": 100.0}, "tpot_percentiles": {"average": 10.0},
    },
    "decoding_stats": {
        "mode": "Eagle",
        "num_draft_tokens_percentiles": {"average": 60.0},
        "num_accepted_draft_tokens_percentiles": {"average": 30.0},
    },
}  # fmt: skip
