"""Published benchmarks: what was asked is what is simulated, and which figures keep their limits is told."""

import math
from dataclasses import replace

import numpy as np
import pytest

from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.evidence.servers.rows import published_servers
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


def test_lengths_have_the_published_means_and_none_is_longer_than_the_data_set_keeps():
    run = by_name("qwen3-32b-a100-ShareGPT")
    trace = trace_of(run.benchmark, spread=run.spread, longest=run.longest)
    assert trace.prompt_tokens.mean() == pytest.approx(217.4, abs=1.0)
    assert trace.output_tokens.mean() == pytest.approx(201.4, abs=1.0)
    assert max(trace.prompt_tokens.max(), trace.output_tokens.max()) == 1024
    rated = by_name("70b-tp8-a100-40-qps4")
    arrival = trace_of(rated.benchmark, spread=rated.spread, longest=rated.longest).arrival
    assert arrival[-1] == pytest.approx((rated.benchmark.requests - 1) / 4.0)


def test_what_is_over_its_limit_is_missed_and_a_doubted_run_concludes_nothing():
    run = by_name("qwen3-8b-h100-latency-ShareGPT-c1")
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


@pytest.mark.parametrize("name", ["4000x200", "2000x100"])
def test_saturated_runs_keep_their_limits(name):
    missed = beside(by_name(f"qwen3-32b-a100-random-{name}")).missed()
    assert missed == []


@pytest.mark.slow
def test_how_many_figures_keep_their_limits():
    """What was reached when this was written; a change that loses one has to say so."""
    kept = {load: dict.fromkeys(limits, 0) for load, limits in LIMITS.items()}
    for run in published_runs():
        if not run.doubt:
            missed = {figure.name for figure in beside(run).missed()}
            for name in LIMITS[run.load]:
                kept[run.load][name] += name not in missed
    assert kept["all at once"]["output throughput"] >= 5
    assert kept["all at once"]["TPOT median"] >= 4
    assert kept["rate"]["TTFT median"] == 3


def test_a_row_that_cannot_be_read_is_named():
    header = ",".join(COLUMNS)
    row = ["x"] + [""] * (len(COLUMNS) - 1)
    row[COLUMNS.index("hardware")] = "h100-sxm-80gb"
    row[COLUMNS.index("engine")], row[COLUMNS.index("model")] = "vllm", "qwen3-8b"
    with pytest.raises(SpecError, match="requests"):
        read_runs(f"{header}\n{','.join(row)}\n".encode(), "runs.csv")
    assert np.isfinite(published_runs()[0].benchmark.tpot.mean)
