"""What each door of the command line loads, and that a part of it says the same as the whole."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from perfmodel.cli.app import app, build_app

_RUN = """
import atexit, json, sys
from perfmodel.cli import main
def tell():
    print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})), file=sys.stderr)
atexit.register(tell)
sys.argv = ["draftplan", *{arguments!r}]
main()
"""
QUESTION = (
    "plan", "--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--tp", "8", "-b", "32",
    "--context", "32k",
)  # fmt: skip
HEAVY = {"pandas", "scipy", "matplotlib", "pyarrow", "numba", "concurrent", "multiprocessing", "statistics"}
DOORS = {
    "help": (("--help",), HEAVY | {"numpy", "pydantic", "yaml", "strategies"}),
    "version": (("--version",), HEAVY | {"numpy", "pydantic", "yaml", "strategies", "rich"}),
    "help of a command": (("plan", "--help"), HEAVY | {"numpy", "pydantic", "yaml", "strategies"}),
    "an unknown flag": (("plan", "--modle", "x"), HEAVY | {"numpy", "pydantic", "yaml", "strategies"}),
    "a plan": (QUESTION, HEAVY | {"pydantic", "markdown_it"}),
    "a plan as JSON": ((*QUESTION, "--format", "json"), HEAVY | {"pydantic", "rich"}),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_door_loads_no_more_than_it_needs(door):
    arguments, spared = DOORS[door]
    ran = subprocess.run(
        [sys.executable, "-c", _RUN.format(arguments=arguments)],
        capture_output=True, text=True, timeout=60, env={**os.environ},
    )  # fmt: skip
    assert "Traceback" not in ran.stderr
    assert not spared & set(json.loads(ran.stderr.splitlines()[-1]))


_LOADED = """
import sys
sys.argv = ["draftplan", *{arguments!r}]
from perfmodel.cli import main
try:
    main()
except SystemExit:
    pass
print("numpy.ma" in sys.modules, "numpy.random" in sys.modules, file=sys.stderr)
"""


def test_a_plan_loads_no_masked_arrays():
    ran = subprocess.run(
        [sys.executable, "-c", _LOADED.format(arguments=QUESTION)],
        capture_output=True, text=True, timeout=60, env={**os.environ},
    )  # fmt: skip
    assert ran.stderr.splitlines()[-1] == "False True"  # worlds were drawn, by numpy.random


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["plan", "--help"], ["acceptance", "fit", "-h"]])
def test_the_part_that_is_asked_for_says_what_the_whole_says(arguments):
    part, whole = (
        CliRunner().invoke(command, arguments, prog_name="draftplan")
        for command in (build_app(arguments), app)
    )
    assert (part.output, part.exit_code) == (whole.output, whole.exit_code)
    assert part.exit_code == 0


def test_only_the_command_that_is_named_is_declared():
    assert [command.name for command in build_app(["plan", "--help"]).registered_commands] == ["plan"]
    assert len(build_app(["plam"]).registered_commands) == len(app.registered_commands)
