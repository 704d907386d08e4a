"""`draftplan calibrate`: reads points, says what they tell, and writes engines that load."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from perfmodel.cli.app import app
from perfmodel.engine import EngineOverhead
from perfmodel.evidence.published import measurements
from perfmodel.evidence.published.measurements import TIMES, read_measurements
from perfmodel.hardware import HardwareProfile

ON = ["--hardware", "h100-sxm-80gb", "--model", "llama-3.1-8b", "--tp", "8"]
LOG = "step_ms,batch_size,context_len,gamma\n4.9,1,1000,0\n5.4,16,4000,0\n6.6,64,4000,0\n9.3,32,32000,0\n"


def run(*arguments):
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)], prog_name="draftplan")


@pytest.fixture
def log(tmp_path):
    file = tmp_path / "log.csv"
    file.write_text(LOG)
    return file


def test_published_tables_give_an_engine_that_loads(tmp_path):
    file = tmp_path / "mine.yaml"
    result = run("magicdec-6", "--engine", "magicdec-h100", "--start", "generic", "-o", file)
    assert result.exit_code == 0, result.stderr
    engine, bundled = EngineOverhead.load(file), EngineOverhead.load("magicdec-h100")
    assert engine.name == "mine" and engine.assumed == ()
    assert engine.attention_kernel == bundled.attention_kernel == "flashinfer"
    assert engine.layer_s == pytest.approx(bundled.layer_s, rel=0.05)
    assert list(tmp_path.iterdir()) == [file]


def test_a_log_of_four_rows_is_enough(log, tmp_path):
    file = tmp_path / "ours.yaml"
    result = run(log, *ON, "--engine", "ours", "-o", file)
    assert result.exit_code == 0, result.stderr
    assert "round keeps its start" in result.stderr
    assert "kept: not determined" in result.stdout and "Measure next" in result.stdout
    engine = EngineOverhead.load(file)
    assert engine.quantities["layer"].source.endswith("own measurements, log.csv")
    assert engine.quantities["round"].kind == "assumed"
    assert engine.calibrated_on == "h100-sxm-80gb"


def test_a_draft_time_of_a_row_that_drafts_nothing_is_no_point():
    """`draftplan price` writes one beside every row, those of length 0 too."""
    text = (
        b"hardware,tensor_parallel,target_model,strategy,kv_budget,batch_size,context_len,gamma,t_target_ms,"
        b"t_draft_ms\nh100-sxm-80gb,8,llama-3.1-8b,streaming_llm,512,8,8000,0,5.1,2.0\n"
        b"h100-sxm-80gb,8,llama-3.1-8b,streaming_llm,512,8,8000,3,5.1,2.0\n"
    )
    plain, drafting = read_measurements(text, "points")
    assert np.isnan(plain.draft)
    assert drafting.draft == pytest.approx(2.0e-3)


def test_the_engine_file_is_shown_where_none_is_named(log):
    result = run(log, *ON, "--engine", "ours")
    assert "  name: ours" in result.stdout
    assert "row_layer: {value:" in result.stdout


def test_columns_of_pricing_with_measured_times_are_read(tmp_path):
    file = tmp_path / "points.csv"
    rows = [row for row in measurements.load(["magicdec-6"]) if row.group.drafter.draft_model is None]
    lines = ["strategy,kv_budget,batch_size,context_len,gamma,t_target_ms,t_draft_ms,t_verify_ms,round_ms"]
    lines += [
        f"{row.group.drafter.strategy.name},{row.kv_budget:.0f},{row.batch},{row.context_len},{row.gamma:.0f},"
        + ",".join(f"{1e3 * time:.6g}" for time in (row.target, row.draft, row.verify, row.round))
        for row in rows
    ]
    file.write_text("\n".join(lines))
    result = run(file, *ON, "--engine", "magicdec-h100", "--start", "generic", "--format", "json")
    assert result.exit_code == 0, result.stderr
    body = json.loads(result.stdout)
    assert body["rows"] == len(rows) == 8
    figures = {one["path"]: one for one in body["figures"]}
    assert figures["round"]["determined"] and 5e-4 < figures["round"]["value"] < 8e-4
    assert {one["kind"] for one in body["errors"]} == {"target", "draft", "verify", "overhead"}
    assert len(body["next_cells"]) == 5
    assert body["correlation"]["layer"]["layer"] == pytest.approx(1.0)


def test_shares_of_the_peak_go_into_a_profile_that_loads(tmp_path):
    engine, profile = tmp_path / "mine.yaml", tmp_path / "h100-measured.yaml"
    result = run(
        "magicdec-6",
        "--engine",
        "magicdec-h100",
        "-o",
        engine,
        "--profile-output",
        profile,
        "--format",
        "json",
    )
    assert result.exit_code == 0, result.stderr
    body = json.loads(result.stdout[result.stdout.index("{") :])
    fitted = {one["path"]: one for one in body["figures"] if one["determined"]}
    path = "attention.flashinfer.memory_fraction"
    loaded = HardwareProfile.load(profile)
    assert loaded.name == "h100-measured" == EngineOverhead.load(engine).calibrated_on
    assert float(np.asarray(loaded.quantities[path].value)) == pytest.approx(fitted[path]["value"], rel=1e-3)
    assert loaded.quantities[path].kind == "measured"
    assert loaded.memory_bandwidth == HardwareProfile.load("h100-sxm-80gb").memory_bandwidth


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LOG.replace("5.4", "nan"), "row 2, step_ms: found nan"),
        (LOG.replace("5.4", "-5.4"), "row 2, step_ms: found -5.4"),
        (LOG.replace("16,4000", "16,many"), "row 2, context_len"),
        ("\n".join(LOG.splitlines()[:3]), "2 measured times are too few"),
        (LOG.replace("4000,0", "4000,3"), "row 2, strategy: drafts nothing, gamma is above 0"),
        (
            "t_target_ms,batch_size,context_len\n" + "9,8,1000\n9.1,8,1000\n9.2,8,1000\n9.3,8,1000\n",
            "the same",
        ),
    ],
)
def test_bad_points_are_named_and_nothing_is_written(tmp_path, text, said):
    points, file = tmp_path / "points.csv", tmp_path / "ours.yaml"
    points.write_text(text)
    result = run(points, *ON, "--strategy", "", "-o", file)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not file.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "Ours.yaml"], "ending .yaml"),
        (["-o", "ours.txt"], "ending .yaml"),
        (["--format", "csv"], "Use table, json or yaml"),
        (["--keep", "rowlayer"], "Did you mean 'row_layer'"),
        (["--start", "generik"], "Did you mean 'generic'"),
    ],
)
def test_what_is_asked_wrongly_is_refused(log, arguments, said):
    result = run(log, *ON, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_file_that_is_not_there_is_no_table_either():
    result = run("magicdec-5", *ON)
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def test_every_time_column_is_named_in_the_refusal_of_a_file_without_any(tmp_path):
    file = tmp_path / "points.csv"
    file.write_text("batch_size,context_len\n8,1000\n")
    result = run(file, *ON)
    assert all(name in result.stderr for name in TIMES)
