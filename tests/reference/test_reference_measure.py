"""Times are taken fairly, of what they are said to be of, and a run can be taken up again."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from perfmodel.cli.app import app  # noqa: E402
from perfmodel.cli.ask import device  # noqa: E402
from perfmodel.errors import SpecError  # noqa: E402
from perfmodel.evidence.machine.points import read_points  # noqa: E402
from perfmodel.reference.attention import exact, packed  # noqa: E402
from perfmodel.reference.cache import KVCache  # noqa: E402
from perfmodel.reference.demo import demo  # noqa: E402
from perfmodel.reference.demo.trials import PLAIN, Config, Field, side_by_side  # noqa: E402
from perfmodel.reference.rounds import generate  # noqa: E402
from perfmodel.reference.timing import machines  # noqa: E402
from perfmodel.reference.timing.attention_kernels import (  # noqa: E402
    OFFERED,
    FastestAttention,
    aligned,
    doubled,
    merged,
    offered,
)
from perfmodel.reference.timing.bench import Bench, Grid, Job, Subject  # noqa: E402
from perfmodel.reference.timing.machines import CPU_GRID, GPU_GRID, bench_decoder, grid_for  # noqa: E402
from perfmodel.reference.timing.measure import measure, missing  # noqa: E402
from perfmodel.reference.timing.stopwatch import (  # noqa: E402
    Machine,
    ThreadClock,
    device_named,
    machine_of,
    one_thread,
    repeats_for,
)
from perfmodel.reference.timing.subjects import subjects  # noqa: E402

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
HERE = Machine("here", 1, 8e9, 32e6, "2.0")
TINY_GRID = Grid(
    cells=((1, 64), (2, 256)),
    verify=(1, 3),
    queries=(1, 2, 5),
    tokens=(1, 4),
    budgets=(16, 128),
    rounds=((2, 256, 32, 2),),
    stream=1 << 12,
)


class StepClock:
    """A clock that says how long every piece of work takes: one second more with each."""

    def __init__(self):
        self.told = 0

    def name_for(self, work):
        del work
        return "thread"

    def ready(self, work):
        work()
        return work

    def seconds(self, work, repeats=1, host=None):
        for _ in range(repeats):
            work()
            if host is not None:
                host()
        self.told += 1
        return float(self.told)


@pytest.fixture
def bench(tiny):
    return Bench(tiny(dtype=torch.float32), TINY_GRID, ThreadClock(), cache_bytes=1e5)


def note(log, word):
    return lambda: log.append(word)


def subject(log, name, size, host=False):
    point = subjects_point(size)
    parts = (note(log, f"{name} host"), note(log, f"{name} after")) if host else (None, None)
    return Subject(point, lambda: Job(note(log, name), *parts))


def subjects_point(size):
    from perfmodel.evidence.machine.points import MachinePoint

    return MachinePoint(kind="stream", dtype="fp32", n=size)


# The schedule.


def test_shapes_take_turns_and_every_timed_run_follows_an_untimed_one():
    log = []
    work = [subject(log, name, size) for size, name in enumerate("abc", 1)]
    points = measure(work, stopwatch=StepClock(), machine=HERE, seconds=60, enough=3)
    assert [point.samples for point in points] == [3, 3, 3]
    # The first turn: made ready, timed once to see how long it takes, then timed.
    assert log[:9] == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    later = log[9:]
    assert len(later) == 2 * 3 * 2
    assert all(first == second for first, second in zip(later[::2], later[1::2], strict=True))
    assert sorted(later[:6:2]) == sorted(later[6::2]) == ["a", "b", "c"]


def test_a_point_is_the_median_of_its_samples_with_their_spread():
    (point,) = measure(
        [subject([], "a", 1)], stopwatch=StepClock(), machine=HERE, seconds=60, enough=5
    )  # told 2, 3, 4, 5, 6: the first reading only sizes the repeats
    assert (point.low, point.seconds, point.high) == (2.4, 4.0, 5.6)
    assert (point.device, point.clock, point.torch) == ("here", "thread", "2.0")


def test_the_hosts_part_is_timed_and_putting_back_is_not():
    log = []
    measure([subject(log, "a", 1, host=True)], stopwatch=StepClock(), machine=HERE, seconds=60, enough=2)
    assert log == ["a", "a host", "a after"] * 4


def test_a_run_stops_when_its_time_is_over_and_the_next_goes_on():
    log, seen = [], []
    work = [subject(log, name, size) for size, name in enumerate("abcd", 1)]
    spent = iter([0.0, 0.2, 0.4, 2.0, 2.0, 2.0])

    def over(monkeypatch):
        monkeypatch.setattr("perfmodel.reference.timing.measure.time.monotonic", lambda: next(spent))

    with pytest.MonkeyPatch.context() as patch:
        over(patch)
        first = measure(work, stopwatch=StepClock(), machine=HERE, seconds=1.0, on_sweep=seen.append)
    assert len(first) == len(seen[-1]) == 2
    assert missing(work, first) == 2
    trusted = [replace(point, samples=3) for point in first]
    log.clear()
    again = measure(work, stopwatch=StepClock(), machine=HERE, seconds=60, known=trusted, enough=3)
    assert missing(work, again) == 0
    assert set(log) == {"c", "d"}
    assert [point for point in again if point.n in (1, 2)] == trusted


def test_shapes_that_were_timed_too_seldom_are_timed_again():
    work = [subject([], "a", 1)]
    (once,) = measure(work, stopwatch=StepClock(), machine=HERE, seconds=60, enough=1)
    (more,) = measure(work, stopwatch=StepClock(), machine=HERE, seconds=60, known=[once], enough=4)
    assert more.samples == 4


def test_what_was_timed_is_kept_where_a_run_is_interrupted():
    def stop():
        raise KeyboardInterrupt

    work = [subject([], "a", 1), Subject(subjects_point(2), lambda: Job(stop))]
    seen = []
    with pytest.raises(KeyboardInterrupt):
        measure(work, stopwatch=StepClock(), machine=HERE, seconds=60, on_sweep=seen.append)
    assert [point.n for point in seen[-1]] == [1]


def test_work_that_does_it_several_times_counts_once():
    (point,) = measure(
        [Subject(subjects_point(1), lambda: Job(lambda: None, runs=4))],
        stopwatch=StepClock(),
        machine=HERE,
        seconds=60,
        enough=1,
    )
    assert point.seconds == 2.0 / 4


@pytest.mark.parametrize(("seconds", "repeats"), [(1.0, 1), (1e-3, 1), (1e-4, 10), (1e-9, 64)])
def test_short_work_is_repeated_within_a_sample(seconds, repeats):
    assert repeats_for(seconds) == repeats


def test_the_threads_clock_counts_work_and_not_waiting():
    import time

    clock = ThreadClock()
    assert clock.seconds(lambda: time.sleep(0.05)) < 0.02
    assert clock.seconds(lambda: sum(range(1_000_000))) > 1e-3


# What is timed.


def test_every_kind_is_timed_and_every_point_can_be_written(bench, tmp_path):
    from perfmodel.evidence.machine.points import KINDS, write_points

    work = subjects(bench, "fp32")
    assert len({one.point.shape for one in work}) == len(work)
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
    work = next(
        one for one in subjects(bench, "fp32") if one.point.kind == "forward" and one.point.query_tokens == 3
    )
    point = work.point
    logits = work.make().work()
    cache = bench.cache(point.batch, point.kv_tokens - 3)
    tokens = torch.arange(point.batch * 3).reshape(point.batch, 3) % 64
    assert torch.equal(logits, bench.decoder.forward(tokens, cache.next(3)))
    assert point.model.num_layers == point.layers == 2


def test_a_timed_round_starts_from_the_same_state_every_time(bench):
    work = next(one for one in subjects(bench, "fp32") if one.point.kind == "round")
    job = work.make()
    for _ in range(3):
        job.work()
        job.host()
        job.after()
    cache = bench.cache(work.point.batch, work.point.kv_tokens)
    assert (cache.lens == work.point.kv_tokens).all()


def test_matrices_of_a_linear_layer_exceed_the_cache(bench):
    found = bench.matrices(64, 32)
    assert sum(one.numel() * 4 for one in found) >= 1.9e5
    assert bench.matrices(64, 32) is found
    bench.forget()
    assert bench.matrices(64, 32) is not found


def test_operands_take_turns_and_a_graph_takes_all_of_them_at_once(bench):
    from types import SimpleNamespace

    from perfmodel.reference.timing.subjects import _in_turns

    seen = []
    one_by_one = _in_turns(seen.append, 3, bench)
    for _ in range(4):
        one_by_one.work()
    assert (seen, one_by_one.runs) == ([0, 1, 2, 0], 1)
    seen.clear()
    on_gpu = SimpleNamespace(decoder=SimpleNamespace(device=torch.device("cuda")))
    at_once = _in_turns(seen.append, 3, on_gpu)
    at_once.work()
    assert (seen, at_once.runs) == ([0, 1, 2], 3)


# Kernels.


def shapes(query_tokens, heads=4, kv_heads=2, batch=2, width=96, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(batch, heads, query_tokens, 16, generator=generator).to(dtype)
    keys, values = (torch.randn(batch, kv_heads, width, 16, generator=generator).to(dtype) for _ in range(2))
    return query, keys, values, aligned(query_tokens, width, CPU)


@pytest.mark.parametrize("query_tokens", [1, 2, 7])
@pytest.mark.parametrize("kernel", [packed, doubled, merged])
@pytest.mark.parametrize("heads", [2, 4])
def test_every_kernel_that_runs_here_gives_attention_by_its_definition(kernel, query_tokens, heads):
    given = shapes(query_tokens, heads=heads)
    assert torch.allclose(kernel(*given), exact(*given), atol=1e-5)


def test_a_kernel_that_is_wrong_or_refuses_is_not_offered(monkeypatch):
    def wrong(*given):
        return packed(*given) * 1.5

    def refusing(*_):
        raise RuntimeError("not for this shape")

    kernels = {**OFFERED["cpu"], "wrong": wrong, "refusing": refusing, "merged": merged}
    monkeypatch.setattr("perfmodel.reference.timing.attention_kernels.OFFERED", {"cpu": kernels})
    assert set(offered(CPU, *shapes(3))) == {"packed", "doubled", "merged"}


def test_the_fastest_kernel_is_chosen_and_ragged_batches_keep_theirs(target, ragged):
    class Slow(StepClock):
        def seconds(self, work, *_):
            return 1.0 if "doubled" not in str(work.__defaults__) else 0.5

    fastest = FastestAttention(Slow())
    assert fastest.name(1) == "packed"
    assert fastest.choose(*shapes(1, heads=2)) == "doubled"
    fastest.apply_to(1, [4])
    assert fastest.name(4) == "doubled"
    plain = generate(target, ragged, 8).tokens
    cache = KVCache(target.architecture, 3, 200, dtype=torch.float64, attention=fastest)
    from perfmodel.reference.rounds import decode
    from perfmodel.reference.sequences import prefill

    sequences, logits = prefill(target, ragged, 100, cache)
    assert torch.equal(decode(target, sequences, logits.argmax(-1), 8).tokens, plain)


# Machines.


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
    found = machine_of(CPU)
    assert found.sms == 1
    assert found.memory_bytes > 1e9
    assert 1e5 < found.l2_bytes < 4e9
    assert "one thread" in found.device


def test_measuring_runs_on_one_thread_and_puts_the_number_back():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


# Trials.


def test_trials_compare_every_output_with_plain_decoding(tiny):
    target = tiny(dtype=torch.float32)
    cache = KVCache(target.architecture, 2, 120)
    cache.fill(64)
    tokens = torch.zeros(2, cache.capacity, dtype=torch.long)
    field = Field(target, cache, torch.tensor([3, 5]), tokens, 20, alpha=0.8)
    config = Config("streaming_llm", 16, 3)
    runs = side_by_side(field, [config], stopwatch=StepClock(), seconds=60, most_turns=3)
    assert set(runs) == {PLAIN, config}
    assert runs[config].differing == runs[PLAIN].differing == 0
    assert runs[PLAIN].tokens_per_round == 1.0
    assert runs[config].tokens_per_round == pytest.approx((1 - 0.8**4) / 0.2, rel=0.1)
    assert (config.label, PLAIN.label) == ("streaming_llm budget 16 gamma 3", "plain decoding")


# Commands.


def draftplan(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="draftplan")


@pytest.fixture
def _small_machine(monkeypatch):
    monkeypatch.setattr(machines, "CPU_GRID", TINY_GRID)
    monkeypatch.setattr(
        machines, "SMALL", {**machines.SMALL, "hidden_size": 32, "intermediate_size": 32, "head_dim": 16}
    )


@pytest.mark.usefixtures("_small_machine")
def test_measure_writes_points_and_goes_on_where_it_stopped(tmp_path):
    file = tmp_path / "points.csv"
    first = draftplan("measure", "-o", file, "--seconds", "20")
    assert first.exit_code == 0, first.stderr
    points = read_points(file)
    assert {point.clock for point in points} == {"thread"}
    assert all(point.seconds > 0 and point.low <= point.seconds <= point.high for point in points)
    assert f"{len(points)} shapes" in first.stderr
    stamp = os.stat(file).st_mtime_ns
    kept = file.read_text()
    again = draftplan("measure", "-o", file, "--seconds", "20")
    assert again.exit_code == 0
    assert os.stat(file).st_mtime_ns >= stamp
    assert file.read_text() == kept


@pytest.mark.usefixtures("_small_machine")
def test_measure_refuses_a_file_of_another_machine(tmp_path):
    file = tmp_path / "points.csv"
    draftplan("measure", "-o", file, "--seconds", "1")
    file.write_text(file.read_text().replace("one thread", "two threads"))
    result = draftplan("measure", "-o", file, "--seconds", "1")
    assert result.exit_code == 2
    assert "two threads" in result.stderr


def test_measure_refuses_a_folder_that_is_not_there_before_it_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(machines, "bench_decoder", None)
    result = draftplan("measure", "-o", tmp_path / "absent" / "points.csv")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


@pytest.mark.parametrize("command", [["measure", "-o", "points.csv"], ["demo"]])
def test_without_torch_the_commands_say_what_to_install(monkeypatch, command):
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda _: None)
    result = draftplan(*command)
    assert result.exit_code == 2
    assert "draftplan[reference]" in result.stderr


@pytest.mark.usefixtures("_small_machine")
@pytest.mark.parametrize("format", [pytest.param("table", marks=pytest.mark.slow), "json"])
def test_demo_closes_the_loop_on_small_shapes(monkeypatch, format):
    monkeypatch.setattr(
        demo, "DEMO_GRID", replace(TINY_GRID, cells=((1, 256), (2, 256), (2, 1024), (4, 512)))
    )
    monkeypatch.setattr(demo, "SHAPE", (2, 1024))
    monkeypatch.setattr(demo, "BUDGETS", (32, 64))
    monkeypatch.setattr(demo, "OUTPUT", 8)
    monkeypatch.setattr(demo, "PLANTED", ((2, 600), 256, 40, 8))
    result = draftplan("demo", "--seconds", "20", "--format", format, "--acceptance-rate", "0.8")
    assert result.exit_code == 0, result.stderr
    if format == "json":
        body = json.loads(result.stdout)
        assert [one["title"] for one in body["comparisons"]] == ["acceptance dialled", "answers planted"]
        assert all(one["tokens_differing"] == 0 for one in body["comparisons"])
        assert np.isfinite([one["regret"] for one in body["comparisons"]]).all()
    else:
        assert "all outputs are those of plain decoding" in result.stdout
        assert "regret" in result.stdout
