"""What a simulation keeps by increments is what it comes to from scratch, and lasts no longer than needed."""

import time

import numpy as np
import pytest
from served import ENGINE, INF, SMALL, SNAP, drawn, replica, scheduled, tight

import strategies
from perfmodel.model import ModelSpec
from perfmodel.speculation import Drafter
from perfmodel.traffic import acceptance_draws
from perfmodel.traffic.acceptance_draws import AcceptanceDraws, request_acceptance
from perfmodel.traffic.decoding import AnyLength, OneLength
from perfmodel.traffic.scheduler import Scheduler
from perfmodel.traffic.simulate import FixedGamma, simulate
from perfmodel.traffic.step_times import StepTimes
from perfmodel.traffic.trace import read_trace
from perfmodel.traffic.trace_rows import ENOUGH

STREAMING = Drafter(strategies.load("streaming_llm"))
CASES = {
    "plain": (None, 0, {}),
    "plain, a window": (None, 0, {"target": ModelSpec.load("mistral-7b-v0.1")}),
    "a draft model": (SMALL, 3, {}),
    "a budget": (STREAMING, 4, {"kv_budget": 1024.0}),
    "chosen at the prompt's end": (SNAP, 2, {}),
}
TRACES = {
    "idle": {"qps": 0.5, "requests": 20}, "busy": {"qps": 30.0}, "all at once": {"qps": INF, "output": 200},
}  # fmt: skip


def same(one, other):
    """Whether two outcomes are the same to the last bit."""
    arrays = one.to_arrays(), other.to_arrays()
    return all(np.array_equal(arrays[0][key], arrays[1][key], equal_nan=key != "rows") for key in arrays[0]
               if key not in ("name", "rows")) and all(
        np.array_equal(one.timeline[name], other.timeline[name]) for name in one.timeline
    )  # fmt: skip


@pytest.mark.parametrize("scheduler", ["mixed", "prefill-first", "in-flight"])
@pytest.mark.parametrize("traffic", TRACES)
@pytest.mark.parametrize("case", CASES)
def test_one_length_is_any_length_that_never_changes(case, traffic, scheduler, monkeypatch):
    """Round by round with the draws of each sequence, or by what is known when it joins: the same bits."""
    drafter, gamma, limits = CASES[case]
    trace = drawn(**TRACES[traffic])
    served = (
        tight(3.2, trace, drafter, max_batch=12, scheduler=scheduler, **limits)
        if traffic == "all at once" and "target" not in limits
        else replica(drafter, scheduler=scheduler, **limits)
    )
    kinds = []
    begin = Scheduler.__init__

    def any_length(self, *given, gamma, **named):
        begin(self, *given, gamma=None if kinds else gamma, **named)
        kinds.append(type(self.decoding))

    monkeypatch.setattr(Scheduler, "__init__", any_length)
    one, other = (simulate(served, trace, FixedGamma(gamma), seed=3) for _ in range(2))
    assert kinds == [OneLength, AnyLength]
    assert same(one, other)


@pytest.mark.parametrize("policy", ["plain", "fixed", "schedule"])
@pytest.mark.parametrize("drafter", [None, SMALL, SNAP, STREAMING])
def test_what_is_held_is_what_all_caches_come_to(drafter, policy, monkeypatch):
    trace = drawn(60, INF, 2000, 120)
    chosen = {"plain": FixedGamma(0), "fixed": FixedGamma(2 if drafter else 0)}.get(policy) or scheduled()
    budget = 1024.0 if drafter is STREAMING else None
    if policy == "schedule" and drafter is None:
        pytest.skip("nobody drafts")
    served = tight(6.3, trace, drafter, max_batch=24, kv_budget=budget)
    commit, checked = Scheduler.commit, []

    def compared(self, gamma, rounds):
        decoding = self.decoding
        contexts, prompts = decoding.contexts(), decoding.prompts
        assert decoding.count == contexts.size == decoding.index.size
        assert (decoding.sum_context, decoding.sum_prompt) == (contexts.sum(), prompts.sum())
        assert np.all(np.diff(decoding.index) > 0)
        whole = sum(prompt.bytes for prompt in self.prefilling)
        whole += served.kv_bytes(contexts + 1, contexts + 1 - prompts).sum()
        assert self.held(1) == pytest.approx(whole, rel=1e-12)
        checked.append(decoding.count)
        return commit(self, gamma, rounds)

    monkeypatch.setattr(Scheduler, "commit", compared)
    simulate(served, trace, chosen)
    assert max(checked) > 5


def test_draws_are_the_same_however_many_are_drawn_together(monkeypatch):
    served, trace = replica(SNAP), drawn(200, output=100)
    rates = request_acceptance(served, trace, alpha=0.8, spread=0.1, seed=5)
    monkeypatch.setattr(acceptance_draws, "_AT_ONCE", 10**7)
    whole = AcceptanceDraws(*rates, trace.output_tokens, seed=5)
    expected = [whole.rounds(index, 1, 3) for index in range(200)]
    monkeypatch.setattr(acceptance_draws, "_AT_ONCE", 500)
    for step in (1, 7, 60):
        draws = AcceptanceDraws(*rates, trace.output_tokens, seed=5)
        for index in range(0, 200, step):
            draws.forget(index)
            np.testing.assert_array_equal(draws.rounds(index, 1, 3), expected[index])
            assert draws._runs.size <= 500 + 3 * (int(trace.output_tokens.max()) + 1) + 500
    draws = AcceptanceDraws(*rates, trace.output_tokens, seed=5)
    drawn_at, given, offsets = draws.first_rounds(0, 3)
    for index in drawn_at:
        np.testing.assert_array_equal(given[offsets[index] : offsets[index + 1]], expected[index])


@pytest.mark.parametrize("drafter", [None, SMALL, SNAP, STREAMING])
def test_one_round_takes_what_rounds_together_do(drafter):
    served = replica(drafter, kv_budget=1024.0 if drafter is STREAMING else None, max_batch=8)
    table = StepTimes(served, (0, 3) if drafter else (0,), 30_000)
    contexts = np.concatenate([np.linspace(1.0, 40_000.0, 500), table.contexts])
    generated = contexts / 3.0
    for gamma in (0, 3) if drafter else (0,):
        together = table.decode(5, contexts, gamma, generated)
        alone = [
            table.rounds(5, gamma).at(context, since)
            for context, since in zip(contexts.tolist(), generated.tolist(), strict=True)
        ]
        np.testing.assert_array_equal(together, np.transpose(alone))


@pytest.mark.parametrize("in_order", [True, False])
def test_of_a_long_trace_no_more_is_read_than_is_wanted(tmp_path, in_order):
    rows = [f"{number}.5,{number % 900 + 1},{number % 90 + 1}" for number in range(ENOUGH + 5000)]
    if not in_order:
        rows[3], rows[4000] = rows[4000], rows[3]
    path = tmp_path / "long.csv"
    path.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]))
    trace, whole = read_trace(path, first=50), read_trace(path)
    for name in ("arrival", "prompt_tokens", "output_tokens"):
        np.testing.assert_array_equal(getattr(trace, name), getattr(whole, name)[:50])
    assert any("rows are read" in remark for remark in trace.remarks) == in_order
    assert len(read_trace(path, first=ENOUGH + 4000)) == ENOUGH + 4000


@pytest.mark.bench
@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("qps", [5.0, 50.0, INF])
@pytest.mark.parametrize("gamma", [0, 3])
def test_ten_thousand_chats_are_served_in_seconds(gamma, qps, benchmark):
    trace = drawn(10_000, qps, 300, 150)
    served = replica(STREAMING if gamma else None, tensor_parallel=8, max_batch=256, engine=ENGINE)
    benchmark.pedantic(simulate, (served, trace, FixedGamma(gamma)), rounds=3)
    benchmark.extra_info["requests_per_second"] = len(trace) / benchmark.stats.stats.min
