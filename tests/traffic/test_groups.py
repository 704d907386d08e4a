"""Replicas of data-parallel groups, and prefills with experts: traffic agrees with what prices a step."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from served import H100, drawn

from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.errors import InfeasibleError
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import least_eager_s, price_prefill
from perfmodel.memory import largest_batch
from perfmodel.model import ModelSpec
from perfmodel.traffic.policies import FixedGamma
from perfmodel.traffic.prefill_apart import ready_times, transfer_seconds
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.simulate import simulate
from perfmodel.traffic.steady_state import Load, Machine, most_that_fit, points_of
from perfmodel.traffic.step_times import CAUSES, StepTimes
from perfmodel.traffic.trace import Trace

H200 = HardwareProfile.load("h200-sxm")
EXPERTS, LLAMA = ModelSpec.load("qwen3-30b-a3b"), ModelSpec.load("llama-3.1-8b")
VLLM, SGLANG, IDEAL = map(EngineOverhead.load, ("vllm", "sglang", "ideal"))


def prefilled(table: StepTimes, chunks: list[tuple[int, int, bool]], decode: int = 0) -> float:
    """Seconds of a step of chunks, with so many sequences that decode."""
    seconds = table.rounds(decode, 0).at(1000.0) if decode else [0.0] * len(CAUSES)
    table.prefill(seconds, decode, chunks)
    return sum(seconds)


# Caches.


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_traffic_fits_as_many_sequences_as_memory_does(groups):
    most = int(largest_batch(H200, EXPERTS, VLLM, context_len=8192.0, data_parallel=float(groups)))
    served = Replica(Deployment(H200, EXPERTS, VLLM, data_parallel=float(groups)), max_batch=most)
    load = Load(1.0, 8192 - 300 - served.look_ahead, 300)
    assert most_that_fit(served, load, apart=True) == pytest.approx(most, rel=0.02)
    assert served.cache_bytes == groups * served.group_bytes


def test_a_simulation_lets_in_as_many_more_as_there_are_groups():
    engine = IDEAL.with_values({"memory_utilization": 0.3}, source="test")
    peaks = []
    for groups in (1, 4):
        served = Replica(Deployment(H100, LLAMA, engine, data_parallel=groups), max_batch=256)
        trace = drawn(200, np.inf, 8000, 200, spread=0)
        peaks.append(float(simulate(served, trace, FixedGamma(0)).timeline["decoding"].max()))
    assert peaks[1] > 3.0 * peaks[0]


def test_one_request_has_one_group():
    served = Replica(Deployment(H100, LLAMA, IDEAL, data_parallel=2))
    tokens = int(1.5 * served.group_bytes / served.most_bytes_per_token)
    trace = Trace("long", np.zeros(1), np.array([tokens]), np.ones(1, dtype=np.int64))
    with pytest.raises(InfeasibleError, match="longest request"):
        simulate(served, trace, FixedGamma(0))


def test_a_replica_that_prefills_serves_a_prompt_in_each_group():
    """Eight prompts on four groups take two turns, each as long as a step with a prompt in every group."""
    served = Replica(Deployment(H200, EXPERTS, VLLM, data_parallel=4.0))
    table = StepTimes(served, [0], 10_000)
    together = float(price_prefill(served.deployment, batch=4.0, prompt_tokens=8000.0).total)
    trace = Trace("burst", np.zeros(8), np.full(8, 8000), np.full(8, 10))
    ready = ready_times(table, trace, 1) - transfer_seconds(served, 8000.0) - served.front_end_s
    assert_allclose(ready, together * np.repeat([1.0, 2.0], 4), rtol=0.01)
    assert ready[0] > prefilled(table, [(8000, 0, True)])  # the others' tokens visit the same experts


def test_a_replica_of_groups_takes_as_many_more_prompts():
    """Without experts groups are replicas of one another."""
    load = Load(1.0, 4000, 400)
    taken = []
    for groups in (1, 4):
        served = Replica(Deployment(H100, LLAMA, IDEAL, data_parallel=groups))
        points = points_of(served, Machine.of(served, (0,), load), load, 0.9, 256, None, apart=1e3)
        taken.append(points.prefill_qps[0, 0])
    assert taken[1] == pytest.approx(4.0 * taken[0])


# Prefills of models with experts.


@pytest.mark.parametrize("tokens", [16, 512, 8192])
def test_a_simulated_prefill_takes_what_a_prefill_does(tokens):
    served = Replica(Deployment(H100, EXPERTS, SGLANG))
    assert least_eager_s(served.deployment) > 0.0
    table = StepTimes(served, [0], 20_000)
    expected = price_prefill(served.deployment, batch=1.0, prompt_tokens=float(tokens)).total
    assert_allclose(prefilled(table, [(tokens, 0, True)]), expected, rtol=0.02)


def test_layers_are_launched_once_a_step_however_many_chunks_it_has():
    table = StepTimes(Replica(Deployment(H100, EXPERTS, SGLANG)), [0], 20_000)
    least = float(least_eager_s(table.replica.deployment))
    for chunks in ([(16, 0, True)], [(16, 0, True), (20, 0, True)]):
        for decode in (0, 4):
            assert prefilled(table, chunks, decode) == pytest.approx(least)


def test_one_more_row_does_not_pay_for_launches():
    """Two chunks that launches bound take the same; the slope between them is the kernels'."""
    free = SGLANG.on(H100)
    slow, fast = (
        Machine.of(
            Replica(Deployment(H100, EXPERTS, free.with_values({"eager_expert_layer": each}))),
            (0,), Load(1.0, 512, 100),
        )
        for each in (5e-3, 0.0)
    )  # fmt: skip
    assert slow.row == fast.row > 0.0
    assert slow.chunk == pytest.approx(EXPERTS.num_layers * 5e-3)
    assert fast.chunk < slow.chunk / 2.0


# The engine's own time.


@pytest.mark.parametrize("groups", [1, 4])
def test_groups_sample_beside_each_other(groups):
    """What a sequence takes is paid for the sequences of one group, in steps with and without prefill."""
    busy = []
    for row in (0.0, 1e-3):
        engine = IDEAL.with_values({"row": row})
        served = Replica(Deployment(H100, LLAMA, engine, data_parallel=groups))
        load = Load(1.0, 4000, 400)
        machine = Machine.of(served, (0,), load)
        points = points_of(served, machine, load, 0.5, 256, None)
        at = int(np.argmin(np.abs(machine.batches - 64)))
        batch = float(machine.batches[at])
        busy.append(1.0 / float(points.qps[at, 0]))
    assert busy[1] - busy[0] == pytest.approx(1e-3 * np.ceil(batch / groups) * 400 / batch, rel=0.02)
