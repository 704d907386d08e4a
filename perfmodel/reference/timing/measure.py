"""Timing many shapes fairly: warm, interleaved, by medians, within a time, and to be taken up again."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from perfmodel.evidence.machine.points import MachinePoint, merged
from perfmodel.reference.timing.bench import Job, Subject
from perfmodel.reference.timing.stopwatch import Machine, Stopwatch, repeats_for

__all__ = ["ENOUGH", "measure"]

ENOUGH = 9
"""Samples after which a shape is not timed again."""
FEW = 3
"""Samples below which a shape is timed again in a later run."""


@dataclass
class _Live:
    """A subject under way."""

    subject: Subject
    job: Job | None = None
    repeats: int = 1
    samples: list[float] = field(default_factory=list)


def measure(
    subjects: Sequence[Subject],
    *,
    stopwatch: Stopwatch,
    machine: Machine,
    seconds: float,
    known: Sequence[MachinePoint] = (),
    enough: int = ENOUGH,
    on_sweep: Callable[[list[MachinePoint]], None] | None = None,
    on_step: Callable[[float, int], None] | None = None,
) -> list[MachinePoint]:
    """Time the subjects in turns until the time is over or each was sampled often enough.

    Every turn goes through all shapes, in an order drawn anew, so that a slow spell of the machine falls on
    all of them alike; each timed run follows an untimed one of the same shape.

    Parameters
    ----------
    seconds : wall time to stop after. [s]
    known : points of earlier runs; shapes that were timed there `FEW` times or more are left out.
    on_sweep : called with all points after every turn, and at the end. on_step : called with the share of the
        time that is over and the shapes timed so far.

    Returns
    -------
    Known and new points: median, 10th and 90th percentile of the samples of each shape.
    """
    done = {point.shape for point in known if point.samples >= FEW}
    live = [_Live(subject) for subject in subjects if subject.point.shape not in done]
    begun, order = time.monotonic(), np.random.default_rng(0)
    date = datetime.date.today().isoformat()

    def points() -> list[MachinePoint]:
        return merged(known, (_point(one, stopwatch, machine, date) for one in live if one.samples))

    def over() -> bool:
        spent = (time.monotonic() - begun) / seconds
        if on_step is not None:
            on_step(min(spent, 1.0), sum(bool(one.samples) for one in live))
        return spent >= 1.0

    for turn in range(enough):
        try:
            for index in range(len(live)) if turn == 0 else order.permutation(len(live)):
                if over():
                    break
                _sample(live[index], stopwatch)
        finally:  # what was timed is not lost where the run is interrupted
            if on_sweep is not None:
                on_sweep(points())
        if over():
            break
    return points()


def _sample(one: _Live, stopwatch: Stopwatch) -> None:
    """Time a shape once, after an untimed run of it."""
    if one.job is None:
        made = one.subject.make()
        one.job = replace(made, work=stopwatch.ready(made.work))
        _finish(one.job)
        if made.host is None:
            one.repeats = repeats_for(stopwatch.seconds(one.job.work))
    else:
        one.job.work()
        _finish(one.job)
    taken = stopwatch.seconds(one.job.work, one.repeats, one.job.host)
    one.samples.append(taken / one.job.runs)
    if one.job.after is not None:
        one.job.after()


def _finish(job: Job) -> None:
    """The untimed run's host part, and putting back."""
    for part in (job.host, job.after):
        if part is not None:
            part()


def _point(one: _Live, stopwatch: Stopwatch, machine: Machine, date: str) -> MachinePoint:
    low, middle, high = np.quantile(one.samples, [0.1, 0.5, 0.9])
    if one.job is None:
        raise ValueError("the shape was not timed")
    clock = stopwatch.name_for(one.job.work)
    return replace(
        one.subject.point,
        seconds=float(middle),
        low=float(low),
        high=float(high),
        samples=len(one.samples),
        clock="wall" if one.job.host is not None and clock != "thread" else clock,
        device=machine.device,
        sms=machine.sms,
        memory_bytes=machine.memory_bytes,
        l2_bytes=machine.l2_bytes,
        torch=machine.torch,
        date=date,
    )


def missing(subjects: Iterable[Subject], points: Iterable[MachinePoint]) -> int:
    """Return how many shapes have no time yet."""
    timed = {point.shape for point in points}
    return sum(subject.point.shape not in timed for subject in subjects)
