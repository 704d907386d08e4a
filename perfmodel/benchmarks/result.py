"""One benchmark of a server: what was asked of it, and the times and tokens that came back."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance.counts import AcceptanceCounts

__all__ = ["Benchmark", "Times"]


@dataclass(frozen=True, kw_only=True)
class Times:
    """Statistics over requests (over tokens for a time between tokens); None where they are not told. [s]"""

    mean: float | None = None
    median: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None


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
