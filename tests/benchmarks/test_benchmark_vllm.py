"""What vLLM's benchmark saves is read with its units, its arrivals and its drafts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import VLLM

from perfmodel.benchmarks import Benchmark, Times, read_benchmarks
from perfmodel.errors import SpecError


def read(tmp_path: Path, *results: dict[str, Any]) -> list[Benchmark]:
    file = tmp_path / "anything.txt"
    file.write_text("\n".join(json.dumps(result) for result in results), encoding="utf-8")
    return read_benchmarks(file)


def test_a_saved_result_is_read_in_seconds_and_tokens_per_request(tmp_path: Path) -> None:
    (run,) = read(tmp_path, VLLM)
    assert (run.tool, run.model, run.requests, run.failed) == ("vllm bench serve", "org/model", 4, 0)
    assert (run.concurrency, run.request_rate, run.duration) == (2.0, math.inf, 2.0)
    assert (run.prompt_tokens, run.output_tokens, run.output_throughput) == (100.0, 50.0, 100.0)
    assert run.ttft == Times(mean=0.12, median=0.1, p99=0.3)
    assert (run.tpot.median, run.itl.p99) == (0.0095, 0.04)
    assert run.latency == Times() and run.mean_concurrency is None and run.prompt_lengths is None


def test_drafts_are_the_counts_of_the_run(tmp_path: Path) -> None:
    (run,) = read(tmp_path, VLLM)
    assert run.drafts is not None and run.drafts.requests == 4.0
    assert (run.drafts.rounds[0], run.drafts.drafted[0], run.drafts.accepted[0]) == (100.0, 300.0, 100.0)
    assert run.drafts.reached is not None and run.drafts.reached.tolist() == [[60.0, 30.0, 10.0]]
    plain = {key: value for key, value in VLLM.items() if not key.startswith("spec_decode")}
    assert read(tmp_path, plain)[0].drafts is None


@pytest.mark.parametrize(("shape", "squared"), [(1.0, 1.0), (0.25, 4.0), (4.0, 0.25)])
def test_burstiness_is_the_shape_of_a_gamma_law(shape: float, squared: float, tmp_path: Path) -> None:
    (run,) = read(tmp_path, {**VLLM, "request_rate": 5.0, "burstiness": shape, "max_concurrency": None})
    assert (run.request_rate, run.burstiness, run.concurrency) == (5.0, squared, None)


def test_appended_results_and_long_lists_are_read(tmp_path: Path) -> None:
    lists = {
        "input_lens": [100, 90, 110, 100],
        "output_lens": [50, 60, 0, 90],
        "ttfts": [0.1, 0.1, 0.0, 0.2],
        "itls": [[0.2, 0.1], [0.3], [], [1.0]],
    }
    one, other = read(tmp_path, VLLM, {**VLLM, **lists, "completed": 3, "failed": 1})
    assert one.source.endswith(":1") and other.source.endswith(":2")
    assert other.prompt_lengths is not None and other.prompt_lengths.tolist() == [100, 90, 100]
    assert other.output_lengths is not None and other.output_lengths.tolist() == [50, 60, 90]
    assert other.mean_concurrency == pytest.approx((0.4 + 1.6) / 2.0)


def test_requests_in_flight_follow_little_where_latency_is_told(tmp_path: Path) -> None:
    (run,) = read(tmp_path, {**VLLM, "mean_e2el_ms": 800.0, "p50_e2el_ms": 700.0})
    assert run.mean_concurrency == pytest.approx(4 * 0.8 / 2.0)
    assert run.latency == Times(mean=0.8, median=0.7)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"completed": 0}, "completed: no request was answered"),
        ({"total_input_tokens": "many"}, "total_input_tokens: found 'many'"),
        ({"total_output_tokens": None}, "total_output_tokens: is missing"),
        ({"mean_ttft_ms": -1.0}, "mean_ttft_ms: found -1.0"),
        ({"request_rate": "fast"}, "request_rate: found 'fast'"),
        ({"request_rate": 3.0, "burstiness": 0.0}, "burstiness: found 0"),
        ({"input_lens": [1, 2], "output_lens": [1]}, "output_lens: 1 outputs beside 2 inputs"),
        ({"spec_decode_accepted_tokens": 400}, "spec_decode_accepted_tokens: 400 accepted of 300"),
        ({"spec_decode_per_position_acceptance_rates": [0.9, 0.9]}, "acceptance_rates: the rates give 180"),
    ],
)
def test_a_wrong_key_is_refused_with_its_line(
    changed: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps({**VLLM, **changed}, indent=1), encoding="utf-8")
    with pytest.raises(SpecError) as refused:
        read_benchmarks(file)
    fault = refused.value.faults[0]
    assert complaint in str(fault) and fault.line is not None and fault.line > 1
    assert fault.field in file.read_text().splitlines()[fault.line - 1]


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}', "[1]", "nothing", '{"a": ' * 100000])
def test_what_no_tool_wrote_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError):
        read_benchmarks(file)
    with pytest.raises(SpecError, match="does not exist"):
        read_benchmarks(tmp_path / "absent.json")
