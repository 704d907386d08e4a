"""The vLLM plug-in: with DRAFTPLAN_PLAN set, speculation follows the plan; without it, nothing is done.

Entry point ``draftplan`` of ``vllm.general_plugins``, which vLLM calls in each of its processes, maybe more
than once (https://docs.vllm.ai/en/latest/design/plugin_system/). It imports nothing until the engine asks for
its scheduler, and it never raises: vLLM would not start.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import Any

from perfmodel.integrations.environment import PLAN, VLLM_LOGGER

__all__ = ["register"]


def register() -> bool:
    """Let vLLM's scheduler config answer with the planned scheduler; whether it does from now on.

    A scheduler class that was named by hand stays, and so does one that is not vLLM's common one.
    """
    if not os.environ.get(PLAN):
        return False
    try:
        from vllm.config.scheduler import SchedulerConfig

        asked = SchedulerConfig.get_scheduler_cls
        if getattr(asked, "follows_a_plan", False):
            return True

        @functools.wraps(asked)
        def get_scheduler_cls(config: Any) -> Any:
            engines_own = asked(config)
            if getattr(config, "scheduler_cls", None) is not None:
                return engines_own
            try:
                from perfmodel.integrations.vllm import planned_class

                return planned_class(engines_own)
            except Exception:
                logging.getLogger(VLLM_LOGGER).exception("draftplan: vLLM's own scheduler runs")
                return engines_own

        get_scheduler_cls.follows_a_plan = True  # type: ignore[attr-defined]
        SchedulerConfig.get_scheduler_cls = get_scheduler_cls
    except Exception:
        logging.getLogger(VLLM_LOGGER).exception("draftplan: this vLLM has no scheduler class to replace")
        return False
    return True
