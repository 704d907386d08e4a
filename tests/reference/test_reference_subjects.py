"""Times are taken of what they are said to be of: the passes and rounds that decoding runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from timing_helpers import HERE, TINY_GRID  # noqa: E402

from perfmodel.errors import SpecError  # noqa: E402
from perfmodel.evidence.machine.points import KINDS, read_points, write_points  # noqa: E402
from perfmodel.reference.timing.bench import Bench  # noqa: E402
from perfmodel.reference.timing.machines import CPU_GRID, GPU_GRID, bench_decoder, grid_for  # noqa: E402
from perfmodel.reference.timing.measure import measure, missing  # noqa: E402
from perfmodel.reference.timing.stopwatch import (  # noqa: E402
    ThreadClock,
    device_named,
    machine_of,
    one_thread,
)
from perfmodel.reference.timing.subjects import _take_turns, subjects  # noqa: E402

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")


@pytest.fixture
def bench(tiny):
    return Bench(tiny(dtype=torch.float32), TINY_GRID, ThreadClock(), cache_bytes=1e5)


def test_every_kind_is_timed_and_every_point_can_be_written(bench, tmp_path):
    work = subjects(bench, "fp32")
    assert len({subject.point.shape for subject in work}) == len(work)
    points = measure(work, stopwatch=ThreadClock(), machine=HERE, seconds=60, enough=1)
    assert {point.kind for point in points} == set(KINDS)
    assert missing(work, points) == 0
    write_points(tmp_path / "points.csv", points)
    assert len(read_points(tmp_path / "points.csv")) == len(points)


def test_attention_is_timed_for_one_to_twelve_queries_over_the_longest_context():
    for grid in (CPU_GRID, GPU_GRID):
        assert grid.queries == tuple(range(1, 13))
        assert grid.longest in grid.cells
        assert 1 in grid.verify


def test_a_timed_pass_is_the_pass_that_decoding_runs(bench):
    passes = (subject for subject in subjects(bench, "fp32") if subject.point.kind == "forward")
    verification = next(subject for subject in passes if subject.point.query_tokens == 3)
    point = verification.point
    logits = verification.make().work()
    cache = bench.cache(point.batch, point.kv_tokens - 3)
    tokens = torch.arange(point.batch * 3).reshape(point.batch, 3) % 64
    assert torch.equal(logits, bench.decoder.forward(tokens, cache.next(3)))
    assert point.model.num_layers == point.layers == 2


def test_a_timed_round_starts_from_the_same_state_every_time(bench):
    timed_round = next(subject for subject in subjects(bench, "fp32") if subject.point.kind == "round")
    job = timed_round.make()
    for _ in range(3):
        job.work()
        job.host()
        job.after()
    cache = bench.cache(timed_round.point.batch, timed_round.point.kv_tokens)
    assert (cache.lens == timed_round.point.kv_tokens).all()


def test_matrices_of_a_linear_layer_exceed_the_cache(bench):
    matrices = bench.matrices(64, 32)
    assert sum(matrix.numel() * 4 for matrix in matrices) >= 1.9e5
    assert bench.matrices(64, 32) is matrices
    bench.forget()
    assert bench.matrices(64, 32) is not matrices


def test_operands_take_turns_and_a_graph_takes_all_of_them_at_once(bench):
    seen = []
    one_by_one = _take_turns(seen.append, 3, bench)
    for _ in range(4):
        one_by_one.work()
    assert (seen, one_by_one.runs) == ([0, 1, 2, 0], 1)
    seen.clear()
    on_gpu = SimpleNamespace(decoder=SimpleNamespace(device=torch.device("cuda")))
    at_once = _take_turns(seen.append, 3, on_gpu)
    at_once.work()
    assert (seen, at_once.runs) == ([0, 1, 2], 3)


def test_the_default_decoder_is_small_on_a_cpu_and_part_of_a_large_one_by_name():
    decoder, dtype = bench_decoder(CPU)
    assert (decoder.layers, dtype) == (4, "fp32")
    assert decoder.architecture.spec.kv_dtype == "fp32"
    assert grid_for(CPU, decoder) is CPU_GRID
    named, dtype = bench_decoder(CPU, model="llama-68m", dtype="bf16", layers=1)
    assert (named.layers, named.architecture.spec.num_layers, dtype) == (1, 1, "bf16")
    assert named.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"dtype": "fp8"}, "fp32, bf16, fp16"), ({"layers": 9}, "1 to 4"), ({"model": "gemma-2-9b"}, "gemma2")],
)
def test_what_cannot_be_measured_is_refused(asked, message):
    with pytest.raises(SpecError, match=message):
        bench_decoder(CPU, **asked)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_named("cpu") == CPU
    with pytest.raises(SpecError, match="no CUDA device"):
        device_named("cuda")
    with pytest.raises(SpecError, match="cpu, cuda"):
        device_named("tpu")


def test_a_machine_says_what_it_is():
    machine = machine_of(CPU)
    assert machine.sms == 1
    assert machine.memory_bytes > 1e9
    assert 1e5 < machine.l2_bytes < 4e9
    assert "one thread" in machine.device


def test_measuring_runs_on_one_thread_and_puts_the_number_back():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
