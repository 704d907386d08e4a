"""What importing the package costs: nothing heavy is loaded before the door that needs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import perfmodel

ROOT = Path(perfmodel.__file__).parents[1]
OURS = {"perfmodel", "strategies", "hardware_profiles"}
NUMPY = {"numpy", "cython_runtime"}
FILES = {"yaml", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
LIGHT = ["planning.planner", "policy", "planning.cases", "traffic.simulate", "export"]

_REPORT = """
import sys
before = set(sys.modules)
{code}
tops = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(tops - set(sys.stdlib_module_names)))
"""


def libraries_loaded_by(code: str) -> set[str]:
    """Return the libraries, neither Python's own nor ours, that a fresh interpreter loads to run `code`."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    ran = subprocess.run(
        [sys.executable, "-c", _REPORT.format(code=code)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return {name for name in ran.stdout.split() if not name.startswith("_")} - OURS


def test_importing_the_package_loads_no_library_at_all():
    assert libraries_loaded_by("import perfmodel") == set()


@pytest.mark.parametrize("module", LIGHT)
def test_importing_what_an_engine_needs_loads_only_numpy_and_the_readers_of_files(module):
    assert libraries_loaded_by(f"import perfmodel.{module}") <= NUMPY | FILES


def test_making_a_plan_loads_only_numpy_and_the_readers_of_files():
    code = """
from perfmodel import EngineOverhead, HardwareProfile, ModelSpec, Workload, plan
plan(HardwareProfile.load("h100-sxm-80gb"), ModelSpec.load("llama-3.1-8b"), EngineOverhead.load("ideal"),
     Workload([4], [32000]), gammas=[2], kv_budgets=[512])
"""
    loaded = libraries_loaded_by(code)
    assert "numpy" in loaded
    assert loaded <= NUMPY | FILES


@pytest.mark.parametrize("name", [name for name in perfmodel.__all__ if not name.startswith("__")])
def test_every_public_name_is_what_its_module_defines(name):
    value = getattr(perfmodel, name)
    assert value.__name__ == name
    assert getattr(sys.modules[value.__module__], name) is value
    assert name in dir(perfmodel)


@pytest.mark.parametrize("first", ["perfmodel", "perfmodel.planning.plan", "perfmodel.cli"])
def test_plan_is_the_function_whatever_was_imported_before(first):
    libraries_loaded_by(f"import {first}\nfrom perfmodel import plan\nassert callable(plan)")


def test_an_unknown_name_is_refused_like_that_of_any_module():
    with pytest.raises(AttributeError, match="no attribute 'plam'"):
        _ = perfmodel.plam
