"""Dynamo and AIConfigurator: nextn and nextn_accepted. Convention of 2026, read 2026-11-20."""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.export.base import Exported, Wish, checked_form, common_notes, compact_json, ladder_of
from perfmodel.planning.gains import expected_tokens
from perfmodel.planning.plan import Plan

FORMS = ("nextn",)


@dataclass(frozen=True)
class Dynamo:
    """Capacity planners that take the length as input; they count accepted drafts without the bonus token."""

    name: str = "dynamo"
    checked_with: str = "convention read on 2026-11-20"
    forms: tuple[str, ...] = FORMS

    def export(self, plan: Plan, wish: Wish) -> Exported:
        """The longest length in use and the drafts accepted per round there, mean over the contexts."""
        checked_form(self.name, FORMS, wish)
        ladder = ladder_of(plan, wish)
        notes = common_notes(ladder, wish)
        gamma = ladder.most
        cells = [
            cell for cell in plan.cells if cell.context_len in ladder.context_lens and cell.alpha is not None
        ]
        weights = [1.0 if wish.weights is None else wish.weights.get(cell.context_len, 0.0) for cell in cells]
        tokens = [expected_tokens(cell, gamma) for cell in cells]
        total = sum(weights)
        accepted = sum(w * (t - 1.0) for w, t in zip(weights, tokens, strict=True)) / total if total else 0.0
        if len(ladder.bands) > 1:
            notes.append(f"one length for every batch: the largest of the plan, {gamma}")
        notes.append("nextn_accepted counts accepted drafts: tokens per round less the bonus token")
        body = {"nextn": gamma, "nextn_accepted": round(accepted if gamma else 0.0, 4)}
        return Exported(compact_json(body), tuple(notes))


exporter = Dynamo()
__all__ = ["Dynamo", "exporter"]
