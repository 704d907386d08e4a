"""Work on other processes: the same results in the same order, none lost with a worker or the command."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from perfmodel import Drafter, EngineOverhead, HardwareProfile, ModelSpec, Workload, plan
from perfmodel.deployment import Deployment
from perfmodel.errors import SpecError
from perfmodel.files.checkpoint import Parts, fingerprint
from perfmodel.planning.executors import in_order, open_executor
from perfmodel.planning.local_pool import LocalPool
from perfmodel.planning.price import SearchSpace
from perfmodel.planning.sweep import Sweep

ROOT = Path(__file__).parents[2]


def grid(**changes):
    """A sweep; changes are of its workload, its space, its chunk or what it runs on."""
    names, gpus = ("h100-sxm-80gb", "a100-sxm-80gb"), changes.pop("tensor_parallel", (1, 8))
    target = changes.pop("target", ModelSpec.load("llama-3.1-8b"))
    engine = changes.pop("engine", EngineOverhead.load("ideal"))
    workload = changes.pop("workload", Workload([1, 8, 64], [1000, 32000]))
    chunk = changes.pop("chunk", 262_144)
    space = SearchSpace([None, Drafter(strategies.load("streaming_llm"))], [1, 3], [512])
    machines = [
        Deployment(HardwareProfile.load(name), target, engine, count) for name in names for count in gpus
    ]
    return Sweep(machines, workload, replace(space, **changes), chunk)


def command(*arguments):
    return [sys.executable, "-m", "perfmodel", *map(str, arguments)]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def started(*arguments):
    return subprocess.Popen(
        command(*arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(*arguments):
    return subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, timeout=120)


# Executors.


def squared(number):
    return number * number


def identity(number):
    return number, os.getpid()


def killed_once(argument):
    """End the process that does this the first time it is done."""
    number, folder = argument
    if number == 5:
        try:
            (Path(folder) / "killed").touch(exist_ok=False)
        except FileExistsError:
            return number
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def always_killed(_):
    os.kill(os.getpid(), signal.SIGKILL)


def refused(number):
    raise SpecError.single("", "work", f"refused {number}")


@given(st.integers(0, 50), st.integers(1, 12))
def test_work_comes_back_in_order_and_never_too_much_is_begun(count, in_flight):
    begun = []

    class Watched:
        def map(self, fn, *iterables):
            work = list(zip(*iterables, strict=True))
            begun.extend(work)
            return iter([fn(*arguments) for arguments in work])

    taken = 0
    for result in in_order(Watched(), squared, range(count), in_flight=in_flight):
        assert result == taken * taken
        assert len(begun) - taken <= max(in_flight, 2)
        taken += 1
    assert taken == count


def test_work_without_an_executor_is_done_here():
    assert list(in_order(None, squared, range(5))) == [0, 1, 4, 9, 16]
    with open_executor(None) as nothing, open_executor("local:1") as one:
        assert nothing is one is None


@pytest.fixture(scope="module")
def pool():
    with open_executor("local:2") as two:
        yield two


def test_two_processes_do_the_work_and_a_killed_one_loses_nothing(tmp_path, pool):
    assert os.getpid() not in {pid for _, pid in in_order(pool, identity, range(8))}
    work = [(number, str(tmp_path)) for number in range(40)]
    assert list(in_order(pool, killed_once, work, in_flight=8)) == list(range(40))
    with pytest.raises(SpecError, match="refused 0"):
        list(in_order(pool, refused, range(3)))


@pytest.mark.slow
def test_work_that_kills_whoever_does_it_is_given_up():
    pool = LocalPool(2)
    with pytest.raises(SpecError, match="4 times in a row"):
        list(pool.map(always_killed, [1]))
    pool.close()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("locl:4", "Did you mean 'local'"),
        ("local", "from 0"),
        ("local:-1", "from 0"),
        ("local:many", "from 0"),
        ("local:99999", "from 0"),
        ("dask", "found 'dask'"),
        ("dask:", "found 'dask:'"),
    ],
)
def test_an_executor_that_is_none_is_refused(text, says):
    with pytest.raises(SpecError, match=says), open_executor(text) as _:
        pass


def test_without_dask_the_refusal_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(SpecError, match=r"\[cluster\]"),
        open_executor("dask:tcp://127.0.0.1:1") as _,
    ):
        pass


# Questions told apart.


def test_the_same_question_has_the_same_fingerprint_in_another_process():
    code = "import sys; sys.path.insert(0, 'tests/planning')\n"
    code += "from test_executors import *; print(fingerprint(grid()))"
    other = subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert other.stdout.strip() == fingerprint(grid()), other.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"gammas": [1, 4]},
        {"kv_budgets": [513]},
        {"kv_budgets": None},
        {"workload": Workload([1, 8, 65], [1000, 32000])},
        {"tensor_parallel": (1, 4)},
        {"alpha": 0.8},
        {"deviations": 1.0},
        {"engine": EngineOverhead.load("ideal").with_values({"forward": 1e-9}, source="test")},
        {"drafters": [None, Drafter(strategies.load("snapkv"))]},
        {"target": ModelSpec.load("llama-3.1-8b", kv_dtype="fp8")},
    ],
)
def test_another_question_has_another_fingerprint(changes):
    assert fingerprint(grid(**changes)) != fingerprint(grid())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values, values)
def test_fingerprints_agree_exactly_when_values_do(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (fingerprint(one) == fingerprint(other)) == same
    assert fingerprint(one) == fingerprint(copy.deepcopy(one))


def test_order_counts_in_lists_and_not_in_mappings():
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint(1) != fingerprint(1.0) != fingerprint("1.0")
    assert fingerprint(np.arange(3)) != fingerprint(np.arange(3.0))
    assert fingerprint(np.zeros((2, 3))) != fingerprint(np.zeros((3, 2)))
    assert fingerprint(np.zeros(2, "f4")) != fingerprint(np.zeros(1, "f8"))


def test_a_plan_is_told_by_its_cells():
    """A simulated policy may hold one; what it was asked for once and then keeps says nothing new."""
    machine, streaming = grid().deployments[0], [Drafter(strategies.load("streaming_llm"))]

    def planned(budget):
        return plan(machine.hardware, machine.model, machine.engine, Workload([1, 8], [1000, 32000]),
                    drafters=streaming, kv_budgets=(budget,), gammas=(1, 3), draws=0)  # fmt: skip

    first, again = planned(512.0), planned(512.0)
    assert len(list(again.cells)) == 4
    assert fingerprint(first) == fingerprint(again) != fingerprint(planned(1024.0))


def test_what_has_no_value_is_not_told_apart_by_chance():
    for nothing in (lambda: 0, object(), int, np.array([object()])):
        with pytest.raises(TypeError):
            fingerprint(nothing)


# Parts.


def test_a_piece_is_read_as_it_was_written(tmp_path):
    parts = Parts(tmp_path / "out.csv", "0" * 16, 3)
    assert parts.done() == set()
    arrays = {"a": np.array([0.1, np.nan, np.inf]), "text": np.array("snapkv"), "on": np.array([True])}
    parts.write(2, arrays)
    assert parts.done() == {2}
    back = parts.read(2)
    assert all(np.array_equal(back[name], arrays[name], equal_nan=name == "a") for name in arrays)
    assert parts.read(0) is None
    assert json.loads((parts.folder / "manifest.json").read_text())["pieces"] == 3
    parts.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"x" * 50])
def test_a_damaged_piece_is_as_good_as_none(tmp_path, damage):
    parts = Parts(tmp_path / "out.csv", "0" * 16, 1)
    parts.write(0, {"a": np.arange(100)})
    whole = (parts.folder / "0.npz").read_bytes()
    (parts.folder / "0.npz").write_bytes(damage + whole[len(damage) : -20])
    assert parts.read(0) is None


def test_pieces_of_another_question_are_named_and_not_found(tmp_path):
    Parts(tmp_path / "out.csv", "0" * 16, 1).write(0, {"a": np.arange(3)})
    mine = Parts(tmp_path / "out.csv", "1" * 16, 1)
    assert mine.done() == set()
    assert mine.others() == ["out.csv.parts-" + "0" * 16]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(SpecError, match="cannot be written"):
        Parts(tmp_path / "absent" / "out.csv", "0" * 16, 1).write(0, {"a": np.arange(3)})


# Sweeps that survive.


def waited_for_parts(folder, least, process, patience=60.0):
    """Wait until so many pieces are done; returns which are."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and process.poll() is None:
        found = {path.name: path.read_bytes() for path in folder.glob("*.parts-*/[0-9]*.npz")}
        if len(found) >= least:
            return found
        time.sleep(0.005)
    raise AssertionError(f"no {least} pieces: {process.communicate()}")


def children_of(pid):
    """The processes that a command started, and those that they did; Linux only."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return children + [grandchild for child in children for grandchild in children_of(child)]


def alive(pid):
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


LARGE = [
    "--model", "llama-3.1-8b", "--hardware", ",".join(HardwareProfile.available()), "--tp", "1,2,4,8",
    "--engine", "ideal", "--context", "1k:24k:1k", "-b", "1:768:1", "--strategy", "streaming_llm",
    "--gamma", "1:2:1", "--draft-budget", "512,1024",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_that_is_killed_loses_nothing_and_leaves_no_process_and_no_word(tmp_path, end):
    whole = finished("sweep", *LARGE, "-o", tmp_path / "whole.npz")
    assert whole.returncode == 0, whole.stderr
    process = started("sweep", *LARGE, "-o", tmp_path / "cut.npz", "--executor", "local:2")
    done = waited_for_parts(tmp_path, 5, process)
    workers = children_of(process.pid)
    assert len(workers) >= 4, "what tracks, what imports and two that work"
    process.send_signal(end)
    _, stderr = process.communicate()
    assert "semaphore" not in stderr
    assert "Traceback" not in stderr
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers outlive the command"
        time.sleep(0.05)
    assert not (tmp_path / "cut.npz").exists()
    again = finished("sweep", *LARGE, "-o", tmp_path / "cut.npz")
    assert again.returncode == 0, again.stderr
    found = int(again.stderr.partition("goes on after ")[2].partition(" ")[0])
    assert found >= len(done)
    assert (tmp_path / "cut.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.npz", "whole.npz"]
