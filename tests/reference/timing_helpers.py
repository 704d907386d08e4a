"""What tests of the timing share: a clock that says how long work takes, and a few tiny shapes."""

from __future__ import annotations

from perfmodel.reference.timing.bench import ShapeGrid
from perfmodel.reference.timing.stopwatch import Machine

HERE = Machine("here", 1, 8e9, 32e6, "2.0")
TINY_GRID = ShapeGrid(
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
        self.readings = 0

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
        self.readings += 1
        return float(self.readings)
