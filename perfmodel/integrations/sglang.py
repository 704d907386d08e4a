"""SGLang: a plug-in that lets a plan choose the adaptive steps. Hook registry of 0.5.23, read 2026-11-21.

Start the server with ``--speculative-adaptive`` and the file of ``draftplan export --engine sglang --form
adaptive``, so that every length has its captured state, and with DRAFTPLAN_PLAN naming the plan's file. The
scheduler's running batch is seen before every forward pass; the adaptive policy is then asked for the length
of that batch. DRAFTPLAN_LEARN=1 lets measured acceptance move the plan's, at the same verification on every
rank. Where the policy fails, the plan's own length runs if it was captured; whatever else goes wrong, SGLang
serves on with its own lengths.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from perfmodel.errors import SpecError, printable
from perfmodel.integrations.environment import learns, plan_path, say
from perfmodel.integrations.guard import Guard
from perfmodel.policy import SpeculationPolicy
from perfmodel.policy_figures import Every, MinuteLine
from perfmodel.policy_table import MOST_CONTEXT

__all__ = ["TARGETS", "PlannedSteps", "register"]

LOGGER = "sglang.draftplan"
PARAMS = "sglang.srt.speculative.adaptive_spec_params.AdaptiveSpeculativeParams"
TARGETS = {
    "steps": f"{PARAMS}.get_steps_for_batch",
    "verified": f"{PARAMS}.on_verify_complete",
    "batch": "sglang.srt.managers.scheduler.Scheduler.run_batch",
}
"""What is hooked: where the length is asked for, where acceptance is told, where the batch is run."""
STEPS_PER_REFRESH = 2000
"""Verifications between two refreshes of the policy. [steps]"""
MOST_BATCHES = 4096
"""Batch sizes whose captured lengths are remembered. [1]"""
IN_FLIGHT = 2
"""Batches that may be decided and not yet verified: the scheduler works one ahead. [1]"""

logger = logging.getLogger(LOGGER)


class PlannedSteps:
    """AROUND hooks: the plan's length where it was captured at that batch, else the nearest lower one.

    mean_context : of the running batch; the longest planned context until one was seen. [tokens]
    learns : whether acceptance that was told moves the plan's.
    aside : the engine decides alone, because the hooks could not all be registered.
    """

    def __init__(self, policy: SpeculationPolicy, learns: bool = False) -> None:
        self.policy, self.learns, self.aside = policy, learns, False
        self.guard = Guard(policy, logger, "SGLang")
        self.mean_context: float = self.guard.planned.context_lens[-1]
        self.ticks: list[Every] = []
        with self.guard("figures"):
            failed = partial(self.guard.failed, "figures")
            self.ticks.append(MinuteLine(policy.figures, LOGGER, failed=failed))
        self.verified = 0
        self._steps: dict[int, tuple[int, ...]] = {}
        self._params: Any = None
        self._in_flight: deque[tuple[int, int, int]] = deque(maxlen=IN_FLIGHT)

    def __call__(self, original: Callable[..., int], *args: Any, **kwargs: Any) -> int:
        """The number of steps of this batch. [tokens]"""
        steps, place = None, None
        if not self.aside:
            with self.guard("length"):
                steps, place = self._steps_of(*args, **kwargs)
        if steps is None:
            steps = original(*args, **kwargs)
        if place is not None:
            self._in_flight.append((*place, steps))
        return steps

    def _steps_of(self, params: Any, batch_size: int) -> tuple[int | None, tuple[int, int]]:
        """The steps of a batch, None where SGLang's own hold; its size and the sum of its contexts."""
        total = int(batch_size * self.mean_context)
        wanted = self.guard.decide(batch_size, total).gamma
        captured = self._captured(params, batch_size)
        if wanted in captured:
            return wanted, (batch_size, total)
        with self.guard("figures"):
            self.policy.not_captured += 1
        return max((lower for lower in captured if lower < wanted), default=None), (batch_size, total)

    def _captured(self, params: Any, batch_size: int) -> tuple[int, ...]:
        """The lengths with a graph for the size that this batch is padded to; all, where none is padded."""
        if params is not self._params:
            self._params, self._steps = params, {}
        steps = self._steps.get(batch_size)
        if steps is None:
            candidates = tuple(params.candidate_steps)
            graphs = {step: params.cuda_graph_bs_for_step(step) for step in candidates}
            sizes = [size for captured in graphs.values() for size in captured or () if size >= batch_size]
            padded = min(sizes, default=None)
            steps = tuple(
                step for step in candidates if padded is None or padded in (graphs[step] or ())
            )
            if len(self._steps) < MOST_BATCHES:
                self._steps[batch_size] = steps
        return steps

    def verify(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Learn what a verification accepted; SGLang's own average goes on, but switches nothing."""
        answer = original(*args, **kwargs)
        if self.aside:
            return answer
        for tick in self.ticks:
            tick.tick()
        with self.guard("observation"):
            return None if self._verified(*args, **kwargs) else answer
        return answer

    def _verified(self, params: Any, num_correct: Sequence[int], *args: Any, **kwargs: Any) -> bool:
        """Count a verification; whether it was of a batch that the plan decided."""
        del params, args, kwargs
        while self._in_flight:
            batch_size, total, steps = self._in_flight.popleft()
            if batch_size == len(num_correct):
                break
        else:
            return False
        if steps:
            self.policy.observe(steps * batch_size, sum(num_correct), batch_size, batch_size, total)
        self.verified += 1
        if self.learns and self.verified % STEPS_PER_REFRESH == 0:
            with self.guard("refresh"):
                self.policy.refresh()
        return True

    def run(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """See the contexts of the batch that is about to run."""
        if not self.aside:
            with self.guard("engine"):
                self._seen(*args, **kwargs)
        return original(*args, **kwargs)

    def _seen(self, scheduler: Any, batch: Any, *args: Any, **kwargs: Any) -> None:
        """Take the batch of a scheduler's step."""
        del args, kwargs
        rank: int = getattr(scheduler, "tp_rank", 0)
        if rank and self.ticks:
            self.ticks.clear()  # one rank speaks for all
        self.see([request.seqlen for request in batch.reqs])

    def see(self, context_lens: Sequence[int]) -> None:
        """Take the contexts of the running batch; ValueError if they are none. [tokens]"""
        if context_lens:
            mean = sum(context_lens) / len(context_lens)
            if not 0.0 < mean <= MOST_CONTEXT:
                raise ValueError(mean)
            self.mean_context = mean


def register() -> PlannedSteps | None:
    """Register the hooks where a plan is named; the entry point ``draftplan`` of ``sglang.srt.plugins``.

    SGLang loads every installed plug-in in each of its processes, so without a plan it must do nothing; with
    one that cannot be used it says so and does nothing.
    """
    path, steps = plan_path(), None
    if not path:
        return None
    try:
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        steps = PlannedSteps(SpeculationPolicy.load(path), learns(logger))
        for name, hook in (("steps", steps), ("verified", steps.verify), ("batch", steps.run)):
            HookRegistry.register(TARGETS[name], hook, HookType.AROUND)
    except Exception as error:
        if steps is not None:
            steps.aside = True
        if isinstance(error, SpecError):
            say(logger, f"SGLang's own lengths hold: {error}")
        else:
            say(logger, "SGLang's own lengths hold", error)
        return None
    logger.info("draftplan: speculation lengths follow %s", printable(path))
    return steps
