"""A plan that others work on, or that is written in parts, is the plan to the byte."""

from __future__ import annotations

import json
import sys

import pytest
import yaml
from typer.testing import CliRunner

from perfmodel.cli.app import app
from perfmodel.cli.tell import output
from perfmodel.planning import answers, plan, price

PLAN = [
    "plan", "--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb,l40", "--engine", "ideal",
    "--context", "1k:4k:1k", "-b", "1,8,32", "--strategy", "streaming_llm", "--gamma", "1,3",
]  # fmt: skip
POOLS = """
import concurrent.futures as futures
from pathlib import Path


class Watched(futures.ThreadPoolExecutor):
    def map(self, fn, *work):
        with open("pieces", "a") as pieces:
            pieces.write("x" * len(work[0]))
        return super().map(fn, *work)


class Lost(futures.ThreadPoolExecutor):
    def map(self, fn, *work):
        raise futures.BrokenExecutor("a worker ended")
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with executors of its own, in which a plan is many pieces."""
    (tmp_path / "myplanpools.py").write_text(POOLS)
    monkeypatch.chdir(tmp_path)
    whole = price.split
    monkeypatch.setattr(answers, "split", lambda workload, space: whole(workload, space, 2 * space.most))
    yield tmp_path
    sys.modules.pop("myplanpools", None)


def run(*arguments):
    return CliRunner().invoke(app, [*PLAN, *arguments])


@pytest.mark.parametrize("more", [(), ("--one-deployment",)], ids=["each cell", "one deployment"])
def test_an_executor_of_the_project_answers_the_same_bytes(project, more):
    here, there = run("-o", "here.json", *more), run(
        "-o", "there.json", "--executor", "myplanpools:Watched", *more
    )  # fmt: skip
    assert (here.exit_code, there.exit_code) == (0, 0), there.stderr
    assert f"runs the code in {project / 'myplanpools.py'}" in there.stderr
    assert (project / "there.json").read_bytes() == (project / "here.json").read_bytes()
    assert len((project / "pieces").read_text()) > 10


def test_worker_processes_answer_the_same_bytes(project):
    for jobs in ("1", "2"):
        assert run("-o", f"{jobs}.json", "--jobs", jobs).exit_code == 0
    assert (project / "1.json").read_bytes() == (project / "2.json").read_bytes()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lokal:2", "Did you mean 'local'?"),
        ("myplanpools:Lost", "lost a piece of work: BrokenExecutor: a worker ended"),
        ("myplanpools:Watchd", "has no Watchd"),
        ("dask:nowhere", "--executor"),
    ],
)
def test_what_is_no_executor_is_refused_and_nothing_written(project, name, says):
    answer = run("-o", "out.json", "--executor", name)
    assert answer.exit_code == 2
    (line,) = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
    assert says in line
    assert not (project / "out.json").exists()


def test_code_of_elsewhere_runs_only_where_it_is_allowed(project, monkeypatch, tmp_path_factory):
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    refused = run("--executor", "myplanpools:Watched")
    assert refused.exit_code == 2 and "to load it is to run its code" in refused.stderr
    assert run("--executor", "myplanpools:Watched", "--allow-code").exit_code == 0


@pytest.mark.parametrize(("size", "more"), [(1, ()), (5, ()), (5, ("--lossy", "--pruned", "50%"))])
def test_a_plan_written_in_parts_is_the_plan_written_whole(project, monkeypatch, size, more):
    body = json.loads(run("--format", "json", *more).stdout)
    monkeypatch.setattr(output, "_ROWS", size)
    monkeypatch.setattr(plan, "BLOCK", size)
    for form in ("yaml", "csv"):
        assert run("-o", f"plan.{form}", *more).exit_code == 0
        assert run("--format", form, *more).stdout == (project / f"plan.{form}").read_text()
    text = (project / "plan.yaml").read_text()
    assert text == output.yaml_text(body, width=120)
    assert yaml.safe_load(text) == body
    lines = (project / "plan.csv").read_text().splitlines()
    assert len(lines) == 1 + len(body["cells"]) + len(body.get("lossy_alternatives", []))
    assert lines[0].startswith("change,batch_size" if more else "batch_size")
    assert sum(line.startswith(lines[0][:20]) for line in lines) == 1
