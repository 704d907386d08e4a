"""The speculation length of steps that prefill chunks join, where the weights are read anyway."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Literal, Protocol

import numpy as np

from perfmodel.planning.near_tie import shortest_near_best
from perfmodel.planning.plan import Cell, Plan
from perfmodel.planning.schedule import midpoints, nearest_cells, speedups, tokens_by_gamma

__all__ = ["FAVOURS", "Favour", "MixedSteps", "StepCosts"]

Favour = Literal["tokens", "alone"]
FAVOURS: tuple[Favour, ...] = ("tokens", "alone")
"""What the length of a step with prefill is chosen for: most tokens served, or as in a step without."""


class StepCosts(Protocol):
    """What rounds of (batch, mean context, gamma) add to a step that prefill chunks fill. [s]"""

    def added(self, batch: int, mean_context: float, gamma: int, mean_generated: float = 0.0) -> float: ...


class MixedSteps:
    r"""The lengths of one plan for steps whose rows a prefill fills up.

    What counts there is what a token *adds*, :math:`\Delta(b, \gamma) / (b\,k(\gamma))`, and at which batch.
    While prompts come in, the batch grows until as many tokens leave as prompts bring in, so lengths are
    compared at the same number of tokens per step, ``b k``, not at the same batch: short drafts meet a larger
    batch. At the same batch, long drafts would win by keeping the batch small. This serves most and keeps
    prompts waiting least; sequences that decode wait longer than with the lengths of a step without prefill.

    Parameters
    ----------
    gammas : lengths to choose from, the first of the plan's. [tokens]
    shift : by how much acceptance has moved since the plan was made. [logit]
    """

    def __init__(self, plan: Plan, gammas: tuple[int, ...], costs: StepCosts, *, shift: float = 0.0) -> None:
        self._gammas, self._costs, self._shift = gammas, costs, shift
        batches, contexts, self._cells = nearest_cells(plan)
        self._half_way = plan.half_way
        self._batch_bounds = midpoints(batches)
        self._context_bounds = midpoints([context + plan.half_way for context in contexts])
        self._found: dict[tuple[int, int], int] = {}

    def length(self, n_decode: int, mean_context: float) -> int:
        """Tokens to draft for so many sequences of that mean context. [tokens]"""
        place = bisect_right(self._batch_bounds, n_decode), bisect_right(self._context_bounds, mean_context)
        if place not in self._found:
            cell = self._cells[place[0]][place[1]]
            self._found[place] = _length(cell, self._gammas, self._costs, self._shift, self._half_way)
        return self._found[place]


def _length(
    cell: Cell, gammas: tuple[int, ...], costs: StepCosts, shift: float, generated: float
) -> int:
    tokens = tokens_by_gamma(cell, gammas, shift)
    gains = speedups(cell, gammas, shift)
    alone = int(shortest_near_best(np.array([1.0 / gain if gain else math.inf for gain in gains])))
    per_step = cell.batch_size * tokens[alone]

    def cost(index: int) -> float:
        batch = max(1, round(per_step / tokens[index]))
        context = cell.context_len + generated
        return costs.added(batch, context, gammas[index], generated) / (batch * tokens[index])

    return gammas[int(shortest_near_best(np.array([cost(index) for index in range(len(gammas))])))]
