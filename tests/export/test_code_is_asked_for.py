"""No name of a plan, a table or a flag loads code; a command that runs a file says so and may have to ask."""

import importlib
import json
import os
import sys
from dataclasses import replace

import pytest
import typer.main
from test_export import stepped
from typer.testing import CliRunner

import strategies
from perfmodel import software
from perfmodel.cli.app import app
from perfmodel.cli.ask.code import not_of_the_project
from perfmodel.cli.ask.config import _NOT_IN_FILES
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.export import ExportOptions, export, exporters, load
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.drafters import load_strategy, read_spelling
from perfmodel.planning.executors import open_executor

CODE = """
import pathlib, strategies
pathlib.Path({ran!r}).write_text("ran")
class Renamed:
    name = "payload"
    def __getattr__(self, part):
        if part.startswith("__"):
            raise AttributeError(part)
        return getattr(strategies.load("quest"), part)
strategy = exporter = software = Renamed()
"""


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A project with a file of code, which is on the path too, and the file that the code leaves."""
    project = tmp_path / "project"
    project.mkdir()
    mark = tmp_path / "ran"
    (project / "payload.py").write_text(CODE.format(ran=str(mark)))
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    importlib.invalidate_caches()
    yield mark
    strategies._from_file.cache_clear()
    for name in [name for name in sys.modules if name.rpartition(".")[2] in ("payload", "_file_payload")]:
        del sys.modules[name]


def names():
    """What could be taken for a file or a module of code."""
    here = os.getcwd()
    return (
        "payload", "payload.py", "./payload.py", f"{here}/payload.py", f"file://{here}/payload.py",
        "../project/payload", "payload:strategy", "payload.strategy", "strategies.payload", "..payload",
        "payload/", "./payload", "payload.PY", "payload.pyc", "os", "os.path", "sys", "base", "__init__",
        "strategies", "x.y:z", "a/b", "../x", "__import__('payload')", "payload\n", " payload.py ",
    )  # fmt: skip


LOADERS = {
    "a strategy": strategies.load,
    "a strategy of a flag": load_strategy,
    "a spelling of a strategy": read_spelling,
    "hardware": HardwareProfile.load,
    "a model": ModelSpec.load,
    "an engine": EngineOverhead.load,
    "software": software.load,
    "an exporter": load,
    "an executor": lambda name: open_executor(name).__enter__(),
}


@pytest.mark.parametrize("noun", LOADERS)
def test_a_name_that_looks_like_code_is_refused_and_nothing_runs(noun, ran):
    for name in names() if "strategy" in noun else names()[::4]:
        with pytest.raises((SpecError, strategies.StrategyError)):
            LOADERS[noun](name)
        assert not ran.exists() and "payload" not in sys.modules, name


def test_a_path_of_the_library_is_no_name_of_a_strategy_but_a_file_that_is_run(ran):
    with pytest.raises(strategies.StrategyError, match="no strategy is called"):
        strategies.load(str(ran.parent / "project" / "payload.py"))
    assert not ran.exists()
    assert strategies.load_file("payload.py").name == "payload"
    assert ran.exists()


def test_what_runs_is_the_text_of_the_file_and_not_what_was_compiled_of_another(ran):
    import py_compile

    changed = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile("payload.py", invalidation_mode=changed, doraise=True)
    source = CODE.format(ran=str(ran) + " of the text")
    (ran.parent / "project" / "payload.py").write_text(source)
    strategies.load_file("payload.py")
    assert not ran.exists() and (ran.parent / "ran of the text").exists()


@pytest.mark.parametrize("engine", exporters())
def test_a_plan_that_names_a_file_as_its_strategy_runs_nothing(engine, ran):
    for name in names():
        cells = tuple(
            replace(cell, strategy=name, kv_budget=2048) if cell.gamma else cell for cell in stepped().cells
        )
        plan = replace(stepped(), cells=cells)
        for form in load(engine).forms:
            for method in (None, "EAGLE3", "draft-mtp"):
                options = ExportOptions(form=form, method=method, draft_path="a/b")
                refused(lambda options=options, plan=plan: export(plan, engine, options))
    assert not ran.exists() and "payload" not in sys.modules


def refused(make):
    """Whether something is refused; another fault is none."""
    try:
        make()
    except SpecError:
        return True
    return False


def run(*arguments):
    return CliRunner().invoke(app, list(arguments), prog_name="draftplan")


ON = ("--model", "llama-3.1-8b", "--hardware", "h100-sxm-80gb", "--context", "4k", "-b", "1")


def test_commands_and_their_files_name_strategies_and_never_code(ran):
    (ran.parent / "config.yaml").write_text("strategy: ./payload.py\n")
    measured = {"strategy": "payload.py", "drafter": "self", "gamma": 3, "survival": [0.7, 0.5, 0.3]}
    (ran.parent / "acceptance.json").write_text(
        json.dumps({"schema": "draftplan/acceptance/1", "measured": [measured]})
    )
    (ran.parent / "cases.csv").write_text(
        "hardware,engine,tensor_parallel,target_model,draft_model,strategy,kv_budget,context_len,batch_size,"
        "gamma\nh100-sxm-80gb,ideal,1,llama-3.1-8b,,./payload.py,512,4096,1,3\n"
    )
    for arguments in (
        ("plan", *ON, "--strategy", "./payload.py"),
        ("plan", *ON, "--strategy", "payload.py", "--lossy"),
        ("plan", *ON, "--config", "../config.yaml"),
        ("plan", *ON, "--acceptance", "../acceptance.json"),
        ("price", "../cases.csv"),
        ("sweep", *ON, "--executor", "./payload.py", "-o", "../sweep.csv"),
        ("plan", *ON, "--engine", "payload.py"),
        ("export", "payload.py", "--engine", "vllm"),
    ):
        answer = run(*arguments)
        assert answer.exit_code == 2 and "Traceback" not in answer.output, (arguments, answer.output)
        assert not ran.exists() and "payload" not in sys.modules, arguments


@pytest.mark.parametrize("command", ["check", "show"])
def test_a_file_of_the_project_is_announced_and_runs(command, ran):
    answer = run("strategies", command, "./payload.py")
    assert answer.exit_code == 0, answer.output
    assert f"runs the code in {ran.parent / 'project' / 'payload.py'}" in answer.stderr
    assert ran.exists()


@pytest.mark.parametrize("command", ["check", "show"])
@pytest.mark.parametrize("way", ["..", "absolute", "link", "linked folder"])
def test_a_file_from_elsewhere_runs_only_where_it_is_allowed(command, way, ran, monkeypatch):
    file = ran.parent / "project" / "payload.py"
    inside = ran.parent / "project" / "sub"
    inside.mkdir()
    monkeypatch.chdir(inside)
    if way == "link":
        (inside / "payload.py").symlink_to(file)
    if way == "linked folder":
        (inside / "up").symlink_to(file.parent)
    ways = {"..": "../payload.py", "absolute": str(file), "link": "./payload.py"}
    name = ways.get(way, "up/payload.py")
    answer = run("strategies", command, name)
    assert answer.exit_code == 2 and not ran.exists()
    assert "outside of the current folder" in answer.stderr and "--allow-code" in answer.stderr
    allowed = run("strategies", command, name, "--allow-code")
    assert allowed.exit_code == 0 and ran.exists()
    assert f"runs the code in {file}" in allowed.stderr


def test_the_project_is_what_nobody_else_can_write_below_a_folder_that_is_one(ran, monkeypatch):
    project = ran.parent / "project"
    file = project / "payload.py"
    assert not_of_the_project(file) == ""
    for shared in (file, project):
        before = shared.stat().st_mode
        shared.chmod(before | 0o002)
        assert not_of_the_project(file) == f"everybody may write to {shared}"
        assert run("strategies", "check", "payload.py").exit_code == 2
        shared.chmod(before)
    monkeypatch.setenv("HOME", str(project))
    assert "is no project" in not_of_the_project(file)
    monkeypatch.chdir("/")
    assert "is no project" in not_of_the_project(file)
    assert not ran.exists()


@pytest.mark.parametrize("name", ["absent.py", "./absent.py", "sub", "a\0.py", "payload"])
def test_a_file_that_is_none_is_refused(name, ran):
    answer = run("strategies", "check", name)
    assert answer.exit_code == 2 and "there is no file" in answer.stderr and not ran.exists()


def test_that_code_may_run_is_typed_and_never_written_in_a_file(ran):
    commands = typer.main.get_command(app).commands
    nested = [more for group in commands.values() for more in getattr(group, "commands", {}).values()]
    taking = [
        command for command in (*commands.values(), *nested)
        if any("--allow-code" in param.opts for param in command.params)
    ]  # fmt: skip
    assert {command.name for command in taking} == {"show", "check", "plan", "sweep", "simulate", "size"}
    assert all(param.envvar is None for command in taking for param in command.params)
    assert {"allow_code", "executor"} <= set(_NOT_IN_FILES)
    (ran.parent / "config.yaml").write_text("allow-code: true\nstrategy: quest\n")
    answer = run("plan", *ON, "--config", str(ran.parent / "config.yaml"))
    assert answer.exit_code == 2 and "there is no such flag" in answer.stderr
