"""Published measurements hold together, and a user's own are read strictly, row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perfmodel.errors import SpecError
from perfmodel.evidence.published import measurements
from perfmodel.evidence.published.measurements import read_measurements
from perfmodel.evidence.published.steps import price_measurements
from perfmodel.speculation import price_round

GIVEN = {"hardware": "h100-sxm-80gb", "target_model": "llama-3.1-8b", "tensor_parallel": "8"}
PAPER = ("magicdec-1", "magicdec-3a", "magicdec-3b", "magicdec-3c", "magicdec-6")


def read(text, **given):
    return read_measurements(text.encode(), "points.csv", given={**GIVEN, **given})


def faults(text, **given):
    with pytest.raises(SpecError) as refused:
        read(text, **given)
    return refused.value.faults


# What is bundled.


def test_every_cell_with_a_cost_split_is_there():
    counts = {name: len(measurements.load([name])) for name in measurements.available()}
    assert {name: counts[name] for name in PAPER} == {
        "magicdec-1": 3,
        "magicdec-3a": 17,
        "magicdec-3b": 13,
        "magicdec-3c": 17,
        "magicdec-6": 12,
    }
    assert counts["magicdec-blog"] == 12 and counts["magicdec-plot"] == 24


def test_every_row_says_where_it_comes_from_and_what_is_not_known():
    for row in measurements.load():
        assert row.source and row.cell and row.unknown, row.place


@pytest.mark.parametrize("table", PAPER)
def test_printed_speedups_are_the_printed_times_over_each_other(table):
    for row in measurements.load([table]):
        assert row.target / row.tpot == pytest.approx(row.speedup, abs=0.0055), row.place


@pytest.mark.parametrize("table", PAPER)
def test_a_round_takes_a_little_more_than_its_passes(table):
    for row in measurements.load([table]):
        assert 0.3e-3 < row.overhead < 3e-3, row.place


def test_a_cell_printed_in_two_tables_has_one_plain_step():
    seen = {}
    for row in measurements.load(["magicdec-3a", "magicdec-3b"]):
        assert seen.setdefault((row.batch, row.context_len), row.target) == row.target


def test_an_unknown_table_is_refused_with_the_nearest_name():
    with pytest.raises(SpecError, match="Did you mean 'magicdec-blog'"):
        measurements.load(["magicdec-blgo"])


# What is priced for them.


def test_cells_are_priced_as_one_by_one():
    rows = measurements.load(["magicdec-3a", "magicdec-6"])
    together = price_measurements(rows)
    for index in (0, 7, 17, 20, 28):
        row = rows[index]
        alone = price_round(
            row.group.hardware,
            row.group.target,
            row.group.engine,
            row.group.drafter,
            batch=row.batch,
            context_len=row.context_len,
            kv_budget=row.kv_budget,
            gamma=row.gamma,
            tensor_parallel=row.tensor_parallel,
        )
        assert together.round[index] == pytest.approx(float(alone.round_s), rel=1e-12)
        assert together.target[index] == pytest.approx(float(alone.baseline.total), rel=1e-12)
        assert together.speedup(together.tokens)[index] == pytest.approx(float(alone.speedup), rel=1e-12)


def test_a_curve_over_lengths_passes_through_the_cells_own_length():
    rows = measurements.load(["magicdec-6"])
    curve, own = price_measurements(rows, gammas=np.arange(1.0, 9.0)), price_measurements(rows)
    for index, row in enumerate(rows):
        assert curve.round[index, int(row.gamma) - 1] == pytest.approx(own.round[index], rel=1e-12)


def test_a_plain_cell_drafts_nothing():
    rows = measurements.load(["gpt-fast"])
    steps = price_measurements(rows)
    assert np.all(steps.gamma == 0.0) and np.all(steps.tokens == 1.0)
    np.testing.assert_allclose(steps.round, steps.target)
    np.testing.assert_allclose(steps.speedup(steps.tokens), 1.0)


# A user's own points.


def test_an_engines_log_holds_plain_steps_and_whole_rounds():
    plain, drafted = read(
        "step_ms,batch_size,context_len,gamma\n9.1,32,32000,0\n21.4,32,32000,3\n",
        strategy="streaming_llm",
        kv_budget="512",
    )
    assert plain.plain and plain.target == pytest.approx(9.1e-3) and math.isnan(plain.round)
    assert drafted.gamma == 3.0 and drafted.round == pytest.approx(21.4e-3) and math.isnan(drafted.target)


def test_a_log_of_plain_steps_needs_neither_gamma_nor_strategy():
    (row,) = read("t_target_ms,batch_size,context_len\n9.1,32,32000\n")
    assert row.plain and row.group.drafter is None and row.scope == "8xH100"


def test_what_a_row_says_itself_goes_before_what_is_given():
    first, second = read("hardware,t_target_ms,batch_size,context_len\n,9,8,1000\na100-sxm-80gb,9,8,1000\n")
    assert first.group.hardware.name == "h100-sxm-80gb" and second.group.hardware.name == "a100-sxm-80gb"


def test_the_time_of_a_draft_phase_is_shared_among_its_passes():
    (row,) = read(
        "draft_phase_ms,t_verify_ms,tpot_ms,tokens_per_round,strategy,kv_budget,batch_size,context_len,gamma\n"
        "12,10,8,3,snapkv,512,32,32000,4\n"
    )
    assert row.draft == pytest.approx(3e-3)
    assert row.round == pytest.approx(24e-3) and row.overhead == pytest.approx(2e-3)


@pytest.mark.parametrize("wrong", ["nan", "-3", "0", "inf", "1e9", "fast", "3 ms"])
def test_a_time_that_is_no_positive_number_is_refused_with_its_row_and_line(wrong):
    (fault,) = faults(f"t_target_ms,batch_size,context_len\n9,8,1000\n{wrong},16,1000\n10,32,1000\n")
    assert fault.file == "points.csv" and fault.line == 3
    assert fault.field == "row 2, t_target_ms" and wrong in fault.problem


def test_all_bad_rows_are_named_at_once():
    found = faults("t_target_ms,batch_size,context_len\n9,0,1000\nx,8,1000\n9,8,-5\n,8,1000\n")
    assert [fault.field.partition(",")[0] for fault in found] == ["row 1", "row 2", "row 3", "row 4"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch_size,context_len\n8,1000\n", "no column of measured times"),
        ("t_target_ms,context_len\n9,1000\n", "the column is missing"),
        ("t_target_ms,batch_size,context_len\n", "no rows"),
        ("", "the file is empty"),
        ("step_ms,batch_size,context_len,gamma\n9,8,1000,3\n", "strategy"),
        ("t_target_ms,batch_size,context_len,tokens_per_round\n9,8,1000,0\n", "tokens_per_round"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(text, said):
    assert any(said in str(fault) for fault in faults(text))


def test_an_unknown_accelerator_is_refused_with_the_nearest_name():
    (fault,) = faults("t_target_ms,batch_size,context_len\n9,8,1000\n", hardware="h100-smx-80gb")
    assert fault.nearest == "h100-sxm-80gb" and fault.field == "row 1, hardware"


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SpecError, match="does not exist"):
        measurements.read_file(tmp_path / "none.csv")
