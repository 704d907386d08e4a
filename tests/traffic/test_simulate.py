"""The laws of a simulated replica: nothing is lost or exceeds its room, and steps cost what is priced."""


import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import BUSY_ENGINE, ENGINE, H100, INF, LLAMA, SMALL, SNAP, drawn, replica, scheduled, tight

from perfmodel.latency import prefill_latency
from perfmodel.speculation import price_round
from perfmodel.traffic.acceptance_draws import AcceptanceDraws
from perfmodel.traffic.metrics import Metrics
from perfmodel.traffic.scheduler import Chunk, Scheduler
from perfmodel.traffic.simulate import FixedGamma, simulate
from perfmodel.traffic.step_times import CAUSES
from perfmodel.traffic.trace import Trace

# Conservation.

CASES = {
    "plain": (None, FixedGamma(0)),
    "fixed": (SNAP, FixedGamma(3)),
    "a draft model": (SMALL, FixedGamma(4)),
    "scheduled": (SNAP, "schedule"),
    "adaptive": (SNAP, "adaptive"),
}


def policy_of(named):
    return scheduled(adaptive=named == "adaptive") if isinstance(named, str) else named


@pytest.mark.parametrize("room", [None, 3])
@pytest.mark.parametrize("case", CASES)
def test_every_request_finishes_once_and_no_token_is_lost(case, room, steps):
    drafter, policy = CASES[case]
    trace = drawn(qps=INF)
    served = replica(drafter) if room is None else tight(room, trace, drafter)
    outcome = simulate(served, trace, policy_of(policy))
    lines = outcome.timeline
    assert np.all(outcome.first_token > trace.arrival)
    assert np.all(outcome.finish >= outcome.first_token)
    assert lines["prefilled"].sum() >= trace.prompt_tokens.sum()
    # What steps committed is what was wanted, but for what the last round of a request had too much.
    committed = lines["accepted"].sum() + (lines["rounds"] * lines["decoding"]).sum()
    wanted = (trace.output_tokens - 1).sum()
    assert wanted - lines["stopped"].sum() <= committed
    assert committed <= wanted + 6 * len(trace)
    if room is None:
        assert lines["stopped"].sum() == 0
        assert lines["prefilled"].sum() == trace.prompt_tokens.sum()
    assert max(step.held_last for step in steps) <= served.cache_bytes


@given(
    st.integers(1, 25),
    st.sampled_from([0.5, 20.0, INF]),
    st.integers(1, 6000),
    st.integers(1, 60),
    st.sampled_from([0.0, 0.6]),
    st.integers(0, 4),
    st.floats(1.01, 4.0),
    st.integers(0, 99),
)
@settings(max_examples=25)
def test_the_laws_of_steps_hold_for_any_traffic(requests, qps, prompt, output, spread, gamma, room, seed):
    trace = drawn(requests, qps, prompt, output, spread=spread, seed=seed)
    served = tight(room, trace, SNAP, max_batch=8, max_step_tokens=512)
    seen = []
    record = Metrics.record
    Metrics.record = lambda outcome, step: (seen.append(step), record(outcome, step))[1]
    try:
        outcome = simulate(served, trace, FixedGamma(gamma), seed=seed)
    finally:
        Metrics.record = record
    now = 0.0
    for step in seen:
        assert step.start >= now
        now = step.start + float(np.sum(step.each))
        assert min(step.by_cause) >= 0
        assert np.sum(step.each) > 0
        assert step.decoding * (step.gamma + 1) + step.prefilled <= 512
        assert step.decoding <= 8
        assert max(step.held_first, step.held_last) <= served.cache_bytes
    assert now == outcome.makespan
    assert np.all(np.isfinite(outcome.finish))
    assert np.all(np.diff(outcome.first_token) >= 0), "first come, first served"


def test_a_full_cache_takes_from_the_last_and_nothing_is_lost(steps):
    trace = drawn(12, INF, 2000, 900, spread=0)
    outcome = simulate(tight(4.4, trace, max_batch=12), trace, FixedGamma(0))
    assert outcome.summary()["preemptions"] > 0
    assert outcome.timeline["prefilled"].sum() > trace.prompt_tokens.sum()
    assert np.all(np.diff(outcome.finish) >= 0)
    # Whoever lost its cache waited for its next token, and that wait is among the intervals.
    assert outcome.itl(100)[0] > max(max(step.each) for step in steps)


def test_a_request_of_one_token_is_done_with_its_prompt():
    trace = Trace("one", np.zeros(3), np.full(3, 5000), np.array([1, 1, 5]))
    outcome = simulate(replica(), trace, FixedGamma(0))
    assert np.array_equal(outcome.finish[:2], outcome.first_token[:2])
    assert outcome.tpot[:2].tolist() == [0.0, 0.0]


def test_nobody_waits_for_a_request_that_has_not_come():
    trace = Trace("two", np.array([0.0, 1000.0]), np.full(2, 500), np.full(2, 20))
    outcome = simulate(replica(), trace, FixedGamma(0))
    assert outcome.finish[0] < 10
    assert outcome.ttft[0] == pytest.approx(outcome.ttft[1], rel=1e-9)
    assert outcome.summary()["idle_s"] > 900


def test_whoever_comes_while_others_decode_is_let_into_the_next_step():
    trace = Trace("two", np.array([0.0, 0.5]), np.full(2, 2000), np.array([2000, 5]))
    outcome = simulate(replica(), trace, FixedGamma(0))
    assert outcome.finish[0] > 2.0
    assert outcome.ttft[1] < 1.2 * outcome.ttft[0] + 0.01


def test_the_cache_is_as_full_as_its_sequences_are_long():
    trace = Trace("one", np.zeros(1), np.array([40_000]), np.array([2000]))
    served = replica()
    summary = simulate(served, trace, FixedGamma(0)).summary()
    whole = float(served.kv_bytes(np.array([41_000]))[0]) / served.cache_bytes
    assert summary["kv_occupancy_mean"] == pytest.approx(whole, rel=0.02)
    assert summary["kv_occupancy_peak"] == pytest.approx(whole * 42 / 41, rel=0.01)


def nobody_accepts(trace):
    return AcceptanceDraws(np.zeros(len(trace)), np.zeros(len(trace)), trace.output_tokens, seed=0)


@pytest.mark.parametrize("gamma", [0, None])
def test_who_loses_its_cache_goes_back_to_where_it_was(gamma):
    trace = Trace("four", np.zeros(4), np.full(4, 100), np.full(4, 10))
    batch = Scheduler(replica(max_batch=4, max_step_tokens=150), trace, nobody_accepts(trace), gamma=gamma)
    for index in range(4):
        batch.arrive(index)
    assert [(chunk.prompt.index, chunk.tokens) for chunk in batch.chunks(0)] == [(0, 100), (1, 50)]
    first, second, *_ = batch.prefilling
    batch.finish_chunks([Chunk(first, 100, 0), Chunk(second, 50, 0)])
    assert batch.decoding.index.tolist() == [0]
    vars(batch.replica)["cache_bytes"] = 1.0
    assert batch.make_room(0) == [0]
    assert [(prompt.index, prompt.tokens, prompt.done) for prompt in batch.waiting] == [
        (0, 101, 0), (1, 100, 0), (2, 100, 0), (3, 100, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("gamma", [3, None])
def test_nobody_is_given_more_than_it_wants(gamma):
    """Both accept all: of two and eight tokens that are left, a round of four gives two and four."""
    trace = Trace("two", np.zeros(2), np.full(2, 10), np.array([3, 9]))
    draws = AcceptanceDraws(np.ones(2), np.ones(2), trace.output_tokens, seed=0)
    batch = Scheduler(replica(SNAP), trace, draws, gamma=gamma)
    for index in range(2):
        batch.arrive(index)
    batch.finish_chunks(batch.chunks(3))
    rounds, given = batch.decoding.given(3, 8)
    assert (rounds, given.tolist()) == (1, [3 + 4])  # a bonus token beyond what is wanted
    assert batch.commit(3, rounds) == [0]
    assert batch.decoding.index.tolist() == [1]
    assert (batch.decoding.sum_context, batch.decoding.contexts().tolist()) == (15, [15])


# What steps cost.


@pytest.mark.parametrize(("drafter", "gamma"), [(None, 0), (SNAP, 1), (SNAP, 4), (SMALL, 3)])
@pytest.mark.parametrize("tp", [1, 8])
def test_equal_requests_take_what_a_round_is_priced_at(drafter, gamma, tp):
    trace = drawn(16, INF, 16000, 400, spread=0)
    served = replica(drafter, tensor_parallel=tp, engine=BUSY_ENGINE)
    outcome = simulate(served, trace, FixedGamma(gamma), alpha=0.8, spread=0.0)
    lines = outcome.timeline
    whole = (lines["decoding"] == 16) & (lines["prefilled"] == 0)
    seconds = lines["lasted"][whole].sum()
    rounds = lines["rounds"][whole].sum()
    tokens = lines["accepted"][whole].sum() + 16 * rounds
    grown = (lines["accepted"] / 16 + lines["rounds"]) / 2  # a line says the context at its start
    context = ((lines["context"] + grown) * lines["lasted"])[whole].sum() / seconds
    priced = price_round(
        H100,
        LLAMA,
        BUSY_ENGINE,
        drafter,
        batch=16.0,
        context_len=context,
        kv_budget=served.kv_budget,
        gamma=float(gamma),
        tensor_parallel=float(tp),
        generated=context - 16000.0,
        alpha=0.8,
    )
    assert seconds / rounds == pytest.approx(float(priced.round_s), rel=0.003)
    assert tokens / seconds == pytest.approx(float(priced.throughput), rel=0.01 if gamma == 0 else 0.02)


def test_constant_arrivals_of_equal_requests_take_what_is_priced_within_one_percent():
    output = 2000
    trace = drawn(300, 4.0, 16, output, spread=0, burstiness=0)
    outcome = simulate(replica(max_batch=256), trace, FixedGamma(0))
    middle = slice(150, 200)  # neither the first, who meet an empty engine, nor the last
    tpot = outcome.tpot[middle].mean()
    priced = price_round(H100, LLAMA, ENGINE, None, batch=4.0 * output * tpot, context_len=16 + output / 2)
    assert tpot == pytest.approx(float(priced.tpot), rel=0.01)


def test_the_tokens_of_a_round_are_those_expected():
    trace = drawn(60, INF, 4000, 800, spread=0)
    outcome = simulate(replica(SNAP, max_batch=64), trace, FixedGamma(4), alpha=0.75, spread=0.0)
    assert outcome.summary()["tokens_per_round"] == pytest.approx((1 - 0.75**5) / 0.25, rel=0.01)


@pytest.mark.parametrize(("prompt", "tp"), [(7000, 1), (40_000, 8)])
def test_a_lone_prompt_takes_what_its_chunks_are_priced_at(prompt, tp):
    trace = Trace("one", np.zeros(1), np.array([prompt]), np.ones(1, dtype=np.int64))
    outcome = simulate(replica(tensor_parallel=tp, max_step_tokens=8192), trace, FixedGamma(0))
    priced = 0.0
    for start in range(0, prompt, 8192):
        size = min(8192, prompt - start)
        chunk = prefill_latency(
            H100,
            LLAMA,
            ENGINE,
            batch=1.0,
            prompt_tokens=float(size),
            kv_tokens=float(start + size),
            tensor_parallel=float(tp),
        )
        priced += float(chunk.total)
    assert outcome.makespan == pytest.approx(priced, rel=0.01)


def test_a_draft_model_prefills_too():
    trace = drawn(10, INF, 8000, 2)
    own = simulate(replica(SNAP), trace, FixedGamma(2)).summary()
    with_model = simulate(replica(SMALL), trace, FixedGamma(2)).summary()
    never = simulate(replica(SMALL), trace, FixedGamma(0)).summary()
    assert never["draft_s"] == 0.0
    assert with_model["draft_s"] > 2 * own["draft_s"] > 0.0


def test_time_by_cause_adds_up_to_the_time_that_was_busy():
    outcome = simulate(replica(SNAP), drawn(qps=2.0), FixedGamma(3))
    summary = outcome.summary()
    causes = sum(summary[f"{cause}_s"] for cause in CAUSES)
    assert causes == pytest.approx(outcome.timeline["lasted"].sum(), rel=1e-9)
    assert causes + summary["idle_s"] == pytest.approx(outcome.makespan, rel=1e-9)


@given(st.floats(1.0, 4.0), st.integers(0, 3), st.integers(0, 20))
@settings(max_examples=12)
def test_more_bandwidth_is_never_slower_at_saturated_load(factor, gamma, seed):
    trace = drawn(20, INF, 4000, 50, seed=seed)
    faster = H100.with_values({"memory.bandwidth": factor * np.asarray(H100.memory_bandwidth)}, source="test")
    slow = simulate(replica(SNAP), trace, FixedGamma(gamma))
    fast = simulate(replica(SNAP, hardware=faster), trace, FixedGamma(gamma))
    assert fast.makespan <= slow.makespan * (1 + 1e-9)
