"""Dynamo, AIConfigurator 0.11 and AISimulate 0.13: nextn and nextn_accepted, read 2026-11-28."""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.errors import SpecError
from perfmodel.export.base import (
    Exported,
    ExportOptions,
    check_form,
    require_drafts,
    schedule_of,
    tell_loss,
)
from perfmodel.files.quoting import decimal, json_text
from perfmodel.planning.plan import Plan
from perfmodel.planning.schedule import tokens_by_gamma
from perfmodel.software.checked import CHECKED

FORMS = ("nextn", "aiconfigurator", "aisimulate")
MOST_NEXTN = 5
"""Longest draft that AISimulate's schema takes (ai-dynamo/aisimulate, EstimatorPolicyConfig). [tokens]"""
RENAMED = (
    "one number takes the place of nextn_accept_rates since AIConfigurator 0.11 (PR 1383, July 2026); "
    "Dynamo's mocker to 1.5 still takes --aic-nextn-accept-rates"
)


@dataclass(frozen=True)
class Dynamo:
    """Capacity planners that take the length as input; they count accepted drafts without the bonus token."""

    name: str = "dynamo"
    checked_with: str = str(CHECKED["dynamo"])
    forms: tuple[str, ...] = FORMS

    def export(self, plan: Plan, options: ExportOptions) -> Exported:
        """The longest length in use and the drafts accepted per round there, mean over the contexts."""
        form = check_form(self.name, FORMS, options)
        schedule = schedule_of(plan, options)
        gamma = schedule.most
        notes = [*schedule.notes, tell_loss(plan, options, lambda *_: gamma, "one length for every cell")]
        cells = [
            cell
            for cell in plan.cells
            if cell.context_len in schedule.context_lens and cell.alpha is not None
        ]
        weights = [
            1.0 if options.weights is None else options.weights.get(cell.context_len, 0.0) for cell in cells
        ]
        tokens = [tokens_by_gamma(cell, (gamma,))[0] for cell in cells]
        total = sum(weights)
        accepted = sum(w * (t - 1.0) for w, t in zip(weights, tokens, strict=True)) / total if total else 0.0
        if len(schedule.bands) > 1:
            notes.append(f"one length for every batch: the longest of those by batch, {gamma}")
        notes.append("nextn_accepted counts accepted drafts: tokens per round less the bonus token")
        accepted = round(accepted if gamma else 0.0, 4)
        if form == "nextn":
            return Exported(json_text({"nextn": gamma, "nextn_accepted": accepted}), tuple(notes))
        require_drafts(gamma, "leave nextn out: both refuse nextn_accepted without it")
        notes.append(RENAMED)
        if form == "aiconfigurator":
            return Exported(f"--nextn {gamma} --nextn-accepted {decimal(accepted)}\n", tuple(notes))
        if gamma > MOST_NEXTN:
            raise SpecError.single(
                "plan", "cells", f"draft up to {gamma} tokens; AISimulate takes nextn to {MOST_NEXTN}",
                "plan with --gamma " + ",".join(map(str, range(MOST_NEXTN + 1))),
            )  # fmt: skip
        notes.append("merge engine into the file of aisimulate predict --config")
        return Exported(f"engine:\n  nextn: {gamma}\n  nextn_accepted: {decimal(accepted)}\n", tuple(notes))


exporter = Dynamo()
__all__ = ["Dynamo", "exporter"]
