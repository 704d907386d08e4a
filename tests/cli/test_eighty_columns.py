"""The answer to a question fits the narrowest terminal, and opens with the decision."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import pytest
from asking import run

TABLE = (Path(__file__).parent.parent / "data" / "questions.csv").read_text(encoding="utf-8")
QUESTIONS = [row["ask"] for row in csv.DictReader(TABLE.splitlines())]
OPENS = re.compile(r"Speculat(e:|ion (should|may) pay:)|Do not speculate|Plain decoding takes|Take \d+ x")


@pytest.fixture(autouse=True)
def narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("ask", QUESTIONS)
def test_an_answer_opens_with_the_decision_and_fits_80_columns(ask):
    result = run("plan", *shlex.split(ask))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert OPENS.match(lines[0]), lines[0]
    wide = [line for line in lines if len(line) > 80 and not line.lstrip().startswith(("draftplan ", "--"))]
    assert not wide


@pytest.mark.parametrize("ask", QUESTIONS[:4])
def test_quiet_says_the_decision_and_the_table_and_explain_says_all(ask):
    quiet, usual, explained = (
        run("plan", *shlex.split(ask), *more) for more in (["--quiet"], [], ["--explain"])
    )
    assert "note:" not in quiet.output
    assert "Why" not in quiet.stdout
    assert len(quiet.stdout) < len(usual.stdout) < len(explained.stdout)
    assert quiet.stdout.splitlines()[0] == usual.stdout.splitlines()[0] == explained.stdout.splitlines()[0]
    assert "\nAssumed\n" in explained.stdout
    assert "\nAssumed\n" not in usual.stdout


def test_quiet_keeps_what_makes_an_answer_doubtful():
    beyond = "--model llama-3.1-8b --gpus 4xH100 --context 1M -b 2 --quiet"
    assert "was made for contexts up to 131072" in run("plan", *shlex.split(beyond)).stderr
    pair = "--model qwen3-8b --gpus 1xH100 --draft-model llama-3.2-1b --context 4k -b 1 --quiet"
    assert "has a vocabulary of" in run("plan", *shlex.split(pair)).stderr


def test_few_that_can_run_it_and_a_tight_fit_stand_in_the_sentence():
    ask = "--model llama-3.1-8b --gpus 8xH100 --context 32k -b 64,128 --quiet"
    sentence = " ".join(run("plan", *shlex.split(ask)).stdout.split("\nLlama")[0].split())
    assert "SnapKV (only MagicDec can run it)" in sentence
    assert "it barely fits at batch 128" in sentence


def test_what_could_change_a_decision_names_a_command_each():
    result = run("plan", *shlex.split(QUESTIONS[0]))
    told = result.stdout[result.stdout.index("What could change it") :].splitlines()[1:]
    assert sum(line.startswith("    ") for line in told) >= 1
    assert any("draftplan acceptance fit" in line for line in told)


def test_only_what_the_answer_needs_is_said_to_be_needed():
    ask = "--model llama-3.3-70b --hardware h100 --tp 4 --engine vllm -b 1 --context 32k"
    result = run("plan", *shlex.split(ask))
    needed = set(re.findall(r"needs ([^);\n]+)", result.output))
    assert not any("P-EAGLE" in words for words in needed)
