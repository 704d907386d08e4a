"""What CONTRIBUTING promises: an objective, a column, a command and a kernel are one place each."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, fields

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import hardware_profiles
import perfmodel.cli
from perfmodel import EngineOverhead, HardwareProfile, ModelSpec, Workload, plan
from perfmodel.cli.app import app, build_app
from perfmodel.deployment import Deployment
from perfmodel.latency import ForwardPass, price_pass
from perfmodel.planning import columns
from perfmodel.planning.plan import OBJECTIVES, Objective

QUESTION = [
    "plan", "--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb,l40s-48gb", "--tp", "1,2",
    "--context", "8k", "-b", "16", "--strategy", "streaming_llm", "--gamma", "0,2", "--draft-budget", "512",
]  # fmt: skip


def run(*arguments: str, command=app):
    return CliRunner().invoke(command, list(arguments), prog_name="draftplan")


def answered(*arguments: str, command=app) -> str:
    result = run(*arguments, command=command)
    assert result.exit_code == 0, result.output
    return result.stdout


def cell_of(*more: str) -> dict:
    return json.loads(answered(*QUESTION, *more, "--format", "json"))["cells"][0]


def test_an_objective_is_one_row(monkeypatch):
    """It is planned by, asked for on the command line and offered where another was asked for."""
    known = list(OBJECTIVES)
    monkeypatch.setitem(OBJECTIVES, "thrift", Objective("memory_bytes_per_gpu", least=True))
    cells = {name: cell_of("--objective", name) for name in OBJECTIVES}
    assert cells["thrift"]["memory_bytes_per_gpu"] == min(
        cell["memory_bytes_per_gpu"] for cell in cells.values()
    )
    assert "thrift" in run(*QUESTION, "--objective", "luck").stderr
    assert all(name in answered("plan", "--help") for name in known)


def test_a_column_is_one_field(monkeypatch):
    """Its numbers stand in the cell, the JSON, the CSV and the printed table."""

    @dataclass(frozen=True)
    class WithDrafts(columns.Cell):
        draft_share: float = columns.column(
            "1", lambda answer: answer.round.draft_s / answer.round.round_s, default=0.0,
            title="drafts", place=12.5, show=lambda cell: f"{cell.draft_share:.0%}",
        )  # fmt: skip

    monkeypatch.setattr(columns, "Cell", WithDrafts)
    cell = cell_of()
    (row,) = csv.DictReader(io.StringIO(answered(*QUESTION, "--format", "csv")))
    assert cell["draft_share"] == pytest.approx(cell["draft_s"] / cell["round_s"])
    assert float(row["draft_share"]) == cell["draft_share"]
    table = answered(*QUESTION)
    assert "drafts" in table
    assert f"{cell['draft_share']:.0%}" in table


def test_a_field_without_a_column_is_no_cell():
    assert all("column" in field.metadata for field in fields(columns.Cell))
    names = [column.name for column in columns.columns_of(columns.Cell)]
    assert names == [field.name for field in fields(columns.Cell)]


def test_a_command_is_one_file(monkeypatch, tmp_path):
    """It runs, has its flags, and is listed in the help at its place."""
    (tmp_path / "greet.py").write_text(
        '''"""`draftplan greet`: say hello."""

from perfmodel.cli.ask.flag import command, flag


@command("greet", 2.5)
def greet(name: str = flag("--name", "WHO", default="you", help="Whom to greet.")) -> None:
    """Say hello."""
    print(f"hello {name}")
'''
    )
    monkeypatch.setattr(perfmodel.cli, "__path__", [*perfmodel.cli.__path__, str(tmp_path)])
    enlarged = build_app()
    assert answered("greet", "--name", "team", command=enlarged) == "hello team\n"
    listed = answered("--help", command=enlarged)
    assert listed.index("explain") < listed.index("greet") < listed.index("price ")


def test_a_kernel_is_one_entry_of_a_profile(tmp_path):
    """It is checked, shown, priced by whoever names it, and counted among what was assumed or measured."""
    source = next(iter(hardware_profiles.__path__)) + "/h100-sxm-80gb.yaml"
    with open(source, encoding="utf-8") as stream:
        profile = yaml.safe_load(stream)
    profile |= {"name": "my-h100", "aliases": []}
    slow = {"value": 0.3, "low": 0.2, "high": 0.4, "source": "timed by hand", "kind": "measured"}
    profile["attention"]["mine"] = {"memory_fraction": slow}
    path = tmp_path / "my-h100.yaml"
    path.write_text(yaml.safe_dump(profile, sort_keys=False))
    assert "is a valid" in answered("hardware", "check", str(path))
    assert "attention.mine.memory_fraction" in answered("hardware", "show", str(path), "--format", "json")
    hardware, model = HardwareProfile.load(path), ModelSpec.load("llama-3.1-8b")
    engine = EngineOverhead.load("ideal")
    step = ForwardPass(batch=64.0, kv_tokens=32_000.0)
    engines = [EngineOverhead.load(_engine(tmp_path, engine, kernel)) for kernel in ("vllm", "mine")]
    usual, named = (price_pass(Deployment(hardware, model, each, 8), step) for each in engines)
    assert np.all(named.attention > 1.5 * usual.attention)
    assert named.linear == usual.linear
    answer = plan(hardware, model, engines[1], Workload([64], [32_000]), tensor_parallel=8)
    assert any(sentence.startswith("attention.mine.t0") for sentence in answer.assumed)
    assert not any(sentence.startswith("attention.mine.memory_fraction") for sentence in answer.assumed)


def _engine(folder, like, kernel: str) -> str:
    """An engine file that calls a kernel by its name."""
    path = folder / f"with-{kernel}.yaml"
    path.write_text(f"name: with-{kernel}\nattention_kernel: {kernel}\nall_reduce: {like.all_reduce}\n")
    return str(path)
