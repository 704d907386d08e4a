"""Acceptance at its ends: never, always, and everything between, there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.acceptance import Acceptance, expected_tokens
from perfmodel.acceptance.inverse import alpha_from_mean_length
from perfmodel.acceptance.odds import expit, logit
from perfmodel.acceptance.online import FARTHEST, Learner, move_rate
from perfmodel.acceptance.tokens import survival, tokens_per_round

RATES = st.one_of(st.sampled_from([0.0, 1.0, 1e-300, 1e-12, 1.0 - 1e-12]), st.floats(0.0, 1.0))
PLACE = (0, 0)


@pytest.fixture(autouse=True)
def _nothing_overflows():
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        yield


@given(RATES, st.integers(1, 64))
def test_tokens_lead_back_to_the_rate_and_the_rate_to_the_tokens(alpha, gamma):
    tokens = tokens_per_round(alpha, gamma)
    assert 1.0 <= tokens <= gamma + 1.0
    back = alpha_from_mean_length(tokens, gamma)
    assert tokens_per_round(back, gamma) == pytest.approx(tokens, rel=1e-12)
    assert back == pytest.approx(alpha, abs=1e-9)


@given(RATES, RATES, RATES, st.integers(0, 64))
def test_tokens_are_one_and_the_survivals(first, rest, match, gamma):
    expected = 1.0 + match * survival(first, rest, gamma).sum()
    acceptance = Acceptance(first=first, rest=rest, match=match)
    assert expected_tokens(acceptance, gamma) == pytest.approx(expected, rel=1e-12)


@given(st.floats(1e-300, 1.0 - 1e-12))
def test_odds_lead_back_to_the_rate(rate):
    assert expit(logit(rate)) == pytest.approx(rate, rel=1e-9, abs=1e-15)


@given(RATES, st.floats(0.0, 3.0), st.floats(-1e6, 1e6))
def test_a_shifted_rate_is_a_rate(rate, sd, deviations):
    shifted = Acceptance(first=rate, rest=rate, sd=sd).shifted(deviations)
    assert 0.0 <= shifted.first <= 1.0


@given(RATES, st.integers(1, 64), st.sampled_from([0.0, 1.0]), st.sampled_from([0, 1, 10**12]))
def test_no_rounds_teach_nothing_and_any_number_of_them_stays_in_bounds(believed, gamma, share, rounds):
    learner = Learner()
    learner.count((*PLACE, gamma), rounds, share * gamma * rounds)
    shift = learner.shift({PLACE: (believed, believed)})
    assert abs(shift) < FARTHEST if rounds else shift == 0.0
    assert 0.0 <= move_rate(believed, shift) <= 1.0
