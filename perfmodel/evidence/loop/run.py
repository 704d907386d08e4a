"""A benchmark as the decode steps of its server: how many sequences, at which context, in which rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from perfmodel.benchmarks import Benchmark
from perfmodel.deployment import Deployment
from perfmodel.errors import SpecError
from perfmodel.evidence.servers.price import closed_loop
from perfmodel.files.numbers import Numeric
from perfmodel.latency import price_prefill

__all__ = ["ServedRun", "served_run"]

_RARE = 0.4
"""Share of steps with a prompt up to which the median time between tokens is that of a step without. [1]"""
_PLAUSIBLE = (0.3, 1.05)
"""Median time between tokens over TPOT within which the stream has one token a chunk. [1]"""


@dataclass(frozen=True)
class ServedRun:
    """What a server did while it decoded, on average.

    Attributes
    ----------
    benchmark : what was printed.
    tpot : time per output token after the first, prompts of others inside. [s]
    batch : sequences that decode at a time: output tokens per second times TPOT (Little's law). [1]
    joined : prompts of others that are prefilled while one request decodes. [1]
    prompt_tokens, output_tokens : mean lengths. [tokens]
    gamma : drafted tokens per round, mean over all rounds; 0 where nothing drafts. [tokens]
    tokens_per_round : accepted and bonus. [tokens]
    burst : whether all requests began at once.
    """

    benchmark: Benchmark
    tpot: float
    batch: float
    joined: float
    prompt_tokens: float
    output_tokens: float
    gamma: float
    tokens_per_round: float
    burst: bool

    @property
    def context_len(self) -> float:
        """Entries of a sequence half-way through its output. [tokens]"""
        return self.prompt_tokens + self.output_tokens / 2.0

    @property
    def plain_step(self) -> float | None:
        """A plain step without prompts, where the stream tells: the median time between its tokens. [s]"""
        median = self.benchmark.itl.median
        if self.gamma > 0.0 or median is None or self.joined / self.output_tokens > _RARE:
            return None
        low, high = _PLAUSIBLE
        return median if low * self.tpot <= median <= high * self.tpot else None

    def with_prefill(self, round_s: Numeric, deployment: Deployment) -> Numeric:
        """Return the time per output token of rounds of `round_s`, prompts of others inside. [s]"""
        prefill = price_prefill(deployment, batch=1.0, prompt_tokens=self.prompt_tokens).total
        return closed_loop(
            round_s / self.tokens_per_round, prefill, batch=self.joined + 1.0,
            output_tokens=self.output_tokens, burst=self.burst,
        )  # fmt: skip

    def round_seconds(self, deployment: Deployment) -> float:
        """Return what one round took, prompts of others taken out as they are priced. [s]

        Raises
        ------
        SpecError
            Where these prompts alone are priced at more than the whole TPOT.
        """
        if self.plain_step is not None:
            return self.plain_step
        inside = float(self.with_prefill(0.0, deployment))
        if inside >= self.tpot:
            raise SpecError.single(
                self.benchmark.source, "tpot",
                f"{self.tpot * 1e3:.3g} ms, less than the {inside * 1e3:.3g} ms that prompts of others alone "
                "are priced at",
                "Check model, accelerator and its number; cached prompts count as shorter ones",
            )  # fmt: skip
        return (self.tpot - inside) * self.tokens_per_round


def served_run(benchmark: Benchmark) -> ServedRun:
    """Return what a server did on average while it decoded.

    Raises
    ------
    SpecError
        Where no time per output token can be told.
    """
    outputs = max(benchmark.output_tokens, 1.0)
    tpot = _tpot(benchmark, outputs)
    gamma, tokens = _rounds(benchmark)
    rate = _tokens_per_second(benchmark)
    most = benchmark.concurrency or float(benchmark.requests)
    in_flight = _in_flight(benchmark, most)
    decoding = min(in_flight if rate is None else rate * tpot * (outputs - 1.0) / outputs, most)
    batch = max(decoding, 1.0)
    burst = math.isinf(benchmark.request_rate) and most >= benchmark.requests
    others = max(in_flight - 1.0, 0.0) if math.isinf(benchmark.request_rate) else decoding
    return ServedRun(
        benchmark, tpot, batch, others, benchmark.prompt_tokens, outputs, gamma, tokens, burst
    )


def _tpot(benchmark: Benchmark, outputs: float) -> float:
    """Return the mean time per output token, the median where no mean is told. [s]"""
    first, latency = benchmark.ttft.mean, benchmark.latency.mean
    spread_out = None if first is None or latency is None else (latency - first) / max(outputs - 1.0, 1.0)
    plain = None if benchmark.drafts is not None else benchmark.itl.mean
    for seconds in (benchmark.tpot.mean, benchmark.tpot.median, spread_out, plain):
        if seconds is not None and seconds > 0.0:
            return seconds
    raise SpecError.single(
        benchmark.source, "tpot", "no time per output token is told",
        "Let the tool print TPOT, or time to first token and latency",
    )  # fmt: skip


def _rounds(benchmark: Benchmark) -> tuple[float, float]:
    """Return drafted tokens, and tokens put out, per round of all rounds, those that drafted nothing too."""
    counts = benchmark.drafts
    if counts is None:
        return 0.0, 1.0
    idle = 0.0 if counts.idle is None else float(counts.idle.sum())
    rounds = float(counts.rounds.sum()) + idle
    if rounds <= 0.0:
        return 0.0, 1.0
    drafted, accepted = float(counts.drafted.sum()), float(counts.accepted.sum())
    return drafted / rounds, 1.0 + accepted / rounds


def _tokens_per_second(benchmark: Benchmark) -> float | None:
    if benchmark.output_throughput is not None:
        return benchmark.output_throughput
    if benchmark.duration:
        return benchmark.requests * benchmark.output_tokens / benchmark.duration
    return None


def _in_flight(benchmark: Benchmark, most: float) -> float:
    """Return the requests in flight on average: as told, by Little's law, or as many as are let in. [1]"""
    if benchmark.mean_concurrency is not None:
        return min(benchmark.mean_concurrency, most)
    latency = benchmark.latency.mean
    if latency is None and benchmark.ttft.mean is not None and benchmark.tpot.mean is not None:
        latency = benchmark.ttft.mean + benchmark.tpot.mean * (benchmark.output_tokens - 1.0)
    if latency is not None and benchmark.duration:
        return min(benchmark.requests * latency / benchmark.duration, most)
    return most
