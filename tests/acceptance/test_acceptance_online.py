"""What a running engine teaches: laws of the learned shifts at every acceptance, however extreme."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_plans import cell_of, plan_of

from perfmodel.acceptance.online import FARTHEST, MOST_ROUNDS, NEARLY, Learner, move_rate, moved_tokens
from perfmodel.planning.schedule import tokens_by_gamma
from perfmodel.policy import SpeculationPolicy

RATES = st.one_of(st.sampled_from([0.0, 1.0, 1e-9, 1.0 - 1e-9]), st.floats(0.0, 1.0))
PLACE = (0, 0)
GAMMAS = (0, 1, 2, 4, 8)


def learned(first, rest, gamma, rounds, accepted):
    """The shift after these rounds alone."""
    learner = Learner()
    learner.count((*PLACE, gamma), rounds, accepted)
    return learner.shift({PLACE: (first, rest)})


@given(RATES, RATES, st.integers(1, 16), st.integers(1, 100_000), st.floats(0, 1), st.floats(0, 1))
def test_the_shift_rises_with_what_was_accepted_and_never_runs_away(first, rest, gamma, rounds, less, more):
    less, more = sorted((less, more))
    low, high = (
        learned(first, rest, gamma, rounds, share * gamma * rounds) for share in (less, more)
    )
    assert -FARTHEST < low <= high < FARTHEST


@given(RATES, RATES, st.integers(1, 16), st.integers(1, 100_000))
def test_tokens_as_believed_teach_nothing(first, rest, gamma, rounds):
    first, rest = (float(np.clip(rate, NEARLY, 1.0 - NEARLY)) for rate in (first, rest))
    expected = float(moved_tokens(first, rest, gamma, 0.0)) - 1.0
    assert learned(first, rest, gamma, rounds, expected * rounds) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("believed", [0.0, 0.02, 0.74, 0.98, 1.0])
@pytest.mark.parametrize("true", [0.0, 0.01, 0.5, 0.97, 0.99, 1.0])
def test_many_rounds_beat_any_belief(believed, true):
    gamma, rounds = 4, 20_000
    accepted = rounds * sum(true**position for position in range(1, gamma + 1))
    shift = learned(believed, believed, gamma, rounds, accepted)
    assert float(move_rate(believed, shift)) == pytest.approx(true, abs=0.01)


@pytest.mark.parametrize("accepted", [0, 4])
def test_the_same_outcome_for_ever_drifts_nowhere(accepted):
    learner, believed = Learner(), {PLACE: (0.74, 0.74)}
    shifts = []
    for _ in range(200):
        learner.count((*PLACE, 4), 5000, 5000 * accepted)
        shifts.append(learner.shift(believed))
    assert abs(shifts[-1] - shifts[20]) < 1e-6
    assert abs(shifts[-1]) < FARTHEST
    assert learner.shift(believed) == shifts[-1], "nothing new teaches nothing new"


def test_counts_since_the_start_stay_whole_while_the_memory_fades():
    learner = Learner()
    for _ in range(10):
        learner.count((*PLACE, 4), MOST_ROUNDS, MOST_ROUNDS)
        learner.shift({PLACE: (0.5, 0.5)})
    assert learner.totals == (10 * MOST_ROUNDS, 0, 40 * MOST_ROUNDS, 10 * MOST_ROUNDS)


@given(st.floats(0.05, 0.95), st.floats(0.02, 0.98), st.floats(0.3, 0.9))
def test_rounds_without_a_draft_teach_the_share_and_not_the_acceptance(believed, share, alpha):
    """As n-gram lookups do: acceptance is of the rounds that draft; tokens per round are weighted by both."""
    how = {"alpha": alpha, "baseline": 0.01, "draft": 1e-4, "verify": 1e-4, "match_share": believed}
    cell = cell_of(1, 1000, GAMMAS, drafter=("ngram", None, None), **how)
    policy = SpeculationPolicy.from_plan(plan_of([cell], GAMMAS))
    gamma, rounds = 4, 100_000
    drafts = sum(alpha**position for position in range(1, gamma + 1))
    drafting = round(share * rounds)
    policy.observe(gamma * drafting, round(drafts * drafting), drafting, 1, 1000)
    policy.observe(0, 0, rounds - drafting, 1, 1000)
    assert policy.refresh() == pytest.approx(0.0, abs=1e-3), "acceptance is what was planned"
    match = float(move_rate(believed, policy.match_shift))
    assert match == pytest.approx(share, abs=0.011)
    tokens = tokens_by_gamma(cell, (gamma,), policy.shift, match)[0]
    assert tokens == pytest.approx(1.0 + share * drafts, abs=0.03)


def test_an_engine_that_does_not_tell_of_idle_rounds_teaches_no_share():
    learner = Learner()
    learner.count((*PLACE, 4), 10_000, 20_000)
    assert learner.match_shift({PLACE: 0.3}) == 0.0


def test_rarer_matches_turn_speculation_off():
    how = {"alpha": 0.8, "baseline": 0.01, "draft": 0.02, "verify": 0.1}
    cell = cell_of(1, 1000, GAMMAS, drafter=("ngram", None, None), match_share=0.9, **how)
    policy = SpeculationPolicy.from_plan(plan_of([cell], GAMMAS))
    assert policy.decide(1, 1000).gamma > 0
    policy.observe(400, 235, 100, 1, 1000)
    policy.observe(0, 0, 9900, 1, 1000)
    policy.refresh()
    assert policy.decide(1, 1000).gamma == 0


def test_a_hundred_thousand_decisions_among_poisoned_observations_stay_in_bounds():
    """Accepted above drafted, negative, not a number, endless, of another type: counted, never used."""
    poison = [
        (4, 5), (-1, 0), (4, -1), (math.nan, 1), (4, math.nan), (math.inf, 1), (4, math.inf), (None, 1),
        ("4", 2),
        (2.5, 1), (10**400, 1), (5000, 1), ([], 1), (4, 2, 0), (4, 2, -3), (4, 2, math.nan), (4, 2, math.inf),
        (9, 20, 2), (4, 2, 1, 0), (4, 2, 1, -5), (4, 2, 1, math.nan), (4, 2, 1, None), (4, 2, 1, 1, "x"),
    ]  # fmt: skip
    cells = [
        cell_of(batch, context, GAMMAS, alpha=0.7, baseline=0.02, draft=0.1, verify=0.02)
        for batch in (1, 16)
        for context in (1000, 32000)
    ]
    policy = SpeculationPolicy.from_plan(plan_of(cells, GAMMAS))
    rng = random.Random(0)
    for step in range(100_000):
        policy.observe(*poison[step % len(poison)])
        policy.observe_step_time(*rng.choice([(1, 1000, 4, -1.0), (1, 1000, 4, math.nan), (0, 0, 4, 1.0)]))
        batch = rng.choice([0, 1, 7, 500, -3, math.nan, math.inf, None, "4"])
        assert policy.decide(batch, rng.choice([0, 5000, 10**9, math.nan, None])).gamma in GAMMAS
        if step % 20_000 == 0:
            assert policy.refresh() == 0.0
    figures = policy.figures()
    assert (figures.drafting, figures.idle, figures.drafted, figures.accepted) == (0, 0, 0, 0)
    assert figures.nonsense >= 200_000
    assert len(policy.learned.rounds) == 0
    policy.observe(4, 3, 1, 1, 1000)
    assert 0.0 < abs(policy.refresh()) < 0.1
