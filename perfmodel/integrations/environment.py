"""The environment variables by which a serving engine is told of a plan, and the lines it is answered."""

from __future__ import annotations

import logging
import os
import traceback
from contextlib import suppress

from perfmodel.errors import printable, shown

__all__ = ["LEARN", "PLAN", "VLLM_LOGGER", "learns", "plan_path", "say"]

PLAN = "DRAFTPLAN_PLAN"
"""Names the plan's file."""
LEARN = "DRAFTPLAN_LEARN"
"""1 lets measured acceptance move the plan's; 0, as without it, does not."""
VLLM_LOGGER = "vllm.draftplan"
"""vLLM shows only loggers below its own name."""


def plan_path() -> str | None:
    """The file that the plan is in; None where the variable is not set, empty or blank."""
    path = os.environ.get(PLAN, "")
    return path if path.strip() else None


def learns(logger: logging.Logger) -> bool:
    """Whether measured acceptance may move the plan's; what is neither 1 nor 0 is logged, and is 0."""
    value = os.environ.get(LEARN, "").strip()
    if value not in ("", "0", "1"):
        logger.warning(
            "draftplan: %s is %s: give 1 or 0; the plan's own acceptance holds",
            LEARN,
            printable(shown(value)),
        )
    return value == "1"


def say(logger: logging.Logger, what: str, error: Exception | None = None) -> None:
    """Log an error line, with its traceback if there is one, without what moves a terminal. Never raises."""
    with suppress(Exception):
        text = printable(f"draftplan: {what}")
        if error is not None:
            trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            text += "\n" + printable(trace.rstrip("\n"), keep="\n")
        logger.error("%s", text)
