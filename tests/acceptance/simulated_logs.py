"""Logs of requests whose acceptance is known: accepted tokens, their counts, and a CSV."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance.counts import AcceptanceCounts, counts_of_rounds


def beta_shape(mean: float, sd: float) -> tuple[float, float]:
    """The two parameters of the Beta distribution with this mean and standard deviation."""
    strength = mean * (1.0 - mean) / sd**2 - 1.0
    return mean * strength, (1.0 - mean) * strength


def accepted_per_round(
    seed: int, requests: int, rounds: int, gamma: int, mean: float = 0.8, sd: float = 0.1, **odd: float
) -> NDArray[np.int64]:
    """Accepted tokens, shape (requests, rounds), of requests whose rates are Beta distributed."""
    draw = np.random.default_rng(seed)
    rates = draw.beta(*beta_shape(mean, sd), requests) if sd else np.full(requests, mean)
    chance = np.broadcast_to(rates[:, None, None], (requests, rounds, gamma)).copy()
    chance += odd.get("drift", 0.0) * np.linspace(-1.0, 1.0, requests)[:, None, None]
    chance += odd.get("along", 0.0) * np.linspace(-1.0, 1.0, rounds)[:, None]
    if "first" in odd:
        chance[..., 0] = odd["first"]
    return np.asarray(np.cumprod(draw.random(chance.shape) < chance, axis=-1).sum(axis=-1))


def counted(accepted: NDArray[Any], gamma: int) -> AcceptanceCounts:
    names = np.repeat(np.arange(accepted.shape[0]), accepted.shape[1]).astype(str).tolist()
    return counts_of_rounds(names, np.full(accepted.size, float(gamma)), accepted.ravel().astype(float))


def rounds_csv(
    seed: int = 1, requests: int = 40, rounds: int = 50, gamma: int = 4, mean: float = 0.8, sd: float = 0.08,
    first: float | None = None,
) -> str:  # fmt: skip
    """A log of requests whose rates are Beta distributed; `first` is a rate of the first draft alone."""
    random = np.random.default_rng(seed)
    lines = ["request,round,drafted,accepted"]
    for request, rate in enumerate(random.beta(*beta_shape(mean, sd), requests)):
        chances = np.full(gamma, rate)
        chances[0] = rate if first is None else first
        kept = np.cumprod(random.random((rounds, gamma)) < chances, axis=1).sum(axis=1)
        lines += [f"r{request},{number},{gamma},{count}" for number, count in enumerate(kept)]
    return "\n".join(lines) + "\n"
