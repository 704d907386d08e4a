"""Closed loops: as many in flight as were asked for, and the steady state and the price of a round agree."""

import numpy as np
import pytest
from served import BUSY_ENGINE, ENGINE, H100, INF, LLAMA, SMALL, SNAP, drawn, replica

from perfmodel.errors import SpecError
from perfmodel.speculation import price_round
from perfmodel.traffic.clients import Clients
from perfmodel.traffic.metrics import WarmUp
from perfmodel.traffic.simulate import FixedGamma, simulate
from perfmodel.traffic.steady_state import Load, Machine, most_that_fit, points_of
from perfmodel.traffic.trace import Trace

ALPHA = 0.8
PROMPT, OUTPUT, IN_FLIGHT = 1000, 3000, 8


def steady_state(served, gamma, prompt=PROMPT, output=OUTPUT, batch=IN_FLIGHT):
    """Requests per second and seconds per token of the batch, half of the requests within. [1/s], [s]"""
    load = Load(1.0, prompt, output, 0.0, 1.0)
    gammas = (0, gamma) if gamma else (0,)
    machine = Machine.of(served, gammas, load)
    points = points_of(served, machine, load, 0.5, most_that_fit(served, load), ALPHA if gamma else None)
    row = int(np.searchsorted(machine.batches, batch))
    assert machine.batches[row] == batch
    return float(points.qps[row, -1]), float(points.tpot[row, -1])


@pytest.mark.parametrize("scheduler", ["mixed", "prefill-first", "in-flight"])
@pytest.mark.parametrize(("drafter", "gamma"), [(None, 0), (SNAP, 3), (SMALL, 4)])
def test_simulator_steady_state_and_price_agree_in_a_closed_loop(drafter, gamma, scheduler):
    """With as many decoding as are in flight; prefill, a part of the steady state, is small beside output."""
    served = replica(drafter, scheduler=scheduler, engine=BUSY_ENGINE, max_batch=64)
    trace = drawn(5 * IN_FLIGHT, INF, PROMPT, OUTPUT, spread=0)
    outcome = simulate(
        served, trace, FixedGamma(gamma), alpha=ALPHA, spread=0.0, concurrency=IN_FLIGHT
    )
    priced = price_round(
        H100, LLAMA, BUSY_ENGINE, drafter, batch=float(IN_FLIGHT), context_len=float(PROMPT),
        output_tokens=float(OUTPUT), kv_budget=served.kv_budget, gamma=float(gamma), alpha=ALPHA,
    )  # fmt: skip
    qps, tpot = steady_state(served, gamma)
    seen = float(outcome.tpot.mean())
    assert seen == pytest.approx(float(priced.tpot), rel=0.01)
    assert seen == pytest.approx(tpot, rel=0.01)
    in_flight = outcome.end_to_end.sum() / outcome.makespan  # less than were asked for at the very end
    assert len(trace) / outcome.makespan * IN_FLIGHT / in_flight == pytest.approx(qps, rel=0.01)


@pytest.mark.parametrize("spread", [0.0, 0.2])
@pytest.mark.parametrize("scheduler", ["mixed", "prefill-first", "in-flight"])
def test_requests_per_second_agree_where_prefill_is_half_of_the_time(scheduler, spread):
    """At as many sequences as are in flight: all of them decode in a step that nobody joins.

    How many decode on average is no measure of that: those that are being prefilled are not among them.
    """
    prompt, output = 16_000, 100
    served = replica(scheduler=scheduler, engine=BUSY_ENGINE, max_batch=64)
    trace = drawn(200, INF, prompt, output, spread=spread, seed=3)
    outcome = simulate(served, trace, FixedGamma(0), concurrency=IN_FLIGHT)
    lengths = float(trace.prompt_tokens.mean()), float(trace.output_tokens.mean())
    qps, _ = steady_state(served, 0, *lengths)
    in_flight = outcome.end_to_end.sum() / outcome.makespan  # less than were asked for at the very end
    assert len(trace) / outcome.makespan * IN_FLIGHT / in_flight == pytest.approx(qps, rel=0.01)


@pytest.mark.parametrize("in_flight", [1, 3, 40, 1000])
def test_no_more_are_in_flight_than_asked_for(in_flight):
    trace = drawn(120, INF, 2000, 60, spread=0.8, seed=1)
    outcome = simulate(replica(SNAP), trace, FixedGamma(2), concurrency=in_flight)
    edges = np.concatenate([outcome.sent, outcome.finish])
    change = np.concatenate([np.ones(len(trace)), -np.ones(len(trace))])
    order = np.lexsort((change, edges))  # whoever is answered makes room at once
    assert np.cumsum(change[order]).max() == min(in_flight, len(trace))
    assert np.all(np.diff(outcome.sent) >= 0.0)
    assert np.all(np.diff(outcome.first_token) >= 0.0), "first come, first served"
    assert outcome.ttft.min() > 0.0
    later = np.sort(outcome.finish)[: max(len(trace) - in_flight, 0)]
    np.testing.assert_array_equal(outcome.sent[in_flight:], later)


def test_as_many_in_flight_as_there_are_requests_is_an_open_loop():
    trace = drawn(40, 6.0)
    closed = simulate(replica(SNAP), trace, FixedGamma(2), concurrency=len(trace))
    opened = simulate(replica(SNAP), trace, FixedGamma(2))
    assert closed.summary() == opened.summary()


def test_littles_law():
    trace = drawn(300, INF, 1500, 80, spread=0.5, seed=2)
    outcome = simulate(replica(), trace, FixedGamma(0), concurrency=12)
    edges = np.concatenate([outcome.sent, outcome.finish])
    change = np.concatenate([np.ones(len(trace)), -np.ones(len(trace))])
    order = np.argsort(edges, kind="stable")
    in_flight = float((np.cumsum(change[order])[:-1] * np.diff(edges[order])).sum() / outcome.makespan)
    rate = len(trace) / outcome.makespan
    assert in_flight == pytest.approx(rate * outcome.end_to_end.mean(), rel=1e-9)
    assert in_flight == pytest.approx(12, rel=0.05)


def test_far_below_capacity_a_request_waits_for_front_end_and_prefill_alone():
    engine = ENGINE.with_values({"request": 0.02}, source="test")
    trace = drawn(30, 0.05, 4000, 20, spread=0, burstiness=0)
    alone, behind = (
        simulate(replica(engine=own), trace, FixedGamma(0)) for own in (ENGINE, engine)
    )
    np.testing.assert_allclose(alone.ttft, alone.ttft[0], rtol=1e-9)
    np.testing.assert_allclose(behind.ttft, alone.ttft[0] + 0.02, rtol=1e-9)
    np.testing.assert_allclose(behind.tpot, alone.tpot, rtol=1e-9)


def test_the_front_end_takes_one_request_at_a_time():
    engine = ENGINE.with_values({"request": 0.1}, source="test")
    trace = drawn(200, INF, 16, 1, spread=0)
    outcome = simulate(replica(engine=engine), trace, FixedGamma(0))
    assert len(trace) / outcome.makespan == pytest.approx(10.0, rel=0.01)
    closed = simulate(replica(engine=engine), trace, FixedGamma(0), concurrency=5)
    assert len(trace) / closed.makespan == pytest.approx(10.0, rel=0.01)
    assert np.median(closed.ttft) == pytest.approx(0.5, rel=0.05)


def test_clients_send_when_a_slot_is_free_and_the_request_is_there():
    clients = Clients(np.array([0.0, 0.0, 1.0, 9.0]), concurrency=2)
    assert list(clients.ready(0.0)) == [0, 1]
    assert clients.next_ready == INF
    clients.answered(0.5, 1)
    assert list(clients.ready(0.9)) == []
    assert list(clients.ready(1.0)) == [2]
    clients.answered(3.0, 2)
    assert clients.next_ready == 9.0
    assert clients.sent.tolist() == [0.0, 0.0, 1.0, 9.0]
    with pytest.raises(SpecError, match="concurrency"):
        Clients(np.zeros(1), concurrency=0)


def test_a_warm_up_leaves_its_requests_and_its_time_out():
    trace = Trace("two kinds", np.zeros(40), np.repeat([30_000, 500], [8, 32]), np.full(40, 50))
    outcome = simulate(replica(), trace, FixedGamma(0), concurrency=4)
    whole, warm = outcome.summary(), outcome.summary(warm_up=WarmUp(requests=8))
    assert (whole["requests"], warm["requests"]) == (40, 32)
    assert warm["ttft_p99_s"] == np.percentile(outcome.ttft[8:], 99) < whole["ttft_p99_s"]
    assert warm["throughput_tokens_per_s"] > 1.2 * whole["throughput_tokens_per_s"]
    assert warm == outcome.summary(warm_up=WarmUp(seconds=float(outcome.sent[8])))
    assert outcome.summary(warm_up=WarmUp(0)) == whole
    with pytest.raises(SpecError, match="leaves none of 40"):
        outcome.summary(warm_up=WarmUp(requests=40))


def test_throughput_in_a_warm_steady_state_is_that_of_any_part_of_it():
    trace = drawn(200, INF, 500, 200, spread=0.3)
    outcome = simulate(replica(), trace, FixedGamma(0), concurrency=8)
    early, late = (outcome.summary(warm_up=WarmUp(requests=count)) for count in (20, 60))
    assert early["throughput_tokens_per_s"] == pytest.approx(late["throughput_tokens_per_s"], rel=0.02)
