"""Prompts prefilled on replicas of their own: what they take, what decoding serves, and all GPUs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import strategies
from perfmodel.deployment import Deployment, Drafter
from perfmodel.engine import EngineOverhead
from perfmodel.errors import InfeasibleError
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import price_prefill
from perfmodel.latency.all_reduce import NETWORK_SHARE
from perfmodel.model import ModelSpec
from perfmodel.planning.price import SearchSpace
from perfmodel.traffic.policies import FixedGamma
from perfmodel.traffic.prefill_apart import prompt_seconds, ready_times, transfer_seconds
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.simulate import simulate
from perfmodel.traffic.sizing import size
from perfmodel.traffic.steady_state import Load, Machine, Targets, points_of, rank_candidates
from perfmodel.traffic.step_times import StepTimes
from perfmodel.traffic.synthetic import synthetic_trace
from perfmodel.traffic.trace import Trace
from tests.cli.asking import asked

LLAMA, ENGINE = ModelSpec.load("llama-3.1-8b"), EngineOverhead.load("ideal")
H100 = HardwareProfile.load("h100-sxm-80gb")
REPLICA = Replica(Deployment(H100, LLAMA, ENGINE, 2))
TABLE = StepTimes(REPLICA, [0], 40_000)
LOAD, TARGETS = Load(6.0, 8000, 300), Targets(3.0, 0.03)
WINDOW = Drafter(strategies.load("streaming_llm"))
SPACE = SearchSpace((WINDOW,), (0, 2, 4), (1024,))


def requests(arrival: list[float], prompt: int = 8000) -> Trace:
    lengths = np.full(len(arrival), prompt)
    return Trace("given", np.array(arrival), lengths, np.full(len(arrival), 100))


class TestPrompts:
    def test_a_cache_travels_with_what_every_gpu_holds(self):
        """Llama 3.1 8B keeps 131,072 B a token, half of it on each of two GPUs."""
        half = 10_000 * 131_072 / 2
        expected = H100.network_latency + half / (NETWORK_SHARE * H100.network_bandwidth)
        assert_allclose(transfer_seconds(REPLICA, 10_000.0), expected)

    @given(st.floats(1.0, 1e6))
    def test_more_network_is_never_slower_and_more_tokens_never_faster(self, tokens):
        better = Replica(Deployment(H100.with_values({"network.bandwidth": 1e11}), LLAMA, ENGINE, 2))
        assert transfer_seconds(better, tokens) <= transfer_seconds(REPLICA, tokens)
        assert transfer_seconds(REPLICA, tokens) <= transfer_seconds(REPLICA, 2.0 * tokens)

    @pytest.mark.parametrize("tokens", [1, 8192])
    def test_a_prompt_of_one_chunk_takes_a_prefill(self, tokens):
        expected = price_prefill(REPLICA.deployment, batch=1.0, prompt_tokens=float(tokens)).total
        assert_allclose(prompt_seconds(TABLE, np.array([1.0, tokens]))[-1], expected, rtol=0.01)

    def test_they_are_served_one_after_the_other_on_each_replica(self):
        lasts = prompt_seconds(TABLE, np.array([8000.0]))[0]
        moves = float(transfer_seconds(REPLICA, 8000.0))
        burst = requests([0.0, 0.0, 0.0, 100.0])
        for replicas, turns in ((1, [1, 2, 3]), (2, [1, 1, 2]), (3, [1, 1, 1])):
            ready = ready_times(TABLE, burst, replicas)
            assert_allclose(ready, [turn * lasts + moves for turn in turns] + [100.0 + lasts + moves])

    def test_more_replicas_are_never_later(self):
        trace = synthetic_trace(requests=200, qps=8.0, prompt_tokens=8000, output_tokens=100, seed=1)
        times = [ready_times(TABLE, trace, replicas) for replicas in (1, 2, 4)]
        assert np.all(times[0] >= times[1])
        assert np.all(times[1] >= times[2])


class TestADecodingReplica:
    def test_its_steps_are_free_of_prompts(self):
        trace = synthetic_trace(requests=100, qps=4.0, prompt_tokens=8000, output_tokens=200, seed=2)
        mixed = simulate(REPLICA, trace, FixedGamma(0))
        apart = simulate(REPLICA, trace, FixedGamma(0), prefilled=True)
        assert apart.summary()["prefilled_tokens"] == 0.0
        assert apart.tpot.mean() < mixed.tpot.mean()
        assert np.all(apart.finish >= apart.first_token)

    @pytest.mark.parametrize("batch", [8, 40])
    def test_the_steady_state_is_what_a_long_simulation_settles_at(self, batch):
        load = Load(1.0, 8000, 1000, spread=0.0, burstiness=0.0)
        machine = Machine.of(REPLICA, (0,), load)
        points = points_of(REPLICA, machine, load, 0.5, 256, None, apart=100.0)
        row = int(np.argmin(np.abs(machine.batches - batch)))
        trace = synthetic_trace(
            requests=400, qps=points.qps[row, 0], prompt_tokens=8000, output_tokens=1000, spread=0,
            burstiness=0,
        )  # fmt: skip
        outcome = simulate(REPLICA, trace, FixedGamma(0), prefilled=True)
        assert outcome.tpot[200:350].mean() == pytest.approx(points.tpot[row, 0], rel=0.05)

    def test_it_serves_more_than_one_that_prefills_and_meets_the_same_targets(self):
        deployments = [Deployment(H100, LLAMA, ENGINE, 2)]
        mixed, apart = (
            {each.label: each for each in rank_candidates(
                deployments, SPACE, LOAD, TARGETS, prefill_apart=prefill_apart)}
            for prefill_apart in (False, True)
        )  # fmt: skip
        for label, candidate in apart.items():
            assert candidate.apart
            assert candidate.qps > mixed[label].qps
            assert candidate.ttft <= TARGETS.ttft
        assert not any(each.apart or each.prefill_replicas(LOAD.qps) for each in mixed.values())

    def test_a_slower_network_takes_more_prefill_or_none_can(self):
        def prefill_qps(bandwidth: float) -> float:
            profile = H100.with_values({"network.bandwidth": bandwidth})
            deployments = [Deployment(profile, LLAMA, ENGINE, 2)]
            ranked = rank_candidates(
                deployments, SearchSpace((), (0,)), LOAD, Targets(1.0, 0.03), prefill_apart=True
            )
            return ranked[0].prefill_qps

        assert prefill_qps(50e9) > prefill_qps(1.5e9)
        with pytest.raises(InfeasibleError, match="TTFT"):
            prefill_qps(1e8)


def test_gpus_and_rent_count_those_that_prefill_too():
    sizing = size(
        [Deployment(H100, LLAMA, ENGINE, 2)], SearchSpace((), (0,)), Load(12.0, 8000, 300), TARGETS,
        prefill_apart=True,
    )  # fmt: skip
    best, row = sizing.best, sizing.best.row(sizing.load)
    assert best.prefill >= 1
    assert best.gpus == 2 * (best.replicas + best.prefill) == row["gpus"]
    assert_allclose(best.cost, best.gpus * float(np.asarray(H100.price_per_hour)))
    assert row["share_meeting_targets"] >= TARGETS.share


def test_the_command_counts_both():
    answer = asked(
        "size", "--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--engine", "ideal", "--tp", "1",
        "--target-qps", "4", "--context", "8k", "--output-tokens", "200", "--ttft", "3s", "--tpot", "30",
        "--gamma", "0", "--prefill-apart",
    )  # fmt: skip
    best = answer["best"]
    assert best["prefill_replicas"] >= 1
    assert best["gpus"] == best["replicas"] + best["prefill_replicas"]
