"""The vLLM plug-in: with DRAFTPLAN_PLAN set, speculation follows the plan; without it, nothing is done.

Entry point ``draftplan`` of ``vllm.general_plugins``, which vLLM calls in each of its processes, maybe more
than once (https://docs.vllm.ai/en/latest/design/plugin_system/). It imports nothing until the engine asks for
its scheduler, and it never raises: vLLM would not start.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

from perfmodel.integrations.environment import VLLM_LOGGER, plan_path, say

__all__ = ["register"]


def register() -> bool:
    """Let vLLM's scheduler config answer with the planned scheduler; whether it does from now on.

    A scheduler class that was named by hand stays, and so does one that is not vLLM's common one.
    """
    if plan_path() is None:
        return False
    try:
        from vllm.config.scheduler import SchedulerConfig

        asked = SchedulerConfig.get_scheduler_cls
        if getattr(asked, "follows_a_plan", False):
            return True

        @functools.wraps(asked)
        def get_scheduler_cls(config: Any, *args: Any, **kwargs: Any) -> Any:
            engines_own = asked(config, *args, **kwargs)
            try:
                if getattr(config, "scheduler_cls", None) is not None:
                    return engines_own
                from perfmodel.integrations.vllm import planned_class

                return planned_class(engines_own)
            except Exception as error:
                say(logging.getLogger(VLLM_LOGGER), "vLLM's own scheduler runs", error)
                return engines_own

        get_scheduler_cls.follows_a_plan = True  # type: ignore[attr-defined]
        SchedulerConfig.get_scheduler_cls = get_scheduler_cls
    except Exception as error:
        say(logging.getLogger(VLLM_LOGGER), "this vLLM has no scheduler class to replace", error)
        return False
    return True
