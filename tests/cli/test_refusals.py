"""How the command line says no: an exit code for each outcome, the flag at fault, no traceback."""

from __future__ import annotations

import pytest
from asking import CELL, ON, run

SPLIT = [
    "--model", "qwen2.5-72b", "--hardware", "h100", "--tp", "8", "--context", "16k", "-b", "4",
    "--draft-model", "qwen2.5-0.5b", "--strategy", "full_kv",
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
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
        (["plan", *SPLIT], "14 attention heads, which 8 GPUs do not divide"),
        (["explain", *SPLIT], "--draft-tp 1 or 2"),
        (["simulate", "--synthetic", "qps=1,prompt=1k,output=10", *SPLIT], "--draft-tp 1 or 2"),
        (["sweep", *SPLIT, "-o", "all.csv"], "--draft-tp 1 or 2"),
        (["plan", *SPLIT, "--draft-tp", "4"], "which 4 GPUs do not divide"),
        (["plan", *SPLIT, "--draft-tp", "1,2"], "one number of GPUs"),
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
def test_asking_wrongly_is_explained_and_ends_with_two(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
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
