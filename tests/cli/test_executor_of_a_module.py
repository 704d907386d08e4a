"""--executor takes what makes an executor, and its code may run where a strategy's may."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perfmodel.cli.app import app

ROOT = Path(__file__).parents[2]
SWEEP = [
    "sweep", "--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--engine", "ideal",
    "--context", "1k,2k", "-b", "1,2", "--strategy", "streaming_llm", "--gamma", "1",
]  # fmt: skip
POOLS = '''
import concurrent.futures as futures
from pathlib import Path

Path("ran").touch()


class Watched(futures.ThreadPoolExecutor):
    def shutdown(self, wait=True):
        Path("ended").touch()
        super().shutdown(wait)


class Silent(futures.ThreadPoolExecutor):
    def map(self, fn, *work):
        return iter([9])


class Lost(futures.ThreadPoolExecutor):
    def map(self, fn, *work):
        raise futures.BrokenExecutor("a worker\\nended")


def needs(number):
    return number


def exits():
    raise SystemExit(7)


def other():
    return 3
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project that has pools, a file of which would write down that it ran."""
    project = tmp_path / "project"
    (project / "mypackage").mkdir(parents=True)
    (project / "mypackage" / "__init__.py").touch()
    (project / "mypackage" / "pools.py").write_text(POOLS)
    (project / "mypackage" / "broken.py").write_text("raise ValueError('no\\nway')")
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    yield project
    for name in [name for name in sys.modules if name.partition(".")[0] == "mypackage"]:
        del sys.modules[name]


def run(*arguments):
    return CliRunner().invoke(app, [*SWEEP, *map(str, arguments)])


def test_an_executor_of_the_project_works_and_is_shut_down(folder):
    here = run("-o", "here.npz")
    assert here.exit_code == 0, here.stderr
    there = run("-o", "there.npz", "--executor", "mypackage.pools:Watched")
    assert there.exit_code == 0, there.stderr
    assert f"runs the code in {folder / 'mypackage' / 'pools.py'}" in there.stderr
    assert (folder / "there.npz").read_bytes() == (folder / "here.npz").read_bytes()
    assert (folder / "ended").exists()
    assert str(folder) not in sys.path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent:make", "there is no module absent"),
        ("lokal:make", "Did you mean 'local'"),
        ("mypackage.absent:make", "there is no module mypackage.absent"),
        ("mypackage.pools.more:make", "there is no module mypackage.pools.more"),
        ("builtins:int", "builtins has no file"),
        ("mypackage.broken:make", "mypackage.broken cannot be imported: ValueError: no way"),
        ("mypackage.pools:Watchd", "has no Watchd. Name what makes the executor. Did you mean 'Watched'?"),
        ("mypackage.pools:needs", "makes no executor: TypeError: needs() missing"),
        ("mypackage.pools:exits", "makes no executor: SystemExit: 7"),
        ("mypackage.pools:other", "makes no executor, but int"),
        ("mypackage.pools:Silent", "does not say which draftplan it has"),
        ("mypackage.pools:Lost", "lost a piece of work: BrokenExecutor: a worker ended"),
    ],
)
def test_what_makes_no_executor_is_refused_in_one_line(name, says, folder):
    answer = run("-o", "out.npz", "--executor", name)
    assert answer.exit_code == 2
    (line,) = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
    assert says in line
    assert not (folder / "out.npz").exists()


def test_code_of_elsewhere_is_allowed_by_hand_and_nothing_runs_before(folder, monkeypatch, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(elsewhere)
    answer = run("-o", "out.npz", "--executor", "mypackage.pools:Watched")
    assert answer.exit_code == 2
    assert "to load it is to run its code, and it lies outside of the current folder" in answer.stderr
    assert not (elsewhere / "ran").exists()
    allowed = run("-o", "out.npz", "--executor", "mypackage.pools:Watched", "--allow-code")
    assert allowed.exit_code == 0, allowed.stderr
    assert (elsewhere / "ran").exists()


def test_the_example_of_the_documentation_works(tmp_path):
    page = (ROOT / "docs" / "clusters.md").read_text()
    code = re.search(r"```python\n# mypools.py\n(.*?)```", page, re.S)
    command = re.search(r"^    draftplan sweep (.*--executor mypools:\S+)$", page, re.M)
    assert code is not None and command is not None
    (tmp_path / "mypools.py").write_text(code[1])
    ran = subprocess.run(
        [sys.executable, "-m", "perfmodel", *SWEEP, *command[1].replace("... ", "").split()],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "sweep.npz").exists()
