"""The command as a process of its own: exit codes, pipes, and what it loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from asking import CELL, ON, QUICK, ROOT, process


def test_the_command_runs_as_a_process():
    ran = process("plan", *CELL, *QUICK, "--format", "json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["cells"][0]["batch_size"] == 64
    assert "\x1b" not in process("plan", *CELL, *QUICK).stdout
    assert process("plan", *CELL, "--tpot", "0.01").returncode == 3
    assert process("plan", "--nonsense").returncode == 2


def test_a_reader_that_has_seen_enough_is_no_failure():
    command = f"{sys.executable} -m perfmodel sweep {' '.join(ON)} --context 1k:64k:1k -b 1:64:1 | head -1"
    ran = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ran.stdout.startswith("hardware,")
    assert "Traceback" not in ran.stderr
    assert "Broken" not in ran.stderr
    assert ran.returncode == 141


def loaded_by(*arguments):
    code = """
import sys
from perfmodel.cli import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return {name.partition(".")[0] for name in ran.stderr.split()}


def test_help_and_plans_load_nothing_heavy():
    assert not loaded_by("--help") & {"numpy", "yaml", "pydantic", "pandas", "scipy", "matplotlib", "torch"}
    assert not loaded_by("plan", *CELL, *QUICK, "--format", "json") & {
        "pandas", "scipy", "matplotlib", "torch", "plotly", "rich",
    }  # fmt: skip
