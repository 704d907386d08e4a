"""Schedules as servers have them: what each puts into a step, what waits, and what nobody loses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import ENGINE, H100, INF, LLAMA, SNAP, drawn, replica, tight

from perfmodel import software
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.hardware import HardwareProfile
from perfmodel.software import SCHEDULERS
from perfmodel.traffic.metrics import Metrics
from perfmodel.traffic.replica import MAX_BATCH, MAX_STEP_TOKENS, Replica
from perfmodel.traffic.simulate import FixedGamma, simulate
from perfmodel.traffic.trace import Trace


def deployment(engine="generic", hardware="h100-sxm-80gb"):
    profile = HardwareProfile.load(hardware)
    return Deployment(profile, LLAMA, EngineOverhead.load(engine).on(profile))


@pytest.mark.parametrize(
    ("engine", "kind"),
    [("generic", "mixed"), ("vllm", "mixed"), ("sglang", "prefill-first"), ("tensorrt-llm", "in-flight")],
)
def test_an_engine_schedules_as_its_software_does(engine, kind):
    runs = deployment(engine)
    assert Replica(runs).schedules == Replica.of(runs).schedules == kind
    assert (Replica.of(runs).max_batch, Replica.of(runs).max_step_tokens) == (MAX_BATCH, MAX_STEP_TOKENS)
    assert Replica.of(runs, "mixed").schedules == "mixed"


@pytest.mark.parametrize(
    ("name", "hardware", "batch", "tokens"),
    [
        ("vllm", "h100-sxm-80gb", 1024, 8192),  # vLLM 0.11 to 0.33, arg_utils.py
        ("vllm", "a100-sxm-80gb", 256, 2048),
        ("vLLM", "l40s-48gb", 256, 2048),
        ("sglang", "h100-sxm-80gb", 2048, 8192),  # SGLang 0.5, server_args.py
        ("sglang", "l40s-48gb", 2048, 4096),
        ("sglang", "rtx-4090", 2048, 2048),
        ("tensorrt-llm", "h100-sxm-80gb", 2048, 8192),
    ],
)
def test_a_named_software_has_its_own_limits(name, hardware, batch, tokens):
    served = Replica.of(deployment(hardware=hardware), name)
    assert (served.max_batch, served.max_step_tokens) == (batch, tokens)
    assert served.schedules == software.load(name).scheduler
    fewer = Replica.of(deployment(hardware=hardware), name, 8, 512)
    assert (fewer.max_batch, fewer.max_step_tokens) == (8, 512)


def test_an_unknown_scheduler_is_refused_with_the_nearest():
    with pytest.raises(SpecError, match="sglang"):
        Replica.of(deployment(), "sglong")


def test_where_prefill_comes_first_no_step_has_both(steps):
    trace = drawn(30, 20.0, 6000, 80, seed=4)
    outcome = simulate(replica(SNAP, scheduler="prefill-first"), trace, FixedGamma(2))
    assert all(not (step.decoding and step.prefilled) for step in steps)
    assert sum(step.prefilled for step in steps) == trace.prompt_tokens.sum()
    assert np.all(np.isfinite(outcome.finish))


def test_who_decodes_waits_for_prefills_and_that_wait_is_between_its_tokens():
    """One sequence decodes when a long prompt comes: its next token comes a whole prefill later."""
    trace = Trace("two", np.array([0.0, 0.5]), np.array([100, 60_000]), np.array([400, 2]))
    first, mixed = (
        simulate(replica(scheduler=kind), trace, FixedGamma(0)) for kind in ("prefill-first", "mixed")
    )
    assert first.itl(100)[0] == pytest.approx(first.ttft[1], rel=0.03)
    assert mixed.itl(100)[0] < 0.4 * first.itl(100)[0]  # a chunk of 8192 at a time
    assert first.ttft[1] <= mixed.ttft[1]
    assert first.itl(50)[0] == pytest.approx(mixed.itl(50)[0], rel=0.01)
    for outcome in (first, mixed):  # every chunk of every sequence is an interval, and they add up
        values, weights = map(np.concatenate, zip(*outcome._intervals_from(), strict=True))
        assert weights.sum() == (trace.output_tokens - 1).sum()
        assert (values * weights).sum() == pytest.approx((outcome.finish - outcome.first_token).sum())


def test_in_flight_prompts_are_whole_unless_longer_than_a_step(steps):
    lengths = np.array([300, 700, 500, 900, 2500, 400])
    trace = Trace("six", np.zeros(6), lengths, np.full(6, 5))
    simulate(replica(scheduler="in-flight", max_step_tokens=1000), trace, FixedGamma(0))
    # 500 does not fit beside 300 and 700, nor 900 beside 500; 2500 fits nowhere, and is cut to what 3 leave.
    assert [step.prefilled for step in steps if step.prefilled][:3] == [1000, 500, 997]
    assert sum(step.prefilled for step in steps) == lengths.sum()


def test_in_flight_nobody_loses_its_cache():
    trace = drawn(12, INF, 2000, 900, spread=0)
    lost, kept = (
        simulate(tight(4.4, trace, max_batch=12, scheduler=kind), trace, FixedGamma(0)).summary()
        for kind in ("mixed", "in-flight")
    )
    assert lost["preemptions"] > 0 == kept["preemptions"]
    assert kept["prefilled_tokens"] == trace.prompt_tokens.sum()


@given(
    st.sampled_from(SCHEDULERS),
    st.integers(1, 20),
    st.sampled_from([0.5, 20.0, INF]),
    st.integers(1, 5000),
    st.integers(1, 50),
    st.integers(0, 3),
    st.floats(1.01, 4.0),
    st.sampled_from([None, 1, 4]),
    st.integers(0, 99),
)
@settings(max_examples=25)
def test_under_every_scheduler_nothing_is_lost_or_exceeds_its_room(
    scheduler, requests, qps, prompt, output, gamma, room, in_flight, seed
):
    trace = drawn(requests, qps, prompt, output, spread=0.6, seed=seed)
    served = tight(room, trace, SNAP, max_batch=8, max_step_tokens=512, scheduler=scheduler)
    seen = []
    record = Metrics.record
    Metrics.record = lambda outcome, step: (seen.append(step), record(outcome, step))[1]
    try:
        outcome = simulate(served, trace, FixedGamma(gamma), seed=seed, concurrency=in_flight)
    finally:
        Metrics.record = record
    now = 0.0
    for step in seen:
        assert step.start >= now
        now = step.start + float(np.sum(step.each))
        assert step.decoding * (step.gamma + 1) + step.prefilled <= 512
        assert max(step.held_first, step.held_last) <= served.cache_bytes
    assert now == outcome.makespan
    assert np.all(np.isfinite(outcome.finish))
    assert np.all(outcome.first_token > outcome.sent)
    assert np.all(np.diff(outcome.first_token) >= 0), "first come, first served"
    values, weights = map(np.concatenate, zip(*outcome._intervals_from(), strict=True))
    assert np.all(values >= 0.0)
    assert outcome.summary()["itl_mean_s"] == pytest.approx(
        float((values * weights).sum() / max(weights.sum(), 1)), rel=1e-9
    )


def test_a_burst_of_prompts_delays_tokens_under_one_and_lengthens_steps_under_the_other():
    trace = drawn(64, INF, 2000, 100, spread=0.3)
    first, mixed = (
        simulate(
            replica(scheduler=kind, max_batch=64, engine=ENGINE, hardware=H100, max_step_tokens=2048),
            trace, FixedGamma(0), concurrency=16,
        ).summary()
        for kind in ("prefill-first", "mixed")
    )  # fmt: skip
    assert first["itl_p50_s"] <= mixed["itl_p50_s"]
    assert first["ttft_p50_s"] <= mixed["ttft_p50_s"]
    assert first["throughput_tokens_per_s"] == pytest.approx(mixed["throughput_tokens_per_s"], rel=0.1)
