"""SGLang: a plug-in that lets a plan choose the adaptive steps. Hook registry of 0.5.23, read 2026-11-21.

Start the server with ``--speculative-adaptive`` and the pinned file of ``draftplan export --engine sglang
--form adaptive``, so that every length has its captured state, and with DRAFTPLAN_PLAN naming the plan's
file. The adaptive policy is asked per batch only: the context comes from the scheduler's running batch where
a caller gives it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from perfmodel.policy import SpeculationPolicy

__all__ = ["TARGET", "PlannedSteps", "register"]

PLAN = "DRAFTPLAN_PLAN"
TARGET = "sglang.srt.speculative.adaptive_spec_params.AdaptiveSpeculativeParams.get_steps_for_batch"


class PlannedSteps:
    """An AROUND hook on the step getter: the plan's length where it was captured, else the engine's own.

    `mean_context` is what the caller last said of the running batch; the longest planned context until then.
    """

    def __init__(self, policy: SpeculationPolicy) -> None:
        self.policy = policy
        self.mean_context = policy.context_lens[-1]
        self.not_captured = 0

    def __call__(self, original: Callable[..., int], params: Any, batch_size: int, *args: Any) -> int:
        """The number of steps of this batch. [tokens]"""
        steps = self.policy.decide(batch_size, batch_size * self.mean_context).gamma
        if steps in params.candidate_steps:
            return steps
        self.not_captured += 1
        return original(params, batch_size, *args)

    def see(self, context_lens: Sequence[int]) -> None:
        """Take the contexts of the running batch, from a hook on the scheduler."""
        if context_lens:
            self.mean_context = sum(context_lens) // len(context_lens)


def register() -> PlannedSteps | None:
    """Register the hook where a plan is named; the entry point ``draftplan`` of ``sglang.srt.plugins``.

    SGLang loads every installed plug-in, so without a plan it must do nothing.
    """
    path = os.environ.get(PLAN)
    if not path:
        return None
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    steps = PlannedSteps(SpeculationPolicy.load(path))
    HookRegistry.register(TARGET, steps, HookType.AROUND)
    return steps
