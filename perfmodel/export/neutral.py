"""Engine-neutral JSON: the table, the bands, what they rest on. Format draftplan/table/1 of 2026-11-21."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from perfmodel.export.base import Exported, ExportOptions, by_batch, check_form, schedule_of
from perfmodel.export.checkpoints import hub_id
from perfmodel.export.loss import loss_of
from perfmodel.files.quoting import json_text
from perfmodel.planning.plan import Plan
from perfmodel.planning.schedule import nearest_cells
from perfmodel.software.checked import CHECKED

SCHEMA = "draftplan/table/1"
FORMS = ("table",)


@dataclass(frozen=True)
class Neutral:
    """For whatever has no exporter yet: nothing of the plan is lost, the context axis included."""

    name: str = "neutral"
    checked_with: str = str(CHECKED["neutral"])
    forms: tuple[str, ...] = FORMS

    def export(self, plan: Plan, options: ExportOptions) -> Exported:
        """Lengths by batch and context, the same collapsed to batch bands, and the plan's provenance."""
        check_form(self.name, FORMS, options)
        schedule = schedule_of(plan, options)
        batches, contexts, rows = nearest_cells(plan)
        loss = loss_of(plan, lambda batch, _: schedule.gamma(batch), options.weights, options.contexts)
        notes = (
            *schedule.notes,
            f"the table keeps every planned length; in its bands {by_batch(schedule, options)}: {loss}",
        )
        draft = schedule.deployment.draft_model
        body: dict[str, Any] = {
            "schema": SCHEMA,
            "model": plan.model,
            "model_id": hub_id(plan.model),
            "draft_model_id": hub_id(draft) if draft else None,
            "engine": plan.engine,
            "deployment": asdict(schedule.deployment),
            "batch_sizes": batches,
            "context_lens": contexts,
            "num_speculative_tokens": [[cell.gamma for cell in row] for row in rows],
            "speedup": [[round(cell.speedup, 4) for cell in row] for row in rows],
            "alpha": [[cell.alpha for cell in row] for row in rows],
            "alpha_first": [[cell.alpha_first for cell in row] for row in rows],
            "alpha_rest": [[cell.alpha_rest for cell in row] for row in rows],
            "answers_for": "the nearest batch size and context on a logarithmic scale",
            "bands": [asdict(band) for band in schedule.bands],
            "collapse": {
                "by": options.collapse,
                "loss": schedule.collapse_loss,
                "worst_loss": schedule.collapse_worst,
                "merge_loss": schedule.merge_loss,
            },
            "notes": list(notes),
            "provenance": {
                "versions": dict(plan.versions),
                "hardware": plan.hardware,
                "request": dict(plan.request),
                "alpha_kind": sorted({cell.alpha_kind for cell in plan.cells if cell.alpha_kind}),
                "assumed": list(plan.assumed),
            },
        }
        return Exported(json_text(body, indent=1), notes, schedule)


exporter = Neutral()
__all__ = ["SCHEMA", "Neutral", "exporter"]
