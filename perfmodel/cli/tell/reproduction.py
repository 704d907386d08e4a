"""Benchmarks beside their simulation, for people and programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perfmodel.benchmarks import Benchmark
from perfmodel.cli.tell.tables import Column, draw, heading, left, line, number, tokens
from perfmodel.traffic.metrics import Metrics
from perfmodel.traffic.reproduction import Figure, figures_beside

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Reproduced", "draw_reproduced", "reproduced_to_dict", "reproduced_to_rows"]

SCHEMA = "draftplan/reproduction/1"


@dataclass(frozen=True)
class Reproduced:
    """A benchmark and what was simulated for it, at so many requests in flight at most."""

    benchmark: Benchmark
    outcome: Metrics
    concurrency: int | None

    @property
    def figures(self) -> list[Figure]:
        """Every figure of the benchmark beside the simulated one."""
        return figures_beside(self.benchmark, self.outcome)

    @property
    def sent(self) -> str:
        """How the requests were sent, in words."""
        rate = self.benchmark.request_rate
        at = "all at once" if math.isinf(rate) else f"{number(rate)} a second"
        return at if self.concurrency is None else f"{at}, at most {self.concurrency} in flight"


_TELLING = 10.0
"""Differences of more than that many times the measured figure compare different things. [1]"""


def _difference(figure: Figure) -> str:
    return f"{100 * figure.error:+.1f} %" if figure.error < _TELLING else "-"


_COLUMNS = (
    left("figure", lambda figure: f"{figure.name}, {figure.unit}"),
    Column("measured", lambda figure: number(figure.measured * figure.scale, 4)),
    Column("simulated", lambda figure: number(figure.simulated * figure.scale, 4)),
    Column("difference", _difference),
)


def draw_reproduced(console: Console, runs: Sequence[Reproduced]) -> None:
    """Draw one table a run: measured, simulated, and how far the latter is off."""
    for place, run in enumerate(runs):
        replica, trace = run.outcome.replica, run.outcome.trace
        if place:
            console.print()
        heading(
            console,
            f"{run.benchmark.source}: {len(trace)} requests, {run.sent}, on average "
            f"{tokens(float(trace.prompt_tokens.mean()))} prompt and "
            f"{tokens(float(trace.output_tokens.mean()))} output tokens",
        )
        line(
            console,
            f"Simulated: {replica.deployment.label}, {run.outcome.name}, {replica.schedules} scheduling of "
            f"at most {replica.max_batch} sequences and {replica.max_step_tokens} tokens a step",
        )
        draw(console, _COLUMNS, run.figures)


def reproduced_to_dict(runs: Sequence[Reproduced]) -> dict[str, Any]:
    """Return every run as plain values, with all figures of its simulation."""
    return {
        "schema": SCHEMA,
        "runs": [
            {
                "source": run.benchmark.source, "tool": run.benchmark.tool, "model": run.benchmark.model,
                "requests": len(run.outcome.trace), "concurrency": run.concurrency,
                "requests_per_s": run.benchmark.request_rate, "policy": run.outcome.name,
                "scheduler": run.outcome.replica.schedules,
                "figures": [figure.row() for figure in run.figures],
                "simulated": run.outcome.summary(),
            }
            for run in runs
        ],
    }  # fmt: skip


def reproduced_to_rows(runs: Sequence[Reproduced]) -> list[dict[str, Any]]:
    """Return one row a figure."""
    return [{"source": run.benchmark.source, **figure.row()} for run in runs for figure in run.figures]
