"""vLLM: a scheduler class whose speculation length follows batch and context.

Run with 0.32.0, read for 0.33.0. The plan's file in the environment variable DRAFTPLAN_PLAN is enough: the
plug-in (`vllm_plugin`) puts the class in. It may be named as well, ``--scheduler-cls
perfmodel.integrations.vllm.PlannedScheduler``. ``num_speculative_tokens`` is the most that is ever drafted.
DRAFTPLAN_LEARN=1 lets measured acceptance move the plan's. vLLM declares the scheduler's interface
non-public: after an upgrade, look at the log line. Whatever goes wrong, vLLM serves on with its own lengths.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from vllm.logger import init_logger
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from perfmodel.errors import SpecError
from perfmodel.integrations.environment import PLAN, VLLM_LOGGER, learns
from perfmodel.integrations.prometheus import expose
from perfmodel.policy import SpeculationPolicy
from perfmodel.policy_figures import Every, MinuteLine

__all__ = ["PlannedScheduler", "PlannedSyncScheduler", "planned_class"]

STEPS_PER_REFRESH = 2000
"""Scheduling steps between two refreshes of the policy, in a thread of their own. [steps]"""
SECONDS_PER_PUBLISHING = 5.0
"""Between two updates of the Prometheus figures. [s]"""

logger = init_logger(VLLM_LOGGER)


class PlannedLengths:
    """The lengths of one scheduler, from its policy.

    Decoding requests alone count as the batch, with the sum of their contexts: a prefill that joins changes
    nothing.

    most : the most that vLLM can draft. [tokens]
    """

    def __init__(self, policy: SpeculationPolicy, most: int) -> None:
        self.policy, self.most, self.learns = policy, most, learns()
        self.place = (1, 0)
        self.steps = self.length = 0
        self.finds_none = any(cell.match_share is not None for cell in policy.plan.cells)
        self.ticks: list[Every] = [MinuteLine(policy.figures, VLLM_LOGGER)]
        publish = expose(policy.figures)
        if publish is not None:
            self.ticks.append(Every(SECONDS_PER_PUBLISHING, publish))

    def length_after(self, requests: Any, scheduler_output: Any) -> int:
        """The plan's length for the requests that decode in the next step. [tokens]"""
        decoding = total = longest = prefilling = idle = 0
        drafts = scheduler_output.scheduled_spec_decode_tokens
        for request_id, tokens in scheduler_output.num_scheduled_tokens.items():
            request = requests[request_id]
            computed, prompt = request.num_computed_tokens, request.num_prompt_tokens
            context = computed + tokens
            if context < prompt:
                prefilling += tokens
                continue
            decoding += 1
            total += context
            longest = max(longest, context)
            idle += computed >= prompt and request_id not in drafts
        policy = self.policy
        if idle and self.length and self.finds_none:
            policy.observe(0, 0, idle, *self.place)
        self.place = (decoding, total)
        self.steps += 1
        if self.learns and self.steps % STEPS_PER_REFRESH == 0:
            threading.Thread(target=self._refresh, daemon=True).start()
        for tick in self.ticks:
            tick.tick()
        self.length = policy.decide(decoding, total, longest, prefilling).gamma
        if self.length > self.most:
            policy.not_captured += 1
            self.length = self.most
        return self.length

    def count(self, drafted: int, accepted: int) -> None:
        """Count one request's round. Never raises."""
        if drafted > 0:
            self.policy.observe(drafted, accepted, 1, *self.place)

    def failed(self) -> None:
        """Count an exception, and say the first one whole."""
        self.policy.failures += 1
        if self.policy.failures == 1:
            logger.exception("draftplan: vLLM's own length holds in this step; further ones are only counted")

    def _refresh(self) -> None:
        try:
            self.policy.refresh()
        except Exception:
            self.failed()


class Planned:
    """What is added to a vLLM scheduler: only the number of tokens to draft next is decided by a plan.

    Everything is behind one attribute, because the scheduler has many of its own. It is None, and vLLM's
    lengths hold, where no plan can be used.
    """

    draftplan: PlannedLengths | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            config = getattr(self, "vllm_config", None)
            self.draftplan = planned_lengths(getattr(self, "num_spec_tokens", 0), config)
            if self.draftplan is not None:
                warn_of_missing_graphs(self.draftplan.policy.lengths, config)
        except SpecError as error:
            logger.error("draftplan: vLLM's own lengths hold: %s", error)
        except Exception:
            logger.exception("draftplan: the plan is not followed, or not all of its lengths were looked at")

    def _update_after_schedule(self, scheduler_output: Any) -> None:
        """Set the length before vLLM lays out the placeholders of the next step's drafts."""
        if self.draftplan is not None:
            try:
                if scheduler_output.num_scheduled_tokens:
                    scheduler_output.num_spec_tokens_to_schedule = self.draftplan.length_after(
                        self.requests,  # type: ignore[attr-defined]
                        scheduler_output,
                    )
            except Exception:
                self.draftplan.failed()
        super()._update_after_schedule(scheduler_output)  # type: ignore[misc]

    def make_spec_decoding_stats(
        self,
        spec_decoding_stats: Any,
        num_draft_tokens: int,
        num_accepted_tokens: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Count one request's round, then let vLLM count it too."""
        if self.draftplan is not None:
            self.draftplan.count(num_draft_tokens, num_accepted_tokens)
        return super().make_spec_decoding_stats(  # type: ignore[misc]
            spec_decoding_stats, num_draft_tokens, num_accepted_tokens, *args, **kwargs
        )


class PlannedScheduler(Planned, AsyncScheduler):  # type: ignore[misc]
    """vLLM's scheduler that works one step ahead, its default, following a plan."""


class PlannedSyncScheduler(Planned, Scheduler):  # type: ignore[misc]
    """vLLM's scheduler without asynchronous scheduling, following a plan."""


def planned_lengths(most: int, vllm_config: Any) -> PlannedLengths | None:
    """The lengths of the plan that the environment names; None, the reason logged, where it cannot hold.

    Raises
    ------
    SpecError : the variable is not set, or what it names is no plan of one deployment.
    """
    path = os.environ.get(PLAN)
    if not path:
        raise SpecError.single("environment", PLAN, "is not set", "let it name the plan's file")
    if most < 1:
        logger.info("draftplan: no --speculative-config is given, so %s is not followed", path)
        return None
    parallel = getattr(vllm_config, "parallel_config", None)
    if getattr(parallel, "data_parallel_size", 1) > 1:
        logger.warning("draftplan: data-parallel ranks could differ, so vLLM's own lengths hold")
        return None
    policy = SpeculationPolicy.load(path)
    if policy.max_gamma > most:
        logger.warning(
            "draftplan: the plan drafts up to %d tokens, num_speculative_tokens is %d: longer ones are cut "
            "and counted as not captured",
            policy.max_gamma,
            most,
        )
    logger.info("draftplan: speculation lengths follow %s", path)
    return PlannedLengths(policy, most)


def warn_of_missing_graphs(lengths: tuple[int, ...], vllm_config: Any) -> None:
    """Log the lengths without a decode graph: vLLM captures those of its own table, or the most alone.

    Source: `vllm/v1/worker/gpu/cudagraph_utils.py` of https://github.com/vllm-project/vllm, 0.32.0.
    """
    speculative = getattr(vllm_config, "speculative_config", None)
    eager = getattr(getattr(vllm_config, "model_config", None), "enforce_eager", False)
    if speculative is None or eager:
        return
    table = speculative.num_speculative_tokens_per_batch_size or ()
    captured = {speculative.num_speculative_tokens, *(entry[-1] for entry in table)}
    missing = [length for length in lengths if length not in captured]
    if missing:
        logger.warning(
            "draftplan: lengths %s have no decode graphs; name them in num_speculative_tokens_per_batch_size "
            "as draftplan export --engine vllm --form scheduler does",
            ", ".join(map(str, missing)),
        )


def planned_class(engines_own: type) -> type:
    """The class that follows a plan in place of vLLM's own; that one itself where it is another's."""
    planned: dict[type, type] = {AsyncScheduler: PlannedScheduler, Scheduler: PlannedSyncScheduler}
    return planned.get(engines_own, engines_own)
