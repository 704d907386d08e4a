"""Where tokens go in a layer with experts: how many experts are read, and what the busiest GPU gets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.files.numbers import Numeric, repeated

__all__ = ["busiest_experts", "busiest_visits", "experts_held", "gpus_visited"]


def experts_held(experts: int, gpus: Numeric) -> NDArray[np.float64]:
    """Return the experts of the fullest of `gpus` GPUs that share them whole. [1]"""
    held: NDArray[np.float64] = np.ceil(experts / np.asarray(gpus, dtype=float))
    return held


def busiest_experts(experts: int, per_token: float, *, tokens: Numeric, gpus: Numeric = 1.0) -> Numeric:
    r"""Return the distinct experts that `tokens` visit on the busiest GPU, expected; arguments broadcast. [1]

    .. math::
        n (1 - q_1) + c_G \sqrt{n (q_1 - q_2)}

    with ``n = E / G`` experts on each of G GPUs, and the chances that all tokens miss one given expert,
    ``q_1 = (1 - k/E)^t``, and two given ones, ``q_2 = ((E-k)(E-k-1) / (E(E-1)))^t``.

    Parameters
    ----------
    experts, per_token : of the layer, E, and how many of them a token visits, k. [1]
    tokens : t, routed evenly and one by one. [tokens]
    gpus : G, that share the experts whole. [GPUs]

    Notes
    -----
    On one GPU it is the exact expectation ``E (1 - q_1)``. Mean and covariance are exact on several too;
    shares of a sum are exchangeable, so the largest of G lies ``c_G`` times the root of variance less
    covariance above the mean. Normal shares are the approximation.
    """
    tokens, gpus = np.asarray(tokens, dtype=float), np.asarray(gpus, dtype=float)
    missed = repeated(1.0 - per_token / experts, tokens)
    mean = experts * (1.0 - missed)
    if np.all(gpus <= 1.0):
        return mean
    both = repeated(_chance_of_missing_two(experts, per_token), tokens)
    held = experts_held(experts, gpus)
    mean = held * (1.0 - missed)
    largest = mean + _largest_normal(gpus) * np.sqrt(held * np.maximum(missed - both, 0.0))
    least = np.minimum(experts * (1.0 - missed), 1.0)  # some GPU has one wherever there is one
    busiest: Numeric = np.clip(largest, np.maximum(mean, least), np.minimum(held, tokens * per_token))
    return busiest


def busiest_visits(experts: int, per_token: float, *, tokens: Numeric, gpus: Numeric = 1.0) -> Numeric:
    r"""Return the visits of `tokens` to the experts of the busiest GPU, expected; as `busiest_experts`. [1]

    .. math::
        t k / G + c_G \sqrt{t n (k/E - k(k-1) / (E(E-1)))}
    """
    tokens, gpus = np.asarray(tokens, dtype=float), np.asarray(gpus, dtype=float)
    visits = tokens * per_token
    if np.all(gpus <= 1.0):
        return visits
    held = experts_held(experts, gpus)
    single = per_token / experts
    pair = single * max(per_token - 1.0, 0.0) / max(experts - 1.0, 1.0)
    largest = visits * held / experts + _largest_normal(gpus) * np.sqrt(tokens * held * (single - pair))
    busiest: Numeric = np.clip(largest, np.minimum(visits, 1.0), visits)
    return busiest


def gpus_visited(experts: int, per_token: float, gpus: Numeric) -> Numeric:
    """Return on how many of `gpus` GPUs a token's experts are, expected: copies of it that travel. [GPUs]

    Every GPU is missed where each of the k experts is among those of the others.
    """
    gpus = np.asarray(gpus, dtype=float)
    elsewhere = experts * (1.0 - 1.0 / gpus)
    drawn = np.arange(round(per_token))
    missed = np.prod(np.maximum(elsewhere[..., None] - drawn, 0.0) / (experts - drawn), axis=-1)
    visited: Numeric = gpus * (1.0 - missed)
    return visited


def _chance_of_missing_two(experts: int, per_token: float) -> float:
    """Return the chance that a token misses two given experts. [1]"""
    others = max(experts - per_token - 1.0, 0.0)
    return (experts - per_token) / experts * others / max(experts - 1.0, 1.0)


def _largest_normal(count: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the expected largest of `count` standard normal numbers (Blom 1958); 0 of one. [1]"""
    from scipy.special import ndtri

    largest: NDArray[np.float64] = ndtri((count - 0.375) / (count + 0.25))
    return largest
