"""What is believed follows what was measured, over all of 0 to 1, and is called measured where it does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_schedules import metrics_text, scheduled_counts
from typer.testing import CliRunner

import strategies
from perfmodel.acceptance import expected_tokens
from perfmodel.acceptance.file import MeasuredAcceptance, read_acceptance, write_acceptance
from perfmodel.acceptance.posterior import posterior_acceptance, posterior_share
from perfmodel.cli.app import app

RATES = [*np.linspace(0.0, 0.1, 41), *np.linspace(0.1, 0.9, 81)[1:-1], *np.linspace(0.9, 1.0, 41)]
TARGETS = [
    ("mtp", 4e3, np.inf), ("eagle", 2e3, np.inf), ("streaming_llm", 32e3, 512.0), ("ngram", 1e3, np.inf),
]  # fmt: skip
ON = [
    "--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--engine", "vllm", "--context", "4k",
    "-b", "8",
]  # fmt: skip


def entry(alpha: float, se: float, trials: float | None = None, **place: Any) -> MeasuredAcceptance:
    own = {f"{name}_trials": trials for name in ("alpha", "alpha1", "alpha2")}
    return MeasuredAcceptance(
        alpha=alpha, alpha1=alpha, alpha2=alpha,
        **{f"{name}_se": se for name in ("alpha", "alpha1", "alpha2")},
        **own, gamma=4, rounds=620, source="dialled", **place,
    )  # fmt: skip


def believed(entries: list[MeasuredAcceptance], name: str, context: float, budget: float) -> Any:
    strategy = strategies.load(name)
    return posterior_acceptance(
        entries, strategy, drafter=strategy.drafters[0], context_len=context, kv_budget=budget,
        target_name="llama-3.1-8b",
    )  # fmt: skip


@pytest.mark.parametrize(("name", "context", "budget"), TARGETS)
@pytest.mark.parametrize(
    "evidence", [(0.002, None), (0.0127, None), (0.08, None), (0.0127, 20.0), (0.01, 5e3)]
)
def test_belief_and_tokens_never_fall_as_the_measured_rate_rises(
    name: str, context: float, budget: float, evidence: tuple[float, float | None]
) -> None:
    rows = [believed([entry(float(rate), *evidence)], name, context, budget) for rate in RATES]
    assert np.all(np.diff([row.first for row in rows]) >= -1e-9)
    assert np.all(np.diff([row.rest for row in rows]) >= -1e-9)
    for gamma in (1, 5, 16):
        assert np.all(np.diff([expected_tokens(row, gamma) for row in rows]) >= -1e-9)


@pytest.mark.parametrize(("name", "context", "budget"), TARGETS)
@pytest.mark.parametrize("rate", [0.0, 0.003, 0.3, 0.7, 0.995, 1.0])
def test_many_rounds_win_over_any_law_and_endless_ones_are_believed(
    name: str, context: float, budget: float, rate: float
) -> None:
    law = believed([], name, context, budget).first
    away = [
        abs(believed([entry(rate, 0.01, trials)], name, context, budget).first - rate)
        for trials in (1.0, 100.0, 1e4, 1e6, 1e9)
    ]
    assert away[0] <= abs(law - rate) + 1e-9
    assert np.all(np.diff(away) <= 1e-9)
    assert away[2] < 0.02 and away[-1] < 1e-4
    sure = believed([entry(rate, 1e-5)], name, context, budget)
    assert sure.first == pytest.approx(rate, abs=1e-3)


@pytest.mark.parametrize(("name", "context", "budget"), TARGETS)
@pytest.mark.parametrize("trials", [None, 3.0, 60.0, 5000.0])
def test_belief_lies_between_law_and_measurement(
    name: str, context: float, budget: float, trials: float | None
) -> None:
    law = believed([], name, context, budget)
    for rate in RATES[::5]:
        here = believed([entry(float(rate), 0.05, trials)], name, context, budget)
        assert min(law.first, rate) - 1e-6 <= here.first <= max(law.first, rate) + 1e-6


def test_a_measured_one_is_believed_to_be_near_one_with_room_below_and_zero_above() -> None:
    for rate, se in ((1.0, 0.0127), (0.0, 0.0127)):
        here = believed([entry(rate, se)], "mtp", 4e3, np.inf)
        assert abs(here.first - rate) < 0.03
        assert 0.003 < here.sd < 0.03
        ends = [float(here.quantile(tail).first) for tail in (0.1, 0.9)]
        assert min(abs(end - rate) for end in ends) < 0.012 and 0.0 < ends[0] < ends[1] < 1.0


def test_measured_is_said_where_data_moved_the_answer_and_not_elsewhere() -> None:
    place = {"strategy": "streaming_llm", "context_len": 32e3, "kv_budget": 512.0}
    law = believed([], "streaming_llm", 32e3, 512.0)
    ten, thousand = entry(0.8, 0.2, 3.0, **place), entry(0.8, 0.01, 1600.0, **place)
    assert believed([thousand], "streaming_llm", 32e3, 512.0).kind == "measured"
    faint = believed([ten], "streaming_llm", 32e3, 512.0)
    assert faint.kind == law.kind and "hardly moved by dialled" in faint.source
    assert believed([thousand], "streaming_llm", 4e6, 64.0).kind == law.kind


def plan(*flags: object) -> tuple[dict[str, Any], str]:
    result = CliRunner().invoke(app, ["plan", *ON, *map(str, flags), "--format", "json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)["cells"][0], result.stderr


def test_the_planned_speedup_never_falls_as_the_measured_rate_rises(tmp_path: Path) -> None:
    speedups = []
    for rate in (0.0, 0.01, 0.2, 0.5, 0.8, 0.97, 0.99, 1.0):
        place = {"strategy": "mtp", "drafter": "head", "target_model": "Llama-3.1-8B", "context_len": 4e3}
        write_acceptance(tmp_path / "a.json", [entry(rate, 0.0127, **place)])
        cell, remarks = plan("--strategy", "mtp", "--acceptance", tmp_path / "a.json")
        assert "announces no such layers" in remarks
        speedups.append(cell["speedup"])
    assert np.all(np.diff(speedups) >= 0.0)
    assert speedups[:2] == [1.0, 1.0] and speedups[-1] > 5.0


def test_a_drafter_that_is_never_right_is_not_planned_and_one_without_evidence_stays_refused(
    tmp_path: Path,
) -> None:
    counts = scheduled_counts(8, [3, 4], [0.13, 0.87], 0.0015, 0.0015, rounds=643)
    log, file = tmp_path / "metrics.txt", tmp_path / "a.json"
    log.write_text(metrics_text(counts))
    run = CliRunner().invoke
    place = ["--strategy", "mtp", "--model", "llama-3.1-8b", "--context", "4k"]
    assert run(app, ["acceptance", "fit", str(log), *place, "-o", str(file)]).exit_code == 0
    cell, _ = plan("--strategy", "mtp", "--acceptance", file)
    assert cell["gamma"] == 0
    other = tmp_path / "other.json"
    write_acceptance(other, [replace(read_acceptance(file)[0], strategy="", drafter="")])
    for flags in ([], ["--acceptance", str(other)]):
        refused = run(app, ["plan", *ON, "--strategy", "mtp", *flags])
        assert refused.exit_code == 2 and "its config announces none" in refused.stderr


def test_a_stated_rate_is_given_and_not_assumed() -> None:
    cell, _ = plan("--strategy", "eagle", "--acceptance-rate", "0.8")
    assert cell["alpha_kind"] == "given"


def test_a_counted_share_of_drafting_rounds_moves_a_lookup_and_nothing_else() -> None:
    shared = replace(
        entry(0.6, 0.01), draft_share=0.05, draft_share_se=0.005, draft_share_trials=2000.0
    )
    ngram = strategies.load("ngram")
    share = posterior_share([shared], ngram, drafter="none")
    assert share is not None and share.value == pytest.approx(0.05, abs=0.01) and share.kind == "measured"
    assert posterior_share([shared], ngram, drafter="none", match_share=0.4) is None
    assert posterior_share([entry(0.6, 0.01)], ngram, drafter="none") is None
    assert posterior_share([shared], strategies.load("mtp"), drafter="head") is None
    here = believed([shared], "ngram", 1e3, np.inf)
    drafting = 1.0 + here.first * (1.0 - here.rest**5) / (1.0 - here.rest)
    assert expected_tokens(here, 5) == pytest.approx(here.match * drafting + 1.0 - here.match)


def test_files_without_trials_stay_readable_and_new_ones_hold_them(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_acceptance(file, [entry(0.8, 0.01, 900.0)])
    document = json.loads(file.read_text())
    old = {key: value for key, value in document["measured"][0].items()
           if not key.endswith("trials") and not key.startswith("draft_share")}  # fmt: skip
    file.write_text(json.dumps(document | {"measured": [old]}))
    (back,) = read_acceptance(file)
    assert back.alpha_trials is None and back.alpha == 0.8
