"""Published benchmarks: what was asked is what is simulated, and which figures keep their limits is told."""

import math
from dataclasses import replace

import numpy as np
import pytest

from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.evidence.servers.rows import published_servers
from perfmodel.hardware import HardwareProfile
from perfmodel.traffic.published_runs import COLUMNS, LIMITS, Beside, beside, published_runs, read_runs
from perfmodel.traffic.reproduction import Figure, trace_of


def by_name(name):
    return next(run for run in published_runs() if run.benchmark.source == name)


def test_every_run_has_a_public_source_and_fits_itself():
    runs = published_runs()
    assert len(runs) == 22
    assert {run.load for run in runs} == {"closed loop", "rate", "all at once"}
    for run in runs:
        assert run.url.startswith("https://github.com/")
        assert "Apache-2.0" in run.publisher
        asked = run.benchmark
        assert asked.ttft.median <= asked.ttft.p99
        # What is published is consistent: tokens a second come of requests that take TTFT and TPOT each.
        if asked.concurrency is not None:
            each = asked.ttft.mean + asked.tpot.mean * (asked.output_tokens - 1)
            most = asked.concurrency / each * asked.output_tokens
            assert asked.output_throughput <= 1.05 * most, asked.source


def test_no_engine_was_taught_by_the_publisher_it_is_judged_by():
    teachers = {row.source for row in published_servers() if "gpustack" in row.source}
    assert len(teachers) == 1  # the page of closed loops, of Hopper accelerators alone
    for run in published_runs():
        engine = run.deployment.engine
        if "GPUStack" in run.publisher and run.deployment.hardware.family == "hopper":
            assert engine.fitted_to != EngineOverhead.load(f"{engine.software}-h100").fitted_to


def test_requests_that_were_published_one_by_one_are_those_that_are_sent():
    """70B on A100s: 200 requests of ShareGPT, 42,659 prompt tokens, at the gaps of numpy's seed 0."""
    puts_out = {"1": 42_722, "4": 42_449, "16": 42_770, "inf": 42_398}
    for rate, tokens in puts_out.items():
        run = by_name(f"70b-tp8-a100-40-qps{rate}")
        assert (len(run.requests), run.requests.prompt_tokens.sum()) == (200, 42_659)
        assert run.requests.output_tokens.sum() == tokens
        gaps = np.random.RandomState(0).exponential(1.0, 199)
        last = gaps.sum() / run.benchmark.request_rate
        assert run.requests.arrival[-1] == pytest.approx(last, abs=1e-4)
        assert run.benchmark.output_tokens == pytest.approx(213.3, rel=0.01)


def test_lengths_of_the_same_data_set_have_the_published_means():
    run = by_name("qwen3-32b-a100-ShareGPT")
    assert run.requests.prompt_tokens.mean() == pytest.approx(217.4, abs=1.0)
    assert run.requests.output_tokens.mean() == pytest.approx(201.4, abs=1.0)
    assert len(run.requests) == 1000
    longest = run.requests.prompt_tokens.max()
    assert 900 < longest < 1024  # the sampler keeps none above 1,024
    assert by_name("qwen3-32b-a100-random-4000x200").requests is None
    rated = by_name("70b-tp8-a100-40-qps4").benchmark
    assert trace_of(rated).arrival[-1] == pytest.approx((rated.requests - 1) / 4.0)


def test_time_to_first_token_is_judged_where_the_front_end_is_known():
    chat = by_name("qwen3-8b-h100-latency-ShareGPT-c1")
    assert "chat completions" in chat.front_end
    assert set(chat.limits) == {"output throughput", "TPOT median"}
    late = Figure("TTFT median", 1.0, 3.0, "ms")
    assert Beside(chat, (late,)).missed() == []
    assert Beside(replace(chat, front_end=""), (late,)).missed() == [late]
    assert by_name("70b-tp8-a100-40-qps1").limits == LIMITS["rate"]


def test_a_server_is_of_the_release_that_was_served():
    """0.11 waits for its host; 0.8.2 runs graphs in pieces besides."""
    engine, h100 = EngineOverhead.load("vllm"), HardwareProfile.load("h100-sxm-80gb")
    older = by_name("qwen3-8b-h100-latency-ShareGPT-c1").deployment.engine
    assert float(older.row_s) > float(engine.on(h100).row_s) + 30e-6
    first = by_name("70b-tp8-a100-40-qps1").deployment
    assert float(first.engine.layer_s) > float(engine.on(first.hardware).layer_s) + 30e-6


def test_what_is_over_its_limit_is_missed_and_a_doubted_run_concludes_nothing():
    run = by_name("70b-tp8-a100-40-qps1")
    near, far = Figure("TPOT median", 1.0, 1.04, "ms"), Figure("TTFT median", 1.0, 1.3, "ms")
    beside_limits = Figure("TTFT p99", 1.0, 9.0, "ms")
    assert Beside(run, (near, far, beside_limits)).missed() == [far]
    assert Beside(replace(run, doubt="why"), (near, far, beside_limits)).missed() == []
    assert LIMITS["closed loop"]["TPOT median"] == 0.05
    assert math.isnan(Figure("x", 0.0, 1.0, "ms").error)


def test_a_run_that_drafts_trees_is_told_and_not_simulated():
    assert beside(by_name("qwen3-8b-h100-eagle3-c1")).figures == ()


def test_prompts_that_were_served_before_are_not_prefilled_again():
    """70B on A100s at 16 requests a second: TTFT of 58 ms leaves no room for prefill."""
    run = by_name("70b-tp8-a100-40-qps16")
    figures = {figure.name: figure for figure in beside(run).figures}
    again = {figure.name: figure for figure in beside(replace(run, cached=False)).figures}
    assert abs(figures["TTFT median"].error) < 0.2 < again["TTFT median"].error
    assert figures["output throughput"].error == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("name", ["qwen3-32b-a100-random-4000x200", "qwen3-32b-a100-random-2000x100"])
def test_saturated_runs_keep_their_limits(name):
    assert beside(by_name(name)).missed() == []


@pytest.mark.parametrize("in_flight", [1, 2, 4, 8])
def test_closed_loops_keep_their_limits(in_flight):
    assert beside(by_name(f"qwen3-8b-h100-latency-ShareGPT-c{in_flight}")).missed() == []


@pytest.mark.slow
def test_how_many_figures_keep_their_limits():
    """What was reached when this was written; a change that loses one has to say so."""
    kept = {load: dict.fromkeys(limits, 0) for load, limits in LIMITS.items()}
    for run in published_runs():
        if not run.doubt:
            missed = {figure.name for figure in beside(run).missed()}
            for name in run.limits:
                kept[run.load][name] += name not in missed
    assert kept["closed loop"] == {"output throughput": 4, "TPOT median": 4, "TTFT median": 0}
    assert kept["rate"] == {"output throughput": 3, "TPOT median": 0, "TTFT median": 3}
    assert kept["all at once"] == {"output throughput": 5, "TPOT median": 5, "TTFT median": 0}


def test_a_row_that_cannot_be_read_is_named():
    header = ",".join(COLUMNS)
    row = ["x"] + [""] * (len(COLUMNS) - 1)
    row[COLUMNS.index("hardware")] = "h100-sxm-80gb"
    row[COLUMNS.index("engine")], row[COLUMNS.index("model")] = "vllm", "qwen3-8b"
    with pytest.raises(SpecError, match="requests"):
        read_runs(f"{header}\n{','.join(row)}\n".encode(), "runs.csv")
    assert np.isfinite(published_runs()[0].benchmark.tpot.mean)
