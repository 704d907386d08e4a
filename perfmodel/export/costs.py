"""Verification times of a plan as the cost tables that engines read: by tokens, or by batch and tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import strategies
from perfmodel.errors import SpecError
from perfmodel.planning.plan import Cell, Plan

__all__ = [
    "AdditiveCosts", "additive_costs", "flat_costs", "verification_points", "verified_tokens",
    "verify_seconds",
]  # fmt: skip

MOST_PROBES = 12
"""Token counts of a table at most: engines interpolate between them. [1]"""


@dataclass(frozen=True)
class AdditiveCosts:
    """``T(batch, tokens) = bias + alpha(batch) + theta(tokens)``, piecewise linear, both rising from 0. [s]

    `error` is the largest relative error against the plan's own times. [1]
    """

    bias_s: float
    batches: tuple[int, ...]
    alpha_s: tuple[float, ...]
    tokens: tuple[int, ...]
    theta_s: tuple[float, ...]
    error: float


def verification_points(
    plan: Plan, contexts: tuple[int, int] | None = None
) -> tuple[int, list[tuple[int, int, float]]]:
    """Return a planned context and (batch, verified tokens, seconds) of every priced round there.

    The bonus token is verified too. Where a cell does not speculate, plain decoding is the one point. [s]

    Parameters
    ----------
    contexts : the longest planned one between these two is taken; the planned median where absent. [tokens]

    Raises
    ------
    SpecError
        When no planned context lies between.
    """
    planned = sorted({cell.context_len for cell in plan.cells})
    low, high = contexts or (planned[(len(planned) - 1) // 2],) * 2
    inside = [context for context in planned if low <= context <= high]
    if not inside:
        raise SpecError.single(
            "request", "--context", f"context {low} is not planned", f"planned are {planned}"
        )
    points = []
    for cell in plan.cells:
        if cell.context_len == inside[-1]:
            points.append((cell.batch_size, cell.batch_size, cell.baseline_s))
            points += [
                (cell.batch_size, round(cell.batch_size * verified_tokens(cell, gamma)), seconds)
                for gamma, seconds in verify_seconds(cell, plan.gammas).items()
            ]
    return inside[-1], sorted(points)


def verified_tokens(cell: Cell, gamma: int) -> float:
    """Return the tokens of a sequence in the mean pass of a round of so many steps, its own one too. [tokens]

    Only rounds that find drafts, the match share of all, verify some: the pass of a plan is the mean.
    """
    drafts = gamma if cell.tree is None else float(cell.tree.verified(gamma))
    return 1.0 + (1.0 if cell.match_share is None else cell.match_share) * drafts


def verify_seconds(cell: Cell, gammas: tuple[int, ...]) -> dict[int, float]:
    """Return the seconds of the target's pass by drafted tokens; empty where the cell does not speculate. [s]

    A plan keeps whole rounds: the cell's own draft passes and overhead are taken off. Heads that draft all
    tokens at once and lookups draft once a round, others once a token.
    """
    if not cell.speculates:
        return {}
    strategy = strategies.load(cell.strategy) if cell.strategy in strategies.available() else None
    at_once = strategy is not None and (strategy.head.parallel or strategy.drafters == ("none",))
    once, a_pass = (cell.draft_s, 0.0) if at_once else (0.0, cell.draft_s / cell.gamma)
    overhead = max(cell.round_s - cell.draft_s - cell.verify_s, 0.0)
    return {
        gamma: max(round_s - once - gamma * a_pass - overhead, cell.baseline_s)
        for gamma, round_s in zip(gammas, cell.round_by_gamma_s, strict=True)
        if gamma > 0
    }


def flat_costs(points: list[tuple[int, int, float]]) -> list[tuple[int, float]]:
    """Rising token counts and the time of the slowest pass of at most that many tokens. [tokens], [s]"""
    slowest: dict[int, float] = {}
    for _, tokens, seconds in points:
        slowest[tokens] = max(seconds, slowest.get(tokens, 0.0))
    table, worst = [], 0.0
    for tokens in sorted(slowest):
        worst = max(worst, slowest[tokens])
        table.append((tokens, worst))
    return _thinned(table)


def additive_costs(points: list[tuple[int, int, float]]) -> AdditiveCosts:
    """The non-negative least-squares fit of both tables, relative errors weighed alike.

    Raises
    ------
    SpecError
        With fewer than two batch sizes or without any speculated round: the two tables cannot be told apart.
    """
    from scipy.optimize import nnls

    batches = sorted({batch for batch, _, _ in points})
    if len(batches) < 2 or all(batch == tokens for batch, tokens, _ in points):
        raise SpecError.single(
            "plan", "cells", "hold too few batch sizes that speculate",
            "plan at least two batch sizes: a cost by batch and one by tokens cannot be told apart otherwise",
        )  # fmt: skip
    tokens = [count for count, _ in _thinned([(m, 0.0) for m in sorted({m for _, m, _ in points})])]
    seconds = np.asarray([time for _, _, time in points])
    design = np.concatenate(
        [
            np.ones((len(points), 1)),
            _hinges(np.asarray([batch for batch, _, _ in points]), batches),
            _hinges(np.asarray([count for _, count, _ in points]), tokens),
        ],
        axis=1,
    )
    steps, _ = nnls(design / seconds[:, None], np.ones(len(points)))
    error = float(np.max(np.abs(design @ steps / seconds - 1.0)))
    alpha = np.concatenate([[0.0], np.cumsum(steps[1 : len(batches)])])
    theta = np.concatenate([[0.0], np.cumsum(steps[len(batches) :])])
    bias = max(float(steps[0]), 1e-9)
    return AdditiveCosts(
        bias, tuple(batches), tuple(alpha.tolist()), tuple(tokens), tuple(theta.tolist()), error
    )


def _hinges(values: NDArray[np.int64], knots: list[int]) -> NDArray[np.float64]:
    """Share of each interval between neighbouring knots below a value: columns of a rising broken line."""
    low, high = np.asarray(knots[:-1], dtype=float), np.asarray(knots[1:], dtype=float)
    share: NDArray[np.float64] = np.clip((values[:, None] - low) / (high - low), 0.0, 1.0)
    return share


def _thinned(table: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most `MOST_PROBES` rows, first and last among them, evenly spread on a logarithmic scale."""
    if len(table) <= MOST_PROBES:
        return table
    logs = np.log([tokens for tokens, _ in table])
    wanted = np.linspace(logs[0], logs[-1], MOST_PROBES)
    return [table[index] for index in sorted({int(np.argmin(np.abs(logs - at))) for at in wanted})]
