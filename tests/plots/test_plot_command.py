"""`draftplan plot`: every kind of figure from the command line, and what it refuses."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

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
    "engines": [*ON[:-1], "vllm,magicdec-h100", "--context", "8k,32k", "-b", "1,64"],
    "break-even": [*ON, "--context", "8k,32k", "-b", "1,16,64"],
    "kv-bottleneck": [*ON, "--model", "llama-3.1-8b,gemma-3-27b", "--context", "8k,32k", "-b", "8"],
    "sensitivity": [*ON, "--context", "32k", "-b", "64"],
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
        ("ratios", [*ON, "--context", "8k", "-b", "64"], "ratios are drawn for one"),
        ("ratios", [*ON, *ONE, "--gamma", "0", "--context", "8k", "-b", "64"], "no length above 0"),
        ("speedup-against-batch", [*ON, "--context", "1k:9k:1k", "-b", "64"], "asks for 9 curves"),
        ("acceptance", ["--model", "llama-3.1-8b", "--context", "8k", "--strategy", "all"], "drafters"),
        ("map", [*ON, "--tp", "4,8", "--context", "8k", "-b", "64"], "name several deployments"),
        ("acceptance", ["--model", "llama-3.1-8b", "--context", "8x"], "--context: found '8x'"),
        ("published", ["--table", "magicdec-9"], "there is no published table"),
        ("break-even", [*ON, "--context", "1k:5k:1k", "-b", "64"], "asks for 5 panels"),
        ("kv-bottleneck", [*ON, "--context", "8k", "-b", "8"], "--context: names one length"),
        ("sensitivity", [*ON, "--context", "8k,9k", "-b", "8"], "--context: names 2 values"),
        ("engines", [*ON[:-1], "vllm,none-such", "--context", "8k", "-b", "8"], "none-such"),
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


@pytest.mark.parametrize("kind", ["pareto", "engines", "break-even", "kv-bottleneck", "sensitivity"])
def test_a_figure_that_answers_says_its_caption_and_an_svg_holds_it_for_who_cannot_see(kind, tmp_path):
    result = drawn(kind, *KINDS[kind], output=tmp_path / "figure.svg")
    [*_, caption, wrote] = result.stderr.splitlines()
    root = ElementTree.parse(tmp_path / "figure.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert caption.endswith(".") and not caption.startswith("note")
    assert wrote.endswith("figure.svg")
    assert root.get("role") == "img"
    assert root.findtext(f"{space}title")
    assert (root.findtext(f"{space}desc") or "").startswith(caption)


def test_engines_that_cannot_run_a_strategy_that_is_named_are_part_of_the_answer(tmp_path):
    flags = [*KINDS["engines"], "--strategy", "snapkv"]
    result = drawn("engines", *flags, output=tmp_path / "figure.svg")
    assert result.exit_code == 0, result.stderr
    assert "vLLM loses most" in result.stderr and "MagicDec nothing" in result.stderr


def test_what_cannot_be_drawn_leaves_the_former_file_as_it_was(tmp_path):
    figure = tmp_path / "figure.png"
    figure.write_bytes(b"former")
    result = drawn("sensitivity", *ON, "--context", "128k", "-b", "10000", output=figure)
    assert result.exit_code != 0
    assert figure.read_bytes() == b"former"
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
