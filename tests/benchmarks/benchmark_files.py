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
