"""SGLang: a plug-in that lets a plan choose the adaptive steps. Hook registry of 0.5.23, read 2026-11-21.

Start the server with ``--speculative-adaptive`` and the file of ``draftplan export --engine sglang --form
adaptive``, so that every length has its captured state, and with DRAFTPLAN_PLAN naming the plan's file. The
scheduler's running batch is seen before every forward pass; the adaptive policy is then asked for the length
of that batch. DRAFTPLAN_LEARN=1 lets measured acceptance move the plan's, at the same verification on every
rank. Whatever goes wrong, SGLang serves on with its own lengths.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from perfmodel.errors import SpecError
from perfmodel.integrations.environment import PLAN, learns
from perfmodel.policy import SpeculationPolicy
from perfmodel.policy_figures import Every, MinuteLine

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
IN_FLIGHT = 2
"""Batches that may be decided and not yet verified: the scheduler works one ahead. [1]"""

logger = logging.getLogger(LOGGER)


class PlannedSteps:
    """AROUND hooks: the plan's length where it was captured at that batch, else the nearest lower one.

    mean_context : of the running batch; the longest planned context until one was seen. [tokens]
    learns : whether acceptance that was told moves the plan's.
    """

    def __init__(self, policy: SpeculationPolicy, learns: bool = False) -> None:
        self.policy, self.learns = policy, learns
        self.mean_context: float = policy.context_lens[-1]
        self.ticks: list[Every] = [MinuteLine(policy.figures, LOGGER)]
        self.verified = 0
        self._steps: dict[int, tuple[int, ...]] = {}
        self._params: Any = None
        self._in_flight: deque[tuple[int, int, int]] = deque(maxlen=IN_FLIGHT)

    def __call__(self, original: Callable[..., int], params: Any, batch_size: int, *args: Any) -> int:
        """The number of steps of this batch. [tokens]"""
        try:
            total = int(batch_size * self.mean_context)
            wanted = self.policy.decide(batch_size, total).gamma
            steps = wanted
            captured = self._captured(params, batch_size)
            if steps not in captured:
                self.policy.not_captured += 1
                steps = max((lower for lower in captured if lower < wanted), default=-1)
            if steps < 0:
                steps = original(params, batch_size, *args)
            self._in_flight.append((batch_size, total, steps))
        except Exception:
            self._failed()
            return original(params, batch_size, *args)
        return steps

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
            self._steps[batch_size] = steps
        return steps

    def verify(
        self, original: Callable[..., Any], params: Any, num_correct: Sequence[int], *args: Any, **kwargs: Any
    ) -> Any:
        """Learn what a verification accepted; SGLang's own average goes on, but switches nothing."""
        answer = original(params, num_correct, *args, **kwargs)
        try:
            for tick in self.ticks:
                tick.tick()
            while self._in_flight:
                batch_size, total, steps = self._in_flight.popleft()
                if batch_size == len(num_correct):
                    if steps:
                        accepted = sum(num_correct)
                        self.policy.observe(steps * batch_size, accepted, batch_size, batch_size, total)
                    break
            else:
                return answer
            self.verified += 1
            if self.learns and self.verified % STEPS_PER_REFRESH == 0:
                self.policy.refresh()
        except Exception:
            self._failed()
            return answer
        return None

    def run(self, original: Callable[..., Any], scheduler: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """See the contexts of the batch that is about to run."""
        try:
            rank: int = getattr(scheduler, "tp_rank", 0)
            if rank and self.ticks:
                self.ticks.clear()  # one rank speaks for all
            self.see([request.seqlen for request in batch.reqs])
        except Exception:
            self._failed()
        return original(scheduler, batch, *args, **kwargs)

    def see(self, context_lens: Sequence[int]) -> None:
        """Take the contexts of the running batch. [tokens]"""
        if context_lens:
            self.mean_context = sum(context_lens) / len(context_lens)

    def _failed(self) -> None:
        """Count an exception, and say the first one whole."""
        self.policy.failures += 1
        if self.policy.failures == 1:
            logger.exception("draftplan: SGLang's own length holds; further ones are only counted")


def register() -> PlannedSteps | None:
    """Register the hooks where a plan is named; the entry point ``draftplan`` of ``sglang.srt.plugins``.

    SGLang loads every installed plug-in in each of its processes, so without a plan it must do nothing; with
    one that cannot be used it says so and does nothing.
    """
    path = os.environ.get(PLAN)
    if not path:
        return None
    try:
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        steps = PlannedSteps(SpeculationPolicy.load(path), learns())
        for name, hook in (("steps", steps), ("verified", steps.verify), ("batch", steps.run)):
            HookRegistry.register(TARGETS[name], hook, HookType.AROUND)
    except SpecError as error:
        logger.error("draftplan: SGLang's own lengths hold: %s", error)
        return None
    except Exception:
        logger.exception("draftplan: SGLang's own lengths hold")
        return None
    logger.info("draftplan: speculation lengths follow %s", path)
    return steps
