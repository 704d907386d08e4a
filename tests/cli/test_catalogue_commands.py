"""`draftplan hardware|models|strategies|engines`, help, version and completion: what there is."""

from __future__ import annotations

import pytest
from asking import CELL, QUICK, ROOT, asked, run

from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec


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
    details = asked("hardware", "show", "h100")
    figures = {figure["figure"]: figure for figure in details["figures"]}
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


def test_checking_a_model_prints_what_was_assumed(tmp_path):
    config = tmp_path / "config.json"
    text = (ROOT / "perfmodel" / "data" / "models" / "Llama-3.1-8B.json").read_text()
    config.write_text(text.replace('"model_type": "llama"', '"model_type": "mine", "kv_sharing": 2'))
    result = run("models", "check", config)
    assert result.exit_code == 0, result.stderr
    assert "is a valid model\n  " in result.stdout
    assert "  kv_sharing was not read" in result.stdout
    assert "model_type 'mine' is not known; assumed a gated MLP" in result.stdout
