"""What a simulated trace saw: latencies of requests, throughput, time by cause, cost, and how full the cache was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perfmodel.serving import CAUSES, Replica
from perfmodel.traces import Trace

FloatArray = NDArray[np.float64]
PERCENTILES = (50, 90, 99)


@dataclass
class Outcome:
    """Times of every request, and what the steps added up to. [s], [tokens]

    first_token, finish : when each request's first and last token came; NaN until then.
    seconds : time by cause over all steps. steps : rounds of any kind. preemptions : caches taken away.
    """

    trace: Trace
    replica: Replica
    first_token: FloatArray
    finish: FloatArray
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))
    steps: int = 0
    rounds_by_gamma: dict[int, int] = field(default_factory=dict)
    preemptions: int = 0
    prefilled_tokens: int = 0
    kv_token_seconds: float = 0.0
    kv_peak_tokens: int = 0
    makespan: float = 0.0
    _intervals: list[tuple[FloatArray, int]] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, trace: Trace, replica: Replica) -> Outcome:
        """Nothing served yet."""
        return cls(trace, replica, np.full(len(trace), np.nan), np.full(len(trace), np.nan))

    def record(
        self, seconds: Mapping[str, FloatArray], sequences: int, tokens: NDArray[np.int64], held: int, gamma: int
    ) -> float:
        """Add some rounds of equal batch; returns how long they lasted. [s]"""
        each = np.asarray(sum(seconds.values()), dtype=float)
        for cause, values in seconds.items():
            self.seconds[cause] += float(values.sum())
        self.steps += each.size
        if sequences:
            self.rounds_by_gamma[gamma] = self.rounds_by_gamma.get(gamma, 0) + each.size
            self._intervals.append((each, sequences))
        lasted = float(each.sum())
        grown = held + np.concatenate([[0], np.cumsum(tokens.sum(axis=1))[:-1]])[: each.size]
        self.kv_token_seconds += float(grown @ each)
        self.kv_peak_tokens = max(self.kv_peak_tokens, int(grown[-1]) + sequences * (gamma + 1))
        return lasted

    def close(self, now: float) -> None:
        """Note when the last token came. [s]"""
        self.makespan = now

    @property
    def ttft(self) -> FloatArray:
        """Time to first token of every request. [s]"""
        return self.first_token - self.trace.arrival

    @property
    def end_to_end(self) -> FloatArray:
        """Time from arrival to last token of every request. [s]"""
        return self.finish - self.trace.arrival

    @property
    def tpot(self) -> FloatArray:
        """Time per output token after the first, of every request with more than one. [s]"""
        more = self.trace.output_tokens > 1
        return (self.finish - self.first_token)[more] / (self.trace.output_tokens[more] - 1)

    @property
    def itl(self) -> FloatArray:
        """Percentiles `PERCENTILES` of the time between stream events: with speculation an event is a round. [s]"""
        if not self._intervals:
            return np.full(len(PERCENTILES), np.nan)
        values = np.concatenate([each for each, _ in self._intervals])
        weights = np.concatenate([np.full(each.size, count) for each, count in self._intervals])
        order = np.argsort(values)
        reached = np.cumsum(weights[order]) / weights.sum()
        return values[order][np.searchsorted(reached, np.asarray(PERCENTILES) / 100.0).clip(max=values.size - 1)]

    @property
    def output_tokens(self) -> int:
        """Tokens put out. [tokens]"""
        return int(self.trace.output_tokens.sum())

    def goodput(self, *, ttft: float | None = None, tpot: float | None = None) -> float:
        """Output tokens per second of the requests that met both targets. [tokens/s]"""
        good = np.ones(len(self.trace), dtype=bool)
        if ttft is not None:
            good &= self.ttft <= ttft
        if tpot is not None:
            more = np.maximum(self.trace.output_tokens - 1, 1)
            good &= (self.finish - self.first_token) / more <= tpot
        return float(self.trace.output_tokens[good].sum() / self.makespan)

    def summary(self, *, ttft: float | None = None, tpot: float | None = None) -> dict[str, float]:
        """Every figure by name, units in the names; goodput under the given targets. """
        gpus, hardware = self.replica.tensor_parallel, self.replica.hardware
        gpu_seconds = self.makespan * gpus
        millions = self.output_tokens / 1e6
        figures = {
            "requests": float(len(self.trace)),
            "makespan_s": self.makespan,
            "throughput_tokens_per_s": self.output_tokens / self.makespan,
            "goodput_tokens_per_s": self.goodput(ttft=ttft, tpot=tpot),
            "gpu_seconds": gpu_seconds,
            "cost_per_million_tokens_usd": gpu_seconds / 3600.0 * float(np.asarray(hardware.price_per_hour)) / millions,
            "energy_per_million_tokens_kwh": gpu_seconds * float(np.asarray(hardware.tdp)) / 3.6e6 / millions,
            "kv_occupancy_mean": self.kv_token_seconds / self.makespan / self.replica.kv_capacity,
            "kv_occupancy_peak": self.kv_peak_tokens / self.replica.kv_capacity,
            "steps": float(self.steps),
            "preemptions": float(self.preemptions),
        }
        for name, values in (("ttft", self.ttft), ("tpot", self.tpot), ("e2e", self.end_to_end)):
            for percentile in PERCENTILES:
                figures[f"{name}_p{percentile}_s"] = float(np.percentile(values, percentile)) if values.size else 0.0
        for percentile, value in zip(PERCENTILES, self.itl, strict=True):
            figures[f"itl_p{percentile}_s"] = float(value)
        return figures | {f"{cause}_s": value for cause, value in self.seconds.items()}
