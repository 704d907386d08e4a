"""A plan file that a command is given, and what of its names nobody here knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perfmodel.planning.plan import Plan

__all__ = ["read_given_plan", "unknown_names"]


def read_given_plan(path: str) -> tuple[Plan, list[str]]:
    """Return the plan in a file, and a remark where it has names that are not known here."""
    from perfmodel.planning.plan import read_plan

    plan = read_plan(path)
    unknown = ", ".join(unknown_names(plan))
    return plan, [f"{path} names what is not known here, and is taken at its word: {unknown}"] * bool(unknown)


def unknown_names(plan: Plan) -> list[str]:
    """Return the models, accelerators, engines and strategies of a plan that have no file here."""
    import strategies
    from perfmodel.engine import EngineOverhead
    from perfmodel.hardware import HardwareProfile
    from perfmodel.model.names import bundled_models

    models, engine = set(bundled_models()), plan.engine.partition("@")[0]
    named = {
        "strategy": ({cell.strategy for cell in plan.cells if cell.speculates}, strategies.available()),
        "model": ({plan.model}, models),
        "draft model": ({cell.draft_model for cell in plan.cells if cell.draft_model}, models),
        "hardware": (set(plan.hardware.split(", ")), HardwareProfile.available()),
        "engine": ({engine}, EngineOverhead.available()),
    }
    return [
        f"{kind} {name!r}" for kind, (names, known) in named.items() for name in sorted(names - set(known))
    ]
