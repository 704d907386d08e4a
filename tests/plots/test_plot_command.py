"""`draftplan plot`: every kind of figure from the command line, and what it refuses."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from perfmodel.cli.app import app

ON = ["--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--tp", "8", "--engine", "generic"]
ONE = ["--strategy", "streaming_llm", "--draft-budget", "512"]
KINDS = {
    "speedup-against-batch": [*ON, "--context", "8k,32k", "-b", "1,64"],
    "speedup-against-context": [*ON, *ONE, "--context", "1k,8k,32k", "-b", "64"],
    "ratios": [*ON, *ONE, "--context", "8k", "-b", "1,64"],
    "map": [*ON, "--context", "8k,32k", "-b", "1,64"],
    "causes": [*ON, "--context", "32k", "-b", "64"],
    "roofline": [*ON, "--context", "32k", "-b", "1,64"],
    "pareto": [*ON, "--context", "32k", "-b", "1,16,64"],
    "acceptance": ["--model", "llama-3.1-8b", "--context", "32k"],
    "published": ["--table", "magicdec-3a"],
}


def drawn(kind, *flags, output):
    return CliRunner().invoke(app, ["plot", kind, *map(str, flags), "-o", str(output)], prog_name="draftplan")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_figure_is_drawn_by_the_command(kind, tmp_path):
    result = drawn(kind, *KINDS[kind], output=tmp_path / "figure.svg")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert (tmp_path / "figure.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("kind", "flags", "said"),
    [
        ("causes", [*ON, "--context", "8k,32k", "-b", "64"], "--context: names 2 values"),
        ("ratios", [*ON, "--context", "8k", "-b", "64"], "Ratios are drawn for one"),
        ("ratios", [*ON, *ONE, "--gamma", "0", "--context", "8k", "-b", "64"], "no length above 0"),
        ("speedup-against-batch", [*ON, "--context", "1k:9k:1k", "-b", "64"], "asks for 9 curves"),
        ("acceptance", ["--model", "llama-3.1-8b", "--context", "8k", "--strategy", "all"], "drafters"),
        ("map", [*ON, "--tp", "4,8", "--context", "8k", "-b", "64"], "name several deployments"),
        ("acceptance", ["--model", "llama-3.1-8b", "--context", "8x"], "--context: found '8x'"),
        ("published", ["--table", "magicdec-9"], "there is no published table"),
    ],
)  # fmt: skip
def test_a_question_that_is_no_figure_is_refused_in_words(kind, flags, said, tmp_path):
    result = drawn(kind, *flags, output=tmp_path / "figure.svg")
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "figure.svg").exists()


def test_a_wrong_ending_is_refused_before_anything_is_priced(tmp_path):
    result = drawn("map", *KINDS["map"], output=tmp_path / "figure.gif")
    assert result.exit_code == 2
    assert "the ending is '.gif'" in result.stderr
