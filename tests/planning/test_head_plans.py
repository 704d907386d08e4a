"""A head named by its file and the strategy that it belongs to are one answer."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from perfmodel.cli.app import app

QUESTION = ["plan", "--model", "qwen3-8b", "--hardware", "h100", "--context", "8k", "-b", "1,16"]
SIZES = {
    "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960, "torch_dtype": "bfloat16",
    "hidden_act": "silu", "tie_word_embeddings": False,
}  # fmt: skip
EAGLE = {**SIZES, "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "num_hidden_layers": 1,
         "draft_vocab_size": 32000}  # fmt: skip
DFLASH = {**SIZES, "architectures": ["DFlashDraftModel"], "model_type": "qwen3", "num_hidden_layers": 5,
          "block_size": 16, "dflash_config": {"target_layer_ids": [1, 9, 17, 25, 33]}}  # fmt: skip


@pytest.fixture
def head(tmp_path):
    def write(config):
        folder = tmp_path / "head"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return str(folder)

    return write


def ask(*more):
    return CliRunner().invoke(app, [*QUESTION, "--format", "json", *more], prog_name="draftplan")


def cells(*more):
    result = ask(*more)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["cells"]


def test_a_head_by_its_file_is_the_strategy_by_its_name(head):
    """The same EAGLE-3 head gave 1.76x and 2.03x by its file, and no speculation by its name."""
    place = head(EAGLE)
    by_file, by_name, by_both = cells("--draft-model", place), cells("--strategy", "eagle"), cells(
        "--strategy", "eagle", "--draft-model", place
    )  # fmt: skip
    assert [cell["strategy"] for cell in by_file] == ["eagle", "eagle"]
    assert by_file == by_both
    for one_way, other in zip(by_file, by_name, strict=True):
        for key in ("gamma", "kv_budget", "tpot_s", "speedup", "alpha"):
            assert one_way[key] == pytest.approx(other[key], rel=1e-6), key


def test_a_block_drafter_drafts_its_block_in_one_pass(head):
    plan = cells("--draft-model", head(DFLASH))
    assert [cell["strategy"] for cell in plan] == ["dflash", "dflash"]
    for cell in plan:
        assert 1 < cell["gamma"] <= 15
        assert cell["draft_s"] == pytest.approx(cell["draft_ratio"] * cell["baseline_s"])


@pytest.mark.parametrize(
    ("config", "asked", "words"),
    [
        (EAGLE, ["--strategy", "snapkv"], "drafts as eagle"),
        (EAGLE | {"hidden_size": 2048, "head_dim": 64}, [], "hidden size of 2048, Qwen3-8B has 4096"),
        (EAGLE | {"vocab_size": 128256}, [], "vocabulary of 128256, Qwen3-8B has 151936"),
        (DFLASH, ["--gamma", "16"], "at most 15"),
    ],
)
def test_a_head_that_cannot_draft_here_is_refused_with_both_numbers(head, config, asked, words):
    result = ask("--draft-model", head(config), *asked)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("model", "strategy", "words"),
    [
        ("llama-3.1-70b", "mtp", "has no layers for predicting further tokens"),
        ("starcoder2-15b", "snapkv", "no layer of StarCoder2-15B keeps a cache that grows"),
        ("deepseek-v4-flash", "streaming_llm", "stand for several tokens"),
    ],
)
def test_a_strategy_that_does_not_apply_says_so(model, strategy, words):
    more = ["--model", model, "--hardware", "h200", "--tp", "4", "--strategy", strategy]
    result = CliRunner().invoke(app, [*QUESTION, *more], prog_name="draftplan")
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_what_does_not_apply_is_left_out_of_a_search_and_said():
    result = CliRunner().invoke(app, [*QUESTION, "--model", "starcoder2-15b"], prog_name="draftplan")
    assert result.exit_code == 0
    assert "left out: snapkv, streaming_llm" in " ".join(result.output.split())
