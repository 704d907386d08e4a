"""Every flag and argument that takes a path refuses what is no file, at once."""

from __future__ import annotations

import os

import pytest
from asking import CELL, run

from perfmodel.evidence.published.measurements import available

ONE = ["--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb"]
DEPLOYED = [*ONE, "--context", "1k", "--batch-size", "1"]
TAKEN = {
    "cases": ["price", "FILE"],
    "points": ["calibrate", "FILE", *ONE],
    "start": ["calibrate", available()[0], "--start", "FILE"],
    "plan": ["export", "FILE", "--engine", "vllm"],
    "checked": ["check", "FILE", "FILE"],
    "log": ["acceptance", "fit", "FILE"],
    "limits": ["validate", "--limits", "FILE"],
    "trace": ["simulate", "FILE", *ONE],
    "schedule": ["simulate", "--synthetic", "qps=1,prompt=1k,output=9", "--plan", "FILE", *ONE],
    "acceptance": ["plan", *DEPLOYED, "--acceptance", "FILE"],
    "config": ["plan", *DEPLOYED, "--config", "FILE"],
    "hardware": ["plan", *CELL, "--hardware", "FILE"],
    "engine": ["plan", *CELL, "--engine", "FILE"],
    "model": ["plan", *CELL, "--model", "FILE"],
    "draft model": ["plan", *CELL, "--draft-model", "FILE"],
    "profiles": ["plan", *DEPLOYED, "--profiles-path", "FILE"],
}


@pytest.mark.parametrize("flag", TAKEN)
@pytest.mark.parametrize("kind", ["pipe", "zero"])
def test_a_path_to_what_is_no_file_is_refused(tmp_path, flag, kind):
    path = tmp_path / f"{kind}.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    result = run(*[str(path) if part == "FILE" else part for part in TAKEN[flag]])
    assert result.exit_code == 2, result.stderr
    said = {"pipe": "a named pipe", "zero": "a device"}[kind] if flag != "profiles" else "folder"
    assert said in result.stderr
    assert str(path) in result.stderr
