"""What a replica refuses, what its caches hold, and what is counted of a simulation."""

import pickle

import numpy as np
import pytest
from served import ENGINE, H100, INF, SNAP, drawn, replica, scheduled

import strategies
from perfmodel.acceptance import Acceptance
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.model import ModelSpec
from perfmodel.speculation import Drafter, price_round
from perfmodel.traffic.metrics import Metrics
from perfmodel.traffic.simulate import FixedGamma, simulate
from perfmodel.traffic.trace import Trace

# What is refused.


def test_a_model_that_leaves_no_room_is_infeasible():
    with pytest.raises(InfeasibleError, match=r"133 GiB a GPU, 71\.3 GiB are usable"):
        simulate(replica(target=ModelSpec.load("llama-3.1-70b")), drawn(), FixedGamma(0))


def test_a_request_that_exceeds_the_cache_is_infeasible():
    trace = Trace("one", np.zeros(1), np.array([9_000_000]), np.ones(1, dtype=np.int64))
    with pytest.raises(InfeasibleError, match="longest request has 9000001"):
        simulate(replica(), trace, FixedGamma(0))


@pytest.mark.parametrize(
    ("served", "policy"), [(replica(), FixedGamma(2)), (replica(SNAP, max_gamma=2), FixedGamma(3))]
)
def test_a_policy_that_drafts_more_than_the_replica_is_refused(served, policy):
    with pytest.raises(SpecError, match=r"the replica \d"):
        simulate(served, drawn(), policy)


@pytest.mark.parametrize(
    "more",
    [
        {"spread": 0.5},
        {"spread": -0.1},
        {"alpha": 1.2},
        {"alpha": Acceptance(first=0.5, rest=0.5, tokens=3.0)},
    ],
)
def test_acceptance_that_cannot_be_is_refused(more):
    with pytest.raises(SpecError):
        simulate(replica(SNAP), drawn(), FixedGamma(2), **more)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_batch": 0},
        {"max_step_tokens": 9000},
        {"max_batch": 100, "max_step_tokens": 64},
        {"kv_budget": 0},
    ],
)
def test_limits_that_cannot_be_are_refused(limits):
    with pytest.raises(SpecError, match="replica"):
        replica(SNAP, **limits)


# Caches.


def test_a_window_and_a_budget_bound_what_a_sequence_holds():
    windowed = replica(target=ModelSpec.load("mistral-7b-v0.1"))
    short, window, long = windowed.kv_bytes(np.array([100, 4096, 50_000]))
    assert short < window == long
    drafting, plain = replica(SNAP), replica()
    contexts = np.array([512, 1024, 2048, 40_000])
    beside = drafting.kv_bytes(contexts) - plain.kv_bytes(contexts)
    assert beside[0] < beside[1] == pytest.approx(beside[2]) == pytest.approx(beside[3])


@pytest.mark.parametrize("target", ["llama-3.1-8b", "gpt-oss-20b", "deepseek-v2-lite", "qwen3.5-27b"])
def test_what_a_sequence_holds_is_what_memory_says_for_every_strategy(target):
    contexts = np.random.default_rng(0).integers(1, 200_000, 60).astype(float)
    for name in strategies.available():
        strategy = strategies.load(name)
        drafter = Drafter(strategy, ModelSpec.load("gemma-3-1b") if "draft" in strategy.drafters else None)
        budget = 1024.0 if strategy.default_budgets else np.inf
        served = replica(drafter, target=ModelSpec.load(target), kv_budget=budget, tensor_parallel=2)
        memory = price_round(
            H100,
            served.deployment.model,
            ENGINE,
            drafter,
            batch=1.0,
            context_len=contexts,
            kv_budget=budget,
            gamma=6.0,
            tensor_parallel=2.0,
            tokens_per_round=1.0,
        ).memory
        states = np.add(memory.states, memory.kept_states)
        held = np.broadcast_to(memory.target_kv + memory.draft_kv + states, contexts.shape)
        np.testing.assert_allclose(served.kv_bytes(contexts), held, rtol=0.005, err_msg=name)
        line = served.kv_line(150_000, 200_000)
        if served.chooses_once:  # what is kept depends on where the prompt ended, too
            assert line is None
            continue
        assert line is not None
        np.testing.assert_allclose(
            line[0] + line[1] * 180_000, served.kv_bytes(np.array([180_000]))[0], rtol=1e-6
        )


def test_sliding_windows_let_more_sequences_in():
    trace = drawn(40, INF, 20_000, 30, spread=0)
    served = replica(target=ModelSpec.load("mistral-7b-v0.1"), max_batch=64)
    outcome = simulate(served, trace, FixedGamma(0))
    assert outcome.summary()["preemptions"] == 0
    assert outcome.summary()["kv_occupancy_peak"] < 0.5


# Outcomes as values.


def test_an_outcome_survives_arrays_and_pickles():
    served, trace = replica(SNAP), drawn()
    outcome = simulate(served, trace, FixedGamma(2))
    back = Metrics.from_arrays(outcome.to_arrays(), trace, served)
    assert back.summary(ttft=1, tpot=0.01) == outcome.summary(ttft=1, tpot=0.01)
    assert pickle.loads(pickle.dumps(outcome)).summary() == outcome.summary()


def test_goodput_counts_the_tokens_of_requests_that_met_both_targets():
    outcome = simulate(replica(), drawn(qps=INF), FixedGamma(0))
    some = float(np.median(outcome.ttft))
    summary = outcome.summary(ttft=some)
    met = outcome.ttft <= some
    assert summary["requests_meeting_targets"] == met.mean()
    assert summary["goodput_tokens_per_s"] == pytest.approx(
        outcome.trace.output_tokens[met].sum() / outcome.makespan
    )
    assert outcome.summary()["goodput_tokens_per_s"] == outcome.summary()["throughput_tokens_per_s"]
    assert outcome.summary(tpot=0.0)["goodput_tokens_per_s"] < 0.1 * summary["throughput_tokens_per_s"]


def test_progress_is_told_and_ends_at_the_last_request():
    told = []
    simulate(replica(), drawn(50), FixedGamma(0), progress=lambda done, of: told.append((done, of)))
    assert told == sorted(told)
    assert told[-1] == (50, 50)


@pytest.mark.bench
@pytest.mark.parametrize("policy", ["none", "fixed", "schedule", "adaptive"])
def test_a_million_steps_a_minute(policy, benchmark):
    trace = drawn(600, 2.0, 32_000, 500)
    chosen = {"none": FixedGamma(0), "fixed": FixedGamma(3)}.get(policy) or scheduled(
        adaptive=policy == "adaptive", tp=8
    )
    served = replica(SNAP, tensor_parallel=8, max_batch=128)
    outcome = benchmark.pedantic(simulate, (served, trace, chosen), rounds=3)
    assert outcome.summary()["steps"] / benchmark.stats["min"] * 60 > 1e6
