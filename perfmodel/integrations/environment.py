"""The environment variables by which a serving engine is told of a plan."""

from __future__ import annotations

import os

__all__ = ["LEARN", "PLAN", "VLLM_LOGGER", "learns"]

PLAN = "DRAFTPLAN_PLAN"
"""Names the plan's file."""
LEARN = "DRAFTPLAN_LEARN"
"""1 lets measured acceptance move the plan's."""
VLLM_LOGGER = "vllm.draftplan"
"""vLLM shows only loggers below its own name."""


def learns() -> bool:
    """Whether measured acceptance may move the plan's."""
    return os.environ.get(LEARN) == "1"
