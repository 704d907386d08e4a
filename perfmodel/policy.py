"""A plan compiled for an engine's loop: (batch, context) -> speculation length in under a microsecond."""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np

from perfmodel.acceptance.online import Learner, move_rate
from perfmodel.errors import SpecError
from perfmodel.planning.near_tie import shortest_near_best
from perfmodel.planning.plan import Cell, Plan, read_plan
from perfmodel.planning.schedule import midpoints, nearest_cells, planned_drafter, speedups
from perfmodel.policy_figures import PolicyFigures, prometheus_text

__all__ = ["Clamped", "Decision", "SpeculationPolicy"]

T = TypeVar("T")
HYSTERESIS = 0.02
"""A speculation length is kept while it costs at most this much more than the best one. [1]"""
MOST_ROWS = 65_536
"""Batch sizes that have a row of their own; those above are looked up. [1]"""
MOST_AT_ONCE = 1e9
"""Rounds that one observation may speak of. [rounds]"""
MOST_SECONDS = 1e6
"""Longest step that is believed. [s]"""


class Decision(NamedTuple):
    """What to do in the next round of a batch."""

    gamma: int
    kv_budget: int | None
    expected_speedup: float
    reason: str


# Plain tuples, which unpack three times as fast as named ones.

_Entry: TypeAlias = tuple[int, tuple["Decision | None", ...]]
"""One place of the compiled table: the index of the best gamma, and the decisions of those that are nearly as
good by index of gamma; None where it is not, and at the end, where index -1 finds it."""

_Row: TypeAlias = tuple[
    tuple[int, ...], tuple[_Entry, ...], list[list[int]], tuple[dict[int, list[float]], ...]
]
"""The answers of one batch size, with a border for contexts that the plan does not cover: sums of contexts
from which on the next place answers [tokens]; the places; how often each of their lengths was decided; what
the learner counted there, by gamma."""


class _Table(dict[int, _Row]):
    """Batch size -> its row, made when it is first asked for; replaced whole when something was learned.

    batch_bounds, context_bounds : from where on the next cell answers; the border lies below the first and
        from the last on.
    entries : the places of every row of the plan, borders included.
    decided : the same, how often each length was decided.
    seen : the same, what the learner counted.
    """

    def __init__(
        self,
        batch_bounds: tuple[float, ...],
        context_bounds: tuple[float, ...],
        entries: list[tuple[_Entry, ...]],
        decided: list[list[list[int]]],
        seen: list[tuple[dict[int, list[float]], ...]],
    ) -> None:
        super().__init__()
        self.batch_bounds, self.context_bounds = batch_bounds, context_bounds
        self.entries, self.decided, self.seen = entries, decided, seen

    def __missing__(self, n_decode: int) -> _Row:
        place = bisect_right(self.batch_bounds, n_decode)
        bounds = tuple(math.ceil(bound * n_decode) for bound in self.context_bounds)
        row = bounds, self.entries[place], self.decided[place], self.seen[place]
        if isinstance(n_decode, int) and len(self) < MOST_ROWS:
            self[n_decode] = row
        return row


class Clamped(NamedTuple):
    """How often the loop asked for what the plan does not cover; the nearest cell answered.

    batch, context : above the largest that is planned; `batch_below`, `context_below` : below the smallest.
    length : the planned length could not be run, so a shorter one was.
    nonsense : the question or the observation cannot be.
    """

    batch: int
    context: int
    nonsense: int
    batch_below: int
    context_below: int
    length: int


IDLE = Decision(0, None, 1.0, "nothing decodes")


@dataclass
class SpeculationPolicy:
    """The decisions of one deployment: one drafter and draft KV budget, a speculation length per batch and
    context.

    `decide` is deterministic: ranks that were given the same numbers in the same order decide alike. It never
    raises. `observe` and `observe_step_time` only count; `refresh`, off the hot path, turns what was counted
    into a new table and swaps it in whole, so it may run in a thread of its own. Ranks that must agree must
    either not refresh or refresh at the same step with the same counts. It pickles.

    nonsense : questions and observations that cannot be.
    not_captured : lengths that the engine could not run; a shim counts them.
    failures : exceptions after which a shim left the engine its own length; it counts them.
    """

    plan: Plan
    cells: tuple[tuple[Cell, ...], ...]
    batch_sizes: tuple[int, ...]
    context_lens: tuple[int, ...]
    hysteresis: float = HYSTERESIS
    shift: float = 0.0
    match_shift: float = 0.0
    last_gamma_index: int = -1
    nonsense: int = 0
    not_captured: int = 0
    failures: int = 0
    learned: Learner = field(default_factory=Learner, repr=False)
    _table: _Table = field(init=False, repr=False)

    def __post_init__(self) -> None:
        middle = [context + self.plan.half_way for context in self.context_lens]
        last = self.context_lens[-1] + 2.0 * self.plan.half_way
        columns = range(len(self.context_lens))
        self._table = _Table(
            _bounds(self.batch_sizes, self.batch_sizes[0], self.batch_sizes[-1]),
            _bounds(middle, self.context_lens[0], last),
            self._entries(),
            [[[0] * len(self.plan.gammas) for _ in _bordered(columns)] for _ in _bordered(self.batch_sizes)],
            _bordered([tuple(_bordered([{} for _ in columns])) for _ in self.batch_sizes]),
        )

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
        return max(self.lengths)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Every speculation length that `decide` can return: what an engine has to capture. [tokens]"""
        entries = {entry for row in self._table.entries for entry in row}
        return tuple(sorted({each.gamma for _, near in entries for each in near if each}))

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
        try:
            if n_decode <= 0:
                self.nonsense += n_decode < 0
                return IDLE
            bounds, entries, decided, _ = self._table[n_decode]
            place = bisect_right(bounds, sum_context if sum_context > 0 else max_context * n_decode)
            best, decisions = entries[place]
            gamma_index = self.last_gamma_index
            decision = decisions[gamma_index]
            if decision is None:
                self.last_gamma_index = gamma_index = best
                decision = decisions[best] or IDLE
            decided[place][gamma_index] += 1
        except Exception:
            self.nonsense += 1
            return IDLE
        return decision

    def decide_each(self, contexts: Sequence[int]) -> list[Decision]:
        """Speculation length of every sequence of a batch by its own context, where lengths may differ.

        It has no hysteresis, because sequences come and go. Never raises.
        """
        decisions: list[Decision] = []
        try:
            table, contexts = self._table, list(contexts)
            _, entries, decided, _ = table[len(contexts)]
        except Exception:
            self.nonsense += 1
            return decisions
        for context in contexts:
            try:
                place = bisect_right(table.context_bounds, context)
                best, near = entries[place]
                decided[place][best] += 1
                decisions.append(near[best] or IDLE)
            except Exception:
                self.nonsense += 1
                decisions.append(IDLE)
        return decisions

    def observe(
        self, drafted: int, accepted: int, rounds: int = 1, n_decode: int = 1, sum_context: int = 0
    ) -> None:
        """Count the drafted and accepted tokens of `rounds` rounds (one a sequence and step). Never raises.

        Rounds that found nothing to draft have `drafted` 0: they teach the share of rounds that draft at all.
        `n_decode` and `sum_context` say where: acceptance is compared with the plan's at the same place.
        """
        try:
            gamma = drafted
            if rounds != 1:
                gamma = round(drafted / rounds) if 0 < rounds < MOST_AT_ONCE else -1
            if n_decode <= 0 or not 0 <= accepted <= drafted:
                raise ValueError(n_decode, accepted, drafted)
            bounds, _, _, seen = self._table[n_decode]
            place = bisect_right(bounds, sum_context)
            counts = seen[place].get(gamma) or self._begin(n_decode, place, gamma)
            counts[0] += rounds
            counts[1] += accepted
            if rounds != 1:
                self.learned.odd_drafts += drafted - gamma * rounds
        except Exception:
            self.nonsense += 1

    def observe_step_time(self, n_decode: int, sum_context: int, gamma: int, seconds: float) -> None:
        """Compare a measured step (plain decode, or a whole round) with what the plan expects of it. Never
        raises. [s]

        Steps that a prefill joined must not be given: they are longer for another reason.
        """
        try:
            if not (n_decode > 0 and sum_context >= 0 and 0.0 < seconds < MOST_SECONDS):
                raise ValueError(n_decode, sum_context, seconds)
            place = bisect_right(self._table.context_bounds, sum_context / n_decode)
            row, column = self._near(n_decode, place)
            expected = self.cells[row][column].round_by_gamma_s[self.plan.gammas.index(gamma)]
            self.learned.count_step(gamma > 0, math.log(seconds / expected))
        except Exception:
            self.nonsense += 1

    def _near(self, n_decode: float, place: int) -> tuple[int, int]:
        """Row and column of the plan that answer at a place of a row."""
        row = bisect_right(self._table.batch_bounds, n_decode) - 1
        return (
            min(max(row, 0), len(self.batch_sizes) - 1),
            min(max(place - 1, 0), len(self.context_lens) - 1),
        )

    def _begin(self, n_decode: float, place: int, gamma: int) -> list[float]:
        """The learner's counts of a length at a place where there were none; ValueError if it is none."""
        near = self._near(n_decode, place)
        counts = self.learned.counts((*near, gamma))
        self._table.seen[near[0] + 1][near[1] + 1][int(gamma)] = counts
        return counts

    def refresh(self) -> float:
        """Rebuild the table from everything observed and swap it in; returns the shift of acceptance. [logit]

        One shift on the logit scale is sought that makes the expected number of accepted tokens what was
        counted, and another for the share of rounds that draft at all. The plan's own acceptance counts for
        `PRIOR_ROUNDS` of `acceptance.online`, so a few observations do not overthrow it. Step times count
        once plain and speculated steps were both seen: only their ratio changes a decision.
        """
        places = {
            (row, column): cell for row, cells in enumerate(self.cells) for column, cell in enumerate(cells)
        }
        believed = {
            place: cell.accepted_of_drafting
            for place, cell in places.items()
            if cell.accepted_of_drafting is not None
        }
        self.shift = self.learned.shift(believed)
        self.match_shift = self.learned.match_shift({place: places[place].match for place in believed})
        old = self._table
        self._table = _Table(old.batch_bounds, old.context_bounds, self._entries(), old.decided, old.seen)
        return self.shift

    @property
    def clamped(self) -> Clamped:
        """How often the loop asked for what the plan does not cover."""
        rows = [sum(sum(counts) for counts in row) for row in self._table.decided]
        columns = [sum(sum(counts) for counts in column) for column in zip(*self._table.decided, strict=True)]
        return Clamped(rows[-1], columns[-1], self.nonsense, rows[0], columns[0], self.not_captured)

    def figures(self) -> PolicyFigures:
        """What was decided, seen and learned so far."""
        clamped = self.clamped
        drafting, idle, drafted, accepted = self.learned.totals
        gammas, last = self.plan.gammas, self.last_gamma_index
        places = [counts for row in self._table.decided for counts in row]
        return PolicyFigures(
            length=gammas[last] if last >= 0 else 0,
            decisions=dict(zip(gammas, map(sum, zip(*places, strict=True)), strict=True)),
            clamped={
                "batch above": clamped.batch,
                "batch below": clamped.batch_below,
                "context above": clamped.context,
                "context below": clamped.context_below,
                "length not captured": clamped.length,
            },
            nonsense=self.nonsense,
            failures=self.failures,
            shift=self.shift,
            match_shift=self.match_shift,
            slower=self.learned.slower or 1.0,
            drafting=drafting,
            idle=idle,
            drafted=drafted,
            accepted=accepted,
        )

    def metrics(self) -> str:
        """The figures as Prometheus text, names with the prefix ``draftplan_``."""
        return prometheus_text(self.figures().metrics())

    def _entries(self) -> list[tuple[_Entry, ...]]:
        """The places of every row at what was learned."""
        slower = self.learned.slower
        moved = self.shift != 0.0 or self.match_shift != 0.0 or slower is not None
        return _bordered(
            [
                tuple(_bordered([self._entry(cell, slower or 1.0, moved) for cell in cells]))
                for cells in self.cells
            ]
        )

    def _entry(self, cell: Cell, slower: float, moved: bool) -> _Entry:
        """The plan's own length, or by the plan's rule where something was learned; and what is as good."""
        gammas = self.plan.gammas
        match = float(move_rate(cell.match, self.match_shift)) if moved else None
        gains = speedups(cell, gammas, self.shift, slower, match)
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
        return best, (*decisions, None)


def _bordered(places: Sequence[T]) -> list[T]:
    """Places with the first and the last once more, for what lies beyond them."""
    return [places[0], *places, places[-1]]


def _bounds(values: Sequence[float], least: float, most: float) -> tuple[float, ...]:
    """Where the answer changes: the least that is planned, between two values, just above the most."""
    return float(least), *midpoints(values), math.nextafter(float(most), math.inf)
