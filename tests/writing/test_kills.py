"""Commands that are killed at any moment leave the old file or the new one, and go on to the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import perfmodel

ROOT = Path(perfmodel.__file__).parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("moments", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_a_command_killed_at_a_random_moment_goes_on_to_the_same_bytes(moments, tmp_path):
    script = Path(__file__).with_name("kills.py")
    ran = subprocess.run(
        [sys.executable, str(script), str(moments), "16", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(script.parent)])},
        capture_output=True, text=True, timeout=40 * 60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    results = json.loads(ran.stdout)
    print(json.dumps(results, indent=1))
    assert sum(result["moments"] for result in results.values()) == moments
    assert {name: result["wrong"] for name, result in results.items()} == {name: [] for name in results}
    assert sum(result["before its end"] for result in results.values()) >= moments // 2
