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
    rates = acc.acceptance_rate(
        eagle, drafter="head", context_len=context, kv_budget=np.inf, trained_length=4096.0
    )
    assert np.asarray(rates.first) == pytest.approx([0.74, 0.74, 0.495, 0.25, 0.25])
    known = replace(eagle.acceptance, transition=replace(eagle.acceptance.transition, sd=0.0))
    surer = acc.acceptance_rate(
        replace(eagle, acceptance=known), drafter="head", context_len=context, kv_budget=np.inf,
        trained_length=4096.0,
    )  # fmt: skip
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
    assert budgets == {2000: {None}, 64_000: {2048}}


def test_a_budget_that_was_asked_for_holds_for_heads_too() -> None:
    eagle = Drafter(strategies.load("eagle"), conditions=Conditions(trained_length=16_384.0))
    assert 16_384 in eagle.default_budgets
    for asked, kept in ((1024, 1024), (np.inf, None)):
        answer = plan(*DEPLOYED, Workload([1], [8000]), drafters=[eagle], kv_budgets=[asked], draws=0)
        assert answer.cells[0].strategy == "eagle" and answer.cells[0].kv_budget == kept
        assert answer.to_dict()["request"]["kv_budgets"] == [kept]


# Tokens a round of Qwen3-8B's EAGLE-3 head, three drafts (vllm-project/speculators PR 684).
BY_CONTEXT = {2e3: 2.30, 4e3: 2.04, 6e3: 1.86, 8e3: 1.69, 10e3: 1.40, 12e3: 1.29, 16e3: 1.09}


def test_a_head_whose_trained_length_nobody_stated_declines_as_measured() -> None:
    eagle = Drafter(strategies.load("eagle"))
    contexts = np.array(list(BY_CONTEXT))
    believed = eagle.acceptance(ModelSpec.load("qwen3-8b"), context_len=contexts, kv_budget=np.inf)
    tokens = np.asarray(acc.expected_tokens(believed, 3.0))
    assert np.all(np.diff(tokens) < 0.0)
    measured = np.array(list(BY_CONTEXT.values()))
    assert tokens[:-1] == pytest.approx(measured[:-1], rel=0.11)
    assert tokens[-1] == pytest.approx(measured[-1], rel=0.25)
    low, high = (acc.expected_tokens(believed.shifted(side), 3.0) for side in (-1.3, 1.3))
    assert np.mean((low < measured) & (measured < high)) > 0.8


@pytest.mark.parametrize(("name", "length"), [("eagle", 4096.0), ("mtp", 32768.0)])
def test_a_stated_length_decides_where_an_assumed_one_only_leans(name, length) -> None:
    """The same length: as stated it is a corner of the decline, as assumed the middle of a wider one."""
    accepts = partial(
        acc.acceptance_rate, strategies.load(name), drafter="head", kv_budget=np.inf,
        context_len=length * np.array([0.5, 1.0, 2.0, 4.0]),
    )  # fmt: skip
    stated, assumed = np.asarray(accepts(trained_length=length).rest), np.asarray(accepts().rest)
    assert stated[0] == stated[1] == assumed[0] and stated[2] == stated[3] == assumed[3]
    assert np.all(np.diff(assumed) < 0.0)
    assert accepts().sd[1] > accepts(trained_length=length).sd[1]


def test_a_plan_says_that_the_trained_length_is_assumed_and_which_flag_states_it() -> None:
    def assumed(context: int, **conditions) -> str:
        eagle = Drafter(strategies.load("eagle"), conditions=Conditions(**conditions))
        return plan(*DEPLOYED, Workload([1], [context]), drafters=[eagle], gammas=[3], draws=0).assumed[0]

    assert "2,048 to 8,192" in assumed(4000) and "--trained-length" in assumed(4000)
    assert "--trained-length" not in assumed(1000) + assumed(4000, trained_length=8192.0)
