"""Every notebook argues one claim with the package's own functions, and its last cell asserts it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import perfmodel

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(perfmodel.__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_CELLS = 15
LONGEST = 150
"""Seconds that one notebook may take on a slow machine; all of them together take less than a minute. [s]"""


def read(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    """The Python of every code cell; magics belong to the front end."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return [
        ast.parse("\n".join(line for line in cell.splitlines() if not line.startswith("%"))) for cell in cells
    ]


def test_they_are_numbered():
    assert [path.name[:3] for path in NOTEBOOKS] == [
        f"{number:02d}_" for number in range(1, 9)
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_defines_nothing_and_keeps_no_output(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= MOST_CELLS
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    for tree in code(notebook):
        assert not any(isinstance(node, definitions) for node in ast.walk(tree))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_last_cell_asserts_the_claim(path):
    last = read(path).cells[-1]
    assert last.cell_type == "code"
    assert any(isinstance(node, ast.Assert) for node in ast.walk(code(read(path))[-1]))


EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
resources = {"metadata": {"path": sys.argv[2]}}
try:
    nbclient.NotebookClient(notebook, kernel_name="this", timeout=None, resources=resources).execute()
except nbclient.exceptions.CellExecutionError as failure:
    sys.exit(str(failure))
nbformat.write(notebook, sys.argv[3])
"""


@pytest.fixture
def environment(tmp_path):
    """Variables with which Jupyter knows one kernel, this very Python, and no home folder."""
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    folder = tmp_path / "jupyter" / "kernels" / "this"
    folder.mkdir(parents=True)
    spec = {"argv": argv, "display_name": "this Python", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    homes = ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "MPLCONFIGDIR")
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    own = {name: str(tmp_path / name.lower()) for name in homes}
    return {**os.environ, **own, "JUPYTER_PATH": str(tmp_path / "jupyter"), "PYTHONPATH": paths}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end_and_shows_figures(path, environment, tmp_path):
    executed = tmp_path / "executed.ipynb"
    command = [sys.executable, "-c", EXECUTE, str(path), str(path.parent), str(executed)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST)
    assert ran.returncode == 0, ran.stderr
    outputs = [output for cell in read(executed).cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
