"""Nothing that a reader would not see is written, and refusals say where."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import xml.etree.ElementTree

import pytest
import yaml
from asking import ON, QUICK, run

from perfmodel.cli.app import _explain
from perfmodel.cli.ask.format import Format, OutputFlags
from perfmodel.cli.tell.output import csv_texts, dump, emit, render, yaml_text
from perfmodel.cli.tell.tables import draw, heading, left, line
from perfmodel.errors import escaped
from perfmodel.files.csv_rows import csv_text
from perfmodel.model import ModelSpec
from perfmodel.model.names import bundled_models
from perfmodel.plots.style import axes, figure_bytes, titled
from perfmodel.report.page import _inert, escape

EVIL = "a\x1b[31m\x07\u202eb\u200b\u2028\x9b\x7f\ud800\U000e0041\r</script>"
CELL = ["--context", "32k", "--batch-size", "64"]


def raw(text):
    """What of a text a reader would not see, but line ends."""
    return [sign for sign in text if not sign.isprintable() and sign != "\n"]


@pytest.fixture
def evil_model(tmp_path):
    """A model whose folder, and so its name, holds an escape and a direction mark."""
    folder = tmp_path / "m\x1b[31m\u202e\u2028x"
    folder.mkdir()
    (folder / "config.json").write_bytes(bundled_models()["Llama-3.1-8B"].read_bytes())
    return str(folder)


def test_every_character_is_still_meant_in_json_and_yaml():
    body = {"key\u202e": EVIL, "plain": "µ ≤ 大 — é\nnext"}
    for wanted, read in ((Format.JSON, json.loads), (Format.YAML, None)):
        text = dump(body, wanted)
        assert not raw(text)
        assert "µ ≤ 大 — é" in text
        if read:
            assert read(text) == body
    without_half = {"key\u202e": EVIL.replace("\ud800", ""), "plain": body["plain"]}
    assert yaml.safe_load(dump(without_half, Format.YAML)) == without_half
    assert yaml.safe_load(yaml_text(without_half, width=20)) == without_half
    assert escaped("\U000e0041", pairs=True) == r"\udb40\udc41"
    assert escaped("\U000e0041", pairs=False) == r"\U000e0041"


def test_what_is_plain_is_written_as_before():
    body = {"name": "µ ≤ 大", "two": "a\nb", "number": 1.5, "none": None}
    assert dump(body, Format.YAML) == yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=120)
    assert dump(body, Format.JSON) == json.dumps(body, indent=1, ensure_ascii=False) + "\n"
    assert csv_text(["a"], [["µ ≤ 大, b"]]) == 'a\n"µ ≤ 大, b"\n'


def test_csv_holds_nothing_invisible():
    for text in ("".join(csv_texts([{"a": EVIL, "b": 1.5}])), csv_text(["a", "b\x1b"], [[EVIL, "1.5"]])):
        assert not raw(text)
        assert next(csv.reader(io.StringIO(text.partition("\n")[2])))[0].startswith(r"a\x1b[31m\x07\u202eb")


def test_tables_and_texts_hold_nothing_invisible(capsys):
    def drawn(console):
        heading(console, EVIL)
        line(console, EVIL)
        draw(console, [left(EVIL, str), left("b", str)], [EVIL])

    text = render(drawn, OutputFlags(format=None, output="-", no_color=True))
    assert not raw(text)
    assert text.count(r"\x1b[31m") == 5
    emit(EVIL + "\n")
    assert not raw(capsys.readouterr().out)


def test_pages_and_figures_hold_nothing_invisible():
    assert not raw(escape(EVIL))
    assert "<" not in escape(EVIL)
    inert = _inert({EVIL: [EVIL, 1.5]})
    assert not raw(inert)
    assert "<" not in inert
    assert not raw("".join(next(iter(json.loads(inert)))))
    ax = axes(None)
    ax.plot([1, 2], label=EVIL + "$_$")
    ax.legend()
    titled(ax, EVIL, EVIL)
    svg = figure_bytes(ax, "svg").decode()
    xml.etree.ElementTree.fromstring(svg)
    assert not raw(svg)
    assert figure_bytes(ax, "png").startswith(b"\x89PNG")


@pytest.mark.parametrize("wanted", ["table", "json", "yaml", "csv", "neutral", "vllm"])
def test_an_answer_on_a_model_of_an_evil_name_holds_nothing_invisible(evil_model, wanted):
    drafter = ["--strategy", "ngram", "--gamma", "0:4:1"] if wanted == "vllm" else QUICK
    result = run("plan", *ON, "--model", evil_model, *CELL, *drafter, "--format", wanted)
    assert result.exit_code == 0, result.stderr
    assert result.stdout
    assert not raw(result.stdout + result.stderr)
    if wanted == "json":
        assert json.loads(result.stdout)["model"] == ModelSpec.load(evil_model).name


@pytest.mark.parametrize(
    "arguments",
    [
        ["pl\x1ban"],
        ["plan", "--mod\u202eel", "x"],
        ["plan", *ON, "--batch-size", EVIL, "--context", "1k"],
        ["price", "no\x1b\u202efile.csv"],
        ["export", EVIL, "--engine", EVIL],
        ["simulate", "no\x00file.csv", *ON],
        ["validate", "--limits", "\u202e.csv"],
        ["acceptance", "fit", "\x1b]0;x\x07"],
    ],
)
def test_a_refusal_holds_nothing_invisible(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert not raw(result.stdout + result.stderr)


def test_the_name_of_what_was_written_is_shown_escaped(tmp_path):
    name = tmp_path / "out\u202e\x1b.json"
    result = run("plan", *ON, *CELL, *QUICK, "-o", name)
    assert result.exit_code == 0
    assert name.exists()
    assert result.stderr.endswith("out\\u202e\\x1b.json\n")


def test_an_unexpected_exception_holds_nothing_invisible(capsys, monkeypatch):
    monkeypatch.setenv("DRAFTPLAN_DEBUG", "1")
    assert _explain(RuntimeError(EVIL)) == 1
    assert not raw(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", r"plan.yaml: Missing option '--model'.*, and the file has no key 'model'"),
        ("model: llama-3.1-8b\nhardware: h100-sxm-80gb\ncontext: 1k\n", r"plan.yaml: .*no key 'batch_size'"),
        ("format: [1]\n", r"plan.yaml:1: format: found '1'. Choose one of"),
        ("engine: ideal\nformat: 0\n", r"plan.yaml:2: format: found '0'"),
        ("context: 1:2000:1\nbatch_size: 1:2000:1\n", r"plan.yaml:2: batch_size, context: ask"),
    ],
)
def test_a_fault_of_a_config_names_the_config(tmp_path, content, said):
    config = tmp_path / "plan.yaml"
    config.write_text(content)
    on = [*ON, *CELL] if said.endswith(("found '0'", "of")) else []
    on = ON if said.endswith("ask") else on
    result = run("plan", "--config", config, *on)
    assert result.exit_code == 2
    assert re.search(said, result.stderr), result.stderr


def test_a_flag_that_was_typed_is_not_blamed_on_the_config(tmp_path):
    config = tmp_path / "plan.yaml"
    config.write_text("gamma: '0:4:1'\n")
    result = run("plan", "--config", config, *ON, *CELL, "--format", "no")
    assert result.stderr.startswith("error: --format: found 'no'")


def test_too_few_points_of_a_machine_name_their_file(tmp_path):
    points = tmp_path / "points.csv"
    points.write_text("kind,dtype,seconds\n")
    result = run("calibrate", points)
    assert result.exit_code == 2
    assert str(points) in result.stderr


def test_a_pipe_of_the_shell_is_looked_at_and_read():
    reading, writing = os.pipe()
    os.write(writing, b"arrival_s,prompt_tokens,output_tokens\n0,1000,50\n1,1000,50\n")
    os.close(writing)
    result = run("simulate", f"/dev/fd/{reading}", *ON, "--strategy", "snapkv", "--policy", "none")
    os.close(reading)
    assert result.exit_code == 0, result.stderr
