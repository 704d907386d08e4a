"""The command line as tests ask it: in this process, as JSON, or in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

import perfmodel
from perfmodel.cli.app import app

ROOT = Path(perfmodel.__file__).parents[1]
ON = ["--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--tp", "8", "--engine", "ideal"]
CELL = [*ON, "--context", "32k", "--batch-size", "64"]
QUICK = ["--strategy", "streaming_llm", "--draft-budget", "512", "--gamma", "0:4:1"]
SERVED = ["--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--engine", "ideal"]
DRAFTS = ["--strategy", "snapkv", "--draft-budget", "1024", "--gamma", "0:4:1"]


def run(*arguments, **settings):
    return CliRunner().invoke(
        app, [str(argument) for argument in arguments], prog_name="draftplan", **settings
    )


def asked(*arguments):
    """Return the answer of a command that must succeed, read from JSON."""
    result = run(*arguments, "--format", "json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def process(*arguments, **settings):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "perfmodel", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        **settings,
    )


def answered(*arguments):
    """Return what a command that must succeed writes to stdout."""
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refused(*arguments):
    """Return what a command that is asked wrongly says on stderr."""
    result = run(*arguments)
    assert result.exit_code == 2, result.stdout
    return result.stderr
