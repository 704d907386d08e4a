"""Hugging Face transformers: the assistant's generation config. Version 5.24.0, checked 2026-11-28."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from perfmodel.export.base import Exported, ExportOptions, check_form, prepare, tell_loss
from perfmodel.files.quoting import json_text
from perfmodel.planning.plan import Plan
from perfmodel.software.checked import CHECKED

FORMS = ("generation-config",)


@dataclass(frozen=True)
class Transformers:
    """One sequence at a time: `generate` refuses to assist a larger batch."""

    name: str = "transformers"
    checked_with: str = str(CHECKED["transformers"])
    forms: tuple[str, ...] = FORMS

    def export(self, plan: Plan, options: ExportOptions) -> Exported:
        """The length at the smallest planned batch, as keys of a `GenerationConfig`."""
        check_form(self.name, FORMS, options)
        drafter, method, _, schedule, notes = prepare(self.name, plan, options)
        gamma = schedule.gamma(1)
        smallest = min(cell.batch_size for cell in plan.cells)
        first = replace(plan, cells=tuple(cell for cell in plan.cells if cell.batch_size == smallest))
        what = f"one length for every context at batch {smallest}"
        notes.append(tell_loss(first, options, lambda *_: gamma, what))
        if schedule.last_batch > 1:
            notes.append("generate() assists one sequence at a time: only the length at batch 1 is exported")
        if smallest > 1:
            notes.append("batch 1 was not planned: the smallest planned batch answers")
        body: dict[str, Any] = {"num_assistant_tokens": gamma}
        if gamma == 0:
            notes.append("at batch 1 the plan does not speculate: call generate() without an assistant")
        elif method.name == "prompt_lookup":
            body = {"prompt_lookup_num_tokens": gamma}
        else:
            body |= {"num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.0}
            named = options.draft_path or drafter.draft_model
            place = "load it into assistant.generation_config" + (f" of {named}" if named else "")
            notes.append(f"{place}: generate() reads these keys there, not from the target's")
        if drafter.kv_budget is not None:
            notes.append(
                f"the draft KV budget of {drafter.kv_budget} tokens has no key: "
                "perfmodel.integrations.transformers applies it, and follows the context too"
            )
        return Exported(json_text(body), tuple(notes), schedule)


exporter = Transformers()
__all__ = ["Transformers", "exporter"]
