"""The measurement of speed: it tells better from worse, keeps what it measured, and runs on this tree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from speed import __main__ as speed
from speed.figures import Figure, NotHereError, task


def absent(tree: Path) -> float:
    del tree
    raise NotHereError("no module named dask")


@pytest.fixture
def _figures(monkeypatch):
    """Three figures that cost nothing: one rate, one time, one that cannot be had."""
    known = {
        "rate": Figure("M rows/s", lambda _: 8.0),
        "wait": Figure("s", lambda _: 2.0, least=True),
        "cluster": Figure("of one", absent),
    }
    monkeypatch.setattr(speed, "FIGURES", known)
    monkeypatch.setattr(speed, "chosen", lambda names: list(names) or list(known))


def measure(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["speed", "--repeats", "1", *arguments])
    return speed.main()


@pytest.mark.usefixtures("_figures")
def test_what_was_measured_is_kept_with_machine_and_versions(monkeypatch, tmp_path):
    kept = tmp_path / "bench.json"
    assert measure(monkeypatch, "--output", str(kept)) == 0
    body = json.loads(kept.read_text())
    assert body["figures"]["rate"] == {"value": 8.0, "unit": "M rows/s", "least": False}
    assert "cluster" not in body["figures"]
    assert body["machine"]["cores"] and body["versions"]["numpy"]


@pytest.mark.usefixtures("_figures")
def test_twice_the_rate_and_half_the_wait_are_both_twice_as_good(monkeypatch, tmp_path, capsys):
    before = tmp_path / "before.json"
    values = {"rate": {"value": 4.0}, "wait": {"value": 4.0}}
    before.write_text(json.dumps({"figures": values}))
    assert measure(monkeypatch, "--beside", str(before)) == 0
    printed = capsys.readouterr().out
    assert "| rate | M rows/s | 4 | 8 | 2.00 |" in printed
    assert "| wait | s | 4 | 2 | 2.00 |" in printed
    assert "no module named dask" in printed


@pytest.mark.usefixtures("_figures")
def test_something_else_is_refused_in_words(monkeypatch, tmp_path, capsys):
    assert measure(monkeypatch, "--beside", str(tmp_path)) == 1
    assert "neither a saved measurement nor a tree" in capsys.readouterr().err


def test_a_task_runs_in_a_process_of_its_own():
    count, seconds, peak = task(Path(__file__).parents[1], "plan_one_cell")
    assert count == 20 and seconds > 0.0 and peak > 1e7
