"""Measurements meet the laws as evidence, in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_logs import accepted_per_round, counted

import strategies
from perfmodel.acceptance import acceptance_rate
from perfmodel.acceptance.estimate import fit_acceptance
from perfmodel.acceptance.file import (
    MeasuredAcceptance,
    read_acceptance,
    write_acceptance,
)
from perfmodel.acceptance.posterior import posterior_acceptance
from perfmodel.errors import SpecError


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
        doubt, usual = (belief.sd / (belief.first * (1.0 - belief.first)) for belief in (near, law))
        assert doubt > usual


@given(rates=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4), se=st.floats(0.002, 0.3))
def test_belief_lies_between_the_law_and_what_was_measured_there(rates: list[float], se: float) -> None:
    law = posterior([], 32e3, 512.0)
    updated = posterior([measured(rate, se, **WINDOW) for rate in rates], 32e3, 512.0)
    assert min(law.first, *rates) - 1e-9 <= updated.first <= max(law.first, *rates) + 1e-9
    assert updated.sd > 0.0


@pytest.mark.parametrize("hits", [(0,) * 10, (4,) * 10, (0, 4) * 5, (1, 2) * 5])
def test_ten_rounds_hardly_move_a_thousand_whatever_they_hold(hits: tuple[int, ...]) -> None:
    """One request of ten rounds against forty requests of fifty, fitted from their counts."""
    thousand = fit_acceptance(counted(accepted_per_round(7, 40, 50, 4, mean=0.85, sd=0.05), 4))
    ten = fit_acceptance(counted(np.array([hits]), 4))
    entries = [MeasuredAcceptance.of_fit(fit, "log", **WINDOW) for fit in (thousand, ten)]
    before, after = posterior(entries[:1], 32e3, 512.0), posterior(entries, 32e3, 512.0)
    assert abs(after.first - before.first) < 0.01


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
    updated = posterior([entry], 2e3, np.inf, "mtp")
    assert (updated.first, updated.rest) == pytest.approx((0.9, 0.6), abs=0.02)


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
