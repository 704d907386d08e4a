"""Requests drawn at random: Poisson or bursty arrivals, log-normal lengths, the same for the same seed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import Fault, SpecError, nearest_name
from perfmodel.files.units import parse_count, parse_quantity
from perfmodel.traffic.trace import MOST_REQUESTS, MOST_TOKENS, Trace

__all__ = ["parse_synthetic", "synthetic_trace"]

_PLACE = "synthetic trace"
_EVEN = 1e-9
_KEYS = {
    "qps": "qps", "prompt": "prompt_tokens", "output": "output_tokens", "requests": "requests",
    "burst": "burstiness", "spread": "spread", "seed": "seed",
}  # fmt: skip
_COUNTS = ("prompt", "output", "requests", "seed")


def synthetic_trace(
    *,
    requests: int,
    qps: float,
    prompt_tokens: float,
    output_tokens: float,
    spread: float = 0.5,
    burstiness: float = 1.0,
    seed: int = 0,
) -> Trace:
    """Draw requests with log-normal lengths and gamma-distributed gaps between arrivals.

    Parameters
    ----------
    requests : how many; 1 to 10 million. The first arrives at 0.
    qps : mean arrivals per second; infinite puts all requests at time 0. [1/s]
    prompt_tokens, output_tokens : means, from 1 to 10 million. [tokens]
    spread : standard deviation of the logarithm of both lengths; 0 makes all equal. [1]
    burstiness : squared coefficient of variation of the gaps; 1 is a Poisson process, 0 is evenly spaced. [1]

    Raises
    ------
    SpecError
        Naming every argument that is out of range.
    """
    checks = {
        "requests": 1 <= requests <= MOST_REQUESTS,
        "qps": qps > 0,
        "prompt_tokens": 1 <= prompt_tokens <= MOST_TOKENS / 10,
        "output_tokens": 1 <= output_tokens <= MOST_TOKENS / 10,
        "spread": 0 <= spread <= 5,
        "burstiness": 0 <= burstiness <= 1e4,
        "seed": seed >= 0,
    }
    if not all(checks.values()):
        raise SpecError(
            Fault(_PLACE, None, name, f"found {value!r}, which is out of range", _RANGE[name])
            for name, value in {
                "requests": requests, "qps": qps, "prompt_tokens": prompt_tokens,
                "output_tokens": output_tokens, "spread": spread, "burstiness": burstiness, "seed": seed,
            }.items()
            if not checks[name]
        )  # fmt: skip
    random = np.random.default_rng(seed)
    gaps = np.ones(requests)
    if burstiness > _EVEN:
        gaps = random.gamma(1.0 / burstiness, burstiness, requests)
    arrival = np.zeros(requests) if math.isinf(qps) else (np.cumsum(gaps) - gaps[0]) / qps

    def lengths(mean: float) -> NDArray[np.int64]:
        drawn = random.lognormal(math.log(mean) - spread**2 / 2.0, spread, requests)
        return np.clip(np.rint(drawn), 1, MOST_TOKENS).astype(np.int64)

    name = "drawn requests, all at once" if math.isinf(qps) else f"drawn requests, {qps:g} a second"
    return Trace(name, arrival, lengths(prompt_tokens), lengths(output_tokens))


_REMEDY = {"qps": "Write qps=..., or give --concurrency N: a closed loop needs none"}
_LENGTH = f"Give a mean from 1 to {MOST_TOKENS // 10} tokens"
_RANGE = {
    "requests": f"Give 1 to {MOST_REQUESTS}",
    "qps": "Give requests per second above 0; inf: all at once",
    "prompt_tokens": _LENGTH,
    "output_tokens": _LENGTH,
    "spread": "Give 0 (all equal) to 5",
    "burstiness": "Give 0 (evenly spaced), 1 (Poisson), or more for bursts",
    "seed": "Give a whole number from 0",
}


def parse_synthetic(text: str, *, closed: bool = False, requests: int | None = None) -> Trace:
    """Return the trace that a text such as ``qps=2,prompt=32k,output=500,requests=400,burst=4`` describes.

    Further keys are ``spread`` and ``seed``; all but ``qps``, ``prompt`` and ``output`` may be left out.

    Parameters
    ----------
    text : what describes it.
    closed : whether a closed loop sends the requests: without ``qps`` all are there from the beginning.
    requests : how many, in place of the text's.

    Raises
    ------
    SpecError
        Naming every key that is unknown, missing or has a value that cannot be.
    """
    faults: list[Fault] = []
    named: set[str] = set()
    given: dict[str, float] = {"requests": 400} | ({"qps": math.inf} if closed else {})
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in _KEYS:
            known = f"Known: {', '.join(_KEYS)}"
            nearest = nearest_name(key, _KEYS)
            faults.append(Fault(_PLACE, None, key, "there is no such key", known, nearest))
            continue
        named.add(key)
        try:
            infinite = key == "qps" and value.lower() in ("inf", "infinite")
            given[_KEYS[key]] = math.inf if infinite else _value(key, value)
        except SpecError as refusal:
            faults += refusal.located(_PLACE, None, key).faults
    missing = [key for key in ("qps", "prompt", "output") if key not in named and _KEYS[key] not in given]
    write = {key: f"Write {key}=..." for key in missing} | _REMEDY
    faults += [Fault(_PLACE, None, key, "is missing", write[key]) for key in missing]
    if faults:
        raise SpecError(faults)
    if requests is not None:
        given["requests"] = requests
    return synthetic_trace(**given)  # type: ignore[arg-type]


def _value(key: str, text: str) -> float:
    return parse_count(text) if key in _COUNTS else parse_quantity(text, "count")
