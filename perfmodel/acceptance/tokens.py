"""Expected tokens of one draft-verify round, the bonus token included.

Every function broadcasts its arguments. ``alpha`` is P(a drafted token is accepted, given that all before it
were); ``survival`` at position ``k`` is P(the first ``k`` drafted tokens are all accepted).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numeric = float | NDArray[np.float64]

_TINY = 1e-300


def power_sum(alpha: Numeric, terms: Numeric) -> Numeric:
    """Return ``1 + alpha + ... + alpha**(terms - 1)``, exact at ``alpha = 0`` and ``alpha = 1``."""
    rejected = np.subtract(1.0, alpha)
    certain = rejected == 0.0
    power = np.expm1(np.multiply(terms, np.log(np.maximum(alpha, _TINY))))
    return np.where(certain, terms, -power / np.where(certain, 1.0, rejected))[()]


def tokens_per_round(alpha: Numeric, gamma: Numeric) -> Numeric:
    """Return the expected tokens of a round in which every draft is accepted with the same probability.

    ``(1 - alpha**(gamma + 1)) / (1 - alpha)``: from exactly 1 at ``gamma = 0`` to exactly ``gamma + 1`` at
    ``alpha = 1``. Source: Leviathan et al., arXiv 2211.17192, equation 1.

    Parameters
    ----------
    alpha : acceptance rate [0..1]. gamma : speculation length [tokens], 0 or more.
    """
    return 1.0 + np.multiply(alpha, power_sum(alpha, gamma))


def tokens_from_first_rest(first: Numeric, rest: Numeric, gamma: Numeric) -> Numeric:
    """Return the expected tokens of a round whose first draft is accepted apart from the rest.

    ``1 + first (1 - rest**gamma) / (1 - rest)``; equal to ``tokens_per_round`` where the two rates are equal.

    Parameters
    ----------
    first, rest : acceptance rates [0..1]. gamma : speculation length [tokens], 0 or more.
    """
    return 1.0 + np.multiply(first, power_sum(rest, gamma))


def survival(first: Numeric, rest: Numeric, gamma: int) -> NDArray[np.float64]:
    """Return P(the first k drafts are all accepted), ``first rest**(k - 1)``, last axis k = 1 .. gamma."""
    depth = np.arange(gamma, dtype=np.float64)
    return np.asarray(first)[..., None] * np.asarray(rest, dtype=np.float64)[..., None] ** depth


def tokens_from_survival(survival: NDArray[np.float64], gamma: Numeric | None = None) -> Numeric:
    """Return the expected tokens of a round, ``1 + S_1 + ... + S_gamma``.

    Parameters
    ----------
    survival : S_k on the last axis, k = 1 .. K. gamma : at most K; all of them where None. Broadcasts with
        the rest.
    """
    reached = np.asarray(survival, dtype=np.float64)
    if gamma is None:
        gamma = float(reached.shape[-1])
    position = np.arange(1, reached.shape[-1] + 1)
    tokens: Numeric = 1.0 + np.where(position <= np.asarray(gamma)[..., None], reached, 0.0).sum(axis=-1)
    return tokens


def beta_shape(mean: Numeric, sd: Numeric) -> tuple[Numeric, Numeric]:
    """Return (p, q) of the Beta distribution with this ``mean`` and ``sd``; ``sd**2 < mean (1 - mean)``."""
    strength = np.multiply(mean, np.subtract(1.0, mean)) / np.maximum(np.square(sd), 1e-12) - 1.0
    return np.multiply(mean, strength), np.subtract(1.0, mean) * strength


def tokens_from_beta(mean: Numeric, sd: Numeric, gamma: Numeric) -> Numeric:
    """Return the expected tokens of a round when the rate varies between rounds as a Beta.

    ``S_k = prod_{i < k} (p + i) / (p + q + i)``: the tail is fatter than one rate's, so more tokens come than
    ``mean`` gives.

    Parameters
    ----------
    mean, sd : of the acceptance rate over rounds. gamma : speculation length [tokens].
    """
    p, q = beta_shape(mean, sd)
    total: NDArray[np.float64]
    total = reached = np.ones(np.broadcast_shapes(np.shape(p), np.shape(gamma)))
    for depth in range(int(np.max(gamma))):
        reached = reached * (p + depth) / (p + q + depth)
        total = total + np.where(np.less(depth, gamma), reached, 0.0)
    return total[()]


def tokens_from_requests(mean: Numeric, sd: Numeric, gamma: Numeric) -> Numeric:
    """Return tokens over rounds of many requests of equal output length whose rates spread as a Beta.

    The harmonic mean of ``tokens_per_round`` over requests: slow requests run more rounds. Lower than
    ``mean`` gives.

    Parameters
    ----------
    mean, sd : of the acceptance rate over requests. gamma : speculation length [tokens].
    """
    p, q = (np.asarray(shape, dtype=np.float64)[..., None] for shape in beta_shape(mean, sd))
    step = np.linspace(-3.6, 3.6, 161)
    width = np.sqrt(1.0 / p + 1.0 / q + 1.0 / p**2 + 1.0 / q**2)
    logit = np.log(p / q) + width * np.sinh(step)
    accepted, rejected = -np.logaddexp(0.0, -logit), -np.logaddexp(0.0, logit)
    density = p * accepted + q * rejected
    weight = np.exp(density - density.max(axis=-1, keepdims=True)) * np.cosh(step)
    tokens = tokens_per_round(np.exp(accepted), np.asarray(gamma, dtype=np.float64)[..., None])
    harmonic: Numeric = (weight.sum(axis=-1) / (weight / tokens).sum(axis=-1))[()]
    return harmonic


def tokens_from_tree(
    rank_acceptance: NDArray[np.float64], parents: Sequence[int], ranks: Sequence[int]
) -> Numeric:
    """Return the expected tokens of a round that verifies a tree of drafts; a chain has one rank.

    ``1 + sum over nodes of the product of the rank acceptances on the path to it``. Source: Sequoia, arXiv
    2402.12374.

    Parameters
    ----------
    rank_acceptance : P(the child of rank r is the accepted one, given that its parent was accepted), last two
        axes depth and rank; over ranks it sums to at most 1.
    parents : parent of every node, -1 for the root; a parent comes before its children.
    ranks : rank of every node among its siblings, 0 the most likely.
    """
    table = np.asarray(rank_acceptance, dtype=np.float64)
    depths: list[int] = []
    paths: list[NDArray[np.float64]] = []
    for parent, rank in zip(parents, ranks, strict=True):
        depth = 0 if parent < 0 else depths[parent] + 1
        here = table[..., depth, rank]
        depths.append(depth)
        paths.append(here if parent < 0 else here * paths[parent])
    total = np.ones(table.shape[:-2])
    for path in paths:
        total = total + path
    return total[()]


def confidence_stop(alpha: Numeric, kept_share: Numeric, gamma: Numeric) -> tuple[Numeric, Numeric]:
    """Return (tokens of a round, draft passes of a round) when a draft stops at its first unconfident token.

    The unconfident token is not verified, its pass was run. With every token confident (share 1) the tokens
    are those of ``tokens_per_round`` and the passes ``gamma``.

    Parameters
    ----------
    alpha : acceptance rate of the tokens that stay above the threshold [0..1].
    kept_share : P(a token stays above it, given that all before it did) [0..1]. gamma : longest draft
        [tokens].
    """
    return tokens_per_round(np.multiply(alpha, kept_share), gamma), power_sum(kept_share, gamma)


def rounds_for_output(output_len: Numeric, first: Numeric, rest: Numeric, gamma: Numeric) -> Numeric:
    """Return the expected rounds until ``output_len`` tokens are out, the last one's overshoot included.

    ``N / tokens + E[X (X - 1)] / (2 tokens**2)`` for tokens per round X: the renewal limit, good from ``N``
    of a few rounds; at gamma 0 it is exactly N. At rate .8 the last round wastes .41 rounds with gamma 3 and
    .57 with gamma 7.

    Parameters
    ----------
    output_len : tokens to produce by rounds, the prompt's own first token not among them. first, rest, gamma
        : as above.
    """
    tokens = tokens_from_first_rest(first, rest, gamma)
    reached = np.multiply(first, np.ones_like(tokens))
    pairs = np.zeros_like(reached)
    for position in range(1, int(np.max(gamma)) + 1):
        pairs = pairs + np.where(np.less_equal(position, gamma), position * reached, 0.0)
        reached = reached * rest
    rounds: Numeric = np.divide(output_len, tokens) + pairs / np.square(tokens)
    return rounds
