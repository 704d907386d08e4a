"""The one rule of every shim: what fails is counted and said once a kind, and the engine serves on."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections import Counter
from contextlib import suppress
from types import TracebackType

from perfmodel.integrations.environment import say
from perfmodel.planning.plan import Plan
from perfmodel.planning.schedule import midpoints, nearest_cells
from perfmodel.policy import SpeculationPolicy
from perfmodel.policy_table import Decision, whole

__all__ = ["Guard", "PlannedCells"]


class PlannedCells:
    """The plan's own decisions by batch and context, which nothing that is observed moves."""

    def __init__(self, plan: Plan) -> None:
        self.batch_sizes, self.context_lens, cells = nearest_cells(plan)
        self.batch_bounds, self.context_bounds = midpoints(self.batch_sizes), midpoints(self.context_lens)
        self.decisions = [
            [Decision(cell.gamma, cell.kv_budget, cell.speedup, "the plan's own length") for cell in row]
            for row in cells
        ]

    def at(self, n_decode: object = None, sum_context: object = None) -> Decision:
        """The nearest cell's decision; what is unknown is taken as the most that is planned.

        Parameters
        ----------
        n_decode : sequences that decode; unknown where it is no number above 0.
        sum_context : of their contexts; unknown where it is no number above 0. [tokens]
        """
        batch, context = float(self.batch_sizes[-1]), float(self.context_lens[-1])
        with suppress(Exception):
            batch = float(whole(n_decode)) if n_decode > 0 else batch  # type: ignore[arg-type, operator]
            with suppress(Exception):
                context = whole(sum_context) / batch if sum_context > 0 else context  # type: ignore[arg-type, operator]
        row = bisect_right(self.batch_bounds, batch)
        return self.decisions[row][bisect_right(self.context_bounds, context)]


class Guard:
    """What stands between a shim and its engine: ``with guard("refresh"): ...`` lets no `Exception` out.

    An exception is counted under its kind in `counts`, and in the policy's `failures` and `faults`, which the
    Prometheus figures show; the first of each kind is logged whole. `KeyboardInterrupt`, `SystemExit` and
    what else is no `Exception` pass. Any thread may use it.

    Parameters
    ----------
    policy : whose figures show the counts.
    logger : logs the first of each kind.
    engine : what people call it.
    """

    def __init__(self, policy: SpeculationPolicy, logger: logging.Logger, engine: str) -> None:
        self.policy, self.logger, self.engine = policy, logger, engine
        self.counts: Counter[str] = Counter()
        self.planned = PlannedCells(policy.plan)
        self.gammas = frozenset(policy.plan.gammas)
        self._lock = threading.Lock()

    def __call__(self, kind: str) -> _Guarded:
        """What guards the statements of one kind, one of `policy_figures.FAULTS`."""
        return _Guarded(self, kind)

    def decide(self, n_decode: int, sum_context: int, *more: int) -> Decision:
        """The policy's decision, or the plan's own where the policy fails or answers by no planned length."""
        with self("length"):
            decision = self.policy.decide(n_decode, sum_context, *more)
            if type(decision.gamma) is not int or decision.gamma not in self.gammas:
                raise ValueError(decision)
            return decision
        return self.planned.at(n_decode, sum_context)

    def failed(self, kind: str, error: Exception) -> None:
        """Count an exception, and log the first of its kind whole. Never raises."""
        with self._lock:
            self.counts[kind] += 1
            is_first = self.counts[kind] == 1
            with suppress(Exception):
                self.policy.faults[kind] = self.policy.faults.get(kind, 0) + 1
                self.policy.failures += 1
        if is_first:
            say(
                self.logger,
                f"{kind} failed, so {_HOLDS.get(kind, '{} serves on').format(self.engine)}; further failures "
                "of this kind are only counted",
                error,
            )


_HOLDS = {
    "length": "the plan's or {}'s own length holds in this step",
    "draft": "this round has no draft",
}


class _Guarded:
    """Statements whose exceptions a guard takes."""

    __slots__ = ("guard", "kind")

    def __init__(self, guard: Guard, kind: str) -> None:
        self.guard, self.kind = guard, kind

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self.guard.failed(self.kind, error)
        return True
