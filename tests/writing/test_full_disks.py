"""Every write of every command fails once at every stage: the old file or the new one, and nothing else."""

from __future__ import annotations

import importlib
import shutil
from collections import Counter

import pytest
from faults import CODES, Disk, full_after
from writers import WRITERS, by_default, contents, ran

from perfmodel.errors import SpecError
from perfmodel.files.writing import write_whole

OLD = b"what was there before\n"
STEPS = 15
"""Of the stages of a command, every so many by default; all of them under the mark slow. [1]"""
EVERY_STAGE = by_default(("calibrate benchmarks", "price", "sweep npz"), False, True)
EVERY_SIZE = by_default(("acceptance fit", "sweep csv.gz"), 4, 20)
TABLE: list[tuple[str, int, int, int, int]] = []


@pytest.fixture(scope="module", autouse=True)
def table():
    """Print, after all, a line for every command: run with -s."""
    yield
    print("\ncommand                 writes  stages failed  lost  half")
    for name, writes, failed, lost, half in TABLE:
        print(f"{name:<22} {writes:>7} {failed:>14} {lost:>5} {half:>5}")


@pytest.fixture
def writer(request, monkeypatch):
    """A command of `WRITERS`, which computes once."""
    made = WRITERS[request.param]()
    if made.computes:
        module, name = importlib.import_module(made.computes[0]), made.computes[1]
        compute, answers = getattr(module, name), []

        def once(*arguments, **settings):
            if not answers:
                answers.append(compute(*arguments, **settings))
            return answers[0]

        monkeypatch.setattr(module, name, once)
    return request.param, made


def expected_of(writer, tmp_path, monkeypatch):
    """Return what a command writes, and the calls that change the disk meanwhile."""
    folder = tmp_path / "whole"
    ran(prepared(folder, writer))  # what is imported, and what keeps its answer
    words = prepared(folder, writer)
    with Disk(folder).failing(monkeypatch) as disk:
        code, stderr = ran(words)
    assert code == 0, stderr
    return contents(folder), disk.calls


def prepared(folder, writer):
    """Make a folder with the inputs and an old file for every output; returns the command's words."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in writer.writes.values():
        (folder / name).write_bytes(OLD)
    return writer.command(folder)


def judged(writer, folder, expected, code, stderr):
    """Return (lost, half) after a failure: files that are neither, and what lies around."""
    assert "Traceback" not in stderr
    assert "unexpected" not in stderr
    assert code in (0, 2), stderr
    assert code == 0 or "error: " in stderr
    there = contents(folder)
    around = {name for name in there if name not in expected}
    kept = {name for name in around if ".parts-" in name and code == 2 and writer.keeps}
    left = around - {name for name in kept if name.endswith((".npz", "manifest.json"))}
    outputs = set(writer.writes.values())
    lost = sum(name not in there for name in expected)
    half = sum(there.get(name) not in ((OLD, whole) if name in outputs else (whole,))
               for name, whole in expected.items() if name in there)  # fmt: skip
    if code == 0:
        half += sum(there.get(name) != whole for name, whole in expected.items())
    assert not left
    assert not [path for path in folder.rglob("*") if path.is_dir() and ".draftplan-" in path.name]
    return lost, half


def some(calls):
    """Some calls to fail: the first of each kind, and every so many."""
    first = {name: calls.index(name) + 1 for name in Counter(calls)}
    return sorted({*first.values(), *range(STEPS, len(calls) + 1, STEPS)})


@pytest.mark.parametrize(("writer", "every"), EVERY_STAGE, indirect=["writer"])
def test_a_command_that_fails_at_any_stage_leaves_the_old_file_or_the_new_one(
    writer, every, tmp_path, monkeypatch
):
    name, writer = writer
    expected, calls = expected_of(writer, tmp_path, monkeypatch)
    chosen = list(range(1, len(calls) + 1)) if every else some(calls)
    total, folder = [0, 0], tmp_path / "whole"  # one name: some answers say where they were written
    for place in chosen:
        words = prepared(folder, writer)
        with Disk(folder, place, CODES[place % len(CODES)]).failing(monkeypatch):
            code, stderr = ran(words)
        lost, half = judged(writer, folder, expected, code, stderr)
        total = [total[0] + lost, total[1] + half]
        if code:
            again, stderr = ran(words)
            assert again == 0, stderr
            assert contents(folder) == expected
        assert sorted(path.name for path in folder.iterdir()) == sorted(expected)
    TABLE.append((name, len(writer.writes), len(chosen), *total))
    assert total == [0, 0]


@pytest.mark.parametrize(("writer", "count"), EVERY_SIZE, indirect=["writer"])
def test_a_disk_that_is_full_at_any_size_leaves_the_old_file_or_the_new_one(
    writer, count, tmp_path, monkeypatch
):
    _, writer = writer
    expected, _ = expected_of(writer, tmp_path, monkeypatch)
    largest, folder = max(len(expected[output]) for output in writer.writes.values()), tmp_path / "whole"
    sizes = sorted({0, 1, largest - 1, *(largest * place // count for place in range(1, count))})
    for size in sizes:
        words = prepared(folder, writer)
        with full_after(size):
            code, stderr = ran(words)
        assert judged(writer, folder, expected, code, stderr) == (0, 0)
        assert code == 2, (size, largest)
        assert ran(words)[0] == 0
        assert contents(folder) == expected


def test_a_disk_that_is_full_at_any_byte_leaves_the_old_file(tmp_path):
    path, content = tmp_path / "out", bytes(range(256)) * 2
    path.write_bytes(OLD)
    for size in range(len(content)):
        with full_after(size), pytest.raises(SpecError, match="File too large"):
            write_whole(path, content)
        assert contents(tmp_path) == {"out": OLD}
    with full_after(len(content)):
        write_whole(path, content)
    assert contents(tmp_path) == {"out": content}
