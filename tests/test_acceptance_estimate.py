"""Intervals cover the truth, unequal rates are found, and measurements meet the laws as evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import strategies
from perfmodel.acceptance import acceptance_rate, alpha_from_mean_length, beta_shape
from perfmodel.acceptance.counts import AcceptanceCounts, counts_of_rounds
from perfmodel.acceptance.estimate import AcceptanceFit, fit_acceptance
from perfmodel.acceptance.file import (
    MeasuredAcceptance,
    posterior_acceptance,
    read_acceptance,
    write_acceptance,
)
from perfmodel.acceptance.intervals import binomial_rate, clustered_rate
from perfmodel.errors import SpecError

FloatArray = NDArray[np.float64]


def accepted_per_round(
    seed: int, requests: int, rounds: int, gamma: int, mean: float = 0.8, sd: float = 0.1, **odd: float
) -> NDArray[np.int64]:
    """Accepted tokens, shape (requests, rounds), of requests whose rates are Beta distributed."""
    draw = np.random.default_rng(seed)
    rates = draw.beta(*beta_shape(mean, sd), requests) if sd else np.full(requests, mean)
    chance = np.broadcast_to(rates[:, None, None], (requests, rounds, gamma)).copy()
    chance += odd.get("drift", 0.0) * np.linspace(-1.0, 1.0, requests)[:, None, None]
    chance += odd.get("along", 0.0) * np.linspace(-1.0, 1.0, rounds)[:, None]
    if "first" in odd:
        chance[..., 0] = odd["first"]
    return np.asarray(np.cumprod(draw.random(chance.shape) < chance, axis=-1).sum(axis=-1))


def counted(accepted: NDArray[Any], gamma: int) -> AcceptanceCounts:
    names = np.repeat(np.arange(accepted.shape[0]), accepted.shape[1]).astype(str).tolist()
    return counts_of_rounds(names, np.full(accepted.size, float(gamma)), accepted.ravel().astype(float))


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


def test_no_rounds_are_refused() -> None:
    empty = np.zeros(0)
    with pytest.raises(SpecError, match="rounds: no round drafted"):
        fit_acceptance(
            AcceptanceCounts(unit="request", rounds=empty, drafted=empty, accepted=empty, gamma=empty)
        )


# what measurements make of a law


def measured(alpha: float, se: float, **place: Any) -> MeasuredAcceptance:
    return MeasuredAcceptance(
        alpha=alpha,
        alpha_se=se,
        alpha1=alpha,
        alpha1_se=se,
        alpha2=alpha,
        alpha2_se=se,
        gamma=4,
        rounds=1000,
        source="a log",
        **place,
    )


def posterior(
    entries: list[MeasuredAcceptance], context: Any, budget: Any, name: str = "streaming_llm"
) -> Any:
    return posterior_acceptance(
        entries,
        strategies.load(name),
        drafter=strategies.load(name).drafters[0],
        context_len=context,
        kv_budget=budget,
        target_name="llama-3.1-8b",
    )


WINDOW = {
    "strategy": "streaming_llm",
    "target_model": "meta-llama/Llama-3.1-8B",
    "kv_budget": 512,
    "context_len": 32e3,
}


def test_without_measurements_of_this_kind_the_law_stands() -> None:
    law = acceptance_rate(
        strategies.load("streaming_llm"),
        drafter="self",
        context_len=32e3,
        kv_budget=512.0,
        target_name="llama-3.1-8b",
    )
    assert posterior([], 32e3, 512.0) == law
    for other in ({"strategy": "snapkv"}, {"target_model": "qwen3-8b"}, {"drafter": "draft"}):
        assert posterior([measured(0.9, 0.01, **{**WINDOW, **other})], 32e3, 512.0) == law


def test_a_thousand_rounds_of_many_requests_win_over_the_law_and_ten_rounds_do_not() -> None:
    law = posterior([], 32e3, 512.0)
    sure, unsure = (posterior([measured(0.90, se, **WINDOW)], 32e3, 512.0) for se in (0.005, 0.12))
    assert sure.kind == "measured" and "a log (1000 rounds)" in sure.source
    assert sure.first == pytest.approx(0.90, abs=0.01)
    assert abs(unsure.first - law.first) < 0.01
    assert sure.sd < unsure.sd <= law.sd
    both = posterior([measured(0.90, 0.005, **WINDOW), measured(0.60, 0.12, **WINDOW)], 32e3, 512.0)
    assert both.first == pytest.approx(sure.first, abs=0.005)


def test_sure_measurements_win_even_where_the_law_was_far_off() -> None:
    """A window that reads as well as everything, or not at all: tasks differ more than the law's spread."""
    for alpha in (0.97, 0.4):
        here = posterior([measured(alpha, 0.005, **WINDOW)], 32e3, 512.0)
        assert here.first == pytest.approx(alpha, abs=0.005)
        near = posterior([measured(alpha, 0.005, **WINDOW)], 64e3, 512.0)
        law = posterior([], 64e3, 512.0)
        assert near.sd > law.sd


@given(rates=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4), se=st.floats(0.002, 0.3))
def test_belief_lies_between_the_law_and_what_was_measured_there(rates: list[float], se: float) -> None:
    law = posterior([], 32e3, 512.0)
    found = posterior([measured(rate, se, **WINDOW) for rate in rates], 32e3, 512.0)
    assert min(law.first, *rates) - 1e-9 <= found.first <= max(law.first, *rates) + 1e-9
    assert found.sd > 0.0


@pytest.mark.parametrize("hits", [(0,) * 10, (4,) * 10, (0, 4) * 5, (1, 2) * 5])
def test_ten_rounds_hardly_move_a_thousand_whatever_they_hold(hits: tuple[int, ...]) -> None:
    """One request of ten rounds against forty requests of fifty, fitted from their counts."""
    thousand = fit_acceptance(counted(accepted_per_round(7, 40, 50, 4, mean=0.85, sd=0.05), 4))
    ten = fit_acceptance(counted(np.array([hits]), 4))
    entries = [MeasuredAcceptance.of_fit(fit, "log", **WINDOW) for fit in (thousand, ten)]
    before, after = posterior(entries[:1], 32e3, 512.0), posterior(entries, 32e3, 512.0)
    law, alone = posterior([], 32e3, 512.0), posterior(entries[1:], 32e3, 512.0)
    assert abs(after.first - before.first) < 0.01
    assert abs(alone.first - law.first) < 0.03


def test_a_measurement_counts_for_less_further_away_and_the_limits_of_the_law_stay() -> None:
    law = posterior([], 1e6, np.array([64.0, 512.0, 8192.0]))
    far = posterior([measured(0.90, 0.005, **WINDOW)], 1e6, np.array([64.0, 512.0, 8192.0]))
    here = posterior([measured(0.90, 0.005, **WINDOW)], 32e3, 512.0)
    assert np.all(np.diff(far.first) > 0.0)
    assert np.all(far.first > law.first)
    assert np.all(far.sd > here.sd)
    whole = posterior([measured(0.70, 0.005, **WINDOW)], 400.0, 512.0)
    assert whole.first == 1.0 and whole.sd == 0.0


def test_an_entry_without_a_place_holds_everywhere_and_arrays_equal_scalars() -> None:
    contexts, budgets = np.array([[4e3], [32e3]]), np.array([256.0, 512.0, 1024.0])
    entries = [measured(0.88, 0.004), measured(0.80, 0.02, **WINDOW)]
    table = posterior(entries, contexts, budgets)
    assert table.first.shape == table.sd.shape == (2, 3)
    for i, context in enumerate(contexts[:, 0]):
        for j, budget in enumerate(budgets):
            alone = posterior(entries, float(context), float(budget))
            assert alone.first == pytest.approx(table.first[i, j], rel=1e-9)
            assert alone.sd == pytest.approx(table.sd[i, j], rel=1e-9)
    assert np.all(np.abs(table.first - 0.88) < 0.04)


def test_first_and_rest_of_a_head_are_moved_apart() -> None:
    entry = MeasuredAcceptance(
        alpha=0.75,
        alpha_se=0.01,
        alpha1=0.9,
        alpha1_se=0.01,
        alpha2=0.6,
        alpha2_se=0.01,
        gamma=3,
        rounds=900,
        strategy="mtp",
    )
    found = posterior([entry], 2e3, np.inf, "mtp")
    assert (found.first, found.rest) == pytest.approx((0.9, 0.6), abs=0.02)


def test_a_file_gives_back_what_was_written_and_keeps_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "acceptance.json"
    fit = fit_acceptance(counted(accepted_per_round(5, 20, 50, 4), 4))
    entry = MeasuredAcceptance.of_fit(fit, "rounds.csv", strategy="snapkv", kv_budget=2049.0)
    write_acceptance(file, [entry])
    assert read_acceptance(file) == (entry,)
    other = measured(0.8, 0.01)
    write_acceptance(file, [other], add=True)
    assert read_acceptance(file) == (entry, other)
    write_acceptance(file, [other])
    assert read_acceptance(file) == (other,)
    import yaml

    (tmp_path / "acceptance.yaml").write_text(yaml.safe_dump(json.loads(file.read_text())))
    assert read_acceptance(tmp_path / "acceptance.yaml") == (other,)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('"alpha": 0.8', '"alpha": 1.8', 5),
        ('"alpha": 0.8', '"alpha": "much"', 5),
        ('"alpha_se": 0.01', '"alpha_se": 0', 6),
        ('"alpha1"', '"alpha_one"', 7),
        ('"gamma": 4', '"gamma": 4.5', 11),
        ('"format": "draftplan acceptance 1"', '"format": "draftplan acceptance 9"', 2),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(old: str, new: str, line: int, tmp_path: Path) -> None:
    file = tmp_path / "acceptance.json"
    write_acceptance(file, [measured(0.8, 0.01)])
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(SpecError) as refused:
        read_acceptance(file)
    assert line in [fault.line for fault in refused.value.faults]


def test_a_fit_is_the_same_for_counts_in_any_order() -> None:
    accepted = accepted_per_round(6, 12, 30, 4)
    forth, back = (fit_acceptance(counted(rows, 4)) for rows in (accepted, accepted[::-1]))
    assert isinstance(forth, AcceptanceFit)
    assert forth.alpha == back.alpha and forth.first == back.first and forth.survival == back.survival
