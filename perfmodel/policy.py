"""A plan compiled for an engine's loop: (batch, context) -> speculation length in under a microsecond, learning online."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from perfmodel.errors import SpecError
from perfmodel.plan import Cell, Plan

PRIOR_ROUNDS = 200.0
"""Rounds that the plan's own acceptance counts for when it is learned online. [rounds]"""
HYSTERESIS = 0.02
"""A speculation length is kept while it costs at most this much more than the best one. [1]"""
STEP_MEMORY = 0.02
"""Weight of the newest step when step times are learned online. [1]"""


class Decision(NamedTuple):
    """What to do in the next round of a batch."""

    gamma: int
    kv_budget: int | None
    expected_speedup: float
    reason: str


class _Entry(NamedTuple):
    """One cell of the compiled table: a decision per gamma, which one is best, which ones are nearly as good."""

    best: int
    decisions: tuple[Decision, ...]
    good_enough: tuple[bool, ...]


class _Table(NamedTuple):
    """The compiled table; replaced whole, never changed."""

    rows: tuple[tuple[_Entry, ...], ...]
    batch_bounds: tuple[float, ...]
    context_bounds: tuple[float, ...]


@dataclass
class Clamped:
    """How often the loop asked for what the plan does not cover; the nearest cell answered."""

    batch: int = 0
    context: int = 0
    nonsense: int = 0


@dataclass
class SpeculationPolicy:
    """The decisions of one deployment: one drafter and draft KV budget, a speculation length per batch and context.

    `decide` is deterministic: ranks that were given the same numbers in the same order decide alike. It never
    raises. `observe` and `observe_step_time` only count; `refresh`, off the hot path, turns what was counted into a
    new table and swaps it in whole.
    """

    plan: Plan
    cells: tuple[tuple[Cell, ...], ...]
    batch_sizes: tuple[int, ...]
    context_lens: tuple[int, ...]
    hysteresis: float = HYSTERESIS
    clamped: Clamped = field(default_factory=Clamped)
    accepted: float = 0.0
    rejected: float = 0.0
    expected_log_odds: float = 0.0
    observed_rounds: float = 0.0
    step_bias: list[float] = field(default_factory=lambda: [0.0, 0.0])
    last_gamma_index: int = -1
    _table: _Table = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._table = self._compiled(0.0)

    @classmethod
    def load(cls, path: str | Path, *, hysteresis: float = HYSTERESIS) -> SpeculationPolicy:
        """Read a plan file and compile it.

        Raises
        ------
        SpecError
            When the file is not a plan, or its cells do not agree on one drafter and draft KV budget.
        """
        try:
            body = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as fault:
            raise SpecError.single(str(path), "file", f"cannot be read ({fault.strerror})", "check the path") from None
        except ValueError as fault:
            raise SpecError.single(str(path), "file", f"is not JSON ({fault})", "make it with draftplan plan") from None
        return cls.from_plan(Plan.from_dict(body, str(path)), hysteresis=hysteresis)

    @classmethod
    def from_plan(cls, plan: Plan, *, hysteresis: float = HYSTERESIS) -> SpeculationPolicy:
        """Compile a plan whose cells cover every pair of its batch sizes and contexts with one deployment."""
        deployments = {(cell.strategy, cell.draft_model, cell.kv_budget) for cell in plan.cells if cell.speculates}
        if len(deployments) > 1:
            raise SpecError.single(
                "plan",
                "cells",
                f"use {len(deployments)} different drafters or draft KV budgets; a running engine has one",
                "plan with --one-deployment, or name one --strategy, --draft-model and --draft-budget",
            )
        batches = tuple(sorted({cell.batch_size for cell in plan.cells}))
        contexts = tuple(sorted({cell.context_len for cell in plan.cells}))
        by_place = {(cell.batch_size, cell.context_len): cell for cell in plan.cells}
        cells = tuple(
            tuple(_nearest(by_place, batch, context, contexts) for context in contexts) for batch in batches
        )
        return cls(plan, cells, batches, contexts, hysteresis)

    def decide(
        self, n_decode: int, sum_context: int, max_context: int = 0, n_prefill_tokens: int = 0
    ) -> Decision:
        """Speculation length for a step that decodes `n_decode` sequences of `sum_context` tokens together.

        The batch is what decodes: prefill tokens that share the step do not change the answer, so a joining request
        does not flip it. `max_context` is accepted for engines that report nothing else. Never raises.
        """
        table = self._table
        if n_decode <= 0:
            self.clamped.nonsense += n_decode < 0
            return IDLE
        mean = sum_context / n_decode if sum_context > 0 else max_context
        row = table.rows[bisect_right(table.batch_bounds, n_decode)]
        entry = row[bisect_right(table.context_bounds, mean)]
        last = self.last_gamma_index
        if last >= 0 and entry.good_enough[last]:
            return entry.decisions[last]
        self.last_gamma_index = best = entry.best
        return entry.decisions[best]

    def decide_each(self, contexts: Sequence[int]) -> list[Decision]:
        """One decision per sequence of a batch, each for its own context length; for engines with ragged lengths."""
        table = self._table
        row = table.rows[bisect_right(table.batch_bounds, len(contexts))]
        entries = (row[bisect_right(table.context_bounds, context)] for context in contexts)
        return [entry.decisions[entry.best] for entry in entries]

    def observe(self, drafted: int, accepted: int, rounds: int = 1) -> None:
        """Count drafted and accepted tokens of `rounds` rounds; a round that accepted fewer rejected one more."""
        if drafted <= 0 or not 0 <= accepted <= drafted or rounds <= 0:
            self.clamped.nonsense += 1
            return
        self.accepted += accepted
        self.rejected += min(drafted - accepted, rounds)
        self.observed_rounds += rounds

    def observe_step_time(self, n_decode: int, sum_context: int, gamma: int, seconds: float) -> None:
        """Compare a measured step (plain decode, or a whole round) with what the plan expects of it. [s]"""
        if n_decode <= 0 or gamma not in self.plan.gammas or not 0.0 < seconds < 1e6:
            self.clamped.nonsense += 1
            return
        expected = self._cell(n_decode, sum_context / n_decode).round_by_gamma_s[self.plan.gammas.index(gamma)]
        kind = int(gamma > 0)
        self.step_bias[kind] += STEP_MEMORY * (math.log(seconds / expected) - self.step_bias[kind])

    def refresh(self) -> float:
        """Rebuild the table from everything observed and swap it in; returns the shift of acceptance. [logit]

        The plan's acceptance counts for `PRIOR_ROUNDS` rounds, so a few observations do not overthrow it.
        """
        alphas = [cell.alpha for row in self.cells for cell in row if cell.speculates and cell.alpha is not None]
        shift = 0.0
        if alphas and self.accepted + self.rejected > 0:
            prior = sum(alphas) / len(alphas)
            trials = PRIOR_ROUNDS / max(1.0 - prior, 0.05)
            learned = (prior * trials + self.accepted) / (trials + self.accepted + self.rejected)
            shift = _logit(learned) - _logit(prior)
        self._table = self._compiled(shift)
        return shift

    def _cell(self, n_decode: float, mean_context: float) -> Cell:
        row = bisect_right(self._table.batch_bounds, n_decode)
        return self.cells[row][bisect_right(self._table.context_bounds, mean_context)]

    def _compiled(self, shift: float) -> _Table:
        """The table at an acceptance moved by `shift` and at the learned step times."""
        slower = math.exp(self.step_bias[1] - self.step_bias[0])
        rows = tuple(tuple(self._entry(cell, shift, slower) for cell in row) for row in self.cells)
        return _Table(rows, _midpoints(self.batch_sizes), _midpoints(self.context_lens))

    def _entry(self, cell: Cell, shift: float, slower: float) -> _Entry:
        baseline = cell.round_by_gamma_s[0]
        decisions, speedups = [], []
        for gamma, seconds in zip(self.plan.gammas, cell.round_by_gamma_s, strict=True):
            tokens = expected_tokens(cell, gamma, shift)
            speedup = 1.0 if gamma == 0 else baseline * tokens / (seconds * slower)
            speedups.append(speedup)
            why = f"batch {cell.batch_size}, context {cell.context_len}: {speedup:.2f}x, bound by {cell.bound_by}"
            decisions.append(Decision(gamma, cell.kv_budget if gamma else None, speedup, why))
        best = max(range(len(speedups)), key=lambda index: (round(speedups[index], 9), -index))
        limit = speedups[best] / (1.0 + self.hysteresis)
        return _Entry(best, tuple(decisions), tuple(speedup >= limit for speedup in speedups))


IDLE = Decision(0, None, 1.0, "nothing decodes")


def expected_tokens(cell: Cell, gamma: int, shift: float = 0.0) -> float:
    """Tokens per round of a cell's drafter at `gamma`, acceptance moved by `shift` on the logit scale. [tokens]"""
    if gamma == 0 or cell.alpha is None:
        return 1.0
    first = _moved(cell.alpha_first if cell.alpha_first is not None else cell.alpha, shift)
    rest = _moved(cell.alpha, shift)
    total, reached = 1.0, first
    for _ in range(gamma):
        total += reached
        reached *= rest
    return total


def _moved(alpha: float, shift: float) -> float:
    return alpha if shift == 0.0 or not 0.0 < alpha < 1.0 else 1.0 / (1.0 + math.exp(-_logit(alpha) - shift))


def _logit(alpha: float) -> float:
    inside = min(max(alpha, 1e-9), 1.0 - 1e-9)
    return math.log(inside / (1.0 - inside))


def _midpoints(values: Sequence[int]) -> tuple[float, ...]:
    """Where the nearest of sorted values changes, on a logarithmic scale."""
    return tuple(math.sqrt(low * high) for low, high in zip(values, values[1:], strict=False))


def _nearest(cells: dict[tuple[int, int], Cell], batch: int, context: int, contexts: Sequence[int]) -> Cell:
    """The cell itself, or where it was infeasible the nearest context of the same batch."""
    if (batch, context) in cells:
        return cells[batch, context]
    known = [other for other in contexts if (batch, other) in cells]
    return cells[batch, min(known, key=lambda other: abs(math.log(other / context)))]
