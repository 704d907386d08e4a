"""Under a schedule the lengths are fitted with the rates, and the truth lies in the interval."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated_schedules import scheduled_counts

from perfmodel.acceptance.counts import counts_of_histograms, joined_counts
from perfmodel.acceptance.estimate import fit_acceptance
from perfmodel.acceptance.mixture import bound_alpha

SERVERS = [
    ([1, 4], [0.7, 0.3], 0.8, 0.8, 1, [1, 4]),
    ([1, 4], [0.5, 0.5], 0.2, 0.2, 1, []),
    ([1, 2, 4], [0.5, 0.3, 0.2], 0.7, 0.6, 20, [1, 2, 4]),
    ([1, 3, 7], [0.5, 0.3, 0.2], 0.95, 0.95, 10, []),
    ([2, 5], [0.4, 0.6], 0.5, 0.9, 1, [2, 5]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("lengths", "shares", "first", "rest", "rows", "given"), SERVERS)
def test_the_truth_lies_in_the_interval_of_most_servers(
    lengths: list[int], shares: list[float], first: float, rest: float, rows: int, given: list[int]
) -> None:
    held = np.zeros(2)
    for seed in range(200):
        fit = fit_acceptance(scheduled_counts(seed, lengths, shares, first, rest, rows=rows), given)
        assert fit.first is not None and fit.rest is not None
        held += [fit.first.low <= first <= fit.first.high, fit.rest.low <= rest <= fit.rest.high]
    assert held.min() >= 180


@pytest.mark.parametrize(("lengths", "shares", "first", "rest", "rows", "given"), SERVERS)
def test_rates_and_lengths_come_back(
    lengths: list[int], shares: list[float], first: float, rest: float, rows: int, given: list[int]
) -> None:
    fit = fit_acceptance(scheduled_counts(0, lengths, shares, first, rest, rows=rows, rounds=40_000), given)
    assert fit.first is not None and fit.rest is not None
    assert fit.first.value == pytest.approx(first, abs=0.01)
    assert fit.rest.value == pytest.approx(rest, abs=0.03)
    assert sum(fit.lengths.values()) == pytest.approx(1.0, abs=0.01)
    if rows == 1 and given:
        assert [fit.lengths[length] for length in lengths] == pytest.approx(shares, abs=0.02)


@pytest.mark.parametrize("rows", [1, 2, 12])
@pytest.mark.parametrize("positions", [True, False])
def test_where_all_that_was_drafted_was_accepted_the_rate_is_one(rows: int, positions: bool) -> None:
    counts = scheduled_counts(3, [1, 4], [0.9, 0.1], 1.0, 1.0, rows=rows, rounds=400, positions=positions)
    fit = fit_acceptance(counts)
    assert fit.alpha.value == fit.alpha.high == fit.engine_rate == 1.0
    assert 0.9 < fit.alpha.low < 1.0
    for rate in (fit.first, fit.rest):
        assert rate is None or rate.value == rate.high == 1.0


def test_counters_of_one_schedule_read_as_the_lengths_that_they_can_only_be() -> None:
    """376 rounds of 1 or 4 drafts with 460 drafted are 28 of 4; those of them that ended early are found."""
    counts = scheduled_counts(1, [1, 4], [348 / 376, 28 / 376], 0.9, 0.9, rounds=40_000)
    fit = fit_acceptance(counts, [1, 4])
    share = (counts.drafted[0] / counts.rounds[0] - 1.0) / 3.0
    assert fit.lengths[4] == pytest.approx(share, abs=0.01)
    assert fit.alpha.value == pytest.approx(0.9, abs=0.01)


def test_histograms_of_requests_under_a_schedule_hold_the_truth() -> None:
    draw = np.random.default_rng(4)
    drafted = draw.choice([1, 4], (40, 100), p=[0.6, 0.4])
    kept = np.cumprod((draw.random((40, 100, 4)) < 0.85) & (np.arange(4) < drafted[..., None]), axis=2)
    histograms = [np.bincount(row.sum(axis=1), minlength=5).tolist() for row in kept]
    counts = counts_of_histograms(histograms, drafted.sum(axis=1).astype(float))
    assert counts.tried is None
    fit = fit_acceptance(counts, [1, 4])
    assert fit.alpha.low < 0.85 < fit.alpha.high and fit.alpha.high - fit.alpha.low < 0.08


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9, 0.99])
def test_totals_alone_are_bounds_that_hold_the_truth_and_say_which_log_would_tell(alpha: float) -> None:
    counts = scheduled_counts(2, [1, 3, 6], [0.3, 0.4, 0.3], alpha, alpha, rounds=20_000, positions=False)
    anything, planned = fit_acceptance(counts), fit_acceptance(counts, [1, 3, 6])
    for fit in (anything, planned):
        assert fit.alpha.low <= alpha <= fit.alpha.high
        assert any("per-request-spec-decode-metrics detailed" in warning for warning in fit.warnings)
    wide, narrow = bound_alpha(counts, range(1, 7)), bound_alpha(counts, [1, 3, 6])
    assert wide[0] - 1e-9 <= narrow[0] <= narrow[1] <= wide[1] + 1e-9


def test_lengths_that_the_drafts_contradict_are_not_believed() -> None:
    fit = fit_acceptance(scheduled_counts(5, [3, 5], [0.5, 0.5], 0.7, 0.7), [1, 2])
    assert any("cannot give" in warning for warning in fit.warnings)
    assert fit.alpha.low < 0.7 < fit.alpha.high


def test_a_position_that_the_plan_cannot_draft_shows_that_it_is_another_plan() -> None:
    counts = scheduled_counts(3, [1, 3, 6], [0.5, 0.3, 0.2], 0.5, 0.5, rounds=4000)
    fit = fit_acceptance(counts, [1, 4])
    assert any("position 6 was accepted, which the longest length given, 4" in text for text in fit.warnings)
    assert fit.rest is not None and fit.rest.low <= 0.5 <= fit.rest.high


def test_several_scrapes_tell_more_than_each() -> None:
    logs = [scheduled_counts(seed, [1, 4], [0.5, 0.5], 0.7, 0.7) for seed in range(6)]
    each, every = fit_acceptance(logs[0], [1, 4]), fit_acceptance(joined_counts(logs), [1, 4])
    assert every.rounds == 6 * each.rounds
    assert every.alpha.low < 0.7 < every.alpha.high
    assert every.alpha.se < each.alpha.se


def test_rounds_without_a_draft_are_a_share_of_their_own() -> None:
    counts = replace(scheduled_counts(6, [4], [1.0], 0.6, 0.6), idle=np.array([3500.0]))
    with_idle, without = fit_acceptance(counts), fit_acceptance(replace(counts, idle=None))
    assert without.draft_share is None
    assert with_idle.draft_share is not None and with_idle.draft_share.value == pytest.approx(0.3)
    assert with_idle.alpha == without.alpha
