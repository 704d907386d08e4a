"""What engines can be started with: one drafter and draft KV budget for all cells, in the engine's words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from perfmodel import export
from perfmodel.errors import SpecError
from perfmodel.planning.plan import Cell, Plan

__all__ = ["Configuration", "RankedDrafter", "configurations", "rank_drafters"]

NOTHING_TO_SAY = "plain decoding needs no configuration"
NOT_SAID = "is not exported"
"""What a note says of a part of the plan that the engine has no word for."""


@dataclass(frozen=True)
class RankedDrafter:
    """One drafter and budget for all cells; `slower`: its mean time per token over the best, less 1. [1]"""

    plan: Plan
    slower: float

    @property
    def drafting(self) -> Cell | None:
        """A cell in which it drafts, or None where it never does."""
        return next((cell for cell in self.plan.cells if cell.speculates), None)


@dataclass(frozen=True)
class Configuration:
    """What one engine is told, or why it cannot be told anything."""

    engine: str
    checked_with: str
    text: str = ""
    notes: tuple[str, ...] = ()
    deployment: RankedDrafter | None = None
    refusal: str = ""


def rank_drafters(answer: Plan, plans: Sequence[Plan]) -> tuple[RankedDrafter, ...]:
    """The deployments that draft anywhere, the fastest first.

    The mean is geometric, over the cells of `answer`, which holds the best of every cell.
    """
    best = {(cell.batch_size, cell.context_len): cell.tpot_s for cell in answer.cells}
    drafters = []
    for plan in plans:
        logs = [math.log(cell.tpot_s / best[cell.batch_size, cell.context_len]) for cell in plan.cells]
        drafters.append(RankedDrafter(plan, math.expm1(sum(logs) / len(logs))))
    return tuple(
        sorted((drafter for drafter in drafters if drafter.drafting), key=lambda drafter: drafter.slower)
    )


def configurations(deployments: Sequence[RankedDrafter]) -> tuple[Configuration, ...]:
    """Every engine's configuration: the fastest deployment that it can be told whole, else in part."""
    return tuple(_configuration(name, deployments) for name in export.exporters())


def _configuration(name: str, deployments: Sequence[RankedDrafter]) -> Configuration:
    exporter = export.load(name)
    in_part: Configuration | None = None
    refusal = NOTHING_TO_SAY
    for place, deployment in enumerate(deployments):
        try:
            exported = exporter.export(deployment.plan, export.ExportOptions())
        except SpecError as refused:
            if place == 0:
                refusal = "; ".join(_said(fault.problem, fault.remedy) for fault in refused.faults)
            continue
        configuration = Configuration(
            name, exporter.checked_with, exported.text, tuple(exported.notes), deployment
        )
        if not any(NOT_SAID in note for note in exported.notes):
            return configuration
        in_part = in_part or configuration
    return in_part or Configuration(name, exporter.checked_with, refusal=refusal)


def _said(problem: str, remedy: str) -> str:
    return f"{problem}; {remedy}" if remedy else problem
