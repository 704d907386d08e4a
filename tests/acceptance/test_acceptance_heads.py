"""What a trained head accepts by the entries that it reads: no cliff, and a window as the cure."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import strategies
from perfmodel import EngineOverhead, HardwareProfile, ModelSpec, Workload, plan
from perfmodel import acceptance as acc
from perfmodel.deployment import Conditions, Drafter

SGLANG = replace(EngineOverhead.load("vllm-h100"), software="sglang")  # it can bound what a head reads
DEPLOYED = HardwareProfile.load("h100"), ModelSpec.load("llama-3.1-8b"), SGLANG


@pytest.mark.parametrize("name", strategies.available())
def test_acceptance_has_no_cliff_in_context_or_budget(name: str) -> None:
    """Over a grid that passes every trained length, a percent more entries moves it by less than .012."""
    strategy = strategies.load(name)
    entries = np.arange(512.0, 140_000.0, 128.0)
    for drafter in strategy.drafters:
        for context_len, kv_budget in ((entries, np.inf), (2e5, entries)):
            accepted = acc.acceptance_rate(
                strategy, drafter=drafter, context_len=context_len, kv_budget=kv_budget
            )
            for rate in (accepted.first, accepted.rest, accepted.sd):
                steps = np.abs(np.diff(np.broadcast_to(rate, entries.shape))) / np.diff(np.log(entries))
                assert np.max(steps, initial=0.0) < 1.2


@pytest.mark.parametrize("name", ["eagle", "mtp"])
def test_a_window_of_what_a_head_was_trained_to_read_is_offered_and_cures_a_long_context(name: str) -> None:
    strategy = strategies.load(name)
    trained = strategy.acceptance.trained_length.value
    assert {trained, np.inf} <= set(strategy.default_budgets)
    accepts = partial(acc.acceptance_rate, strategy, drafter="head", context_len=4.0 * trained)
    window, whole = (float(accepts(kv_budget=kept).rest) for kept in (trained, np.inf))
    assert whole == strategy.acceptance.beyond.value < 0.8 * window
    budgets = np.geomspace(64.0, 8.0 * trained, 200)
    assert max(accepts(kv_budget=budgets).rest) < 1.05 * max(
        float(accepts(kv_budget=kept).rest) for kept in strategy.default_budgets
    )


def test_a_head_stops_working_past_its_trained_length_unless_a_window_keeps_it_inside() -> None:
    eagle = strategies.load("eagle")
    context = np.array([2e3, 4096.0, 4096.0 * 2**0.5, 8192.0, 60e3])
    rates = acc.acceptance_rate(eagle, drafter="head", context_len=context, kv_budget=np.inf)
    assert np.asarray(rates.first) == pytest.approx([0.74, 0.74, 0.495, 0.25, 0.25])
    known = replace(eagle.acceptance, transition=replace(eagle.acceptance.transition, sd=0.0))
    surer = acc.acceptance_rate(
        replace(eagle, acceptance=known), drafter="head", context_len=context, kv_budget=np.inf
    )
    assert (np.asarray(surer.sd) < rates.sd).tolist() == [False, False, True, False, False]
    assert rates.kind == "assumed"
    long = acc.acceptance_rate(
        eagle, drafter="head", context_len=context, kv_budget=np.inf, trained_length=1e5
    )
    assert np.all(long.first == 0.74)
    windowed = acc.acceptance_rate(eagle, drafter="head", context_len=60e3, kv_budget=4096.0)
    assert 0.25 < windowed.first < 0.74
    assert (
        1.2
        < acc.expected_tokens(
            acc.acceptance_rate(eagle, drafter="head", context_len=32e3, kv_budget=np.inf), 8
        )
        < 1.4
    )


@pytest.mark.parametrize("one_deployment", [False, True])
def test_a_plan_reads_the_whole_cache_of_a_short_context_and_a_window_of_a_long_one(one_deployment) -> None:
    budgets = {}
    for context in (2000, 64_000):
        workload = Workload([1, 2], [context])
        answer = plan(
            *DEPLOYED, workload, drafters=[Drafter(strategies.load("eagle"))], gammas=[3],
            one_deployment=one_deployment, draws=0,
        )  # fmt: skip
        assert all(cell.strategy == "eagle" for cell in answer.cells)
        budgets[context] = {cell.kv_budget for cell in answer.cells}
    assert budgets == {2000: {None}, 64_000: {4096}}


def test_a_budget_that_was_asked_for_holds_for_heads_too() -> None:
    eagle = Drafter(strategies.load("eagle"), conditions=Conditions(trained_length=16_384.0))
    assert 16_384 in eagle.default_budgets
    for asked, kept in ((1024, 1024), (np.inf, None)):
        answer = plan(*DEPLOYED, Workload([1], [8000]), drafters=[eagle], kv_budgets=[asked], draws=0)
        assert answer.cells[0].strategy == "eagle" and answer.cells[0].kv_budget == kept
        assert answer.to_dict()["request"]["kv_budgets"] == [kept]
