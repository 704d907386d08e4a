"""Every file of a user is opened in one place: the source says so, and so does every reader of a path."""

import ast
import errno
import os
from pathlib import Path

import pytest

import perfmodel
import strategies
from perfmodel.acceptance.file import read_acceptance
from perfmodel.acceptance.logs.reading import read_log
from perfmodel.benchmarks.reading import read_benchmarks
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.evidence.machine.points import read_points
from perfmodel.evidence.published.measurements import read_file
from perfmodel.evidence.published.validate import limits_of
from perfmodel.files.document import read_json, read_yaml
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.cases import price_file
from perfmodel.planning.plan import read_plan
from perfmodel.traffic.reproduction import is_benchmark
from perfmodel.traffic.trace import read_trace

OPENS = {"open", "read_bytes", "read_text", "load", "loadtxt", "genfromtxt", "fromfile", "read_table"}
OF_OTHERS = {
    "files/opening.py": "the one place",
    "files/writing.py": "flushes what it wrote itself",
    "files/lock.py": "locks that this program made, and /proc of the process that holds one",
    "files/build.py": "its own source",
    "files/extras.py": "what installers wrote of this environment",
    "files/checkpoint.py": "pieces that this program wrote, and the source of classes",
    "files/npz.py": "writes, and packs what it wrote itself",
    "files/parquet.py": "writes",
    "planning/sweep_formats.py": "writes",
    "cli/tell/output.py": "the null device, when nobody reads on",
    "reference/timing/stopwatch.py": "/proc and /sys of this machine",
}
"""Files that open something else than a user's file."""
READERS = {
    "yaml": read_yaml,
    "json": read_json,
    "acceptance": read_acceptance,
    "log": read_log,
    "benchmark": read_benchmarks,
    "points": read_file,
    "machine": read_points,
    "limits": limits_of,
    "cases": price_file,
    "plan": read_plan,
    "trace": read_trace,
    "is_benchmark": is_benchmark,
    "model": ModelSpec.load,
    "hardware": HardwareProfile.load,
    "engine": EngineOverhead.load,
}


def opening_calls(tree):
    """Calls that open a file by a path: `open(...)`, `x.open(...)`, `x.read_text()` and the like."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = getattr(called, "id", getattr(called, "attr", ""))
        if name not in OPENS:
            continue
        if name == "load" and getattr(getattr(called, "value", None), "id", "") not in ("np", "numpy"):
            continue
        yield node, name


def reads_package_data(node):
    """Whether a call reads what `importlib.resources` gave: `read_bytes` and `read_text` of the package."""
    return "files(" in ast.unparse(node) or ast.unparse(node.func).startswith(
        ("(folder /", "file.read", "bundled", "path.read_bytes")
    )


def test_no_other_module_opens_a_file():
    offenders = []
    for package in (perfmodel, strategies):
        root = Path(package.__file__).parent
        for path in sorted(root.rglob("*.py")):
            if path.relative_to(root).as_posix() in OF_OTHERS:
                continue
            for node, name in opening_calls(ast.parse(path.read_text(encoding="utf-8"))):
                if not (name.startswith("read_") and reads_package_data(node)):
                    offenders.append(f"{path.relative_to(root)}:{node.lineno}: {ast.unparse(node)}")
    assert offenders == []


def test_what_opens_a_file_is_seen():
    for text in ("open('x')", "Path(x).open('rb')", "Path(x).read_text()", "np.load(x)", "x.read_bytes()"):
        ((node, _),) = opening_calls(ast.parse(text))
        assert not reads_package_data(node)
    assert not list(opening_calls(ast.parse("json.load(x); opened(x, PLAN); yaml_load(x)")))


def special(folder, name):
    """A file that must not be read, by the ending that its reader takes."""
    path = folder / name
    if name.startswith("pipe"):
        os.mkfifo(path)
    else:
        path.symlink_to(f"/dev/{name.partition('.')[0]}")
    return str(path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "zero", "urandom", "full", "null"])
def test_every_reader_refuses_what_is_no_file(tmp_path, reader, kind):
    ending = ".yaml" if reader in ("hardware", "engine") else ".json"
    path = special(tmp_path, kind + ending)
    with pytest.raises(SpecError, match="a named pipe" if kind == "pipe" else "a device") as caught:
        READERS[reader](path)
    assert path in str(caught.value)


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_what_it_may_not_read(tmp_path, reader, monkeypatch):
    path = tmp_path / ("a.yaml" if reader in ("hardware", "engine") else "a.json")
    path.write_text("{}")
    opened, held = os.open, os.fspath(path)

    def refuse(file, *rest, **more):
        if file == held:
            raise PermissionError(errno.EACCES, "Permission denied", file)
        return opened(file, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SpecError, match="cannot be read: Permission denied"):
        READERS[reader](held)


def test_a_quantisation_file_that_is_no_file_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    os.mkfifo(tmp_path / "hf_quant_config.json")
    with pytest.raises(SpecError, match=r"hf_quant_config.json: the file is a named pipe"):
        ModelSpec.load(tmp_path)
    (tmp_path / "config.json").unlink()
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(SpecError, match=r"config.json: the file is a named pipe"):
        ModelSpec.load(tmp_path)


def test_a_folder_of_profiles_with_pipes_and_devices_in_it_is_searched(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    assert HardwareProfile.load("h100-sxm-80gb", tmp_path).name == "h100-sxm-80gb"
    with pytest.raises(SpecError, match="no-such-thing"):
        HardwareProfile.load("no-such-thing", tmp_path)
    with pytest.raises(SpecError, match="a named pipe"):
        HardwareProfile.load("pipe", tmp_path)


def test_a_folder_that_may_not_be_listed_is_refused(tmp_path, monkeypatch):
    listed = os.listdir

    def refuse(folder):
        if os.fspath(folder) == os.fspath(tmp_path):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return listed(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(SpecError, match="the folder cannot be listed: Permission denied"):
        HardwareProfile.available(tmp_path)
