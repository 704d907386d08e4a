"""Plan, run, read back, plan again: the second plan equals the first where acceptance is what was planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_schedules import metrics_text, scheduled_counts
from typer.testing import CliRunner

from perfmodel.acceptance.file import read_acceptance
from perfmodel.cli.app import app

ON = [
    "--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--engine", "vllm", "--context", "4k",
    "-b", "1,16,64,256", "--strategy", "eagle",
]  # fmt: skip


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), prog_name="draftplan")
    assert result.exit_code == 0, result.stderr
    return str(result.stdout)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8, 1.0])
def test_a_schedule_that_is_read_back_is_planned_again(alpha: float, tmp_path: Path) -> None:
    first, log, file = tmp_path / "plan.json", tmp_path / "metrics.txt", tmp_path / "a.json"
    first.write_text(run("plan", *ON, "--acceptance-rate", alpha, "--format", "json"))
    cells: list[dict[str, Any]] = json.loads(first.read_text())["cells"]
    lengths = [cell["gamma"] for cell in cells if cell["gamma"]]
    if not lengths:
        pytest.skip("nothing is drafted at this rate, so nothing is read back")
    share = np.full(len(lengths), 1.0 / len(lengths))
    counts = scheduled_counts(11, lengths, share.tolist(), alpha, alpha, rounds=40_000)
    log.write_text(metrics_text(counts))
    run("acceptance", "fit", log, "--plan", first, "--strategy", "eagle", "--model", "llama-3.1-8b",
        "--context", "4256", "-o", file)  # fmt: skip
    (entry,) = read_acceptance(file)
    # 4256: the mean of the 512 output tokens that the plan prices after 4,000
    assert abs(entry.alpha - alpha) < 2.5 * entry.alpha_se + 1e-9
    again = json.loads(run("plan", *ON, "--acceptance", file, "--format", "json"))["cells"]
    for before, after in zip(cells, again, strict=True):
        assert abs(after["gamma"] - before["gamma"]) <= (1 if before["gamma"] < 8 else 3)
        assert after["gamma"] > 0 or before["gamma"] == 0
        assert after["speedup"] == pytest.approx(before["speedup"], rel=0.05)
