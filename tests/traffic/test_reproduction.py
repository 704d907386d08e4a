"""Benchmarks as questions: what was asked of the server is simulated, and lies beside what it answered."""

import json

import numpy as np
import pytest
from served import ENGINE, drawn, replica

from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.benchmarks import Benchmark, Times
from perfmodel.traffic.reproduction import (
    drafted_by,
    figures_beside,
    in_flight_of,
    is_benchmark,
    remarks_on,
    trace_of,
)
from perfmodel.traffic.simulate import FixedGamma, simulate


def benchmark(**more):
    known = {"source": "a.json:1", "tool": "vllm bench serve", "requests": 40, "prompt_tokens": 900.0}
    return Benchmark(**(known | {"output_tokens": 60.0} | more))


def measured(outcome):
    """What a benchmark tool would print of a simulated run."""
    def times(values):
        median, p99 = np.percentile(values, [50, 99])
        return Times(mean=float(np.mean(values)), median=float(median), p99=float(p99))

    trace = outcome.trace
    return benchmark(
        prompt_lengths=trace.prompt_tokens, output_lengths=trace.output_tokens, concurrency=6.0,
        output_throughput=float(trace.output_tokens.sum()) / outcome.makespan, ttft=times(outcome.ttft),
        tpot=times(outcome.tpot[trace.output_tokens > 1]), latency=times(outcome.end_to_end),
    )  # fmt: skip


def test_what_a_simulated_server_would_print_is_reproduced_exactly():
    outcome = simulate(replica(), drawn(40, np.inf, 900, 60), FixedGamma(0), concurrency=6)
    printed = measured(outcome)
    again = simulate(replica(), trace_of(printed), FixedGamma(0), concurrency=in_flight_of(printed))
    figures = figures_beside(printed, again)
    assert len(figures) == 10
    assert all(figure.error == pytest.approx(0.0, abs=1e-12) for figure in figures)
    slower = ENGINE.with_values({"layer": 1e-4}, source="test")
    behind = simulate(replica(engine=slower), trace_of(printed), FixedGamma(0), concurrency=6)
    errors = {figure.name: figure.error for figure in figures_beside(printed, behind)}
    assert errors["TPOT median"] > 0.1 > 0.0 > errors["output throughput"]


def test_rate_burstiness_and_lengths_are_those_of_the_benchmark():
    told = trace_of(benchmark(requests=4000, request_rate=5.0, burstiness=4.0))
    gaps = np.diff(told.arrival)
    assert told.qps == pytest.approx(5.0, rel=0.1)
    assert (gaps.std() / gaps.mean()) ** 2 == pytest.approx(4.0, rel=0.2)
    assert set(told.prompt_tokens) == {900}
    assert in_flight_of(benchmark()) is None
    assert "by their means only" in remarks_on(benchmark())[0]
    spread = trace_of(benchmark(requests=4000), spread=1.0)
    assert spread.output_tokens.mean() == pytest.approx(60, rel=0.1)
    assert np.all(spread.arrival == 0.0)


def counts(drafted=300.0, **more):
    return AcceptanceCounts(
        unit="total", rounds=np.array([100.0]), drafted=np.array([drafted]), accepted=np.array([150.0]),
        gamma=np.array([3.0]), **more,
    )  # fmt: skip


def test_failed_requests_and_drafts_of_several_lengths_are_told():
    assert len(remarks_on(benchmark())) == 1
    assert "14 requests failed" in remarks_on(benchmark(failed=14))[0]
    assert len(remarks_on(benchmark(drafts=counts(290.0)))) == 1
    assert "2.00 tokens on average, 3 at most" in remarks_on(benchmark(drafts=counts(200.0)))[0]


def test_another_model_and_chunks_in_bundles_are_told():
    served = benchmark(model="meta-llama/Llama-3.1-8B-Instruct")
    assert len(remarks_on(served, "Llama-3.1-8B")) == 1
    assert "calls its model meta-llama" in remarks_on(served, "Qwen3-8B")[0]
    bundled = benchmark(itl=Times(median=3e-6), tpot=Times(median=4e-3))
    assert "in bundles" in remarks_on(bundled)[0]
    assert not benchmark(itl=Times(median=8e-3), tpot=Times(median=4e-3)).in_bundles


def test_what_was_drafted_is_a_length_and_tokens_per_round():
    assert drafted_by(benchmark()) == (0, 1.0)
    assert drafted_by(benchmark(drafts=counts())) == (3, 2.5)
    assert drafted_by(benchmark(drafts=counts(idle=np.array([50.0])))) == (3, 2.0)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (json.dumps({"completed": 3, "total_input_tokens": 5}), True),
        ('{"timestamp": 0, "input_length": 5, "output_length": 3}\n{"timestamp": 1}', False),
        ("arrival_s,prompt_tokens,output_tokens\n0,1,1\n", False),
        ("{", False),
        ("\xff", False),
    ],
)
def test_a_benchmark_is_told_from_a_trace(tmp_path, text, is_one):
    path = tmp_path / "what"
    path.write_bytes(text.encode("latin-1"))
    assert is_benchmark(str(path)) is is_one
