"""OpenVINO GenAI: a pipeline and per-request lengths from a plan. Ran with 2026.4.1 on 2026-11-21."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from perfmodel.errors import SpecError
from perfmodel.integrations.guard import Guard
from perfmodel.policy import SpeculationPolicy

__all__ = ["PlannedRequests", "eviction_arguments", "pipeline_properties"]


logger = logging.getLogger("draftplan")


class PlannedRequests:
    """Gives every request its own number of assistant tokens, from the plan at the load of that moment."""

    def __init__(self, policy: SpeculationPolicy) -> None:
        self.policy, self.guard = policy, Guard(policy, logger, "OpenVINO")

    def config(
        self, generation_config: Any, prompt_tokens: int, running: int = 0, running_context: int = 0
    ) -> Any:
        """Set the length for a request that joins `running` others of
        `running_context` tokens together.

        A request keeps it to its end: the engine takes it when the request is added. Where the plan says not
        to speculate, use a pipeline without a draft model: the engine reads 0 as its own default. Where the
        policy fails the plan's own length is set, and a config that takes none is returned as it is.

        Raises
        ------
        SpecError
            Where the plan does not speculate at this load.
        """
        decision = self.guard.planned.at()
        with self.guard("length"):
            decision = self.guard.decide(running + 1, running_context + prompt_tokens, prompt_tokens)
        if decision.gamma == 0:
            raise SpecError.single(
                "plan", "num_assistant_tokens", f"no speculation pays here ({decision.reason})",
                "send this request to a pipeline without a draft model",
            )  # fmt: skip
        with self.guard("engine"):
            generation_config.num_assistant_tokens = decision.gamma
            generation_config.assistant_confidence_threshold = 0.0
        return generation_config


def eviction_arguments(exported: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, int]] | None:
    """Arguments of `CacheEvictionConfig` for the draft and the target of an exported plan; None without a
    budget.

    The target's limit lies above every planned context: it evicts nothing, but the draft may not evict alone.
    """
    draft = exported.get("draft_cache_eviction")
    if draft is None:
        return None
    size = int(exported["target_cache_eviction"]["max_cache_size"])
    block = int(draft["start_size"])
    return dict(draft), {"start_size": block, "recent_size": size - 2 * block, "max_cache_size": size}


def pipeline_properties(
    exported: Mapping[str, Any], draft_path: str | None = None, device: str = "CPU"
) -> dict[str, Any]:
    """Keyword arguments of `openvino_genai.LLMPipeline` for an exported plan (``draftplan export --engine
    openvino``).

    Raises
    ------
    SpecError
        Where neither the plan nor the caller names the draft model's folder.
    """
    import openvino_genai as genai

    if exported.get("prompt_lookup"):
        return {"prompt_lookup": True}
    path = draft_path or exported.get("draft_model")
    if not path:
        raise SpecError.single(
            "request", "draft_path", "is not named", "name the folder of the exported draft model"
        )
    sizes = eviction_arguments(exported)
    if sizes is None:
        return {"draft_model": genai.draft_model(path, device)}
    draft, target = (_scheduler(genai, size) for size in sizes)
    return {
        "draft_model": genai.draft_model(path, device, scheduler_config=draft),
        "scheduler_config": target,
    }


def _scheduler(genai: Any, sizes: Mapping[str, int]) -> Any:
    """Eviction by accumulated scores alone: a SnapKV window (8 by default) aborts the draft's first round."""
    config = genai.SchedulerConfig()
    config.use_cache_eviction = True
    config.cache_eviction_config = genai.CacheEvictionConfig(
        aggregation_mode=genai.AggregationMode.NORM_SUM, snapkv_window_size=0, **sizes
    )
    return config
