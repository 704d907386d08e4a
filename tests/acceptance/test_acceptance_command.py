"""`draftplan acceptance`: a log becomes rates, findings and a file that plans and prices use."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import get_args

import pytest
from engine_logs import (
    LLAMACPP_EXAMPLE,
    LLAMACPP_SERVER,
    LLAMACPP_STATISTICS,
    SGLANG_LINE,
    SGLANG_RESPONSE,
    VLLM_LINE,
    VLLM_METRICS,
    VLLM_RESPONSE,
)
from simulated_logs import rounds_csv
from typer.testing import CliRunner

from perfmodel.acceptance.file import read_acceptance
from perfmodel.acceptance.logs import LogFormat
from perfmodel.cli.acceptance import LogForm
from perfmodel.cli.app import app

PLACE = [
    "--strategy", "streaming_llm", "--model", "llama-3.1-8b", "--draft-budget", "512", "--context", "32k",
]  # fmt: skip


def run(*arguments: object, **settings: object):
    return CliRunner().invoke(app, list(map(str, arguments)), prog_name="draftplan", **settings)


# fit


def test_json_holds_the_rates_with_their_interval_and_what_is_behind_them(log: Path) -> None:
    result = run("acceptance", "fit", log, "--json")
    assert result.exit_code == 0 and result.stderr == ""
    figures = json.loads(result.stdout)
    assert figures["alpha_low"] < 0.8 < figures["alpha_high"]
    assert figures["alpha_low"] < figures["alpha"] < figures["alpha_high"]
    assert (figures["requests"], figures["rounds"], figures["gamma"]) == (40, 2000, 4)
    assert figures["method"] == "clustered by request"
    assert figures["alpha1"] == pytest.approx(figures["survival"][0])
    assert len(figures["survival"]) == 4
    assert figures["tokens_per_round"] == pytest.approx(1.0 + sum(figures["survival"]))
    kept = [int(row["accepted"]) for row in csv.DictReader(io.StringIO(log.read_text()))]
    tried = sum(min(accepted + 1, 4) for accepted in kept)
    assert figures["alpha"] == pytest.approx(sum(kept) / tried)


SGLANG_LOG = "\n".join(
    SGLANG_LINE.format(running=4, length=3.0 + 0.1 * k, rate=0.5 + 0.025 * k) for k in range(4)
)
LOGS = {
    "vllm metrics": (VLLM_METRICS, "vllm", []),
    "vllm lines": (f"{VLLM_LINE}\n" * 3, "vllm", []),
    "vllm responses": (json.dumps([VLLM_RESPONSE, VLLM_RESPONSE]), "vllm", []),
    "sglang lines": (SGLANG_LOG, "sglang", []),
    "sglang responses": (json.dumps([SGLANG_RESPONSE, SGLANG_RESPONSE]), "sglang", []),
    "llama.cpp server": (LLAMACPP_SERVER, "llamacpp", []),
    "llama.cpp statistics": (LLAMACPP_STATISTICS, "llamacpp", []),
    "llama.cpp example": (LLAMACPP_EXAMPLE, "llamacpp", ["--gamma", "8"]),
    "csv": (rounds_csv(requests=5), "csv", []),
}


@pytest.mark.parametrize("kind", LOGS)
def test_every_engine_is_read_by_name_or_found_out_and_written_to_a_file(kind: str, tmp_path: Path) -> None:
    text, form, more = LOGS[kind]
    file, out = tmp_path / "engine.log", tmp_path / "acceptance.json"
    file.write_text(text)
    named = run("acceptance", "fit", file, "--format", form, *more, "--json", "-o", out)
    found_out = run("acceptance", "fit", file, *more, "--json")
    assert named.exit_code == 0, named.stderr
    assert named.stdout == found_out.stdout
    body = json.loads(named.stdout)
    assert 0.0 <= body["alpha_low"] < body["alpha"] < body["alpha_high"] <= 1.0
    (entry,) = read_acceptance(out)
    assert (entry.alpha, entry.rounds, entry.source) == (body["alpha"], body["rounds"], "engine.log")


def test_the_formats_of_the_command_are_those_of_the_library() -> None:
    assert [form.value for form in LogForm] == list(get_args(LogFormat))


def test_a_log_comes_in_on_stdin_too(log: Path) -> None:
    piped = run("acceptance", "fit", "-", "--json", input=log.read_bytes())
    assert piped.exit_code == 0
    assert piped.stdout == run("acceptance", "fit", log, "--json").stdout


def test_the_table_says_how_sure_what_was_found_and_what_to_do_next(log: Path) -> None:
    text = run("acceptance", "fit", log, "--no-color").stdout
    figures = json.loads(run("acceptance", "fit", log, "--json").stdout)
    assert "2,000 rounds of 40 requests, up to 4 drafted" in text
    assert f"{figures['alpha']:.3f}   {figures['alpha_low']:.3f}-{figures['alpha_high']:.3f}" in text
    assert re.search(r"about \d+ more requests narrow it to \+-0.02", text)
    assert str(figures["further_requests"]) in text
    assert "no drift along the log" in text
    assert "all positions are accepted alike" in text
    assert "not alpha" in text
    assert "-o acceptance.json" in text
    assert max(len(line) for line in text.splitlines() if str(log) not in line) < 110


def test_decay_and_drift_are_among_the_findings(log: Path) -> None:
    log.write_text(rounds_csv(first=0.5, requests=60))
    text = run("acceptance", "fit", log).stdout
    assert "later positions are accepted more often than the first: use alpha1 and alpha2" in text
    good, bad = (rounds_csv(seed, 30, mean=mean, sd=0.03) for seed, mean in ((1, 0.9), (2, 0.6)))
    later = "".join(f"late-{line}\n" for line in bad.splitlines()[1:])
    log.write_text(good + later)
    assert "the rate drifts along the log, -0.2" in run("acceptance", "fit", log).stdout


def test_a_narrow_interval_is_enough(log: Path) -> None:
    log.write_text(rounds_csv(requests=150, rounds=30, sd=0.03))
    text = run("acceptance", "fit", log).stdout
    assert "narrow enough to plan with" in text
    assert "more requests" not in text


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("r3,5,4,", "r3,5,4,9", "accepted: found"),
        ("r3,5,4,", "r3,5,4.5,", "drafted: found '4.5'"),
        ("r3,5,4,", "r3,4,4,", "round 4 of request 'r3' is in line"),
        ("r3,5,4,", "r3,5,", "3 cells where the header has 4"),
    ],
)
def test_a_damaged_log_ends_with_two_and_its_line_and_writes_nothing(
    old: str, new: str, complaint: str, log: Path
) -> None:
    text = log.read_text()
    line = text[: text.index(old)].count("\n") + 1
    log.write_text(text.replace(old, new))
    out = log.parent / "acceptance.json"
    result = run("acceptance", "fit", log, "-o", out)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"error: {log}:{line}: " in result.stderr
    assert complaint in result.stderr
    assert not out.exists()


def test_every_wrong_flag_is_told_at_once(log: Path) -> None:
    wrong = ["--strategy", "streming_llm", "--model", "llama-9b", "--draft-budget", "0", "--context", "much"]
    result = run("acceptance", "fit", log, *wrong)
    assert result.exit_code == 2
    assert [line.split(":")[1].strip() for line in result.stderr.splitlines()] == [
        "--model", "--strategy", "--draft-budget", "--context",
    ]  # fmt: skip
    assert "Did you mean 'streaming_llm'?" in result.stderr


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--strategy", "none"], "which drafts nothing"),
        (["--strategy", "full_kv"], "drafts with a model of its own"),
        (["--strategy", "eagle", "--draft-model", "llama-3.2-1b"], "does not take a draft model"),
        (["--add"], "adds to no file"),
        (["--format", "tgi"], "'tgi'"),
        (["--format", "vllm"], "no line is about speculative decoding in the form of vllm"),
        (["--gamma", "3"], "found 4 where gamma is 3"),
    ],
)
def test_what_cannot_be_is_refused(flags: list[str], complaint: str, log: Path) -> None:
    result = run("acceptance", "fit", log, *flags)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


# the file


@pytest.mark.parametrize(
    ("flags", "drafter", "draft"),
    [
        (PLACE, "self", ""),
        ([*PLACE, "--draft-model", "self"], "self", ""),
        ([*PLACE, "--draft-model", "llama-3.2-1b"], "draft", "Llama-3.2-1B"),
        (["--model", "llama-3.1-8b", "--strategy", "EAGLE-3"], "head", ""),
    ],
)
def test_the_file_names_what_drafted_as_plans_do(
    flags: list[str], drafter: str, draft: str, log: Path
) -> None:
    out = log.parent / "acceptance.json"
    assert run("acceptance", "fit", log, *flags, "-o", out).exit_code == 0
    (entry,) = read_acceptance(out)
    assert (entry.drafter, entry.draft_model, entry.target_model) == (drafter, draft, "Llama-3.1-8B")
    assert entry.strategy in ("streaming_llm", "eagle")


def test_what_is_left_open_is_said(log: Path) -> None:
    out = log.parent / "acceptance.json"
    assert run("acceptance", "fit", log, *PLACE, "-o", out).stderr == f"wrote {out}\n"
    bare = run("acceptance", "fit", log, "-o", out).stderr
    assert "without --strategy and --model it counts for every one of them" in bare
    assert "without --context it counts as measured wherever it is used" in bare
    sparse = run("acceptance", "fit", log, *PLACE[:4], "-o", out).stderr
    assert "without --context and --draft-budget" in sparse


def test_a_file_is_added_to_shown_and_replaced(log: Path) -> None:
    out = log.parent / "acceptance.json"
    run("acceptance", "fit", log, *PLACE, "-o", out)
    run("acceptance", "fit", log, "--strategy", "mtp", "--model", "qwen3-8b", "--add", "-o", out)
    assert [entry.strategy for entry in read_acceptance(out)] == ["streaming_llm", "mtp"]
    table = run("acceptance", "show", out)
    assert table.exit_code == 0
    for word in ("streaming_llm", "mtp", "Llama-3.1-8B", "32,000", "2,000", "rounds.csv"):
        assert word in table.stdout
    first, second = json.loads(run("acceptance", "show", out, "--json").stdout)["measured"]
    assert first["alpha_low"] < first["alpha"] < first["alpha_high"]
    low, high = sorted([first["law"]["alpha1"], first["alpha1"]])
    assert low <= first["believed"]["alpha1"] <= high
    assert first["believed"]["sd"] < first["law"]["sd"]
    assert second["law"] is None
    run("acceptance", "fit", log, *PLACE, "-o", out)
    assert len(read_acceptance(out)) == 1


def test_a_file_that_is_none_is_refused_and_not_added_to(log: Path) -> None:
    out = log.parent / "acceptance.json"
    out.write_text('{\n "format": "draftplan acceptance 1",\n "measured": []\n}\n')
    for arguments in (("show", out), ("fit", log, "--add", "-o", out)):
        result = run("acceptance", *arguments)
        assert result.exit_code == 2
        assert f"{out}:3: measured" in result.stderr
    assert 'measured": []' in out.read_text()
