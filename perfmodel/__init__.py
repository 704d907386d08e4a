"""Plan speculative decoding for long-context serving: the public names, each loaded when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from perfmodel._version import __version__

if TYPE_CHECKING:
    from perfmodel.acceptance import acceptance_rate, expected_tokens
    from perfmodel.engine import EngineOverhead
    from perfmodel.errors import InfeasibleError, SpecError
    from perfmodel.hardware import HardwareProfile
    from perfmodel.latency import step_latency
    from perfmodel.memory import largest_batch, resident_memory
    from perfmodel.model import ModelSpec
    from perfmodel.planning.plan import Cell, Plan
    from perfmodel.planning.planner import Constraints, default_drafters, plan
    from perfmodel.policy import Decision, SpeculationPolicy
    from perfmodel.speculation import Drafter, Round, price_round
    from perfmodel.workload import Workload

__all__ = [
    "Cell",
    "Constraints",
    "Decision",
    "Drafter",
    "EngineOverhead",
    "HardwareProfile",
    "InfeasibleError",
    "ModelSpec",
    "Plan",
    "Round",
    "SpecError",
    "SpeculationPolicy",
    "Workload",
    "__version__",
    "acceptance_rate",
    "default_drafters",
    "expected_tokens",
    "largest_batch",
    "plan",
    "price_round",
    "resident_memory",
    "step_latency",
]

_HOME = {
    "acceptance": ("acceptance_rate", "expected_tokens"),
    "engine": ("EngineOverhead",),
    "errors": ("InfeasibleError", "SpecError"),
    "hardware": ("HardwareProfile",),
    "latency": ("step_latency",),
    "memory": ("largest_batch", "resident_memory"),
    "model": ("ModelSpec",),
    "planning.plan": ("Cell", "Plan"),
    "planning.planner": ("Constraints", "default_drafters", "plan"),
    "policy": ("Decision", "SpeculationPolicy"),
    "deployment": ("Drafter",),
    "speculation": ("Round", "price_round"),
    "workload": ("Workload",),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load the module that defines a public name, and remember the name."""
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names too, loaded or not."""
    return sorted({*globals(), *__all__})
