"""`draftplan price` and `draftplan sweep`: a row a configuration."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from asking import ON, QUICK, asked, run

CASES = (
    "hardware,engine,tensor_parallel,target_model,draft_model,strategy,kv_budget,context_len,batch_size,gamma\n"
    "h100-sxm-80gb,ideal,8,llama-3.1-8b,,self-spec + StreamingLLM,512,32000,32,3\n"
)


def test_cases_are_priced_to_stdout_or_a_file(tmp_path):
    cases, out = tmp_path / "cases.csv", tmp_path / "out.csv"
    cases.write_text(CASES)
    to_stdout = run("price", cases)
    assert to_stdout.exit_code == 0
    assert run("price", cases, "-o", out).exit_code == 0
    assert out.read_text() == to_stdout.stdout
    assert run("price", "-", input=CASES).stdout == to_stdout.stdout
    (row,) = csv.DictReader(io.StringIO(to_stdout.stdout))
    assert float(row["speedup"]) > 1.0


def test_a_bad_case_is_named_and_the_file_written_whole(tmp_path):
    cases, out = tmp_path / "cases.csv", tmp_path / "out.csv"
    cases.write_text(CASES + "h1000,ideal,8,llama-3.1-8b,,none,,32000,32,0\n" + CASES.splitlines()[1] + "\n")
    result = run("price", cases, "-o", out)
    assert result.exit_code == 2
    assert "row 2: hardware: " in result.stderr
    assert "1 of 3 rows" in result.stderr
    assert result.stdout == ""
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [bool(row["speedup"]) for row in rows] == [True, False, True]
    assert "h1000" in rows[1]["error"]


SWEEP = [*ON, *QUICK, "--context", "1k,32k", "-b", "1,8"]


def test_a_sweep_has_a_row_for_every_configuration():
    result = run("sweep", *SWEEP)
    assert result.exit_code == 0
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == 2 * 2 * (1 + 4)
    assert {row["strategy"] for row in rows} == {"none", "streaming_llm"}
    assert all(float(row["speedup"]) == 1.0 for row in rows if row["gamma"] == "0")
    (cell,) = asked("plan", *ON, *QUICK, "--context", "32k", "-b", "8")["cells"]
    best = max(
        float(row["speedup"]) for row in rows if (row["context_len"], row["batch_size"]) == ("32000", "8")
    )
    assert best == pytest.approx(cell["speedup"])


def test_a_sweep_is_the_same_in_every_kind_of_file_and_on_more_processes(tmp_path):
    import pandas as pd

    frame = pd.read_csv(io.StringIO(run("sweep", *SWEEP).stdout))
    for name, jobs in (("a.csv", 1), ("a.csv.gz", 2)):
        assert run("sweep", *SWEEP, "-o", tmp_path / name, "--jobs", jobs).exit_code == 0
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / name), frame)
    assert run("sweep", *SWEEP, "-o", tmp_path / "a.npz").exit_code == 0
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_allclose(arrays["tpot_s"], frame["tpot_s"])
        names = arrays["strategy_names"][arrays["strategy"]]
    assert names.tolist() == frame["strategy"].tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.csv.gz", "a.npz"]


def test_parquet_is_written_or_its_extra_is_named(tmp_path):
    result = run("sweep", *SWEEP, "-o", tmp_path / "a.parquet")
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        assert result.exit_code == 2
        assert "draftplan[parquet]" in result.stderr
        assert list(tmp_path.iterdir()) == []
    else:
        assert result.exit_code == 0
