"""Lookups that find nothing: a share of the rounds drafts, every other round is a plain step and a lookup."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from perfmodel.acceptance import Acceptance, Conditions, expected_tokens
from perfmodel.acceptance.file import MeasuredAcceptance
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.planner import plan
from perfmodel.speculation import Drafter, price_round
from perfmodel.traffic.acceptance_draws import request_acceptance
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.trace import Trace
from perfmodel.workload import Workload

H100, A100 = HardwareProfile.load("h100-sxm-80gb"), HardwareProfile.load("a100-sxm-80gb")
ENGINE, IDEAL, GENERIC = (EngineOverhead.load(name) for name in ("magicdec-h100", "ideal", "generic"))
LLAMA, QWEN = ModelSpec.load("llama-3.1-8b"), ModelSpec.load("qwen2.5-7b")
NGRAM = strategies.load("ngram")
price = partial(price_round, H100, LLAMA)
shares = st.floats(0.0, 1.0)


def looking_up(share: float | None) -> Drafter:
    return Drafter(NGRAM, conditions=Conditions(match_share=share))


@given(shares, shares, shares, st.integers(1, 16))
def test_tokens_are_the_mean_over_rounds_with_and_without_a_match(share, first, rest, gamma):
    drafting = Acceptance(first=first, rest=rest)
    mean = share * expected_tokens(drafting, gamma) + (1.0 - share)
    assert expected_tokens(replace(drafting, match=share), gamma) == pytest.approx(mean, rel=1e-12)


@given(shares, st.integers(1, 16), st.integers(100, 100_000))
def test_one_sequence_runs_the_verification_or_a_plain_step(share, gamma, context):
    place = {"batch": 1.0, "context_len": float(context), "gamma": float(gamma), "alpha": 0.6}
    always = price(ENGINE, looking_up(1.0), **place)
    mean = price(ENGINE, looking_up(share), **place)
    plain = always.baseline.total + always.draft_s
    assert mean.round_s == pytest.approx(share * always.round_s + (1.0 - share) * plain, rel=1e-12)


def test_a_match_in_every_round_is_a_drafter_that_always_drafts():
    """To the last bit, beside the lookup: the same as tokens per round that were measured."""
    place = {"batch": np.array([[1.0], [32.0]]), "context_len": 9_000.0, "gamma": np.arange(9.0)}
    always = price(ENGINE, looking_up(1.0), alpha=0.7, **place)
    measured = price(ENGINE, looking_up(0.2), tokens_per_round=always.tokens_per_round, **place)
    assert np.all(always.round_s == measured.round_s)
    assert np.all(always.speedup == measured.speedup)


@pytest.mark.parametrize("share", [None, 0.0, 0.3, 1.0])
def test_nothing_drafted_is_plain_decoding_whatever_the_share(share):
    nothing = price(ENGINE, looking_up(share), batch=64.0, context_len=5_000.0, gamma=0.0)
    assert nothing.speedup == nothing.tokens_per_round == 1.0


def test_more_matches_never_yield_fewer_tokens_and_none_are_never_faster_than_plain_decoding():
    places = {"batch": 4.0, "context_len": 2_000.0, "gamma": 5.0}
    rounds = [price(GENERIC, looking_up(share), **places) for share in (0.0, 0.1, 0.5, 1.0)]
    assert rounds[0].speedup < 1.0
    assert rounds[0].tokens_per_round == 1.0
    assert np.all(np.diff([float(each.tokens_per_round) for each in rounds]) > 0.0)
    assert np.all(np.diff([float(each.round_s) for each in rounds]) > 0.0)


@given(st.sampled_from([1.0, 8.0, 64.0]), shares)
def test_any_sequence_that_drafts_makes_it_a_round(batch, share):
    """1 - (1 - m)^b of the rounds of a batch take the engine's time of a round."""
    engine = IDEAL.with_values({"round": 1e-3})
    found = price(engine, looking_up(share), batch=batch, context_len=500.0, gamma=3.0)
    assert found.overhead == pytest.approx(1e-3 * (1.0 - (1.0 - share) ** batch), rel=1e-9)


def test_a_lookup_takes_longer_in_a_longer_text_and_for_more_sequences():
    engine = IDEAL.with_values({"lookup": 1e-4, "lookup_token": 2e-9})
    taken = partial(price, engine, looking_up(0.3), gamma=4.0)
    assert taken(batch=8.0, context_len=50_000.0).draft_s == pytest.approx(1e-4 + 8 * 50_000 * 2e-9)
    assert price(IDEAL, looking_up(0.3), gamma=4.0, batch=8.0, context_len=5e4).draft_s == 0.0


def test_measured_rates_are_those_of_rounds_that_draft():
    known = MeasuredAcceptance(
        alpha=0.7, alpha_se=0.01, alpha1=0.6, alpha1_se=0.01, alpha2=0.77, alpha2_se=0.01, gamma=4,
        rounds=9000, strategy="ngram",
    )  # fmt: skip
    believed = Drafter(NGRAM, measured=(known,)).acceptance(LLAMA, context_len=600.0, kv_budget=np.inf)
    law = NGRAM.acceptance.match
    assert (believed.match, believed.match_sd) == (law.value, law.sd)
    assert believed.first == pytest.approx(0.6, abs=0.02)
    stated = Drafter(NGRAM, measured=(known,), conditions=Conditions(match_share=0.9))
    assert stated.acceptance(LLAMA, context_len=600.0, kv_budget=np.inf).match == 0.9


def test_the_share_of_a_strategy_that_always_drafts_cannot_be_stated():
    window = Drafter(strategies.load("streaming_llm"), conditions=Conditions(match_share=0.2))
    assert window.acceptance(LLAMA, context_len=9000.0, kv_budget=512.0).match == 1.0


def test_a_simulated_request_drafts_in_as_many_rounds():
    replica = Replica(Deployment(H100, LLAMA, GENERIC), looking_up(0.25), np.inf, max_batch=4)
    trace = Trace("three", np.zeros(3), np.full(3, 100), np.full(3, 50))
    first, rest = request_acceptance(replica, trace, alpha=0.8, spread=0.0, seed=0)
    assert np.all(first == 0.25 * 0.8)
    assert np.all(rest == 0.8)


def test_seven_billion_parameters_on_an_a100_are_promised_no_gain_from_lookups():
    """vLLM issue 8439: Qwen2-7B, one request, 5 drafts: 69.8 tokens/s without and 61.8 with, 0.885x."""
    answer = plan(A100, QWEN, GENERIC, Workload((1,), (600,)), drafters=[Drafter(NGRAM)], gammas=[5])
    cell = answer.cells[0]
    assert cell.speedup_low < 0.885 < cell.speedup_high
    assert cell.probability_beats_plain < 0.9
    assert cell.match_share == NGRAM.acceptance.match.value
    assert f"{cell.match_share:.0%} of them with drafts" in cell.why


def test_a_plan_with_its_share_stated_names_no_assumption_of_it():
    answers = [
        plan(A100, QWEN, GENERIC, Workload((1,), (600,)), drafters=[looking_up(share)])
        for share in (None, 0.9)
    ]
    assumed = ["match share" in " ".join(answer.assumed) for answer in answers]
    assert assumed == [True, False]
    assert answers[1].cells[0].speedup > answers[0].cells[0].speedup
    assert answers[1].cells[0].accepted[0] == 0.9 * answers[1].cells[0].alpha_first
