"""What a plan says to run is what its engine reads: every question, three engines."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest
import yaml
from engine_flags import FLAGS
from engine_rules import tensorrt_llm_length, vllm_lengths
from typer.testing import CliRunner

import strategies
from perfmodel.cli.app import app
from perfmodel.export.checkpoints import FILL_IN, SPECULATORS, head_checkpoint, published_heads
from perfmodel.model.names import guess_model

TABLE = (Path(__file__).parents[1] / "data" / "questions.csv").read_text(encoding="utf-8")
QUESTIONS = [row["ask"] for row in csv.DictReader(TABLE.splitlines())]
ENGINES = ("vllm", "sglang", "tensorrt-llm")


def told(ask, engine):
    """The lines below "Run it" of a plan on an engine, and its remarks in brackets; else empty."""
    words = shlex.split(ask)
    if "--engine" in words:
        place = words.index("--engine")
        del words[place : place + 2]
    result = CliRunner().invoke(app, ["plan", *words, "--engine", engine], prog_name="draftplan")
    assert result.exit_code in (0, 2, 3), result.output
    _, _, after = result.stdout.partition("\nRun it in ")
    lines = []
    for line in after.splitlines()[1:]:
        if not line.startswith("  "):
            break
        lines.append(line[2:])
    remarks = [line for line in lines if line.startswith("(")]
    return [line for line in lines if line not in remarks], remarks


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("ask", QUESTIONS)
def test_what_is_said_to_be_run_is_what_the_engine_reads(ask, engine):
    lines, remarks = told(ask, engine)
    if not lines:
        return
    text = "\n".join(lines)
    if engine == "vllm":
        flag, written = shlex.split(text)
        assert flag == "--speculative-config"
        config = json.loads(written)
        assert max(vllm_lengths(config, 256)) == config["num_speculative_tokens"]
    elif engine == "sglang":
        words = shlex.split(text)
        assert {word for word in words if word.startswith("--")} <= FLAGS["sglang"]
        assert ("--speculative-adaptive-config" in words) <= any("adaptive.json" in each for each in remarks)
    else:
        config = yaml.safe_load(text)["speculative_config"]
        lengths = [tensorrt_llm_length(config, batch, "upper") for batch in range(1, 257)]
        assert 0 < config["max_draft_len"] == max(lengths)
    assert (FILL_IN in text) == any(FILL_IN in remark for remark in remarks)


def test_most_questions_have_such_a_command():
    assert sum(bool(told(ask, "vllm")[0]) for ask in QUESTIONS) >= 8


@pytest.mark.parametrize("head", published_heads(), ids=lambda head: head.id)
def test_a_published_head_fits_a_bundled_model_and_drafts_by_a_strategy(head):
    meant = guess_model(head.target)
    assert meant is not None
    assert "head" in strategies.load(head.strategy).drafters
    assert head.form in ("plain", "speculators")
    assert head.source
    for engine in ("vllm", "sglang"):
        path, remark = head_checkpoint(meant.model, head.strategy, "hub", engine, engine)
        if head.form == "plain" or engine in SPECULATORS:
            assert not path.startswith(FILL_IN)
            assert path in remark


def test_no_engine_is_told_a_head_in_a_form_that_it_does_not_load():
    path, remark = head_checkpoint("gpt-oss-20b", "eagle", "hub", "sglang", "SGLang")
    assert path.startswith(FILL_IN)
    assert "--draft-path" in remark
    assert head_checkpoint("gpt-oss-20b", "eagle", "hub", "vllm", "vLLM")[0].startswith("RedHatAI/")
    assert head_checkpoint("Qwen3-8B", "eagle", "gguf", "llamacpp", "llama.cpp")[0].endswith(".gguf")
