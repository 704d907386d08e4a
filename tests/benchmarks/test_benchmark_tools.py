"""Every benchmark tool's result becomes the same figures in the same units."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import AIPERF, SGLANG, SGLANG_BLOCK, TRTLLM, VLLM, VLLM_BLOCK, guided

from perfmodel.acceptance.logs import read_log
from perfmodel.benchmarks import Benchmark, Times, read_benchmarks
from perfmodel.errors import SpecError

FILES = {
    "vllm bench serve": json.dumps(VLLM),
    "sglang.bench_serving": json.dumps(SGLANG),
    "AIPerf": json.dumps(AIPERF, indent=2),
    "trtllm-bench": json.dumps(TRTLLM, indent=4),
    "the block of vLLM": VLLM_BLOCK,
    "the block of SGLang": SGLANG_BLOCK,
}


def read(tmp_path: Path, text: str, gamma: int | None = None) -> list[Benchmark]:
    file = tmp_path / "result"
    file.write_text(text, encoding="utf-8")
    return read_benchmarks(file, gamma)


@pytest.mark.parametrize("tool", FILES)
def test_the_same_run_is_the_same_figures(tool: str, tmp_path: Path) -> None:
    (run,) = read(tmp_path, FILES[tool])
    assert run.tool == tool or tool.startswith("the block")
    assert (run.requests, run.duration, run.prompt_tokens) == (4, 2.0, 100.0)
    assert run.output_tokens == pytest.approx(50.0, abs=1.0)
    assert run.ttft.mean == pytest.approx(0.12)
    assert run.tpot.mean in (None, pytest.approx(0.01))
    if tool not in ("trtllm-bench", "the block of SGLang"):
        assert run.concurrency == 2.0
    if "vLLM" not in tool and "vllm" not in tool:
        assert run.mean_concurrency == pytest.approx(1.8) and run.latency.mean == pytest.approx(0.9)
    if tool != "the block of SGLang":
        assert run.model == "org/model"


def test_sglang_s_lines_are_runs_with_drafts_by_the_server_s_settings(tmp_path: Path) -> None:
    trace = {**SGLANG, "request_rate": "trace", "accept_length": None}
    first, second = read(tmp_path, f"{json.dumps(SGLANG)}\n{json.dumps(trace)}\n")
    assert first.drafts is not None and first.drafts.gamma.tolist() == [3.0]
    assert first.drafts.rounds.tolist() == [80.0] and first.drafts.accepted.tolist() == [120.0]
    assert first.request_rate == math.inf and second.request_rate == 2.0 and second.drafts is None
    assert any("arrived as in a trace" in remark for remark in second.remarks)
    assert any("spread over the tokens of a chunk" in remark for remark in first.remarks)
    settled = read(tmp_path, json.dumps({**SGLANG, "server_info": None}))[0]
    assert settled.drafts is None and any("give gamma" in remark for remark in settled.remarks)
    given = read(tmp_path, json.dumps({**SGLANG, "server_info": None}), gamma=5)[0]
    assert given.drafts is not None and given.drafts.gamma.tolist() == [5.0]


def test_a_printed_block_is_read_wherever_it_stands(tmp_path: Path) -> None:
    text = f"INFO started\n{VLLM_BLOCK}done\n" + "".join(
        f"2026-11-20T10:14:22Z stdout F {line}\n" for line in VLLM_BLOCK.splitlines()
    )
    first, second = read(tmp_path, text)
    for run in (first, second):
        assert (run.request_rate, run.burstiness, run.failed) == (4.0, 2.0, 1)
        assert run.drafts is not None and run.drafts.reached is not None
        assert run.drafts.reached.tolist() == [[60.0, 30.0, 10.0]]
        assert run.itl == Times(p99=0.04)
    assert first.source.endswith(":6") and first.ttft == Times(mean=0.12, median=0.1, p99=0.3)
    (sglang,) = read(tmp_path, SGLANG_BLOCK)
    assert sglang.tool == "sglang.bench_serving" and sglang.concurrency is None
    assert sglang.latency == Times(mean=0.9, p90=0.95) and sglang.request_rate == math.inf


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ({"type_": "synchronous"}, (1.0, math.inf, 1.0)),
        ({"type_": "concurrent", "streams": 8}, (8.0, math.inf, 1.0)),
        ({"type_": "throughput", "max_concurrency": 512}, (512.0, math.inf, 1.0)),
        ({"type_": "constant", "rate": 2.5}, (None, 2.5, 0.0)),
        ({"type_": "poisson", "rate": 2.5, "max_concurrency": 64}, (64.0, 2.5, 1.0)),
    ],
)
def test_strategies_of_guidellm(
    strategy: dict[str, Any], expected: tuple[float, ...], tmp_path: Path
) -> None:
    report = {"metadata": {"version": 2}, "benchmarks": [guided(strategy), guided({"type_": "synchronous"})]}
    first, second = read(tmp_path, json.dumps(report))
    assert (first.concurrency, first.request_rate, first.burstiness) == expected
    assert second.concurrency == 1.0 and second.source.endswith("benchmarks.1")
    assert (first.model, first.requests, first.failed, first.duration) == ("org/model", 40, 2, 30.0)
    assert first.ttft == Times(mean=0.12, median=0.108, p90=0.24, p95=0.36, p99=0.48)
    assert first.tpot.mean == pytest.approx(0.01) and first.latency.mean == 2.0
    assert first.output_lengths is not None and first.output_lengths.tolist() == [50, 51, 52]


def test_older_reports_of_guidellm_are_read(tmp_path: Path) -> None:
    entry = guided({})
    entry["args"] = {"strategy": {"type_": "concurrent", "streams": 4}}
    entry["request_totals"] = entry["metrics"].pop("request_totals")
    del entry["config"]
    (run,) = read(tmp_path, json.dumps({"benchmarks": [entry]}))
    assert (run.concurrency, run.requests, run.failed) == (4.0, 40, 2)


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        ({"loadgen": {"concurrency": 8, "request_rate_mode": "concurrency_burst"}}, (8.0, math.inf, 1.0)),
        ({"loadgen": {"request_rate": 4.0, "request_rate_mode": "constant"}}, (None, 4.0, 0.0)),
        ({"loadgen": {"request_rate": 4.0, "request_rate_mode": "poisson"}}, (None, 4.0, 1.0)),
        ({"phases": [{"name": "p", "type": "gamma", "rate": 4.0, "smoothness": 4.0}]}, (None, 4.0, 0.25)),
        ({"perf_analyzer": {"stimulus": {"concurrency": 16}}}, (16.0, math.inf, 1.0)),
    ],
)
def test_loads_of_aiperf_and_genai_perf(
    load: dict[str, Any], expected: tuple[float, ...], tmp_path: Path
) -> None:
    (run,) = read(tmp_path, json.dumps({**AIPERF, "input_config": load}))
    assert (run.concurrency, run.request_rate, run.burstiness) == expected


def test_aiperf_s_times_have_their_own_units_and_its_histogram_is_the_drafts(tmp_path: Path) -> None:
    ttft = {"unit": "us", "avg": 120000.0}
    (run,) = read(tmp_path, json.dumps({**AIPERF, "time_to_first_token": ttft, "is_complete": False}))
    assert run.ttft.mean == pytest.approx(0.12) and run.itl.median == 0.019
    assert run.drafts is not None and run.drafts.reached is not None
    assert run.drafts.reached.tolist() == [[12.0, 12.0, 6.0]] and run.drafts.drafted.tolist() == [60.0]
    assert any("before it was complete" in remark for remark in run.remarks)


def test_trtllm_bench_tells_rounds_by_tokens_put_out(tmp_path: Path) -> None:
    (run,) = read(tmp_path, json.dumps(TRTLLM))
    assert run.drafts is not None
    assert (run.drafts.rounds[0], run.drafts.drafted[0], run.drafts.accepted[0]) == (80.0, 240.0, 120.0)


def test_acceptance_is_fitted_to_the_same_files(tmp_path: Path) -> None:
    for tool in ("vllm bench serve", "sglang.bench_serving", "AIPerf", "the block of vLLM"):
        (run,) = read(tmp_path, FILES[tool])
        counts = read_log(tmp_path / "result")
        assert run.drafts is not None
        assert counts.rounds.tolist() == run.drafts.rounds.tolist()
        assert counts.accepted.tolist() == pytest.approx(run.drafts.accepted.tolist())
    records = [
        {"metrics": {}, "spec_decode_acceptance": {
            "engine": "vllm", "acceptance_histogram": {"0": 8, "2": 6, "3": 6}, "num_spec_steps": 20,
            "num_accepted_draft_tokens": 30, "num_draft_tokens": 60, "num_spec_tokens": 3}}
    ] * 2 + [{"metrics": {}, "spec_decode_acceptance": None}]  # fmt: skip
    (tmp_path / "records.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    assert read_log(tmp_path / "records.jsonl").rounds.tolist() == [20.0, 20.0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (json.dumps({"elapsed_time": 1.0, "num_requests": 4}), "vllm bench throughput wrote this.*Run vllm"),
        (json.dumps({**AIPERF, "request_count": None, "request_latency": {"unit": "ms"}}), "no request was"),
        (json.dumps({**AIPERF, "request_latency": {"unit": "furlong", "avg": 1}}), "latency.unit: found"),
        (json.dumps({key: AIPERF[key] for key in list(AIPERF)[:5]}), "looks like AIPerf without input_seq"),
        (json.dumps({"benchmarks": []}), "holds no benchmark"),
        (json.dumps({"benchmarks": [guided({"type_": "sweep"})]}), "strategy.type_: found 'sweep'"),
        (VLLM_BLOCK.replace("400", "4x0"), ":9: total_input_tokens: found '4x0'"),
        (VLLM_BLOCK[:400], ":5: looks like vllm bench serve without total_output_tokens"),
        ("the quick brown fox\n", "no known benchmark tool wrote this. Give the result file of sglang"),
        (json.dumps(TRTLLM).replace('"avg_input_length": 100.0', '"avg_input_length": "x"'), "found 'x'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_to_give(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=complaint):
        read(tmp_path, text)
