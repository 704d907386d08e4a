"""Stand-ins for vLLM's scheduler, with the interface of 0.32.0 and 0.33.0."""

import logging
import sys
from types import ModuleType, SimpleNamespace


class Scheduler:
    """What the shim touches of vLLM's scheduler."""

    def __init__(self, vllm_config, most=4):
        self.vllm_config, self.num_spec_tokens = vllm_config, most
        self.requests = {}
        self.counted = []
        self.policy, self.place, self.length, self.ticks, self.steps = "priority", 1, 2, 3, 4

    def schedule(self, scheduled, drafts):
        """One step, as in the engine: the length is the engine's own until the scheduler changes it."""
        output = SimpleNamespace(
            num_scheduled_tokens=scheduled,
            scheduled_spec_decode_tokens=drafts,
            num_spec_tokens_to_schedule=self.num_spec_tokens,
        )
        self._update_after_schedule(output)
        return output.num_spec_tokens_to_schedule

    def _update_after_schedule(self, scheduler_output):
        for request_id, tokens in scheduler_output.num_scheduled_tokens.items():
            if request_id in self.requests:
                self.requests[request_id].num_computed_tokens += tokens

    def make_spec_decoding_stats(self, stats, num_draft_tokens, num_accepted_tokens, invalid, request_id):
        self.counted.append((stats, num_draft_tokens, num_accepted_tokens, invalid, request_id))
        return "stats"


class AsyncScheduler(Scheduler):
    pass


class SchedulerConfig:
    """Answers as vLLM's does: a class that is named by hand first, its own otherwise."""

    def __init__(self, scheduler_cls=None, async_scheduling=True):
        self.scheduler_cls, self.async_scheduling = scheduler_cls, async_scheduling

    def get_scheduler_cls(self):
        return self.scheduler_cls or (AsyncScheduler if self.async_scheduling else Scheduler)


def install(monkeypatch):
    """Put the stand-ins under vLLM's names and return its config class, which is fresh every time."""
    config = type("SchedulerConfig", (SchedulerConfig,), {})
    for name, contents in {
        "vllm": {},
        "vllm.config": {},
        "vllm.config.scheduler": {"SchedulerConfig": config},
        "vllm.logger": {"init_logger": logging.getLogger},
        "vllm.v1": {},
        "vllm.v1.core": {},
        "vllm.v1.core.sched": {},
        "vllm.v1.core.sched.scheduler": {"Scheduler": Scheduler},
        "vllm.v1.core.sched.async_scheduler": {"AsyncScheduler": AsyncScheduler},
    }.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "perfmodel.integrations.vllm", raising=False)
    return config


def config_of(data_parallel=1):
    return SimpleNamespace(parallel_config=SimpleNamespace(data_parallel_size=data_parallel))


def serving(scheduler, *contexts):
    """Requests that decode at these contexts, one token a step."""
    for index, context in enumerate(contexts):
        scheduler.requests[str(index)] = SimpleNamespace(
            num_computed_tokens=context - 1, num_prompt_tokens=context - 10
        )
    return {str(index): 1 for index in range(len(contexts))}
