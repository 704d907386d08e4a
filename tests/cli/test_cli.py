"""The command line: answers on stdout, remarks on stderr, an exit code for each outcome, no traceback."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import perfmodel
from perfmodel.cli.app import app
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec

ROOT = Path(perfmodel.__file__).parents[1]
ON = ["--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--tp", "8", "--engine", "ideal"]
CELL = [*ON, "--context", "32k", "--batch-size", "64"]
QUICK = ["--strategy", "streaming_llm", "--draft-budget", "512", "--gamma", "0:4:1"]


def run(*arguments, **settings):
    return CliRunner().invoke(
        app, [str(argument) for argument in arguments], prog_name="draftplan", **settings
    )


def asked(*arguments):
    """Return the answer of a command that must succeed, read from JSON."""
    result = run(*arguments, "--format", "json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def process(*arguments, **settings):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "perfmodel", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        **settings,
    )


# What `plan` answers.


def test_a_plan_is_a_table_with_a_reason_for_every_cell():
    result = run("plan", *ON, "--context", "32k", "--batch-size", "32,64,128")
    assert result.exit_code == 0
    for title in (
        "batch",
        "context",
        "strategy",
        "budget",
        "gamma",
        "round",
        "TPOT",
        "baseline",
        "speedup",
        "bound by",
    ):
        assert title in result.stdout
    for batch in (32, 64, 128):
        assert f"batch {batch}: " in result.stdout
    assert "Llama-3.1-8B (bf16 weights, bf16 KV) on 8 x h100-sxm-80gb, engine ideal" in result.stdout
    assert "tokens of context larger batches make speculation pay more" in result.stdout
    assert "next best" in result.stdout
    assert "Assumed" in result.stdout
    assert result.stderr == ""


def test_a_plan_as_json_says_what_it_is_for_and_answers_every_cell():
    body = asked("plan", *ON, "--context", "8k,32k", "--batch-size", "32,64")
    wanted = {
        "batch_size", "context_len", "strategy", "draft_model", "kv_budget", "gamma", "tokens_per_round",
        "tpot_s", "baseline_s", "speedup", "bound_by",
    }  # fmt: skip
    assert [(cell["batch_size"], cell["context_len"]) for cell in body["cells"]] == [
        (32, 8000), (32, 32000), (64, 8000), (64, 32000),
    ]  # fmt: skip
    assert all(wanted <= set(cell) for cell in body["cells"])
    assert {"hardware", "model", "engine", "versions", "assumed", "inflection_context_len"} <= set(body)
    for cell in body["cells"]:
        assert cell["speedup"] == pytest.approx(cell["baseline_s"] / cell["tpot_s"])
        assert cell["speedup"] >= 1.0


def test_every_format_tells_the_same(tmp_path):
    body = asked("plan", *CELL)
    assert yaml.safe_load(run("plan", *CELL, "--format", "yaml").stdout) == body
    (row,) = csv.DictReader(io.StringIO(run("plan", *CELL, "--format", "csv").stdout))
    (cell,) = body["cells"]
    assert float(row["speedup"]) == cell["speedup"]
    assert (row["strategy"], int(row["gamma"])) == (cell["strategy"], cell["gamma"])
    for ending in ("json", "yaml", "csv"):
        target = tmp_path / f"plan.{ending}"
        result = run("plan", *CELL, "-o", target)
        assert (result.exit_code, result.stdout) == (0, "")
        assert target.read_text() == run("plan", *CELL, "--format", ending).stdout


def test_the_same_question_gets_the_same_text():
    assert run("plan", *CELL).stdout == run("plan", *CELL).stdout


def test_a_plan_without_an_engine_says_which_it_assumed():
    result = run("plan", *ON[:-2], "--context", "32k", "-b", "8", *QUICK)
    assert result.exit_code == 0
    assert "no --engine is named" in result.stderr
    assert "engine" not in result.stderr.replace("--engine", "") or "generic" in result.stderr


@pytest.mark.parametrize(
    ("written", "meant"),
    [("32k", [32000]), ("32K", [32768]), ("4k,8k", [4000, 8000]), ("1k:8k:x2", [1000, 2000, 4000, 8000]),
     ("8k:32k:8k", [8000, 16000, 24000, 32000])],
)  # fmt: skip
def test_lists_and_ranges_of_contexts(written, meant):
    body = asked("plan", *ON, *QUICK, "--context", written, "-b", "4")
    assert [cell["context_len"] for cell in body["cells"]] == meant


def test_other_tools_names_of_flags_mean_the_same():
    ours = asked("plan", *CELL, "--gamma", "2", "--draft-model", "llama-3.2-1b", "--tpot", "100")
    theirs = asked(
        "plan", "--model-path", "llama-3.1-8b", "--system", "h100-sxm-80gb", "--tensor-parallel-size", "8",
        "--engine", "ideal", "--isl", "32k", "--bs", "64", "--num-speculative-tokens", "2", "--spec-model",
        "llama-3.2-1b", "--tpot-sla-ms", "100",
    )  # fmt: skip
    assert theirs == ours


def test_gamma_zero_alone_is_plain_decoding():
    (cell,) = asked("plan", *CELL, "--gamma", "0")["cells"]
    assert (cell["strategy"], cell["gamma"], cell["speedup"]) == ("none", 0, 1.0)


def test_named_strategies_and_budgets_are_the_only_ones():
    (cell,) = asked("plan", *CELL, "--strategy", "StreamingLLM", "--draft-budget", "256", "--gamma", "3")[
        "cells"
    ]
    assert (cell["strategy"], cell["kv_budget"], cell["gamma"]) == ("streaming_llm", 256, 3)


def test_named_draft_models_draft_alone_beside_a_strategy_and_with_the_target_where_it_is_named():
    only = asked("explain", *CELL, "--strategy", "snapkv", "--draft-model", "llama-3.2-1b")
    both = asked("explain", *CELL, "--strategy", "snapkv", "--draft-model", "self,llama-3.2-1b")
    assert {one["drafter"] for one in only["breakdown"]["options"]} == {"none", "snapkv(Llama-3.2-1B)"}
    assert {one["drafter"] for one in both["breakdown"]["options"]} == {
        "none",
        "snapkv",
        "snapkv(Llama-3.2-1B)",
    }


def test_all_strategies_can_be_searched():
    options = asked("explain", *CELL, "--strategy", "all", "--draft-model", "self,llama-3.2-1b")["breakdown"][
        "options"
    ]
    names = {option["drafter"].partition("(")[0] for option in options}
    import strategies

    assert names == {"none", *strategies.available()}


def test_a_measured_acceptance_replaces_the_laws():
    low = asked("plan", *CELL, *QUICK, "--acceptance-rate", "0.5")["cells"][0]
    high = asked("plan", *CELL, *QUICK, "--acceptance-rate", "95%")["cells"][0]
    assert high["tokens_per_round"] > low["tokens_per_round"]
    assert high["alpha"] == 0.95


def test_an_acceptance_length_counts_the_bonus_token():
    length = 1 + 0.8 + 0.8**2 + 0.8**3
    said = asked("plan", *CELL, *QUICK, "--acceptance-length", f"{length}@3")["cells"][0]
    rate = asked("plan", *CELL, *QUICK, "--acceptance-rate", "0.8")["cells"][0]
    assert said["alpha"] == pytest.approx(0.8)
    assert said["tpot_s"] == pytest.approx(rate["tpot_s"])
    alone = asked("plan", *CELL, "--gamma", "3", "--acceptance-length", length)["cells"][0]
    assert alone["alpha"] == pytest.approx(0.8)


def test_dtypes_and_memory_change_the_answer():
    plain = asked("plan", *CELL, *QUICK)["cells"][0]
    small = asked("plan", *CELL, *QUICK, "--kv-cache-dtype", "fp8", "--weight-dtype", "fp8")
    assert small["request"]["kv_dtype"] == small["request"]["weight_dtype"] == "fp8"
    assert small["cells"][0]["memory_bytes_per_gpu"] < plain["memory_bytes_per_gpu"]
    assert small["cells"][0]["baseline_s"] < plain["baseline_s"]
    assert asked("plan", *CELL, *QUICK, "--kv-cache-dtype", "auto")["request"]["kv_dtype"] == "bf16"
    assert run("plan", *CELL, *QUICK, "--gpu-memory-utilization", "0.05").exit_code == 3


def test_lossy_alternatives_are_marked_and_never_chosen():
    plain = asked("plan", *CELL)
    lossy = asked("plan", *CELL, "--lossy", "--pruned", "25%,0.5")
    assert lossy["cells"] == plain["cells"]
    assert "lossy_alternatives" not in plain
    changes = [one["change"] for one in lossy["lossy_alternatives"]]
    assert {"fp8 weights", "fp8 KV", "fp8 weights and KV", "25% pruned", "50% pruned"} <= set(changes)
    for one in lossy["lossy_alternatives"]:
        assert one["lossy"] is True
        assert one["speedup"] == pytest.approx(plain["cells"][0]["baseline_s"] / one["plain_tpot_s"])
        assert one["speedup"] > 1.0
        assert one["speculating_speedup"] >= one["speedup"] * (1 - 1e-12)
    table = run("plan", *CELL, "--lossy")
    assert "fp8 KV (lossy)" in table.stdout
    rows = list(csv.DictReader(io.StringIO(run("plan", *CELL, "--lossy", "--format", "csv").stdout)))
    assert rows[0]["change"] == ""
    assert all(row["change"].endswith("(lossy)") for row in rows[1:])


def test_a_lossy_change_can_make_feasible_what_is_not():
    result = run("plan", *ON, "--context", "32k", "-b", "200", *QUICK, "--lossy")
    assert result.exit_code == 3
    assert "fp8 KV (lossy), batch 200 at context 32000 is feasible" in result.stderr


def test_several_accelerators_and_widths_are_shown_where_they_differ():
    both = ["--model", "llama-3.1-8b", "--hardware", "a100,h100", "--tp", "1,8", "--engine", "ideal", *QUICK]
    result = run("plan", *both, "--context", "32k", "-b", "1,32")
    assert result.exit_code == 0
    body = asked("plan", *both, "--context", "32k", "-b", "1,32", "--objective", "throughput")
    assert {cell["hardware"] for cell in body["cells"]} == {"h100-sxm-80gb"}


def test_cells_without_an_answer_are_named():
    result = run("plan", *ON, "--context", "32k", "-b", "8,1000", *QUICK)
    assert result.exit_code == 0
    assert "nothing is feasible for batch 1000 at context 32000" in result.stderr
    assert "does not fit in memory" in result.stderr


def test_a_context_beyond_the_model_is_remarked_on():
    assert "131072" in run("plan", *ON, "--context", "200k", "-b", "1", *QUICK).stderr


# Flags from a file.


def test_a_config_says_what_flags_say_and_flags_win(tmp_path):
    config = tmp_path / "plan.yaml"
    config.write_text(
        "model: llama-3.1-8b\nhardware: h100-sxm-80gb\ntp: 8\nengine: ideal\ncontext: 32k\n"
        "batch-size: [32, 64]\nstrategy: streaming_llm\ndraft_budget: 512\ngamma: '0:4:1'\nlossy: true\n"
    )
    from_file = asked("plan", "--config", config)
    assert from_file["cells"] == asked("plan", *ON, *QUICK, "--context", "32k", "-b", "32,64")["cells"]
    assert from_file["lossy_alternatives"]
    assert [cell["batch_size"] for cell in asked("plan", "--config", config, "-b", "16")["cells"]] == [16]


def test_every_fault_of_a_config_is_named_with_its_line(tmp_path):
    config = tmp_path / "plan.yaml"
    config.write_text("model: llama-3.1-8b\nhardwear: h100\ntp: {a: 1}\nlossy: 3\ncontext: 1k\nisl: 2k\n")
    result = run("plan", "--config", config)
    assert result.exit_code == 2
    for line, said in ((2, "'hardware'"), (3, "tp"), (4, "true or false"), (6, "the same as context above")):
        assert any(f"plan.yaml:{line}:" in text and said in text for text in result.stderr.splitlines())


def test_a_wrong_value_in_a_config_is_blamed_on_its_line(tmp_path):
    config = tmp_path / "plan.yaml"
    config.write_text("context: 32k\nbatch_size: many\n")
    result = run("plan", *ON, "--config", config)
    assert result.exit_code == 2
    assert "plan.yaml:2: batch_size: found 'many'" in result.stderr


@pytest.mark.parametrize(
    "content", ["- a\n", "model: !!python/object/apply:os.getcwd []\n", "model: a\nmodel: b\n", ""]
)
def test_a_config_that_is_no_plain_mapping_is_refused(tmp_path, content):
    config = tmp_path / "plan.yaml"
    config.write_text(content)
    result = run("plan", "--config", config)
    assert result.exit_code == 2
    assert result.stderr


# How it says no.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plam"], "Did you mean 'plan'"),
        (["plan", "--modle", "x"], "Did you mean --model?"),
        (["plan", *ON, "--context", "32k"], "--batch-size"),
        (["plan", *CELL, "--format", "tabel"], "table"),
        (["plan", *CELL, "--objective", "sped"], "Did you mean 'speedup'?"),
        (["plan", *CELL, "--hardware", "h100-sxm-80bg"], "h100-sxm-80gb"),
        (["plan", *CELL, "--model", "lama-3.1-8b"], "Llama-3.1-8B"),
        (["plan", *CELL, "--engine", "idael"], "Did you mean 'ideal'?"),
        (["plan", *CELL, "--strategy", "strming_llm"], "Did you mean 'streaming_llm'?"),
        (["plan", *CELL, "--strategy", "full_kv"], "needs a draft model"),
        (["plan", *CELL, "--tp", "3"], "1, 2, 4, 8, 16, 32"),
        (["plan", *CELL, "--gamma", "65"], "from 0 to 64"),
        (["plan", *CELL, "--draft-budget", "0"], "at least 1"),
        (["plan", *CELL, "--tpot", "0"], "above 0"),
        (["plan", *CELL, "--tpot", "nan"], "--tpot"),
        (["plan", *CELL, "--acceptance-rate", "1.5"], "0 to 1"),
        (["plan", *CELL, "--acceptance-length", "3"], "3@4"),
        (["plan", *CELL, "--acceptance-length", "6@4"], "1 to 5"),
        (["plan", *CELL, "--acceptance-length", "2@4", "--acceptance-rate", "0.5"], "one of the two"),
        (["plan", *CELL, "--weight-dtype", "fp9"], "--weight-dtype"),
        (["plan", *CELL, "--gpu-memory-utilization", "0"], "above 0"),
        (["plan", *CELL, "--lossy", "--pruned", "100%"], "below 1"),
        (["plan", *CELL, "--profiles-path", "/nonexistent"], "/nonexistent"),
        (["plan", *CELL, "--draft-model", ","], "names nothing"),
        (["plan", *CELL, "--context", "1:100000:1", "-b", "1:1000:1"], "draftplan sweep"),
        (["plan", *CELL, "-o", "/nonexistent/plan.json"], "/nonexistent/plan.json"),
        (["explain", *CELL, "-b", "1,2"], "Name one of each"),
        (["explain", *CELL, "--format", "csv"], "Use table, json or yaml"),
        (["sweep", *CELL, "-o", "all.xlsx"], ".parquet"),
        (["sweep", *CELL, "--tpot", "30"], "no meaning"),
        (["price", "/nonexistent.csv"], "/nonexistent.csv"),
        (["hardware", "show", "h100x"], "Did you mean"),
        (["hardware", "list", "--format", "csv"], "table, json or yaml"),
        (["strategies", "show", "stream"], "Did you mean 'streaming_llm'?"),
    ],
)  # fmt: skip
def test_asking_wrongly_is_explained_and_ends_with_two(arguments, said):
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_every_wrong_flag_is_named_at_once():
    result = run(
        "plan",
        *ON,
        "--context",
        "x",
        "-b",
        "0",
        "--gamma",
        "99",
        "--strategy",
        "y",
        "--tpot",
        "-1",
        "--hardware",
        "z",
    )
    assert result.exit_code == 2
    for flag in ("--context", "--batch-size", "--gamma", "--strategy", "--tpot", "--hardware"):
        assert f"error: {flag}: " in result.stderr


def test_nothing_feasible_ends_with_three_and_names_the_nearest_miss():
    slow = run("plan", *CELL, "--tpot", "0.01")
    assert slow.exit_code == 3
    assert "misses the TPOT limit" in slow.stderr
    assert "nearest miss: " in slow.stderr
    large = run("plan", *ON, "--context", "32k", "-b", "100k")
    assert large.exit_code == 3
    assert "does not fit in memory" in large.stderr
    assert slow.stdout == large.stdout == ""


def test_a_fault_of_our_own_ends_with_one_and_shows_its_traceback_only_on_demand(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a wheel\ncame off")

    monkeypatch.setattr("perfmodel.planning.planner.plan", broken)
    monkeypatch.delenv("DRAFTPLAN_DEBUG", raising=False)
    result = run("plan", *CELL)
    assert result.exit_code == 1
    assert "unexpected RuntimeError: a wheel came off" in result.stderr
    assert "report" in result.stderr
    assert "Traceback" not in result.stderr
    monkeypatch.setenv("DRAFTPLAN_DEBUG", "1")
    assert "Traceback" in run("plan", *CELL).stderr


def test_an_interruption_ends_quietly_with_130(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("perfmodel.planning.planner.plan", interrupted)
    result = run("plan", *CELL)
    assert result.exit_code == 130
    assert result.stderr.strip() == "interrupted"


def test_a_file_that_was_there_stays_whole_when_nothing_is_feasible(tmp_path):
    target = tmp_path / "plan.json"
    target.write_text("mine")
    assert run("plan", *CELL, "--tpot", "0.01", "-o", target).exit_code == 3
    assert target.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [target]


# `explain`.


def test_an_explanation_adds_up():
    found = asked("explain", *CELL, "--strategy", "streaming_llm,snapkv")
    behind = found["breakdown"]
    (cell,) = found["cells"]
    target, draft, verify = behind["passes"]
    for one in behind["passes"]:
        causes = [one[f"{cause}_s"] for cause in ("linear", "attention", "communication", "overhead")]
        assert one["total_s"] >= max(causes)
        assert one["weight_bytes"] > 0
        assert one["kv_bytes"] > 0
        assert one["flops"] > 0
    assert target["total_s"] == pytest.approx(cell["baseline_s"])
    assert verify["total_s"] == pytest.approx(cell["verify_s"])
    assert draft["kv_bytes"] < verify["kv_bytes"] == target["kv_bytes"]
    assert verify["flops"] > target["flops"]
    resident = dict(behind["resident_bytes"])
    total, usable = resident.pop("total"), resident.pop("usable")
    assert sum(resident.values()) == pytest.approx(total)
    assert total == pytest.approx(cell["memory_bytes_per_gpu"])
    assert total < usable
    best, *others = behind["options"]
    assert best["tpot_s"] == pytest.approx(cell["tpot_s"])
    assert {one["drafter"] for one in behind["options"]} == {"streaming_llm", "snapkv", "none"}
    assert all(other["tpot_s"] >= best["tpot_s"] for other in others)


def test_every_speculation_length_has_its_break_even():
    rows = asked("explain", *CELL, *QUICK, "--acceptance-rate", "0.7")["breakdown"]["by_gamma"]
    assert [row["gamma"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[0]["speedup"] == 1.0
    assert rows[0]["break_even_alpha"] is None
    for row in rows[1:]:
        assert row["break_even_alpha"] is None or (row["break_even_alpha"] < 0.7) == (row["speedup"] > 1.0)


def test_an_explanation_is_drawn_in_sections():
    result = run("explain", *CELL)
    assert result.exit_code == 0
    for title in ("Time of each pass", "reads and computes", "Resident memory", "Every speculation length",
                  "The best of every strategy", "Assumed"):  # fmt: skip
        assert title in result.stdout


def test_plain_decoding_is_explained_with_what_would_have_drafted():
    result = run("explain", *ON, "--context", "1k", "-b", "1", *QUICK, "--acceptance-rate", "0.01")
    assert result.exit_code == 0
    assert "plain decoding, 1.00 tokens per round" in result.stdout
    assert "Every speculation length of streaming_llm" in result.stdout
    assert run("explain", *CELL, "--gamma", "0").exit_code == 0


# `price` and `sweep`.

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


# What there is.


@pytest.mark.parametrize("noun", ["hardware", "models", "strategies", "engines"])
def test_everything_there_is_can_be_listed_and_shown(noun):
    listed = asked(noun, "list")[noun]
    assert listed
    table = run(noun, "list")
    for line in listed:
        assert "cannot be read" not in str(line)
        assert line["name"] in table.stdout
        shown = run(noun, "show", line["name"])
        assert shown.exit_code == 0
        assert f"name: {line['name']}" in shown.stdout


def test_a_shown_accelerator_gives_every_figure_with_unit_range_kind_and_source():
    found = asked("hardware", "show", "h100")
    figures = {figure["figure"]: figure for figure in found["figures"]}
    assert set(figures) == set(HardwareProfile.load("h100-sxm-80gb").quantities)
    assert figures["memory.bandwidth"]["value"].endswith("TB/s")
    assert " to " in figures["gemm.memory_fraction"]["low_to_high"]
    assert all(figure["kind"] in ("measured", "published", "assumed") for figure in figures.values())
    assert all(figure["source"] for figure in figures.values())


def test_a_users_file_is_checked_and_every_fault_printed(tmp_path):
    good = tmp_path / "mine.yaml"
    good.write_bytes(
        (ROOT / "hardware_profiles" / "h100-sxm-80gb.yaml").read_bytes().replace(b"h100-sxm-80gb", b"mine")
    )
    result = run("hardware", "check", good)
    assert result.exit_code == 0, result.stderr
    assert "mine is a valid accelerator" in result.stdout
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: bad\nmemory:\n  capacity: 80\npeak:\n  bf61: 1 TFLOPS\n")
    result = run("hardware", "check", bad, good)
    assert result.exit_code == 2
    assert result.stderr.count("bad.yaml:") >= 3
    assert "bf16" in result.stderr


def test_a_profile_of_ones_own_is_found_beside_the_others(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(
        (ROOT / "hardware_profiles" / "h100-sxm-80gb.yaml").read_bytes().replace(b"h100-sxm-80gb", b"mine")
    )
    result = run("plan", *CELL, *QUICK, "--hardware", "mine", "--profiles-path", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "8 x mine" in result.stdout


def test_the_version_is_told():
    from perfmodel._version import __version__

    result = run("--version")
    assert (result.exit_code, result.stdout.strip()) == (0, f"draftplan {__version__}")


@pytest.mark.parametrize(
    "command", ["plan", "explain", "price", "sweep", "hardware", "models", "strategies", "engines"]
)
def test_every_command_explains_itself(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage: draftplan" in result.stdout


def test_names_are_completed_where_the_shell_asks():
    from perfmodel.cli.ask import completion

    assert "h100-sxm-80gb" in completion.hardware_names("h100")
    assert "a100,h100-sxm-80gb" in completion.hardware_names("a100,h100-s")
    assert completion.model_names("llama-3.2") == [
        n for n in ModelSpec.available() if n.startswith("Llama-3.2")
    ]
    assert completion.strategy_names("al") == ["all"]
    assert completion.engine_names("ide") == ["ideal"]


# As a process of its own.


def test_the_command_runs_as_a_process():
    ran = process("plan", *CELL, *QUICK, "--format", "json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["cells"][0]["batch_size"] == 64
    assert "\x1b" not in process("plan", *CELL, *QUICK).stdout
    assert process("plan", *CELL, "--tpot", "0.01").returncode == 3
    assert process("plan", "--nonsense").returncode == 2


def test_a_reader_that_has_seen_enough_is_no_failure():
    command = f"{sys.executable} -m perfmodel sweep {' '.join(ON)} --context 1k:64k:1k -b 1:64:1 | head -1"
    ran = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ran.stdout.startswith("hardware,")
    assert "Traceback" not in ran.stderr
    assert "Broken" not in ran.stderr
    assert ran.returncode == 141


def loaded_by(*arguments):
    code = """
import sys
from perfmodel.cli import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return {name.partition(".")[0] for name in ran.stderr.split()}


def test_help_and_plans_load_nothing_heavy():
    assert not loaded_by("--help") & {"numpy", "yaml", "pydantic", "pandas", "scipy", "matplotlib", "torch"}
    assert not loaded_by("plan", *CELL, *QUICK, "--format", "json") & {
        "pandas", "scipy", "matplotlib", "torch", "plotly", "rich",
    }  # fmt: skip
