"""A plan compiled for an engine's loop: (batch, context) -> speculation length in under a microsecond."""

from __future__ import annotations

import math
import os
import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from perfmodel.acceptance.online import Learner, move_rate
from perfmodel.errors import SpecError
from perfmodel.planning.near_tie import shortest_near_best
from perfmodel.planning.plan import Cell, Plan, read_plan
from perfmodel.planning.schedule import midpoints, nearest_cells, planned_drafter, speedups
from perfmodel.policy_figures import PolicyFigures, prometheus_text
from perfmodel.policy_table import IDLE, MOST_AT_ONCE, Decision, Entry, Table, bordered, whole

__all__ = ["Clamped", "Decision", "SpeculationPolicy"]

HYSTERESIS = 0.02
"""A speculation length is kept while it costs at most this much more than the best one. [1]"""
ONE = 1
"""The integer itself: what merely equals it, such as True or 1.0, is looked at more closely."""
MOST_OFF = math.log(1000.0)
"""How far a measured step may be from the planned one to be believed: farther off, a clock jumped. [log]"""


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


@dataclass
class SpeculationPolicy:
    """The decisions of one deployment: one drafter and draft KV budget, a speculation length per batch and
    context.

    `decide` is deterministic: ranks that were given the same numbers in the same order decide alike. It never
    raises. `observe` and `observe_step_time` only count; `refresh`, off the hot path, turns what was counted
    into a new table and swaps it in whole, so it may run in a thread of its own. Ranks that must agree must
    either not refresh or refresh at the same step with the same counts.

    What cannot be is refused and changes nothing but `nonsense`: tokens and rounds that are not whole, truth
    values, texts, more accepted than drafted, drafts longer than the plan's longest, a batch above
    `MOST_BATCH`, a mean context above `MOST_CONTEXT`, `MOST_AT_ONCE` rounds or more together (all of
    `policy_table`). A question about nonsense is answered by length 0. Batches and contexts that can be and
    were not planned are answered by the nearest cell.

    Any method may be called from any thread, and while the policy is pickled or copied. A decision is always
    of one whole table. Under the interpreter's global lock no count is lost, because each is added in one
    step; without that lock (free-threaded builds) counts may be lost, and nothing else. Threads share the
    length that hysteresis keeps. `figures` reads one counter after the other: while others count, its sums
    may differ by what came in between. Memory is bounded: by the plan's places and `MOST_ROWS` batch sizes.

    nonsense : questions and observations that cannot be.
    not_captured : lengths that the engine could not run; a shim counts them.
    failures : exceptions after which a shim went on without the policy; it counts them.
    faults : the same by kind.
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
    faults: dict[str, int] = field(default_factory=dict)
    _table: Table = field(init=False, repr=False)
    _refreshing: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        middle = [context + self.plan.half_way for context in self.context_lens]
        last = self.context_lens[-1] + 2.0 * self.plan.half_way
        columns = range(len(self.context_lens))
        self._table = Table(
            _bounds(self.batch_sizes, self.batch_sizes[0], self.batch_sizes[-1]),
            _bounds(middle, self.context_lens[0], last),
            self._entries(self.shift, self.match_shift),
            [[[0] * len(self.plan.gammas) for _ in bordered(columns)] for _ in bordered(self.batch_sizes)],
            max(self.plan.gammas),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_refreshing"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _refreshing=threading.Lock())

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, hysteresis: float = HYSTERESIS) -> SpeculationPolicy:
        """Read a plan file and compile it.

        Raises
        ------
        SpecError
            When the file is not a plan, or its cells do not agree on one drafter and draft KV budget.
        """
        return cls._compiled(read_plan(path), hysteresis)

    @classmethod
    def from_plan(cls, plan: Plan, *, hysteresis: float = HYSTERESIS) -> SpeculationPolicy:
        """Compile a plan whose cells agree on one deployment; a batch lacks no context that another has."""
        plan.check()
        return cls._compiled(plan, hysteresis)

    @classmethod
    def _compiled(cls, plan: Plan, hysteresis: float) -> SpeculationPolicy:
        """Compile a plan that can be believed."""
        if not 0.0 <= hysteresis < 1.0:
            raise SpecError.single(
                "request", "hysteresis", f"found {hysteresis!r}", "give a share from 0 to 1"
            )
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
            if n_decode <= 1 and n_decode is not ONE and whole(n_decode) <= 0:
                self.nonsense += n_decode < 0
                return IDLE
            if sum_context <= n_decode:
                sum_context = _least_context(sum_context) or _least_context(max_context) * n_decode
            bounds, entries, decided, _ = self._table[n_decode]
            place = bisect_right(bounds, sum_context)
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
            if not len(contexts):
                return decisions
            table = self._table
            _, entries, decided, _ = table[len(contexts)]
            contexts = list(contexts)
        except Exception:
            self.nonsense += 1
            return decisions
        for context in contexts:
            try:
                place = table.place_of(context)
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
            if type(drafted) is not int or type(accepted) is not int or rounds is not ONE or n_decode is True:
                n_decode = whole(n_decode)
                self._observe(whole(drafted), whole(accepted), whole(rounds), n_decode, sum_context)
                return
            if accepted > drafted or accepted < 0:
                raise ValueError(accepted, drafted)
            if sum_context <= n_decode:
                _least_context(sum_context)
            bounds, _, _, seen = self._table[n_decode]
            place = bisect_right(bounds, sum_context)
            counts = seen[place][drafted] or self._begin(n_decode, place, drafted)
            counts[0] += 1
            counts[1] += accepted
        except Exception:
            self.nonsense += 1

    def observe_step_time(self, n_decode: int, sum_context: int, gamma: int, seconds: float) -> None:
        """Compare a measured step (plain decode, or a whole round) with what the plan expects of it. Never
        raises. [s]

        Steps that a prefill joined must not be given: they are longer for another reason. One that is more
        than a thousand times longer or shorter than planned is refused: a clock jumped.
        """
        try:
            n_decode, sum_context, gamma = whole(n_decode), whole(sum_context), whole(gamma)
            if isinstance(seconds, bool) or sum_context < 0:
                raise ValueError(sum_context, seconds)
            bounds = self._table[n_decode][0]
            row, column = self._table.near(n_decode, place := bisect_right(bounds, sum_context))
            expected = self.cells[row][column].round_by_gamma_s[self.plan.gammas.index(gamma)]
            error = math.log(seconds / expected)
            if place == len(bounds) or not abs(error) <= MOST_OFF:
                raise ValueError(sum_context, seconds)
            self.learned.count_step(gamma > 0, error)
        except Exception:
            self.nonsense += 1

    def _observe(self, drafted: int, accepted: int, rounds: int, n_decode: int, sum_context: int) -> None:
        """Count rounds that were counted together under their mean length; ValueError if they cannot be."""
        possible = 0 < rounds < MOST_AT_ONCE and 0 <= accepted <= drafted <= rounds * self._table.longest
        if not possible:
            raise ValueError(drafted, accepted, rounds)
        bounds, _, _, seen = self._table[n_decode]
        place = bisect_right(bounds, _least_context(sum_context))
        gamma = round(drafted / rounds)
        counts = seen[place][gamma] or self._begin(n_decode, place, gamma)
        counts[0] += rounds
        counts[1] += accepted
        self.learned.odd_drafts += drafted - gamma * rounds

    def _begin(self, n_decode: int, place: int, gamma: int) -> list[float]:
        """The learner's counts of a length at a place where there were none; ValueError if it is none."""
        row, column = self._table.near(n_decode, place)
        counts = self.learned.counts((row, column, gamma))
        self._table.seen[row + 1][column + 1][gamma] = counts
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
        with self._refreshing:
            shift = self.learned.shift(believed)
            match_shift = self.learned.match_shift({place: places[place].match for place in believed})
            old, entries = self._table, self._entries(shift, match_shift)
            self.shift, self.match_shift = shift, match_shift
            self._table = Table(
                old.batch_bounds, old.context_bounds, entries, old.decided, old.longest, old.seen
            )  # fmt: skip
        return shift

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
            faults=dict(self.faults),
        )

    def metrics(self) -> str:
        """The figures as Prometheus text, names with the prefix ``draftplan_``."""
        return prometheus_text(self.figures().metrics())

    def _entries(self, shift: float, match_shift: float) -> list[tuple[Entry, ...]]:
        """The places of every row at what was learned."""
        slower = self.learned.slower
        moved = shift != 0.0 or match_shift != 0.0 or slower is not None

        def entry(cell: Cell) -> Entry:
            match = float(move_rate(cell.match, match_shift)) if moved else None
            return self._entry(cell, speedups(cell, self.plan.gammas, shift, slower or 1.0, match), moved)

        return bordered([tuple(bordered([entry(cell) for cell in cells])) for cells in self.cells])

    def _entry(self, cell: Cell, gains: list[float], moved: bool) -> Entry:
        """The plan's own length, or by the plan's rule where something was learned; and what is as good."""
        gammas = self.plan.gammas
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


def _bounds(values: Sequence[float], least: float, most: float) -> tuple[float, ...]:
    """Where the answer changes: the least that is planned, between two values, just above the most."""
    return float(least), *midpoints(values), math.nextafter(float(most), math.inf)


def _least_context(context: int) -> int:
    """A context that may be too short to be; ValueError if it is negative or none at all. [tokens]"""
    if not (context := whole(context)) >= 0:
        raise ValueError(context)
    return context
