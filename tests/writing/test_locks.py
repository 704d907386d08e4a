"""Two runs on one output: the second is told who is at it, and what a killed one left is taken over."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from writers import CELLS, ran

import perfmodel
from perfmodel.errors import SpecError
from perfmodel.files import build
from perfmodel.files import lock as locks
from perfmodel.files.build import Build, build_here
from perfmodel.files.checkpoint import LOCK, MANIFEST, Parts, fingerprint
from perfmodel.files.lock import Owner, lock, owner_of, unlock

ROOT = Path(perfmodel.__file__).parents[1]
KEY = "0" * 16
HOLDER = """
import sys, numpy as np
from perfmodel.files.checkpoint import Parts
with Parts(sys.argv[1], sys.argv[2], 3).held():
    Parts(sys.argv[1], sys.argv[2], 3).write(0, {"a": np.arange(3)})
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Start a process that holds the pieces of an output; it is killed at the end."""
    processes = []

    def start(key=KEY):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path / "out.csv"), key], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_another_process_is_named_and_gone_on_from_when_it_was_killed(tmp_path, holder):
    process, parts = holder(), Parts(tmp_path / "out.csv", KEY, 3)
    assert owner_of(parts.folder / LOCK).pid == process.pid
    with pytest.raises(SpecError, match=f"process {process.pid} is writing it. Wait"), parts.held():
        pass
    with pytest.raises(SpecError, match="another answer"), Parts(tmp_path / "out.csv", "1" * 16, 3).held():
        pass
    assert [path.name for path in tmp_path.iterdir()] == [parts.folder.name], "the refused one left nothing"
    process.kill()
    process.wait()
    assert (parts.folder / LOCK).exists()
    assert owner_of(parts.folder / LOCK) is None
    with parts.held():
        assert parts.done() == {0}
        own = Owner(os.getpid(), platform.node(), locks._started(os.getpid()))
        assert owner_of(parts.folder / LOCK) == own
    assert not (parts.folder / LOCK).exists()


def test_a_command_says_who_is_at_its_output(tmp_path, holder):
    process = holder()
    code, stderr = ran(["sweep", *CELLS, "-o", str(tmp_path / "out.csv")])
    assert code == 2
    assert f"out.csv: process {process.pid} is writing another answer to it. Wait" in stderr
    assert not (tmp_path / "out.csv").exists()


def test_one_thread_may_hold_its_pieces_twice_and_another_may_not(tmp_path):
    parts, refusals = Parts(tmp_path / "out.csv", KEY, 1), []

    def other():
        try:
            with Parts(tmp_path / "out.csv", KEY, 1).held():
                pass
        except SpecError as refusal:
            refusals.append(str(refusal))

    with parts.held(), Parts(tmp_path / "out.csv", KEY, 1).held():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refusals) == 1 and f"process {os.getpid()}" in refusals[0]
    assert list(tmp_path.iterdir()) == []


def written(file, **changes):
    owner = {"pid": os.getpid(), "host": platform.node(), "started": locks._started(os.getpid()), **changes}
    file.write_text(json.dumps(owner))


def test_a_lock_of_another_machine_is_told_with_what_to_do(tmp_path):
    file = tmp_path / LOCK
    written(file, pid=7, host="another-host")
    with pytest.raises(SpecError, match=f"process 7 on another-host .* delete {file}"):
        lock(file, "out.csv")
    assert owner_of(file).is_elsewhere
    file.unlink()
    unlock(lock(file, "out.csv"), file)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads /proc")
def test_where_a_disk_knows_no_locks_the_process_that_wrote_it_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "try_lock", lambda _: None)
    file = tmp_path / LOCK
    written(file)
    assert owner_of(file).pid == os.getpid()
    with pytest.raises(SpecError, match="is writing it"):
        lock(file, "out.csv")
    code = "import os; print(os.getpid())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    for stale in ({"pid": int(ended.stdout)}, {"started": "1"}, {"pid": -1}, {"pid": 10**30}):
        written(file, **stale)
        assert owner_of(file) is None, stale
        unlock(lock(file, "out.csv"), file)
        assert not file.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', "[" * 5000, '{"pid": 1, "host": null}'])
def test_a_damaged_lock_that_nobody_has_is_taken(content, tmp_path):
    file = tmp_path / LOCK
    file.write_text(content)
    assert owner_of(file) is None
    unlock(lock(file, "out.csv"), file)
    assert not file.exists()


def test_pieces_of_another_version_are_told_and_not_used(tmp_path):
    parts = Parts(tmp_path / "out.csv", KEY, 2)
    parts.write(0, {"a": np.arange(3)})
    manifest = json.loads((parts.folder / MANIFEST).read_text())
    (parts.folder / MANIFEST).write_text(json.dumps({**manifest, "draftplan": "0.0.1"}))
    assert parts.done() == set()
    assert any("'0.0.1' and are not used" in remark for remark in parts.remarks())
    with parts.held():
        assert json.loads((parts.folder / MANIFEST).read_text()) == manifest
        assert parts.done() == set()
        assert not (parts.folder / "0.npz").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [field.name for field in fields(Build)])
def test_a_key_stands_for_what_computes_too(name, monkeypatch):
    before, here = fingerprint(1), build_here()
    monkeypatch.setattr(checkpoint_module(), "build_here", lambda: replace(here, **{name: "another"}))
    assert fingerprint(1) != before
    monkeypatch.undo()
    assert fingerprint(1) == before


def test_changed_code_is_another_source(monkeypatch):
    before = build._source()
    assert before == build_here().source
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"changed")
    assert build._source() != before


def checkpoint_module():
    return sys.modules["perfmodel.files.checkpoint"]


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_what_others_put_into_the_folder_stays_and_a_link_is_no_folder(tmp_path):
    parts = Parts(tmp_path / "out.csv", KEY, 1)
    parts.write(0, {"a": np.arange(3)})
    (parts.folder / "theirs").write_text("keep")
    parts.remove()
    assert [path.name for path in parts.folder.iterdir()] == ["theirs"]
    (tmp_path / "away").mkdir()
    linked = Parts(tmp_path / "other.csv", KEY, 1)
    linked.folder.symlink_to(tmp_path / "away")
    with pytest.raises(SpecError, match="is a link"):
        linked.write(0, {"a": np.arange(3)})
    with pytest.raises(SpecError, match="is a link"), linked.held():
        pass
    assert list((tmp_path / "away").iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_piece_that_is_no_file_is_none(tmp_path):
    parts = Parts(tmp_path / "out.csv", KEY, 1)
    parts.begin()
    os.mkfifo(parts.folder / "0.npz")
    assert parts.read(0) is None
