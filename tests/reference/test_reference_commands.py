"""`draftplan measure` and `draftplan demo`, and the trials that the demo runs."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from timing_helpers import TINY_GRID, StepClock  # noqa: E402

from perfmodel.acceptance import tokens_per_round  # noqa: E402
from perfmodel.cli.app import app  # noqa: E402
from perfmodel.cli.ask import device  # noqa: E402
from perfmodel.evidence.machine.points import MachinePoint, read_points, write_points  # noqa: E402
from perfmodel.reference.cache import KVCache  # noqa: E402
from perfmodel.reference.demo import demo  # noqa: E402
from perfmodel.reference.demo.trials import PLAIN, Config, Setup, run_side_by_side  # noqa: E402
from perfmodel.reference.timing import machines  # noqa: E402

pytestmark = pytest.mark.torch


def test_trials_compare_every_output_with_plain_decoding(tiny):
    target = tiny(dtype=torch.float32)
    cache = KVCache(target.architecture, 2, 120)
    cache.fill_randomly(64)
    tokens = torch.zeros(2, cache.capacity, dtype=torch.long)
    setup = Setup(target, cache, torch.tensor([3, 5]), tokens, 20, alpha=0.8)
    config = Config("streaming_llm", 16, 3)
    runs = run_side_by_side(setup, [config], stopwatch=StepClock(), seconds=60, most_turns=3)
    assert set(runs) == {PLAIN, config}
    assert runs[config].differing == runs[PLAIN].differing == 0
    assert runs[PLAIN].tokens_per_round == 1.0
    assert runs[config].tokens_per_round == pytest.approx(float(tokens_per_round(0.8, 3)), rel=0.1)
    assert (config.label, PLAIN.label) == ("streaming_llm budget 16 gamma 3", "plain decoding")


def draftplan(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="draftplan")


@pytest.fixture
def _small_machine(monkeypatch):
    monkeypatch.setattr(machines, "CPU_GRID", TINY_GRID)
    monkeypatch.setattr(
        machines, "SMALL", {**machines.SMALL, "hidden_size": 32, "intermediate_size": 32, "head_dim": 16}
    )


@pytest.mark.usefixtures("_small_machine")
def test_measure_writes_points_and_goes_on_where_it_stopped(tmp_path):
    file = tmp_path / "points.csv"
    first = draftplan("measure", "-o", file, "--seconds", "20")
    assert first.exit_code == 0, first.stderr
    points = read_points(file)
    assert {point.clock for point in points} == {"thread"}
    assert all(point.seconds > 0 and point.low <= point.seconds <= point.high for point in points)
    assert f"{len(points)} shapes" in first.stderr
    stamp = os.stat(file).st_mtime_ns
    kept = file.read_text()
    again = draftplan("measure", "-o", file, "--seconds", "20")
    assert again.exit_code == 0
    assert os.stat(file).st_mtime_ns >= stamp
    assert file.read_text() == kept


def test_measure_refuses_a_file_of_another_machine(tmp_path):
    file = tmp_path / "points.csv"
    write_points(file, [MachinePoint(kind="stream", dtype="fp32", n=1, seconds=1.0, device="two threads")])
    result = draftplan("measure", "-o", file, "--seconds", "1")
    assert result.exit_code == 2
    assert "two threads" in result.stderr


def test_measure_refuses_a_folder_that_is_not_there_before_it_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(machines, "bench_decoder", None)
    result = draftplan("measure", "-o", tmp_path / "absent" / "points.csv")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


@pytest.mark.parametrize("command", [["measure", "-o", "points.csv"], ["demo"]])
def test_without_torch_the_commands_say_what_to_install(monkeypatch, command):
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda _: None)
    result = draftplan(*command)
    assert result.exit_code == 2
    assert "[reference]" in result.stderr


@pytest.mark.usefixtures("_small_machine")
@pytest.mark.parametrize("format", [pytest.param("table", marks=pytest.mark.slow), "json"])
def test_demo_closes_the_loop_on_small_shapes(monkeypatch, format):
    monkeypatch.setattr(
        demo, "DEMO_GRID", replace(TINY_GRID, cells=((1, 256), (2, 256), (2, 1024), (4, 512)))
    )
    monkeypatch.setattr(demo, "SHARES", {"measure": 0.08, "dial": 0.08, "induction": 0.02})
    monkeypatch.setattr(demo, "SHAPE", (2, 1024))
    monkeypatch.setattr(demo, "BUDGETS", (32, 64))
    monkeypatch.setattr(demo, "OUTPUT", 8)
    monkeypatch.setattr(demo, "PLANTED", ((2, 600), 256, 40, 8))
    result = draftplan("demo", "--seconds", "20", "--format", format, "--acceptance-rate", "0.8")
    assert result.exit_code == 0, result.stderr
    if format == "json":
        body = json.loads(result.stdout)
        dialled, planted = body["comparisons"]
        assert (dialled["title"], planted["title"]) == ("acceptance dialled", "answers planted")
        assert dialled["tokens_differing"] == planted["tokens_differing"] == 0
        assert np.isfinite([dialled["regret"], planted["regret"]]).all()
    else:
        assert "all outputs are those of plain decoding" in result.stdout
        assert "regret" in result.stdout
