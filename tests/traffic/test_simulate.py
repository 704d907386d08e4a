"""The laws of a simulated replica: nothing is lost or exceeds its room, and steps cost what is priced."""

import pickle
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from perfmodel.acceptance import Acceptance
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import prefill_latency
from perfmodel.model import ModelSpec
from perfmodel.planning.planner import Constraints, plan
from perfmodel.speculation import Drafter, price_round
from perfmodel.traffic.acceptance_draws import AcceptanceDraws, request_acceptance
from perfmodel.traffic.metrics import Metrics
from perfmodel.traffic.mixed_steps import MixedSteps
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.scheduler import Chunk, Prompt, Scheduler
from perfmodel.traffic.simulate import FixedGamma, FollowPlan, simulate
from perfmodel.traffic.step_times import CAUSES
from perfmodel.traffic.synthetic import synthetic_trace
from perfmodel.traffic.trace import Trace
from perfmodel.traffic.workload import tuned
from perfmodel.workload import Workload

H100 = HardwareProfile.load("h100-sxm-80gb")
LLAMA = ModelSpec.load("llama-3.1-8b")
ENGINE = EngineOverhead.load("ideal")
BUSY_ENGINE = ENGINE.with_values(
    {"forward": 1e-4, "layer": 1e-5, "row_layer": 1e-7, "round": 2e-3, "round_row": 5e-5}, source="test"
)
SNAP = Drafter(strategies.load("snapkv"))
SMALL = Drafter(strategies.load("full_kv"), ModelSpec.load("llama-3.2-1b"))
INF = float("inf")


def replica(drafter=None, *, kv_budget=None, target=LLAMA, hardware=H100, engine=ENGINE, **limits):
    own = 1024.0 if drafter is SNAP else np.inf
    settings = {"max_batch": 32, "max_gamma": 6} | limits
    deployment = Deployment(hardware, target, engine, settings.pop("tensor_parallel", 1))
    return Replica(deployment, drafter, own if kv_budget is None else kv_budget, **settings)


def tight(sequences, trace, drafter=None, **limits):
    """A replica whose cache holds about so many of the longest requests of a trace."""
    roomy = replica(drafter, **limits)
    wanted = sequences * float(roomy.kv_bytes(np.array([trace.longest + roomy.look_ahead]))[0])
    capacity = float(np.asarray(H100.memory_capacity))
    share = float(np.asarray(ENGINE.memory_utilization)) - (roomy.cache_bytes - wanted) / capacity
    return replica(drafter, engine=ENGINE.with_values({"memory_utilization": share}, source="test"), **limits)


@lru_cache
def scheduled(gammas=(0, 1, 2, 3, 4), alpha=None, adaptive=False, batches=(1, 4, 16, 64), tp=1):
    answer = plan(
        H100,
        LLAMA,
        ENGINE,
        Workload(batches, (1000, 4000, 16000, 64000)),
        drafters=[SNAP],
        kv_budgets=[1024],
        gammas=gammas,
        tensor_parallel=tp,
        alpha=alpha,
        one_deployment=True,
        draws=0,
    )
    return FollowPlan(answer, adaptive)


def drawn(requests=40, qps=8.0, prompt=3000, output=40, **more):
    return synthetic_trace(requests=requests, qps=qps, prompt_tokens=prompt, output_tokens=output, **more)


@pytest.fixture
def steps(monkeypatch):
    """Everything that is recorded while a test simulates."""
    seen = []
    record = Metrics.record

    def recorded(outcome, step):
        seen.append(step)
        return record(outcome, step)

    monkeypatch.setattr(Metrics, "record", recorded)
    return seen


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
        now = step.start + float(step.seconds.sum(axis=0).sum())
        assert np.all(step.seconds >= 0)
        assert step.seconds.sum() > 0
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
    assert outcome.itl(100)[0] > max(step.seconds.sum(axis=0).max() for step in steps)


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


def test_who_loses_its_cache_goes_back_to_where_it_was():
    trace = Trace("four", np.zeros(4), np.full(4, 100), np.full(4, 10))
    batch = Scheduler(replica(max_batch=4, max_step_tokens=150), trace)
    batch.waiting.extend(Prompt(index, 100) for index in range(4))
    assert [(chunk.prompt.index, chunk.tokens) for chunk in batch.chunks(0)] == [(0, 100), (1, 50)]
    batch.finish_chunks([Chunk(batch.prefilling[0], 100, 0), Chunk(batch.prefilling[1], 50, 0)])
    assert batch.index.tolist() == [0]
    vars(batch.replica)["cache_bytes"] = 1.0
    assert batch.make_room(0) == [0]
    assert [(prompt.index, prompt.tokens, prompt.done) for prompt in batch.waiting] == [
        (0, 101, 0), (1, 100, 0), (2, 100, 0), (3, 100, 0),
    ]  # fmt: skip


def test_nobody_is_given_more_than_it_wants():
    trace = Trace("two", np.zeros(2), np.full(2, 10), np.array([3, 9]))
    batch = Scheduler(replica(), trace)
    batch.waiting.extend(Prompt(index, 10) for index in range(2))
    batch.finish_chunks(batch.chunks(0))
    assert batch.commit(np.array([6, 6])).tolist() == [0]
    assert batch.generated.tolist() == [3, 7]
    assert (batch.sum_context, batch.context.tolist()) == (17, [17])


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


# Policies.


def test_the_same_seed_gives_the_same_outcome_and_another_one_not():
    trace = drawn()
    first, again, other = (
        simulate(replica(SNAP), trace, scheduled(adaptive=True), seed=seed) for seed in (3, 3, 4)
    )
    assert np.array_equal(first.finish, again.finish)
    assert first.summary() == again.summary()
    assert not np.array_equal(first.finish, other.finish)


@pytest.mark.parametrize("policy", ["schedule", "adaptive"])
def test_a_plan_that_never_drafts_is_plain_batching(policy):
    never = scheduled(alpha=0.0, adaptive=policy == "adaptive")
    assert {cell.gamma for cell in never.plan.cells} == {0}
    trace = drawn()
    planned = simulate(replica(SNAP), trace, never)
    plain = simulate(replica(SNAP), trace, FixedGamma(0))
    assert planned.timeline["gamma"].max() == 0
    if policy == "schedule":
        assert np.array_equal(planned.finish, plain.finish)
        return
    # It could learn to draft, so its drafter chose its entries when each prompt ended.
    began = planned.summary()["draft_s"]
    assert 0 < began < 0.01 * planned.makespan
    assert planned.makespan - began == pytest.approx(plain.makespan, rel=0.01)


def test_nobody_drafts_at_gamma_zero_whoever_could():
    trace = drawn(qps=INF)
    alone = simulate(replica(), trace, FixedGamma(0))
    beside = simulate(replica(SNAP), trace, FixedGamma(0))
    assert np.array_equal(alone.finish, beside.finish)


def test_policies_meet_the_same_luck():
    served, trace = replica(SNAP), drawn(30)
    first, rest = request_acceptance(served, trace, alpha=0.7, spread=0.1, seed=5)
    hits = AcceptanceDraws(first, rest, trace.output_tokens, seed=5)
    index = np.arange(30)
    place = np.minimum(trace.output_tokens, 3) - 1
    long, short = hits.tokens(index, place, 8), hits.tokens(index, place, 2)
    assert np.array_equal(np.minimum(long, 3), short)


def test_acceptance_of_the_first_and_of_later_drafts_is_what_was_asked_for():
    output = np.full(400, 500)
    hits = AcceptanceDraws(np.full(400, 0.9), np.full(400, 0.6), output, seed=1)
    index = np.repeat(np.arange(400), 400)
    place = np.tile(np.arange(400), 400)
    tokens = hits.tokens(index, place, 3)
    assert (tokens > 1).mean() == pytest.approx(0.9, abs=0.005)
    assert (tokens > 2).mean() == pytest.approx(0.9 * 0.6, abs=0.005)
    assert (tokens > 3).mean() == pytest.approx(0.9 * 0.36, abs=0.005)


def test_acceptance_differs_between_requests_as_much_as_asked_for():
    served, trace = replica(SNAP), drawn(4000)
    _, rest = request_acceptance(served, trace, alpha=0.8, spread=0.08, seed=0)
    assert rest.mean() == pytest.approx(0.8, abs=0.005)
    assert rest.std() == pytest.approx(0.08, rel=0.05)
    law = Acceptance(first=0.9, rest=0.6)
    first, later = request_acceptance(served, trace, alpha=law, spread=0.05, seed=0)
    assert first.mean() == pytest.approx(0.9, abs=0.01)
    assert np.corrcoef(first, later)[0, 1] > 0.9


def test_an_adaptive_policy_learns_that_drafts_are_better_than_planned():
    pessimist = scheduled(alpha=0.45, adaptive=False, tp=8)
    learner = scheduled(alpha=0.45, adaptive=True, tp=8)
    trace = drawn(24, INF, 30_000, 1500)
    served = replica(SNAP, tensor_parallel=8)
    still = simulate(served, trace, pessimist, alpha=0.95, spread=0.02)
    learned = simulate(served, trace, learner, alpha=0.95, spread=0.02)
    assert learned.makespan < 0.97 * still.makespan


def test_a_draft_that_a_step_cannot_verify_is_shortened(steps):
    trace = drawn(40, INF, 4, 200, spread=0)
    simulate(replica(SNAP, max_batch=32, max_step_tokens=64), trace, FixedGamma(6))
    assert any(step.gamma == 6 for step in steps)
    assert any(step.gamma == 0 and step.decoding > 9 for step in steps)


def test_lengths_beside_prefill_are_compared_at_the_same_tokens_per_step():
    answer = scheduled(alpha=0.8, tp=8).plan
    gammas, cell = answer.gammas, answer.cell(64, 64000)
    assert cell.gamma > 1

    class Costs:
        def added(self, batch, mean_context, gamma):
            assert mean_context == 64000
            return 12.0 * gamma + batch * (1.0 + 0.01 * gamma)  # a draft costs the same whatever the batch

    tokens = [sum(0.8**k for k in range(gamma + 1)) for gamma in gammas]
    same_batch = min(gammas, key=lambda gamma: Costs().added(64, 64000, gamma) / tokens[gamma])
    per_step = 64 * tokens[cell.gamma]

    def cost(gamma):
        batch = round(per_step / tokens[gamma])
        return Costs().added(batch, 64000, gamma) / (batch * tokens[gamma])

    lengths = MixedSteps(answer, gammas, Costs())
    assert lengths.length(64, 64000) == min(gammas, key=cost) < same_batch


# A schedule against every single length.


@pytest.mark.parametrize(
    ("prompt", "output", "tp", "batch"), [(32_000, 500, 8, 128), (16_000, 1000, 1, 64), (8_000, 2000, 8, 256)]
)
def test_a_schedule_is_never_worse_than_the_best_single_length_by_more_than_one_percent(
    prompt, output, tp, batch
):
    fine = [round(2 ** (step / 2)) for step in range(17)]
    answer = plan(
        H100,
        LLAMA,
        ENGINE,
        Workload(sorted(set(fine)), [round(1000 * 2 ** (step / 2)) for step in range(14)]),
        drafters=[SNAP],
        kv_budgets=[2049],
        gammas=range(7),
        tensor_parallel=tp,
        constraints=Constraints(near_tie=0.0),
        one_deployment=True,
        draws=0,
    )
    served = replica(SNAP, kv_budget=2049.0, tensor_parallel=tp, max_batch=batch)
    trace = drawn(120, INF, prompt, output)
    schedule = tuned(FollowPlan(answer), served, trace)
    took = simulate(served, trace, schedule).makespan
    assert took <= 1.01 * min(simulate(served, trace, FixedGamma(gamma)).makespan for gamma in range(7))
    busy = drawn(120, 0.7 * len(trace) / took, prompt, output)
    targets = {"ttft": 60 * prompt / 32_000 / tp, "tpot": 0.25 * batch / 100 / tp}
    schedule = tuned(FollowPlan(answer), served, busy, **targets)
    good, *fixed = (
        simulate(served, busy, policy).summary(**targets)["goodput_tokens_per_s"]
        for policy in (schedule, *map(FixedGamma, range(7)))
    )
    assert good >= 0.99 * max(fixed)


# What is refused.


def test_a_model_that_leaves_no_room_is_infeasible():
    with pytest.raises(InfeasibleError, match="lack"):
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


@pytest.mark.parametrize("target", ["llama-3.1-8b", "gpt-oss-20b", "deepseek-v2-lite"])
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
        held = np.broadcast_to(memory.target_kv + memory.draft_kv, contexts.shape)
        np.testing.assert_allclose(served.kv_bytes(contexts), held, rtol=0.005, err_msg=name)
        line = served.kv_line(150_000, 200_000)
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
