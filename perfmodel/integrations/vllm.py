"""vLLM: a scheduler class whose speculation length follows batch and context.

Run with 0.32.0, read for 0.33.0. The plan's file in the environment variable DRAFTPLAN_PLAN is enough: the
plug-in (`vllm_plugin`) puts the class in. It may be named as well, ``--scheduler-cls
perfmodel.integrations.vllm.PlannedScheduler``. ``num_speculative_tokens`` is the most that is ever drafted.
DRAFTPLAN_LEARN=1 lets measured acceptance move the plan's. vLLM declares the scheduler's interface
non-public: after an upgrade, look at the log line. Where the policy fails, the plan's own length holds;
whatever else goes wrong, vLLM serves on with its own lengths.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from vllm.logger import init_logger
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from perfmodel.errors import SpecError, printable
from perfmodel.integrations.environment import PLAN, VLLM_LOGGER, learns, plan_path, say
from perfmodel.integrations.guard import Guard
from perfmodel.integrations.prometheus import expose
from perfmodel.policy import SpeculationPolicy
from perfmodel.policy_figures import Every, MinuteLine

__all__ = ["PlannedScheduler", "PlannedSyncScheduler", "planned_class"]

STEPS_PER_REFRESH = 2000
"""Scheduling steps between two refreshes of the policy, in a thread of their own. [steps]"""
STEPS_PER_PROBE = 100
"""While it learns, one in so many decoding steps that would draft nothing drafts the plan's shortest length,
because acceptance is seen nowhere else. It costs at most that share of how much longer such a round is. vLLM
keeps the drafter's cache in step while nothing is drafted. [steps]"""
UNKNOWN = (0, 0)
"""The batch and context of a step in which they could not be read."""
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
        self.policy, self.most, self.learns = policy, most, learns(logger)
        self.guard = Guard(policy, logger, "vLLM")
        self.place = (1, 0)
        self.steps = self.plain_steps = self.length = 0
        drafts = [cell.gamma for cell in policy.plan.cells if cell.gamma]
        self.probe = min(min(drafts, default=0), most) if self.learns else 0
        self.finds_none = any(cell.match_share is not None for cell in policy.plan.cells)
        self.refreshing: threading.Thread | None = None
        self.ticks: list[Every] = []
        failed = partial(self.guard.failed, "figures")
        with self.guard("figures"):
            self.ticks.append(MinuteLine(policy.figures, VLLM_LOGGER, failed=failed))
            publish = expose(policy.figures)
            if publish is not None:
                self.ticks.append(Every(SECONDS_PER_PUBLISHING, publish, failed=failed))

    def set_length(self, requests: Any, scheduler_output: Any) -> None:
        """Set the length of the next step's drafts by the requests that decode, if any is scheduled."""
        scheduled = scheduler_output.num_scheduled_tokens
        if not scheduled:
            return
        for tick in self.ticks:
            tick.tick()
        getattr(scheduler_output, "num_spec_tokens_to_schedule")  # noqa: B009  (a vLLM without it is told)
        length, place = self.guard.planned.at(len(scheduled)).gamma, self.place
        self.place = UNKNOWN
        with self.guard("length"):
            decoding, total, longest, prefilling, idle = _load(requests, scheduler_output)
            self._learn(idle, place)
            self.place = (decoding, total) if decoding else place
            length = self.guard.decide(decoding, total, longest, prefilling).gamma
            if decoding and not length:
                self.plain_steps += 1
                length = 0 if self.plain_steps % STEPS_PER_PROBE else self.probe
        if length > self.most:
            length = self.most
            with self.guard("figures"):
                self.policy.not_captured += 1
        self.length = length
        scheduler_output.num_spec_tokens_to_schedule = length

    def count(
        self, stats: Any, num_draft_tokens: int, num_accepted_tokens: int, *args: Any, **kwargs: Any
    ) -> None:
        """Count one request's round, told as vLLM tells it."""
        del stats, args, kwargs
        if num_draft_tokens > 0 and self.place != UNKNOWN:
            self.policy.observe(num_draft_tokens, num_accepted_tokens, 1, *self.place)

    def _learn(self, idle: int, place: tuple[int, int]) -> None:
        """Count rounds of the last step that found nothing to draft; learn if it is time, in a thread."""
        with self.guard("observation"):
            if idle and self.length and self.finds_none and place != UNKNOWN:
                self.policy.observe(0, 0, idle, *place)
        self.steps += 1
        if self.learns and self.steps % STEPS_PER_REFRESH == 0:
            with self.guard("refresh"):
                if self.refreshing is None or not self.refreshing.is_alive():
                    self.refreshing = threading.Thread(target=self._refresh, daemon=True)
                    self.refreshing.start()

    def _refresh(self) -> None:
        with self.guard("refresh"):
            self.policy.refresh()


def _load(requests: Any, scheduler_output: Any) -> tuple[int, int, int, int, int]:
    """Sequences that decode in a step, the sum of their contexts and the longest, tokens of prefills, and
    sequences that had nothing to verify."""
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
    return decoding, total, longest, prefilling, idle


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
            say(logger, f"vLLM's own lengths hold: {error}")
        except Exception as error:
            say(logger, "the plan is not followed, or not all of its lengths were looked at", error)

    def _update_after_schedule(self, *args: Any, **kwargs: Any) -> None:
        """Set the length before vLLM lays out the placeholders of the next step's drafts."""
        if self.draftplan is not None:
            with self.draftplan.guard("engine"):
                self.draftplan.set_length(self.requests, *args, **kwargs)  # type: ignore[attr-defined]
        super()._update_after_schedule(*args, **kwargs)  # type: ignore[misc]

    def make_spec_decoding_stats(self, *args: Any, **kwargs: Any) -> Any:
        """Count one request's round, then let vLLM count it too."""
        if self.draftplan is not None:
            with self.draftplan.guard("observation"):
                self.draftplan.count(*args, **kwargs)
        return super().make_spec_decoding_stats(*args, **kwargs)  # type: ignore[misc]


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
    path = plan_path()
    if not path:
        raise SpecError.single("environment", PLAN, "is not set", "let it name the plan's file")
    if most < 1:
        logger.info("draftplan: no --speculative-config is given, so %s is not followed", printable(path))
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
    logger.info("draftplan: speculation lengths follow %s", printable(path))
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
