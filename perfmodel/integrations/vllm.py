"""vLLM: a scheduler class whose speculation length follows batch and context.

Run with 0.32.0, read for 0.33.0. Start it with
``--scheduler-cls perfmodel.integrations.vllm.PlannedScheduler`` and the plan's file in the environment
variable DRAFTPLAN_PLAN; ``num_speculative_tokens`` is the most that is ever drafted. DRAFTPLAN_LEARN=1 lets
measured acceptance move the plan's. vLLM declares the scheduler's interface non-public: after an upgrade,
look at the log line.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from vllm.logger import init_logger
from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from perfmodel.errors import SpecError
from perfmodel.policy import SpeculationPolicy

__all__ = ["PlannedScheduler"]

PLAN = "DRAFTPLAN_PLAN"
LEARN = "DRAFTPLAN_LEARN"
STEPS_PER_REFRESH = 2000
"""Scheduling steps between two refreshes of the policy, in a thread of their own. [steps]"""

logger = init_logger(__name__)


class PlannedScheduler(AsyncScheduler):  # type: ignore[misc]
    """vLLM's own scheduler; only the number of tokens to draft next is decided by a plan.

    Decoding requests alone count as the batch, with the sum of their contexts: a prefill that joins changes
    nothing.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        path = os.environ.get(PLAN)
        if not path:
            raise SpecError.single("environment", PLAN, "is not set", "let it name the plan's file")
        self.policy = SpeculationPolicy.load(path)
        self.learns = os.environ.get(LEARN) == "1"
        self.place = (1, 0)
        self.planned_steps = 0
        if self.policy.max_gamma > self.num_spec_tokens:
            logger.warning(
                "draftplan: the plan drafts up to %d tokens, num_speculative_tokens is %d: longer ones are "
                "cut",
                self.policy.max_gamma,
                self.num_spec_tokens,
            )
        logger.info("draftplan: speculation lengths follow %s", path)

    def _update_after_schedule(self, scheduler_output: Any) -> None:
        """Set the length before vLLM lays out the placeholders of the next step's drafts."""
        if scheduler_output.num_scheduled_tokens:
            scheduler_output.num_spec_tokens_to_schedule = self._planned(
                scheduler_output.num_scheduled_tokens
            )
        super()._update_after_schedule(scheduler_output)

    def _planned(self, scheduled: dict[str, int]) -> int:
        """The plan's length for the requests that decode in the next step. [tokens]"""
        decoding = total = longest = prefilling = 0
        for request_id, tokens in scheduled.items():
            request = self.requests[request_id]
            context = request.num_computed_tokens + tokens
            if context < request.num_prompt_tokens:
                prefilling += tokens
                continue
            decoding += 1
            total += context
            longest = max(longest, context)
        self.place = (decoding, total)
        self.planned_steps += 1
        if self.learns and self.planned_steps % STEPS_PER_REFRESH == 0:
            threading.Thread(target=self.policy.refresh, daemon=True).start()
        most: int = self.num_spec_tokens
        return min(self.policy.decide(decoding, total, longest, prefilling).gamma, most)

    def make_spec_decoding_stats(
        self,
        spec_decoding_stats: Any,
        num_draft_tokens: int,
        num_accepted_tokens: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Count one request's round, then let vLLM count it too."""
        if num_draft_tokens > 0:
            self.policy.observe(num_draft_tokens, num_accepted_tokens, 1, *self.place)
        return super().make_spec_decoding_stats(
            spec_decoding_stats, num_draft_tokens, num_accepted_tokens, *args, **kwargs
        )
