"""Benchmarks that people published of their servers, simulated again beside what they measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Literal

import numpy as np
import pandas as pd

from perfmodel.benchmarks import Benchmark, Times
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.evidence.servers.summary import engines_without
from perfmodel.files.csv_rows import CsvRow, each_row, read_csv
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.traffic.metrics import WarmUp
from perfmodel.traffic.policies import FixedGamma
from perfmodel.traffic.prefixes import Prefixes
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.reproduction import Figure, figures_beside, in_flight_of, scaled_to, trace_of
from perfmodel.traffic.simulate import simulate
from perfmodel.traffic.trace import Trace

__all__ = ["ASKED", "LIMITS", "Beside", "Load", "PublishedRun", "beside", "published_runs", "read_runs"]

Load = Literal["closed loop", "rate", "all at once"]
ASKED = ("output throughput", "TTFT median", "TPOT median")
"""The figures that have a limit; the others are told beside them."""
LIMITS: Mapping[Load, Mapping[str, float]] = {
    "closed loop": {"output throughput": 0.05, "TPOT median": 0.05, "TTFT median": 0.2},
    "rate": {"output throughput": 0.05, "TPOT median": 0.05, "TTFT median": 0.2},
    "all at once": {"output throughput": 0.15, "TPOT median": 0.15, "TTFT median": 0.2},
}
"""How far a simulated figure may be off: over measured, less 1. [1]"""
COLUMNS = (
    "run", "source", "url", "engine", "engine_version", "model", "weight_dtype", "hardware",
    "tensor_parallel", "requests", "request_rate", "concurrency", "prompt_tokens", "output_tokens",
    "lengths_of", "cached", "front_end", "drafts", "output_throughput", "mean_ttft_ms", "median_ttft_ms",
    "p99_ttft_ms", "mean_tpot_ms", "median_tpot_ms", "p99_tpot_ms", "mean_itl_ms", "median_itl_ms",
    "p99_itl_ms", "taught", "doubt", "unknown",
)  # fmt: skip
FILE = "serving_runs.csv"
REQUESTS = "serving_requests.csv"
"""Requests of runs that were published one by one."""
_BLOCK = 16
_LATER = 1e5
"""When prompts that were served once come again. [s]"""


@dataclass(frozen=True)
class PublishedRun:
    """One run of a benchmark tool that somebody published.

    Attributes
    ----------
    benchmark : what was asked of the server and what came back; its source is the run's name.
    url, publisher : where it was published.
    deployment : the server; its engine was fitted without the publisher's numbers, and is of its release.
    requests : what was asked, request by request; None where all are alike.
    drafts : what drafted; such a run is told, not simulated: its trees and acceptance are not published.
    front_end : why what a request takes of the front end is not known, and TTFT is not judged; else empty.
    cached : whether the same prompts had been served before, with a prefix cache.
    doubt : why nothing is concluded from it; empty where something is.
    unknown : what the publisher does not say, and what is taken instead.
    """

    benchmark: Benchmark
    url: str
    publisher: str
    deployment: Deployment
    requests: Trace | None
    front_end: str
    cached: bool
    drafts: str
    doubt: str
    unknown: str

    @property
    def load(self) -> Load:
        """How its requests were sent."""
        if self.benchmark.concurrency is not None:
            return "closed loop"
        return "all at once" if math.isinf(self.benchmark.request_rate) else "rate"

    @property
    def limits(self) -> Mapping[str, float]:
        """How far each figure may be off; of those from which something is concluded. [1]"""
        limits = {} if self.doubt else LIMITS[self.load]
        return {
            name: limit for name, limit in limits.items() if not (self.front_end and name.startswith("TTFT"))
        }


@dataclass(frozen=True)
class Beside:
    """A published run beside its simulation."""

    run: PublishedRun
    figures: tuple[Figure, ...]

    def missed(self) -> list[Figure]:
        """Return the figures that are off by more than their limit."""
        limits = self.run.limits
        return [figure for figure in self.figures if abs(figure.error) > limits.get(figure.name, math.inf)]


def read_runs(content: bytes, file: str) -> tuple[PublishedRun, ...]:
    """Read one published run a row, of the columns `COLUMNS`.

    Raises
    ------
    SpecError
        Naming every row that cannot be read.
    """
    table = read_csv(content, file, required=COLUMNS[:1], known=COLUMNS)
    return each_row(table, COLUMNS, _run)


@cache
def published_runs() -> tuple[PublishedRun, ...]:
    """Return the bundled runs."""
    folder = files("perfmodel") / "data" / "measurements"
    return read_runs((folder / FILE).read_bytes(), FILE)


def _run(row: CsvRow, cells: Mapping[str, str]) -> PublishedRun:
    del row
    hardware = HardwareProfile.load(cells["hardware"])
    engine = EngineOverhead.load(cells["engine"])
    served = engines_without(cells["taught"])(engine, hardware) if cells["taught"] else engine.on(hardware)
    front_end = {"request": engine.request_s, "request_delay": engine.request_delay_s}
    served = served.with_values(front_end, source=engine.name).of_release(cells["engine_version"], hardware)
    target = ModelSpec.load(cells["model"], weight_dtype=cells["weight_dtype"] or None)

    def times(what: str) -> Times:
        statistics = ("mean", "median", "p99")
        return Times(**{name: _number(cells, f"{name}_{what}_ms") / 1e3 for name in statistics})

    closed = cells["concurrency"]
    benchmark = Benchmark(
        source=cells["run"], tool="vllm bench serve", model=cells["model"],
        requests=int(_number(cells, "requests")), request_rate=_number(cells, "request_rate"),
        concurrency=_number(cells, "concurrency") if closed else None,
        prompt_tokens=_number(cells, "prompt_tokens"), output_tokens=_number(cells, "output_tokens"),
        output_throughput=_number(cells, "output_throughput"), ttft=times("ttft"), tpot=times("tpot"),
        itl=times("itl"),
    )  # fmt: skip
    return PublishedRun(
        benchmark, cells["url"], cells["source"],
        Deployment(hardware, target, served, int(_number(cells, "tensor_parallel"))),
        _requests(benchmark, cells["lengths_of"]), cells["front_end"], cells["cached"] == "true",
        cells["drafts"], cells["doubt"], cells["unknown"],
    )  # fmt: skip


def _requests(benchmark: Benchmark, run: str) -> Trace | None:
    """Return the requests of a run that were published, or those of another scaled to its means."""
    if not run:
        return None
    if run not in _published_requests():
        raise SpecError.single("", "lengths_of", f"found {run[:40]!r}", f"Name a run of {REQUESTS}")
    published = _published_requests()[run]
    if run == benchmark.source:
        return published
    again = np.resize(np.arange(len(published)), benchmark.requests)
    return Trace(
        f"{benchmark.source}, lengths of {run}", np.zeros(benchmark.requests),
        scaled_to(benchmark.prompt_tokens, published.prompt_tokens[again]),
        scaled_to(benchmark.output_tokens, published.output_tokens[again]),
    )  # fmt: skip


@cache
def _published_requests() -> Mapping[str, Trace]:
    content = (files("perfmodel") / "data" / "measurements" / REQUESTS).read_bytes()
    table = pd.read_csv(BytesIO(content))
    return {
        str(run): Trace(
            str(run), rows["arrival"].to_numpy(float), rows["prompt_tokens"].to_numpy(np.int64),
            rows["output_tokens"].to_numpy(np.int64),
        )
        for run, rows in table.groupby("run", sort=False)
    }  # fmt: skip


def _number(cells: Mapping[str, str], name: str) -> float:
    try:
        value = float(cells[name])
    except ValueError:
        value = math.nan
    if not value > 0.0:
        raise SpecError.single("", name, f"found {cells[name][:40]!r}", "Give a number above 0")
    return value


def beside(run: PublishedRun, *, seed: int = 0) -> Beside:
    """Simulate a published run under its software's own scheduler and lay it beside what was measured."""
    if run.drafts:
        return Beside(run, ())
    software = run.deployment.engine.software
    replica = Replica.of(run.deployment, software)
    trace = run.requests or trace_of(run.benchmark, seed=seed)
    warm_up = WarmUp()
    if run.cached:
        warm_up = WarmUp(requests=len(trace))
        trace = _served_before(trace)
    outcome = simulate(replica, trace, FixedGamma(0), seed=seed, concurrency=in_flight_of(run.benchmark))
    return Beside(run, tuple(figures_beside(run.benchmark, outcome, warm_up)))


def _served_before(trace: Trace) -> Trace:
    """Return a trace after one of the same prompts, which the prefix cache may still hold."""
    blocks = -(-trace.prompt_tokens // _BLOCK)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.tile(blocks, 2))])
    numbers = np.tile(np.arange(int(blocks.sum())), 2)
    return replace(
        trace,
        arrival=np.concatenate([trace.arrival, trace.arrival + trace.arrival[-1] + _LATER]),
        prompt_tokens=np.tile(trace.prompt_tokens, 2),
        output_tokens=np.tile(trace.output_tokens, 2),
        prefixes=Prefixes(numbers, offsets, _BLOCK),
    )
