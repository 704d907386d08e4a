"""One benchmark of a server: what was asked of it, and the times and tokens that came back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance.counts import AcceptanceCounts

__all__ = ["LONGEST_TEXT", "Benchmark", "Times"]


@dataclass(frozen=True, kw_only=True)
class Times:
    """Statistics over requests (over tokens for a time between tokens); None where they are not told. [s]"""

    mean: float | None = None
    median: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None

    @property
    def quantiles(self) -> dict[str, float]:
        """The quantiles that are told, by name, from the lowest to the highest. [s]"""
        values = {part: getattr(self, part) for part in _ABOVE}
        return {part: value for part, value in values.items() if value is not None}

    def why_impossible(self) -> str:
        """Return what of the statistics cannot be, an empty text where they can.

        Quantiles rise, and of times from 0 on a share of at most ``mean / x`` lies above x (Markov).
        """
        quantiles = self.quantiles
        for part, value in (("mean", self.mean), *quantiles.items()):
            if value is not None and value > _LONGEST:
                return f"the {part} is {value:g} s, above {_LONGEST:g} s"
        for (low, early), (high, late) in pairwise(quantiles.items()):
            if late < early:
                return f"the {high} is {late * 1e3:g} ms, below the {low} of {early * 1e3:g} ms"
        for part, value in quantiles.items():
            if self.mean is not None and value > 1.05 * self.mean / _ABOVE[part] + _PRINTED:
                return f"the {part} is {value * 1e3:g} ms beside a mean of {self.mean * 1e3:g} ms"
        return ""


_ABOVE = {"median": 0.5, "p90": 0.1, "p95": 0.05, "p99": 0.01}
"""Share of the requests above each quantile. [1]"""
_LONGEST = 1e6
"""Longest time that is believed: twelve days. Assumed. [s]"""
_PRINTED = 1e-3
"""What the last digit of a mean of milliseconds makes of its quantiles: 0.005 ms over 1 in 100. [s]"""
_SAME = 0.1
"""How far two figures of one run may lie apart: tools count the first and last request differently. [1]"""


LONGEST_TEXT = 1e8
"""Longest prompt or answer that is believed, on average. Assumed. [tokens]"""
_OVER_THE_RUN = ("vllm bench serve", "sglang.bench_serving")
"""Tools whose output throughput is all tokens over the duration."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A run of a benchmark tool against a server; what the tool does not say is None.

    Attributes
    ----------
    source : file, and the line or entry in it.
    tool : who printed it, such as ``vllm bench serve``.
    model : the model's name as the tool has it.
    requests : requests that were answered whole.
    failed : requests that were not.
    concurrency : requests in flight at most; None where requests arrive at `request_rate` alone.
    mean_concurrency : requests in flight on average over the run.
    request_rate : arrivals per second, infinite where all are sent as soon as `concurrency` allows. [1/s]
    burstiness : squared coefficient of variation of the gaps between arrivals; 1 is a Poisson process. [1]
    duration : wall time from the first request sent to the last answered. [s]
    prompt_tokens, output_tokens : mean lengths of an answered request. [tokens]
    prompt_lengths, output_lengths : the same request by request, shape ``[requests]``. [tokens]
    output_throughput : tokens put out per second of `duration`. [tokens/s]
    ttft : time to first token.
    tpot : time per output token after the first, a mean per request.
    itl : time between chunks of a stream; under speculation a chunk is a round of several tokens.
    latency : time from sending a request to its last token.
    drafts : what was drafted and accepted during the run.
    remarks : what the tool does not tell and what was taken instead.
    """

    source: str
    tool: str
    model: str = ""
    requests: int
    failed: int = 0
    concurrency: float | None = None
    mean_concurrency: float | None = None
    request_rate: float = np.inf
    burstiness: float = 1.0
    duration: float | None = None
    prompt_tokens: float
    output_tokens: float
    prompt_lengths: NDArray[np.int64] | None = None
    output_lengths: NDArray[np.int64] | None = None
    output_throughput: float | None = None
    ttft: Times = Times()
    tpot: Times = Times()
    itl: Times = Times()
    latency: Times = Times()
    drafts: AcceptanceCounts | None = None
    remarks: tuple[str, ...] = ()

    def why_impossible(self) -> tuple[str, str]:
        """Return the figure that cannot be, and why; two empty texts where all can."""
        for name in ("ttft", "tpot", "itl", "latency"):
            if problem := getattr(self, name).why_impossible():
                return name, problem
        for part in ("mean", "median"):
            first, last = getattr(self.ttft, part), getattr(self.latency, part)
            if first is not None and last is not None and first > last * (1.0 + _SAME) + _PRINTED:
                problem = f"the {part} is {first * 1e3:g} ms, where the last token takes {last * 1e3:g} ms"
                return "ttft", problem
        if self.duration is not None and not 0.0 < self.duration < 1e9:
            return "duration", f"found {self.duration:g} s"
        if not (self.requests >= 1 and self.failed >= 0):
            return "requests", f"found {self.requests} answered, {self.failed} failed"
        if not all(1.0 <= tokens <= LONGEST_TEXT for tokens in (self.prompt_tokens, self.output_tokens)):
            return "tokens", f"found {self.prompt_tokens:g} and {self.output_tokens:g} a request"
        for name, times in (("ttft", 1.0), ("latency", 1.0), ("tpot", self.output_tokens - 1.0)):
            mean = getattr(self, name).mean
            if self.duration and mean is not None and mean * times > self.duration * (1.0 + _SAME) + 1.0:
                return name, f"the mean makes requests of {mean * times:g} s in a run of {self.duration:g} s"
        if self.duration and self.output_throughput and self.tool in _OVER_THE_RUN:
            implied, stated = self.output_throughput * self.duration, self.requests * self.output_tokens
            if abs(implied - stated) > _SAME * max(implied, stated) + 1.0:
                return "output_throughput", f"makes {implied:.0f} tokens of the run, {stated:.0f} are told"
        return "", ""

    def names_another(self, model: str) -> bool:
        """Return whether it names another model: neither name holds the other, letters and digits alone."""
        asked, served = (_bare(name) for name in (model, self.model))
        return bool(served) and asked not in served and served not in asked

    @property
    def in_bundles(self) -> bool:
        """Whether chunks reached the client in bundles: most times between them are next to nothing."""
        between, tpot = self.itl.median, self.tpot.median or self.tpot.mean
        return between is not None and tpot is not None and between < tpot / 10.0


def _bare(model: str) -> str:
    """Return the letters and digits of a model's name, without the folder or organisation before it."""
    return re.sub(r"[^a-z0-9]", "", model.rstrip("/").rsplit("/", 1)[-1].lower())
