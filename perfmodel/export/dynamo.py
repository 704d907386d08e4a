"""Dynamo and AIConfigurator: nextn and nextn_accepted. Convention of 2026, read 2026-11-20."""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.export.base import Exported, ExportOptions, check_form, common_notes, compact_json, schedule_of
from perfmodel.planning.plan import Plan
from perfmodel.planning.schedule import tokens_by_gamma

FORMS = ("nextn",)


@dataclass(frozen=True)
class Dynamo:
    """Capacity planners that take the length as input; they count accepted drafts without the bonus token."""

    name: str = "dynamo"
    checked_with: str = "convention read on 2026-11-20"
    forms: tuple[str, ...] = FORMS

    def export(self, plan: Plan, options: ExportOptions) -> Exported:
        """The longest length in use and the drafts accepted per round there, mean over the contexts."""
        check_form(self.name, FORMS, options)
        schedule = schedule_of(plan, options)
        notes = common_notes(schedule, options)
        gamma = schedule.most
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
            notes.append(f"one length for every batch: the largest of the plan, {gamma}")
        notes.append("nextn_accepted counts accepted drafts: tokens per round less the bonus token")
        body = {"nextn": gamma, "nextn_accepted": round(accepted if gamma else 0.0, 4)}
        return Exported(compact_json(body), tuple(notes))


exporter = Dynamo()
__all__ = ["Dynamo", "exporter"]
