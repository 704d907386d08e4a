"""Shapes are timed fairly: in turns, warm, by medians, and a run can be taken up again."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from timing_helpers import HERE, StepClock  # noqa: E402

from perfmodel.evidence.machine.points import MachinePoint  # noqa: E402
from perfmodel.reference.timing.bench import Job, Subject  # noqa: E402
from perfmodel.reference.timing.measure import measure, missing  # noqa: E402
from perfmodel.reference.timing.stopwatch import ThreadClock, repeats_for  # noqa: E402

pytestmark = pytest.mark.torch


def note(log, word):
    return lambda: log.append(word)


def subject(log, name, size, host=False):
    point = point_of(size)
    parts = (note(log, f"{name} host"), note(log, f"{name} after")) if host else (None, None)
    return Subject(point, lambda: Job(note(log, name), *parts))


def point_of(size):
    return MachinePoint(kind="stream", dtype="fp32", n=size)


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
    )  # readings 2, 3, 4, 5, 6: the first reading only sizes the repeats
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

    work = [subject([], "a", 1), Subject(point_of(2), lambda: Job(stop))]
    seen = []
    with pytest.raises(KeyboardInterrupt):
        measure(work, stopwatch=StepClock(), machine=HERE, seconds=60, on_sweep=seen.append)
    assert [point.n for point in seen[-1]] == [1]


def test_work_that_does_it_several_times_counts_once():
    (point,) = measure(
        [Subject(point_of(1), lambda: Job(lambda: None, runs=4))],
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
