"""Flags from a file: the same meaning, each fault with its line."""

from __future__ import annotations

import pytest
from asking import ON, QUICK, asked, run


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
    problems = {2: "'hardware'", 3: "tp", 4: "true or false", 6: "the same as context above"}
    for line, problem in problems.items():
        assert any(f"plan.yaml:{line}:" in text and problem in text for text in result.stderr.splitlines())


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
