"""Timing many shapes fairly: warm, interleaved, by medians, within a time, and to be taken up again."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from perfmodel.evidence.machine.points import MachinePoint, merged
from perfmodel.reference.timing.bench import Job, Subject
from perfmodel.reference.timing.stopwatch import Machine, Stopwatch, repeats_for

__all__ = ["ENOUGH", "measure", "missing"]

ENOUGH = 9
"""Samples after which a shape is not timed again."""
FEW = 3
"""Samples below which a shape is timed again in a later run."""


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
    subjects : what is timed.
    stopwatch : times it.
    machine : what the points say of the machine.
    seconds : wall time to stop after. [s]
    known : points of earlier runs; shapes that were timed there `FEW` times or more are left out.
    enough : samples of each shape.
    on_sweep : called with all points after every turn, and at the end.
    on_step : called with the share of the time that is over and the shapes timed so far.

    Returns
    -------
    Known and new points: median, 10th and 90th percentile of the samples of each shape.
    """
    done = {point.shape for point in known if point.samples >= FEW}
    timings = [_Timing(subject, stopwatch) for subject in subjects if subject.point.shape not in done]
    begun, order = time.monotonic(), np.random.default_rng(0)

    def points() -> list[MachinePoint]:
        return merged(known, (timing.point(machine) for timing in timings if timing.samples))

    def over() -> bool:
        spent = (time.monotonic() - begun) / seconds
        if on_step is not None:
            on_step(min(spent, 1.0), sum(bool(timing.samples) for timing in timings))
        return spent >= 1.0

    for turn in range(enough):
        try:
            for index in range(len(timings)) if turn == 0 else order.permutation(len(timings)):
                if over():
                    break
                timings[index].sample()
        finally:  # what was timed is not lost where the run is interrupted
            if on_sweep is not None:
                on_sweep(points())
        if over():
            break
    return points()


def missing(subjects: Iterable[Subject], points: Iterable[MachinePoint]) -> int:
    """Return how many shapes have no time yet."""
    timed = {point.shape for point in points}
    return sum(subject.point.shape not in timed for subject in subjects)


@dataclass
class _Timing:
    """A subject that is timed: its job once it was made, and the samples so far. [s]"""

    subject: Subject
    stopwatch: Stopwatch
    job: Job | None = None
    repeats: int = 1
    samples: list[float] = field(default_factory=list)

    def sample(self) -> None:
        """Time the shape once, after an untimed run of it."""
        if (job := self.job) is None:
            made = self.subject.make()
            job = self.job = replace(made, work=self.stopwatch.ready(made.work))
            _finish(job)
            if job.host is None:
                self.repeats = repeats_for(self.stopwatch.seconds(job.work))
        else:
            job.work()
            _finish(job)
        self.samples.append(self.stopwatch.seconds(job.work, self.repeats, job.host) / job.runs)
        if job.after is not None:
            job.after()

    def point(self, machine: Machine) -> MachinePoint:
        """Return the point with its times."""
        if self.job is None:
            raise ValueError("the shape was not timed")
        low, median, high = (float(value) for value in np.quantile(self.samples, [0.1, 0.5, 0.9]))
        clock = self.stopwatch.name_for(self.job.work)
        if self.job.host is not None and clock != "thread":
            clock = "wall"
        return replace(
            self.subject.point, seconds=median, low=low, high=high, samples=len(self.samples), clock=clock,
            date=datetime.date.today().isoformat(), **asdict(machine),
        )  # fmt: skip


def _finish(job: Job) -> None:
    """Run the host's part of an untimed run, and put things back."""
    for part in (job.host, job.after):
        if part is not None:
            part()
