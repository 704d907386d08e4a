"""What is too long for memory lies on the disk, and every figure stays the same to the last bit."""

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace

import numpy as np
import pytest
from traffic.served import INF, SNAP, drawn, replica, tight

from perfmodel.errors import SpecError
from perfmodel.files import writing
from perfmodel.traffic import metrics, values, weighted
from perfmodel.traffic.metrics import Metrics, WarmUp
from perfmodel.traffic.runs import Case, known_of, outcomes_of
from perfmodel.traffic.simulate import FixedGamma, simulate
from perfmodel.traffic.values import Values, parts_of, total
from perfmodel.traffic.waiting import Waiting
from perfmodel.traffic.weighted import percentiles

WANTED = (0, 1, 37.3, 50, 95, 99.9, 100)


@pytest.fixture
def short(monkeypatch):
    """Bounds so low that a short simulation is too long for memory."""
    monkeypatch.setattr(values, "KEPT", 1000)
    monkeypatch.setattr(values, "LEAF", 256)
    monkeypatch.setattr(weighted, "_SORTED", 8)
    monkeypatch.setattr(metrics, "_AT_ONCE", 16)


@pytest.mark.parametrize("size", [0, 1, 7, 130, 65_537, 300_001])
def test_pieces_add_up_to_what_numpy_makes_of_all_at_once(size):
    random = np.random.default_rng(size)
    numbers = random.lognormal(size=size)
    cuts = np.sort(random.integers(0, size + 1, 20))
    assert total(np.split(numbers, cuts), size) == float(numbers.sum())


def test_parts_are_cut_from_pieces_of_other_sizes():
    parts = parts_of([np.arange(3.0), np.arange(3.0, 4.0), np.arange(4.0, 10.0)], [2, 0, 5, 3])
    assert [part.tolist() for part in parts] == [[0, 1], [], [2, 3, 4, 5, 6], [7, 8, 9]]


@pytest.mark.usefixtures("short")
def test_a_long_column_is_read_back_whole_and_in_pieces():
    kind = np.dtype([("start", float), ("rounds", np.int16)])
    rows = np.zeros(5000, dtype=kind)
    rows["start"] = np.random.default_rng(0).random(rows.size)
    column = Values(dtype=kind)
    for part in np.split(rows, 100):
        column.extend(part)
        assert len(column._end) < 1000 + 50 * kind.itemsize
    assert len(column) == rows.size
    for whole in (np.concatenate(list(column.pieces(7))), column.array(), Values(rows, kind).array()):
        np.testing.assert_array_equal(whole, rows)


@pytest.mark.parametrize("numbers", ["spread", "equal", "few", "tiny and huge"])
def test_percentiles_in_passes_are_those_of_sorted_numbers(numbers, monkeypatch):
    random = np.random.default_rng(3)
    drawn_ones = {
        "spread": random.lognormal(-4, 2, 4000), "equal": np.full(1000, 0.25),
        "few": random.choice([0.0, 1e-3, 2e-3, 5.0], 4000),
        "tiny and huge": np.concatenate([random.random(500) * 1e-300, random.random(500) * 1e300]),
    }[numbers]  # fmt: skip
    weights = random.integers(1, 300, drawn_ones.size)
    order = np.argsort(drawn_ones)
    reached = np.cumsum(weights[order]) / weights.sum()
    places = np.searchsorted(reached, np.array(WANTED) / 100.0).clip(max=drawn_ones.size - 1)

    def pieces():
        cuts = [0, 10, 10, 900]
        return zip(np.split(drawn_ones, cuts), np.split(weights, cuts), strict=True)

    for most in (8, 1 << 20):
        monkeypatch.setattr(weighted, "_SORTED", most)
        given = percentiles(pieces, WANTED, count=drawn_ones.size, weight=int(weights.sum()))
        np.testing.assert_array_equal(given, drawn_ones[order][places])


def everything(outcome):
    """Every figure of an outcome, with and without what came first."""
    warm = WarmUp(requests=5)
    return outcome.summary(ttft=1.0, tpot=0.02), outcome.summary(warm_up=warm), outcome.itl(*WANTED).tolist()


@pytest.mark.parametrize("scheduler", ["mixed", "prefill-first", "in-flight"])
@pytest.mark.parametrize("gamma", [0, 3])
def test_figures_are_the_same_wherever_the_times_lie(gamma, scheduler, request):
    trace = drawn(120, INF, 2000, 120)
    served = tight(6.3, trace, SNAP if gamma else None, max_batch=24, scheduler=scheduler)
    in_memory = simulate(served, trace, FixedGamma(gamma))
    expected, lines = everything(in_memory), in_memory.timeline
    assert in_memory._intervals._disk is None
    request.getfixturevalue("short")
    outcome = simulate(served, trace, FixedGamma(gamma))
    assert outcome._intervals._disk is not None
    assert everything(outcome) == expected
    back = Metrics.from_arrays(outcome.to_arrays(), trace, served)
    assert everything(back) == expected
    assert all(np.array_equal(back.timeline[name], lines[name]) for name in lines)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk that is always full")
@pytest.mark.usefixtures("short")
def test_a_full_disk_is_told_with_what_to_do(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "wb", buffering=0))  # noqa: SIM115
    with pytest.raises(SpecError, match="TMPDIR"):
        Values(np.zeros(10_000))


def test_a_folder_that_cannot_be_written_is_told(monkeypatch):
    def refuse(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(SpecError, match="No space left"):
        writing.Scratch()


@pytest.mark.skipif(os.name != "posix", reason="kills")
def test_a_killed_process_leaves_nothing(tmp_path):
    code = (
        "import numpy as np, os, signal\n"
        "from perfmodel.traffic.values import KEPT, Values\n"
        "column = Values(np.zeros(KEPT // 4))\n"
        "assert column._disk.size\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)})
    assert ended.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_those_that_wait_are_as_if_each_were_listed():
    trace = drawn(9000, 5.0)
    queue = Waiting(replica(), trace.prompt_tokens)
    for index in range(8000):
        queue.arrive(index)
    assert len(queue) == 8000
    assert [prompt.tokens for prompt in queue] == trace.prompt_tokens[:8000].tolist()
    first, second = queue.popleft(), queue.popleft()
    assert (first.index, second.index, queue.first.index, len(queue)) == (0, 1, 2, 7998)
    queue.appendleft(second)
    queue.arrive(8000)
    assert [prompt.index for prompt in queue] == list(range(1, 8001))


def test_plain_batching_that_is_known_is_not_simulated_again():
    trace, served = drawn(60), replica(max_gamma=16)
    plain = simulate(served, trace, FixedGamma(0))
    cases = [
        Case(replace(served, max_gamma=0), trace.faster(1.0), FixedGamma(0), seed=4),
        Case(replace(served, max_gamma=0), trace.faster(2.0), FixedGamma(0)),
        Case(replace(served, drafter=SNAP, kv_budget=1024.0), trace, FixedGamma(0)),
        Case(replace(served, max_batch=3), trace, FixedGamma(0)),
    ]
    known = known_of(cases, plain)
    assert list(known) == [0]
    assert known_of(cases, None) == {}
    alone, reused = outcomes_of(cases), outcomes_of(cases, known=known)
    assert [everything(outcome) for outcome in alone] == [everything(outcome) for outcome in reused]
