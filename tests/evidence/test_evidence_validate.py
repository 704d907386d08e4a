"""Published beside computed: the errors the project promises, the limits, and what `validate` prints."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest
from typer.testing import CliRunner

from perfmodel.cli.app import app
from perfmodel.errors import SpecError
from perfmodel.evidence.published import measurements
from perfmodel.evidence.published.choices import gamma_choices
from perfmodel.evidence.published.comparison import ZERO_SHOT, Compared, summarise
from perfmodel.evidence.published.validate import Validation, available, limits_of, validate
from perfmodel.planning.choose import Constraints
from perfmodel.planning.near_tie import NEAR_TIE
from perfmodel.planning.planner import plan
from perfmodel.workload import Workload


@pytest.fixture(scope="module")
def everything() -> Validation:
    return validate()


def error(found, scope, measure):
    (one,) = [
        each
        for each in (*found.tables, *found.scopes, *found.total)
        if (each.scope, each.measure) == (scope, measure)
    ]
    return one


def run(*arguments):
    return CliRunner().invoke(app, ["validate", *map(str, arguments)], prog_name="draftplan")


# What the project promises.


@pytest.mark.parametrize(
    ("scope", "most"), [("8xH100", 0.025), ("8xA100", 0.05), ("8xL40", 0.04), ("all", 0.04)]
)
def test_the_speedup_is_as_near_as_promised(everything, scope, most):
    assert error(everything, scope, "speedup").mean_absolute_error <= most


@pytest.mark.parametrize(("measure", "most"), [("target", 0.03), ("verify", 0.03), ("draft", 0.05)])
def test_the_parts_of_a_round_are_as_near_as_promised_on_h100(everything, measure, most):
    assert error(everything, "8xH100", measure).mean_absolute_error <= most


@pytest.mark.parametrize("measure", ["target", "verify", "speedup"])
def test_no_accelerator_is_wrong_in_one_direction(everything, measure):
    for scope in ("8xH100", "8xA100", "8xL40"):
        assert abs(error(everything, scope, measure).bias) <= 0.025


def test_with_acceptance_by_law_the_speedup_stays_near(everything):
    assert error(everything, "8xH100", "speedup_by_law").mean_absolute_error <= 0.03
    assert error(everything, "all", "tokens").mean_absolute_error <= 0.015


def test_the_planned_length_is_near_the_published_best_and_costs_little(everything):
    (total,) = [one for one in everything.gammas if one.scope == "all"]
    assert total.count == 27
    assert total.share_within_one >= 0.9
    assert total.mean_regret <= 0.02


def test_what_nothing_chosen_on_these_cells_would_plan_stands_beside(everything):
    (total,) = [one for one in everything.gammas if one.scope == "all"]
    assert 0.85 <= total.untuned_within_one <= total.share_within_one
    assert total.untuned_regret <= 0.03
    for choice in everything.choices:
        assert 0.0 <= choice.untuned_regret < 1.0
    assert "* chosen on these cells" in run("--table", "magicdec-6").stdout


def test_engines_that_saw_no_table_stand_beside_and_are_farther_off(everything):
    for scope in ("8xA100", "8xL40"):
        one = error(everything, scope, "speedup")
        assert len(one.zero_shot) == len(ZERO_SHOT)
        assert all(other > one.mean_absolute_error for other in one.zero_shot)


def test_tokens_at_longer_lengths_follow_from_shorter_ones_better_than_from_one_rate(everything):
    chains = error(everything, "specforge", "tokens")
    assert chains.count == 87
    assert chains.mean_absolute_error < 0.015 < 0.05 < chains.zero_shot[0]


def test_every_limit_that_is_bundled_is_kept(everything):
    assert len(everything.limits) == len(limits_of())
    assert everything.passed_limits == ()


# How it is counted.


def compared(published, computed, cell="x"):
    nothing = (math.nan, math.nan)
    return Compared("t", cell, "8xH100", "speedup", published, computed, nothing, "source", "nothing")


def test_errors_are_computed_over_published_less_one():
    (one,) = summarise([compared(2.0, 2.2), compared(2.0, 1.9), compared(1.0, 0.7, "worst")], lambda _: "all")
    assert one.mean_absolute_error == pytest.approx(0.15)
    assert one.bias == pytest.approx(-0.25 / 3.0)
    assert one.worst == pytest.approx(-0.3) and one.worst_cell == "t: worst"


def test_the_same_printed_number_counts_once():
    found = validate(["magicdec-3a", "magicdec-3b"])
    assert error(found, "magicdec-3a", "target").count == 17
    assert not [one for one in found.tables if (one.scope, one.measure) == ("magicdec-3b", "target")]


def test_planned_lengths_are_those_of_the_planner():
    rows = [row for row in measurements.load(["magicdec-6", "magicdec-blog"]) if row.gamma_is_best]
    choices = gamma_choices(rows)
    for index in (0, 4, 11, 14, 20):
        row = rows[index]
        answer = plan(
            row.group.hardware,
            row.group.target,
            row.group.engine,
            Workload([row.batch], [row.context_len]),
            drafters=[row.group.drafter],
            kv_budgets=[int(row.kv_budget)],
            tensor_parallel=row.tensor_parallel,
            constraints=Constraints(near_tie=NEAR_TIE),
            draws=0,
        )
        assert answer.cells[0].gamma == choices[index].planned


def test_following_the_published_best_costs_nothing():
    for choice in gamma_choices(measurements.load()):
        assert 0.0 <= choice.regret < 1.0
        if choice.planned == choice.published and choice.table != "magicdec-blog":
            assert choice.regret == 0.0


# Limits.


def test_a_limit_on_accelerators_counts_only_when_all_their_tables_are_compared():
    assert {limit.scope for limit in validate(["magicdec-6"]).limits} == {"8xH100"}
    assert validate(["magicdec-3c"]).limits == ()


def test_a_passed_limit_is_named_and_the_exit_code_is_three(tmp_path):
    strict = tmp_path / "strict.csv"
    strict.write_text(
        "scope,measure,statistic,at_least,at_most\n"
        "8xH100,speedup,mean_absolute_error,,0.0001\n"
        "magicdec-6,gamma,share_within_one,0.5,\n"
    )
    result = run("--table", "magicdec-6", "--limits", strict)
    assert result.exit_code == 3
    assert "limit passed: 8xH100, speedup, mean absolute error" in result.stderr
    assert "1 kept, 1 passed" in result.stdout


@pytest.mark.parametrize(
    "text",
    [
        "scope,measure\n8xH100,speedup\n",
        "scope,measure,statistic,at_least,at_most\n8xH100,speed,bias,,0.1\n",
        "scope,measure,statistic,at_least,at_most\n8xH100,speedup,mean_absolute_error,,much\n",
    ],
)
def test_limits_that_cannot_be_read_are_refused_with_their_line(tmp_path, text):
    file = tmp_path / "limits.csv"
    file.write_text(text)
    with pytest.raises(SpecError) as refused:
        limits_of(file)
    assert refused.value.faults[0].line == (1 if "statistic" not in text else 2)


# What is printed.


def test_the_table_names_every_table_and_exits_with_zero():
    result = run()
    assert result.exit_code == 0, result.stderr
    for name in available():
        assert name in result.stdout
    assert "zero-shot, generic" in result.stdout


def test_cells_show_published_beside_computed():
    result = run("--table", "magicdec-1", "--cells")
    assert "7B self, S 8000, B 64" in result.stdout
    assert "74.85" in result.stdout


def test_json_and_csv_hold_the_same_numbers():
    body = json.loads(run("--table", "magicdec-6", "--format", "json").stdout)
    rows = list(csv.DictReader(io.StringIO(run("--table", "magicdec-6", "--format", "csv").stdout)))
    errors = [abs(float(row["error"])) for row in rows if row["measure"] == "speedup"]
    (said,) = [one for one in body["tables"] if one["measure"] == "speedup"]
    assert said["mean_absolute_error"] == pytest.approx(sum(errors) / len(errors), rel=1e-3)
    assert said["count"] == len(errors) == 12
    assert not any(limit["passed"] for limit in body["limits"])


def test_an_unknown_table_is_refused_with_the_nearest_name():
    result = run("--table", "magicdec-9")
    assert result.exit_code == 2
    assert "there is no published table 'magicdec-9'" in result.stderr


def test_a_figure_is_drawn(tmp_path):
    pytest.importorskip("perfmodel.plots.published")
    file = tmp_path / "published.svg"
    assert run("--table", "magicdec-6", "--plot", file).exit_code == 0
    assert file.read_text().startswith("<?xml")
