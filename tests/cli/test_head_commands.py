"""`draftplan` given a draft head's own file: one answer, and a refusal where it does not belong."""

from __future__ import annotations

import json

import pytest
from asking import run

EAGLE3 = {
    "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "num_hidden_layers": 1,
    "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 128, "vocab_size": 151936, "draft_vocab_size": 32000, "max_position_embeddings": 40960,
    "torch_dtype": "bfloat16",
}  # fmt: skip
BLOCKS = {
    **EAGLE3, "architectures": ["DFlashDraftModel"], "model_type": "qwen3", "num_hidden_layers": 5,
    "block_size": 16, "dflash_config": {"target_layer_ids": [1, 9, 17, 25, 33]},
}  # fmt: skip
del BLOCKS["draft_vocab_size"]


@pytest.fixture
def eagle_file(tmp_path):
    path = tmp_path / "qwen3-8b-eagle3.json"
    path.write_text(json.dumps(EAGLE3))
    return str(path)


CELL = ["plan", "--model", "qwen3-8b", "--hardware", "h100", "--context", "8k", "-b", "1,16"]


def test_a_head_named_as_draft_model_and_under_its_strategy_is_one_answer(eagle_file):
    """And the strategy without a file gives the same plan for a target whose published head is like it."""
    asked = [
        run(*CELL, "--format", "json", "--draft-model", eagle_file),
        run(*CELL, "--format", "json", "--draft-model", eagle_file, "--strategy", "eagle"),
        run(*CELL, "--format", "json", "--strategy", "eagle"),
    ]
    first, second, made = (json.loads(answer.stdout)["cells"] for answer in asked)
    assert first == second
    assert {cell["strategy"] for cell in first} == {"eagle"}
    for read, built in zip(first, made, strict=True):
        assert read["tpot_s"] == pytest.approx(built["tpot_s"], rel=1e-9)
        assert read["speedup_low"] == pytest.approx(built["speedup_low"], rel=1e-9)
    assert "is an EAGLE-3 head: planned as eagle" in asked[0].stderr


def test_a_head_under_another_strategy_is_refused_with_its_own(eagle_file):
    for name in ("streaming_llm", "mtp", "full_kv"):
        refused = run(*CELL, "--draft-model", eagle_file, "--strategy", name)
        assert refused.exit_code == 2
        assert f"drafts as eagle, not as {name}" in refused.stderr


def test_a_head_that_does_not_fit_is_refused_by_both_numbers(eagle_file):
    other = ["llama-3.1-8b" if word == "qwen3-8b" else word for word in CELL]
    refused = run(*other, "--draft-model", eagle_file)
    assert refused.exit_code == 2
    assert "151936" in refused.stderr and "128256" in refused.stderr


def test_a_head_serves_nothing_by_itself(eagle_file):
    refused = run("plan", "--model", eagle_file, "--hardware", "h100", "--context", "8k", "-b", "1")
    assert refused.exit_code == 2
    assert "EAGLE-3 head, serves nothing by itself" in refused.stderr


def test_a_block_drafter_is_planned_as_one(tmp_path):
    path = tmp_path / "qwen3-8b-dflash.json"
    path.write_text(json.dumps(BLOCKS))
    told = run(*CELL, "--draft-model", str(path))
    assert told.exit_code == 0
    assert "is a DFlash head: planned as dflash" in told.stderr
    explained = run("explain", *CELL[1:-1], "1", "--draft-model", str(path))
    assert "draft pass (1 of 1)" in explained.stdout
    refused = run(*CELL, "--draft-model", str(path), "--gamma", "16")
    assert refused.exit_code == 2 and "at most 15 tokens a round" in refused.stderr


def test_models_show_says_what_a_head_is(eagle_file):
    told = run("models", "show", eagle_file).stdout
    assert "drafts as: EAGLE-3 head, strategy eagle" in told
    assert "output layer: its own, 32000 tokens" in told
    assert "first pass of a round" in told


def test_a_plan_with_a_head_is_exported_with_its_file(eagle_file, tmp_path):
    path = str(tmp_path / "plan.json")
    run(*CELL, "--draft-model", eagle_file, "--one-deployment", "--format", "json", "-o", path)
    config = json.loads(run("export", path, "--engine", "vllm", "--draft-path", eagle_file).stdout)
    assert (config["method"], config["model"]) == ("eagle3", eagle_file)


def test_a_search_says_in_a_line_what_it_left_out():
    told = run("plan", "--model", "starcoder2-15b", "--hardware", "h100", "--context", "8k", "-b", "1")
    assert told.exit_code == 0
    assert "left out: snapkv, streaming_llm: no layer of StarCoder2-15B keeps a cache" in told.stderr
    refused = run(
        "plan", "--model", "starcoder2-15b", "--hardware", "h100", "--context", "8k", "-b", "1",
        "--strategy", "snapkv",
    )  # fmt: skip
    assert refused.exit_code == 2 and "snapkv does not apply" in refused.stderr
