"""The house holds: every module has a floor and one job, names say what they hold, tests stay short."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

import pytest

import perfmodel

ROOT = Path(perfmodel.__file__).parents[1]
PRODUCT = sorted(path for folder in ("perfmodel", "strategies") for path in (ROOT / folder).rglob("*.py"))
SAYING_NOTHING = {"found", "one", "mine", "said", "told"}


def floors(contract: str) -> set[str]:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return set(re.findall(r"\w+", settings[f"importlinter:contract:{contract}"]["layers"]))


@pytest.mark.parametrize(
    ("folder", "contract"),
    [("perfmodel", "floors"), ("perfmodel/planning", "planning"), ("perfmodel/traffic", "traffic")],
)
def test_every_module_has_a_floor_and_every_floor_a_module(folder, contract):
    there = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__", "__main__"}
    there |= {path.name for path in (ROOT / folder).iterdir() if (path / "__init__.py").exists()}
    assert there == floors(contract)


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_local_name_says_what_it_holds(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.Lambda))]
    inside = [node for function in functions for node in ast.walk(function)]
    names = {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.arg for node in inside if isinstance(node, ast.arg)}
    assert not names & SAYING_NOTHING


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_its_one_job_in_its_first_line(path):
    described = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = described.split("\n")[0]
    assert first.endswith(".") and len(first) > 15


def test_no_test_file_is_longer_than_400_lines():
    long = {path.name for path in (ROOT / "tests").rglob("*.py") if len(path.read_text().splitlines()) > 400}
    assert not long
