"""Tokens of a round against simulated rounds, and the inverses of what engines print."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import perfmodel.acceptance.fit as fit
from perfmodel import acceptance as acc
from perfmodel.errors import SpecError

RATES = st.floats(0.0, 1.0)
LENGTHS = st.integers(0, 24)


def simulated_rounds(first: float, rest: float, gamma: int, count: int, seed: int) -> NDArray[np.float64]:
    hits = np.random.default_rng(seed).random((count, gamma)) < np.r_[first, np.full(gamma - 1, rest)]
    return np.asarray(1.0 + np.cumprod(hits, axis=1).sum(axis=1), dtype=np.float64)


# tokens of a round


@given(alpha=RATES, gamma=LENGTHS)
def test_tokens_of_a_round_lie_between_one_and_all_drafts_and_the_bonus(alpha: float, gamma: int) -> None:
    assert 1.0 <= acc.tokens_per_round(alpha, gamma) <= gamma + 1.0 + 1e-12


@given(alpha=RATES)
def test_without_drafts_a_round_yields_one_token(alpha: float) -> None:
    assert acc.tokens_per_round(alpha, 0) == 1.0
    assert acc.tokens_from_first_rest(alpha, alpha, 0) == 1.0


@given(gamma=LENGTHS)
def test_certain_acceptance_yields_all_drafts_and_the_bonus_exactly(gamma: int) -> None:
    assert acc.tokens_per_round(1.0, gamma) == gamma + 1.0
    assert acc.tokens_per_round(0.0, gamma) == 1.0


@given(alpha=RATES, gamma=LENGTHS)
def test_the_closed_form_is_the_sum_of_the_powers(alpha: float, gamma: int) -> None:
    expected = sum(alpha**k for k in range(gamma + 1))
    assert acc.tokens_per_round(alpha, gamma) == pytest.approx(expected, rel=1e-12)


@given(alpha=RATES, gamma=LENGTHS)
def test_first_and_rest_of_equal_rate_are_one_rate(alpha: float, gamma: int) -> None:
    tokens = acc.tokens_per_round(alpha, gamma)
    assert acc.tokens_from_first_rest(alpha, alpha, gamma) == pytest.approx(tokens, rel=1e-12)


@given(first=RATES, rest=RATES, gamma=st.integers(1, 24))
def test_survival_sums_to_the_tokens_of_a_round(first: float, rest: float, gamma: int) -> None:
    series = acc.survival(first, rest, gamma)
    expected = acc.tokens_from_first_rest(first, rest, gamma)
    assert 1.0 + series.sum() == pytest.approx(expected, rel=1e-12)


@given(alpha=RATES, less=LENGTHS, more=LENGTHS)
def test_longer_drafts_never_yield_fewer_tokens(alpha: float, less: int, more: int) -> None:
    assert acc.tokens_per_round(alpha, less) <= acc.tokens_per_round(alpha, less + more) + 1e-12


def test_an_array_call_equals_scalar_calls() -> None:
    alphas, gammas = np.linspace(0.0, 1.0, 23), np.arange(0.0, 13.0)
    together = acc.tokens_from_first_rest(alphas[:, None], alphas[::-1, None], gammas)
    alone = [
        [acc.tokens_from_first_rest(a, b, g) for g in gammas]
        for a, b in zip(alphas, alphas[::-1], strict=True)
    ]
    np.testing.assert_allclose(np.asarray(together), np.array(alone), rtol=1e-13)


@pytest.mark.parametrize(("first", "rest", "gamma"), [(0.8, 0.8, 4), (0.7, 0.5, 7), (0.4, 0.9, 12)])
def test_expected_tokens_agree_with_simulated_rounds(first: float, rest: float, gamma: int) -> None:
    rounds = simulated_rounds(first, rest, gamma, 200_000, seed=1)
    error = rounds.std() / np.sqrt(rounds.size)
    assert abs(acc.tokens_from_first_rest(first, rest, gamma) - rounds.mean()) < 4.0 * error


# inverses


@given(alpha=RATES, gamma=st.integers(1, 24))
def test_the_inverse_gives_the_rate_behind_a_mean_length(alpha: float, gamma: int) -> None:
    tokens = acc.tokens_per_round(alpha, gamma)
    assert acc.alpha_from_mean_length(tokens, gamma) == pytest.approx(alpha, abs=1e-9)


@given(first=st.floats(0.05, 1.0), rest=st.floats(0.05, 1.0))
@settings(max_examples=40, deadline=None)
def test_first_and_rest_come_back_from_two_mean_lengths(first: float, rest: float) -> None:
    lengths = [acc.tokens_from_first_rest(first, rest, gamma) for gamma in (3, 5)]
    assert fit.fit_first_rest([3, 5], np.array(lengths)) == pytest.approx((first, rest), abs=1e-5)


def test_a_mean_length_by_hand() -> None:
    assert acc.tokens_per_round(0.8, 4) == pytest.approx(3.3616)
    assert acc.alpha_from_mean_length(3.3616, 4) == pytest.approx(0.8)


def test_an_inverse_over_an_array_equals_scalar_calls() -> None:
    gammas = np.array([[1.0], [4.0], [9.0]])
    lengths = 1.0 + np.linspace(0.0, 1.0, 7) * gammas
    together = acc.alpha_from_mean_length(lengths, gammas)
    alone = [
        [acc.alpha_from_mean_length(x, g[0]) for x in row] for row, g in zip(lengths, gammas, strict=True)
    ]
    np.testing.assert_allclose(np.asarray(together), np.array(alone), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (
            lambda: acc.alpha_from_mean_length(5.5, 4),
            "mean_length_with_bonus: 5.5 is not between 1 and gamma",
        ),
        (lambda: acc.alpha_from_mean_length(0.8, 4), "the bonus token counts"),
        (lambda: acc.alpha_from_mean_length(np.nan, 4), "nan is not between"),
        (lambda: acc.alpha_from_mean_length(1.5, 0), "gamma: without drafted tokens"),
        (lambda: fit.fit_first_rest([3, 3], np.array([2.0, 2.0])), "gammas: two or more different"),
        (lambda: fit.fit_first_rest([3, 5], np.array([2.0, 7.0])), "not between 1 and gamma"),
    ],
)
def test_numbers_that_no_acceptance_can_give_are_refused(call: Callable[[], object], complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        call()
