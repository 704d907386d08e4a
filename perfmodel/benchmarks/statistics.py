"""Times, arrivals and lengths in the spelling that vLLM's and SGLang's benchmarks share."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from perfmodel.benchmarks.result import LONGEST_TEXT, Times
from perfmodel.errors import shown
from perfmodel.files.records import Record

__all__ = ["arrivals", "mean_in_flight", "milliseconds", "per_request"]


_PARTS = ("mean", "median", "p50", "p90", "p95", "p99")


def milliseconds(record: Record, name: str) -> Times:
    """Return the statistics ``mean_NAME_ms``, ``median_NAME_ms``, ``p99_NAME_ms`` and so on, in seconds."""
    values = {part: record.number(f"{part}_{name}_ms") for part in _PARTS}
    seconds = {part: None if value is None else value / 1e3 for part, value in values.items()}
    middle = seconds.pop("p50")
    return Times(**{**seconds, "median": middle if seconds["median"] is None else seconds["median"]})


def arrivals(record: Record) -> tuple[float, float]:
    """Return the request rate [1/s] and the squared coefficient of variation of the gaps between arrivals.

    ``burstiness`` is the shape k of a gamma law of the gaps, whose CV^2 is 1/k.
    """
    value = record.value("request_rate")
    if isinstance(value, str) and value.strip().lower() in ("inf", "infinity"):
        value = math.inf
    if value is None or value == math.inf:
        return math.inf, 1.0
    if isinstance(value, str):
        raise record.refusal("request_rate", f"found {shown(value)}", "Give a number or inf")
    rate = record.needed("request_rate")
    if not rate:
        raise record.refusal("request_rate", "found 0", "Give a rate above 0, or inf")
    shape = record.number("burstiness")
    if shape == 0.0:
        raise record.refusal("burstiness", "found 0", "Give the shape of the gamma law, above 0")
    return rate, 1.0 / (shape or 1.0)


def per_request(
    record: Record, inputs: str, outputs: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return prompt and output lengths of the answered requests, which put out a token; None if not told."""
    prompts, answers = record.numbers(inputs), record.numbers(outputs)
    if not prompts or not answers:
        return None
    if len(prompts) != len(answers):
        problem = f"{len(answers)} outputs beside {len(prompts)} inputs"
        raise record.refusal(outputs, problem, "Give the file as the tool wrote it")
    if max(*prompts, *answers) > LONGEST_TEXT:
        raise record.refusal(inputs, f"found more than {LONGEST_TEXT:g}", "Give tokens, request by request")
    lengths = np.array([prompts, answers], dtype=np.int64)
    prompt, output = lengths[:, lengths[1] > 0]
    return prompt, output


def mean_in_flight(
    record: Record, requests: float, duration: float | None, latency: float | None
) -> float | None:
    """Return requests in flight on average: time spent by all requests over the duration (Little's law)."""
    if not duration:
        return None
    if latency is not None:
        return requests * latency / duration
    first, gaps = record.numbers("ttfts"), record.value("itls")
    if not first or not isinstance(gaps, list) or len(gaps) != len(first):
        return None
    listed = [gap for part in gaps if isinstance(part, list) for gap in part]
    if not all(type(gap) in (int, float) and 0 <= gap < 1e18 for gap in listed):
        raise record.refusal("itls", "holds what is no time", "Give the file as the tool wrote it")
    later = sum(sum(part) for part in gaps if isinstance(part, list))
    return (sum(first) + later) / duration
