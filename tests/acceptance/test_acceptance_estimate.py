"""Intervals cover the truth, and unequal rates are found."""

from __future__ import annotations

import json

import numpy as np
import pytest
from simulated_logs import accepted_per_round, beta_shape, counted

from perfmodel.acceptance import alpha_from_mean_length
from perfmodel.acceptance.counts import AcceptanceCounts
from perfmodel.acceptance.estimate import AcceptanceFit, fit_acceptance
from perfmodel.acceptance.intervals import Rate, clustered_rate, independent_se, logit_interval
from perfmodel.errors import SpecError


def binomial_rate(accepted: float, tried: float) -> Rate:
    """The rate with the interval of independent trials: far too narrow where requests differ."""
    value = accepted / tried
    return logit_interval(value, independent_se(value, tried), np.inf)


def pooled_truth(mean: float, sd: float, gamma: int) -> float:
    """The rate of all tried tokens over endlessly many requests: better requests try more tokens."""
    rates = np.random.default_rng(0).beta(*beta_shape(mean, sd), 1_000_000)
    tried = (1.0 - rates**gamma) / (1.0 - rates)
    return float(rates @ tried / tried.sum())


def test_the_interval_over_requests_covers_the_truth_and_the_binomial_one_does_not() -> None:
    truth = pooled_truth(0.8, 0.1, 4)
    covered = naive = 0
    for seed in range(200):
        accepted = accepted_per_round(seed, 64, 100, 4)
        tried = np.minimum(accepted + 1, 4).sum(axis=1).astype(float)
        kept = accepted.sum(axis=1).astype(float)
        clustered, binomial = (
            clustered_rate(kept, tried),
            binomial_rate(float(kept.sum()), float(tried.sum())),
        )
        covered += clustered.low <= truth <= clustered.high
        naive += binomial.low <= truth <= binomial.high
    assert 186 <= covered <= 194
    assert naive < 100


def test_the_interval_over_independent_windows_covers_the_truth() -> None:
    truth, covered = pooled_truth(0.8, 0.1, 4), 0
    for seed in range(200):
        accepted = accepted_per_round(seed, 320, 10, 4).reshape(40, 80)
        reached = np.stack([(accepted >= k).sum(axis=1) for k in range(1, 5)], axis=-1).astype(float)
        rounds = np.full(40, 80.0)
        fit = fit_acceptance(
            AcceptanceCounts(
                unit="window",
                rounds=rounds,
                drafted=4 * rounds,
                accepted=reached.sum(axis=1),
                gamma=np.full(40, 4.0),
                reached=reached,
                tried=np.column_stack([rounds, reached[:, :-1]]),
            )
        )
        covered += fit.alpha.low <= truth <= fit.alpha.high
    assert fit.method == "Beta-binomial over windows"
    assert 186 <= covered <= 196


def test_windows_that_move_together_widen_the_interval() -> None:
    still = np.r_[np.full(20, 0.7), np.full(20, 0.9)]
    mixed = np.tile([0.7, 0.9], 20)
    widths = []
    for rates in (mixed, still):
        rounds = np.full(40, 200.0)
        fit = fit_acceptance(
            AcceptanceCounts(
                unit="window",
                rounds=rounds,
                drafted=rounds,
                accepted=rates * rounds,
                gamma=np.ones(40),
                reached=(rates * rounds)[:, None],
                tried=rounds[:, None],
            )
        )
        widths.append(fit.alpha.high - fit.alpha.low)
    assert widths[1] > 2.0 * widths[0]


def test_the_interval_from_totals_covers_the_truth() -> None:
    rates = np.random.default_rng(0).beta(*beta_shape(0.8, 0.1), 1_000_000)
    truth = float(alpha_from_mean_length(float(((1.0 - rates**5) / (1.0 - rates)).mean()), 4))
    covered = 0
    for seed in range(200):
        accepted = accepted_per_round(seed, 64, 100, 4).sum(axis=1).astype(float)
        rounds = np.full(64, 100.0)
        fit = fit_acceptance(
            AcceptanceCounts(
                unit="request", rounds=rounds, drafted=4 * rounds, accepted=accepted, gamma=np.full(64, 4.0)
            )
        )
        covered += int(fit.alpha.low <= truth <= fit.alpha.high)
    assert 184 <= covered <= 197


def test_the_rate_is_accepted_over_tried_and_not_over_drafted() -> None:
    accepted = accepted_per_round(1, 1, 2000, 4, sd=0.0)
    fit = fit_acceptance(counted(accepted, 4))
    assert fit.alpha.value == pytest.approx(0.8, abs=0.015)
    assert accepted.sum() / (4 * accepted.size) == pytest.approx(0.59, abs=0.02)
    assert fit.method == "assumed spread between requests"
    assert fit.alpha.high - fit.alpha.low > 0.3
    assert any("0.1" in warning for warning in fit.warnings)


def test_a_fit_prints_what_it_promises() -> None:
    fit = fit_acceptance(counted(accepted_per_round(2, 30, 50, 5), 5)).as_dict()
    promised = "alpha alpha_low alpha_high alpha1 alpha2 survival requests rounds method"
    assert set(promised.split()) <= set(fit)
    assert (fit["requests"], fit["rounds"], fit["gamma"]) == (30, 1500, 5)
    assert fit["alpha_low"] < fit["alpha"] < fit["alpha_high"]
    assert len(fit["survival"]) == 5
    assert json.loads(json.dumps(fit)) == fit


def test_more_requests_are_asked_for_until_the_interval_is_narrow() -> None:
    few = fit_acceptance(counted(accepted_per_round(3, 16, 100, 4), 4))
    assert few.further_requests is not None and few.further_requests > 20
    assert any("more requests narrow it to +-0.02" in warning for warning in few.warnings)
    enough = accepted_per_round(3, 16 + few.further_requests, 100, 4)
    many = fit_acceptance(counted(enough, 4))
    assert (many.alpha.high - many.alpha.low) / 2.0 == pytest.approx(0.02, abs=0.006)
    alike = fit_acceptance(counted(accepted_per_round(3, 64, 200, 4, sd=0.02), 4))
    assert alike.further_requests == 0 and not alike.warnings


def test_two_requests_ask_for_as_many_more_as_requests_usually_take() -> None:
    for seed in range(5):
        two = fit_acceptance(counted(accepted_per_round(seed, 2, 200, 4, sd=0.08), 4))
        assert two.further_requests is not None and 50 <= two.further_requests <= 250


def test_unequal_positions_are_found_and_equal_ones_are_not() -> None:
    def found(**odd: float) -> float:
        fits = [
            fit_acceptance(counted(accepted_per_round(seed, 48, 60, 5, sd=0.05, **odd), 5))
            for seed in range(40)
        ]
        return float(np.mean([fit.decay_p is not None and fit.decay_p < 0.01 for fit in fits]))

    assert found() <= 0.05
    assert found(first=0.7) >= 0.95
    fit = fit_acceptance(counted(accepted_per_round(0, 48, 60, 5, first=0.6), 5))
    assert fit.first is not None and fit.rest is not None
    assert fit.first.value == pytest.approx(0.6, abs=0.03)
    assert any("later positions are accepted more often" in warning for warning in fit.warnings)


@pytest.mark.parametrize("kind", ["drift", "along"])
def test_drift_along_the_log_and_along_the_requests_is_found(kind: str) -> None:
    def found(**odd: float) -> float:
        fits = [
            fit_acceptance(counted(accepted_per_round(seed, 48, 60, 4, sd=0.04, **odd), 4))
            for seed in range(40)
        ]
        return float(np.mean([fit.drift_p is not None and fit.drift_p < 0.01 for fit in fits]))

    assert found() <= 0.075
    assert found(**{kind: -0.06}) >= 0.9
    fit = fit_acceptance(counted(accepted_per_round(1, 48, 60, 4, sd=0.04, **{kind: -0.1}), 4))
    assert fit.drift is not None and fit.drift < 0.0
    assert any("drifts along the log" in warning for warning in fit.warnings)


def test_requests_that_agree_by_chance_are_no_surer_than_independent_trials() -> None:
    alike = np.tile([4, 2, 0, 3], (6, 5))
    clustered = fit_acceptance(counted(alike, 4))
    reached = float(np.minimum(alike + 1, 4).sum())
    independent = binomial_rate(float(alike.sum()), reached)
    assert clustered.alpha.se == pytest.approx(independent.se) and clustered.alpha.se > 0.0
    rounds = np.full(6, 20.0)
    totals = fit_acceptance(
        AcceptanceCounts(
            unit="request",
            rounds=rounds,
            drafted=4 * rounds,
            accepted=np.full(6, 45.0),
            gamma=np.full(6, 4.0),
        )
    )
    assert totals.alpha.se > 0.01


@pytest.mark.parametrize("level", [0, 4])
def test_a_log_that_accepts_nothing_or_everything_still_has_an_interval(level: int) -> None:
    fit = fit_acceptance(counted(np.full((10, 10), level), 4))
    assert fit.alpha.value == level / 4
    assert 0.0 <= fit.alpha.low < fit.alpha.high <= 1.0


@pytest.mark.parametrize("rows", [1, 6, 12])
def test_totals_that_accept_nothing_have_the_interval_of_their_rounds(rows: int) -> None:
    each, gamma = np.full(rows, 480.0 / rows), np.full(rows, 3.0)
    counts = AcceptanceCounts(
        unit="window", rounds=each, drafted=3.0 * each, accepted=0.0 * each, gamma=gamma
    )
    alpha = fit_acceptance(counts).alpha
    assert alpha.value == 0.0 and 2.0 / 480.0 < alpha.high < 0.05


def test_no_rounds_are_refused() -> None:
    empty = np.zeros(0)
    with pytest.raises(SpecError, match="rounds: no round drafted"):
        fit_acceptance(
            AcceptanceCounts(unit="request", rounds=empty, drafted=empty, accepted=empty, gamma=empty)
        )


def test_a_fit_is_the_same_for_counts_in_any_order() -> None:
    accepted = accepted_per_round(6, 12, 30, 4)
    forth, back = (fit_acceptance(counted(rows, 4)) for rows in (accepted, accepted[::-1]))
    assert isinstance(forth, AcceptanceFit)
    assert forth.alpha == back.alpha and forth.first == back.first and forth.survival == back.survival
