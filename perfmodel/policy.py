"""A plan compiled for an engine's loop: (batch, context) -> speculation length in under a microsecond."""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from perfmodel.acceptance.online import Learner
from perfmodel.errors import SpecError
from perfmodel.planning.near_tie import shortest_near_best
from perfmodel.planning.plan import Cell, Plan, read_plan
from perfmodel.planning.schedule import midpoints, nearest_cells, planned_drafter, speedups

__all__ = ["Clamped", "Decision", "SpeculationPolicy"]

HYSTERESIS = 0.02
"""A speculation length is kept while it costs at most this much more than the best one. [1]"""


class Decision(NamedTuple):
    """What to do in the next round of a batch."""

    gamma: int
    kv_budget: int | None
    expected_speedup: float
    reason: str


class _Entry(NamedTuple):
    """One cell of the compiled table: the best gamma, and the decisions of those that are nearly as good."""

    best: int
    decisions: tuple[Decision | None, ...]


class _Table(NamedTuple):
    """The compiled table; replaced whole, never changed."""

    rows: tuple[tuple[_Entry, ...], ...]
    batch_bounds: tuple[float, ...]
    context_bounds: tuple[float, ...]
    most_batch: float
    most_context: float


@dataclass
class Clamped:
    """How often the loop asked for what the plan does not cover; the nearest cell answered."""

    batch: int = 0
    context: int = 0
    nonsense: int = 0


IDLE = Decision(0, None, 1.0, "nothing decodes")


@dataclass
class SpeculationPolicy:
    """The decisions of one deployment: one drafter and draft KV budget, a speculation length per batch and
    context.

    `decide` is deterministic: ranks that were given the same numbers in the same order decide alike. It never
    raises. `observe` and `observe_step_time` only count; `refresh`, off the hot path, turns what was counted
    into a new table and swaps it in whole, so it may run in a thread of its own. Ranks that must agree must
    either not refresh or refresh at the same step with the same counts. It pickles.
    """

    plan: Plan
    cells: tuple[tuple[Cell, ...], ...]
    batch_sizes: tuple[int, ...]
    context_lens: tuple[int, ...]
    hysteresis: float = HYSTERESIS
    clamped: Clamped = field(default_factory=Clamped)
    shift: float = 0.0
    last_gamma_index: int = -1
    learned: Learner = field(default_factory=Learner, repr=False)
    _table: _Table = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._table = self._compiled()

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, hysteresis: float = HYSTERESIS) -> SpeculationPolicy:
        """Read a plan file and compile it.

        Raises
        ------
        SpecError
            When the file is not a plan, or its cells do not agree on one drafter and draft KV budget.
        """
        return cls.from_plan(read_plan(path), hysteresis=hysteresis)

    @classmethod
    def from_plan(cls, plan: Plan, *, hysteresis: float = HYSTERESIS) -> SpeculationPolicy:
        """Compile a plan whose cells agree on one deployment; a batch lacks no context that another has."""
        if not 0.0 <= hysteresis < 1.0:
            raise SpecError.single(
                "request", "hysteresis", f"found {hysteresis!r}", "give a share from 0 to 1"
            )
        plan.check()
        planned_drafter(plan)
        batches, contexts, cells = nearest_cells(plan)
        return cls(plan, cells, batches, contexts, hysteresis)

    @property
    def max_gamma(self) -> int:
        """The longest speculation length that `decide` can return: what buffers must hold. [tokens]"""
        return max(
            (
                decision.gamma
                for row in self._table.rows
                for entry in row
                for decision in entry.decisions
                if decision
            ),
            default=0,
        )

    @property
    def kv_budget(self) -> int | None:
        """The draft KV budget of the deployment; None where it has none. [tokens]"""
        return planned_drafter(self.plan).kv_budget

    def decide(
        self,
        n_decode: int,
        sum_context: int,
        max_context: int = 0,
        n_prefill_tokens: int = 0,  # noqa: ARG002
    ) -> Decision:
        """Speculation length for a step that decodes `n_decode` sequences of `sum_context` tokens together.

        The batch is what decodes: prefill tokens that share the step do not change the answer, so a joining
        request does not flip it. `max_context` stands in for engines that report no sum. What the plan does
        not cover is counted in `clamped` and answered by the nearest cell. Never raises.
        """
        table = self._table
        try:
            if n_decode <= 0:
                self.clamped.nonsense += n_decode < 0
                return IDLE
            mean = sum_context / n_decode if sum_context > 0 else max_context
            if n_decode > table.most_batch:
                self.clamped.batch += 1
            if mean > table.most_context:
                self.clamped.context += 1
            entry = table.rows[bisect_right(table.batch_bounds, n_decode)][
                bisect_right(table.context_bounds, mean)
            ]
        except (TypeError, ValueError, ArithmeticError, IndexError):
            self.clamped.nonsense += 1
            return IDLE
        last = self.last_gamma_index
        if last >= 0:
            kept = entry.decisions[last]
            if kept is not None:
                return kept
        self.last_gamma_index = best = entry.best
        return entry.decisions[best] or IDLE

    def decide_each(self, contexts: Sequence[int]) -> list[Decision]:
        """Speculation length of every sequence of a batch by its own context, where lengths may differ.

        It has no hysteresis, because sequences come and go. Never raises.
        """
        table, batch, decisions = self._table, len(contexts), []
        row = table.rows[bisect_right(table.batch_bounds, batch)]
        self.clamped.batch += batch > table.most_batch
        for context in contexts:
            try:
                entry = row[bisect_right(table.context_bounds, context)]
                self.clamped.context += context > table.most_context
            except TypeError:
                self.clamped.nonsense += 1
                decisions.append(IDLE)
                continue
            decisions.append(entry.decisions[entry.best] or IDLE)
        return decisions

    def observe(
        self, drafted: int, accepted: int, rounds: int = 1, n_decode: int = 1, sum_context: int = 0
    ) -> None:
        """Count the drafted and accepted tokens of `rounds` rounds (one a sequence and step). Never raises.

        `n_decode` and `sum_context` say where: acceptance is compared with the plan's at the same place.
        """
        try:
            gamma = round(drafted / rounds)
            if rounds <= 0 or not 0 < accepted + 1 <= drafted + 1 or not 0 < gamma <= 1024:
                raise ValueError(gamma)
            row, column = self._place(
                n_decode, sum_context / n_decode if sum_context > 0 else self.context_lens[0]
            )
            self.learned.count((row, column, gamma), rounds, accepted)
        except (TypeError, ValueError, ArithmeticError, IndexError):
            self.clamped.nonsense += 1

    def observe_step_time(self, n_decode: int, sum_context: int, gamma: int, seconds: float) -> None:
        """Compare a measured step (plain decode, or a whole round) with what the plan expects of it. Never
        raises. [s]

        Steps that a prefill joined must not be given: they are longer for another reason.
        """
        try:
            row, column = self._place(n_decode, sum_context / n_decode)
            expected = self.cells[row][column].round_by_gamma_s[self.plan.gammas.index(gamma)]
            if not 0.0 < seconds < 1e6:
                raise ValueError(seconds)
            error = math.log(seconds / expected)
        except (TypeError, ValueError, ArithmeticError, IndexError):
            self.clamped.nonsense += 1
            return
        self.learned.count_step(gamma > 0, error)

    def refresh(self) -> float:
        """Rebuild the table from everything observed and swap it in; returns the shift of acceptance. [logit]

        One shift on the logit scale is sought that makes the expected number of accepted tokens what was
        counted. The plan's own acceptance counts for `PRIOR_ROUNDS` of `acceptance.online`, so a few
        observations do not overthrow it. Step times count once plain and speculated steps were both seen:
        only their ratio changes a decision.
        """
        believed = {
            (row, column): cell.accepted
            for row, cells in enumerate(self.cells)
            for column, cell in enumerate(cells)
            if cell.accepted is not None
        }
        self.shift = self.learned.shift(believed)
        self._table = self._compiled()
        return self.shift

    def _place(self, n_decode: float, mean_context: float) -> tuple[int, int]:
        if not (n_decode > 0 and mean_context >= 0):
            raise ValueError(n_decode, mean_context)
        return bisect_right(self._table.batch_bounds, n_decode), bisect_right(
            self._table.context_bounds, mean_context
        )

    def _compiled(self) -> _Table:
        """The table at the learned acceptance and step times."""
        slower = self.learned.slower
        moved = self.shift != 0.0 or slower is not None
        rows = tuple(tuple(self._entry(cell, slower or 1.0, moved) for cell in row) for row in self.cells)
        return _Table(
            rows,
            midpoints(self.batch_sizes),
            midpoints([context + self.plan.half_way for context in self.context_lens]),
            float(self.batch_sizes[-1]),
            self.context_lens[-1] + 2.0 * self.plan.half_way,
        )

    def _entry(self, cell: Cell, slower: float, moved: bool) -> _Entry:
        """The plan's own length, or by the plan's rule where something was learned; and what is as good."""
        gammas = self.plan.gammas
        gains = speedups(cell, gammas, self.shift, slower)
        best = gammas.index(cell.gamma)
        if moved:
            best = int(shortest_near_best(np.array([1.0 / gain if gain else math.inf for gain in gains])))
        limit = gains[best] / (1.0 + self.hysteresis)
        budget = self.kv_budget
        decisions = tuple(
            Decision(
                gamma,
                budget if gamma else None,
                gain,
                f"batch {cell.batch_size}, context {cell.context_len}: {gain:.2f}x, bound by {cell.bound_by}",
            )
            if gain >= limit or index == best
            else None
            for index, (gamma, gain) in enumerate(zip(gammas, gains, strict=True))
        )
        return _Entry(best, decisions)
