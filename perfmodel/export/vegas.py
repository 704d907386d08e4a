"""Vegas: sparse self-speculation in a fork of vLLM 0.16, a ratio of the context per band. Read 2026-11-20."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perfmodel.errors import SpecError
from perfmodel.export.base import (
    Exported,
    ExportOptions,
    check_form,
    prepare,
    schedule_of,
    tell_loss,
)
from perfmodel.files.quoting import json_text
from perfmodel.planning.plan import Plan
from perfmodel.software.checked import CHECKED

FORMS = ("speculative-config", "bands")


@dataclass(frozen=True)
class Vegas:
    """The drafter reads ``max(min_tokens, ratio * context)``: a ratio holds a budget at one context only."""

    name: str = "vegas"
    checked_with: str = str(CHECKED["vegas"])
    forms: tuple[str, ...] = FORMS

    def export(self, plan: Plan, options: ExportOptions) -> Exported:
        """A static configuration, or one per context for deployments that split their traffic by context."""
        form = check_form(self.name, FORMS, options)
        drafter, method, _, schedule, notes = prepare(self.name, plan, options)
        budget = drafter.kv_budget
        if budget is None:
            raise SpecError.single("plan", "kv_budget", "is not set", "plan with --draft-budget")
        contexts = schedule.context_lens

        def configuration(gamma: int, ratio: float) -> dict[str, Any]:
            return {
                "method": method.name,
                "sparse_attn_algorithm": "streamingllm",
                "sparse_attn_ratio": round(ratio, 6),
                "sparse_attn_min_tokens": budget,
                "num_speculative_tokens": gamma,
            }

        if form == "speculative-config":
            if schedule.most == 0:
                raise SpecError.single(
                    "plan", "cells", "never speculate", "start it without --speculative-config"
                )
            if len(schedule.bands) > 1:
                notes.append(f"the fork has no length per batch: {schedule.most} holds for every batch")
            notes.append(tell_loss(plan, options, lambda *_: schedule.most, "one length for every cell"))
            longest = contexts[-1] + int(plan.output_tokens)
            smallest = min(budget / longest, 1.0)
            notes.append(
                f"ratio {smallest:.4f} keeps the budget of {budget} tokens up to context {longest}; "
                "beyond it the budget grows with the context"
            )
            return Exported(json_text(configuration(schedule.most, smallest)), tuple(notes))
        bands, lengths = [], {}
        for context in contexts:
            alone = ExportOptions(contexts=(context, context), max_distinct=1, merge_loss=0.0)
            lengths[context] = length = schedule_of(plan, alone).most
            ratio = min(budget / (context + plan.output_tokens), 1.0)
            bands.append({"context_len": context, **configuration(length, ratio)})
        what = "one length per context for every batch"
        notes.append(tell_loss(plan, options, lambda _, context: lengths[context], what))
        notes.append(
            "one configuration per planned context: run one replica per band, the fork has no such table"
        )
        return Exported(json_text({"bands": bands}), tuple(notes))


exporter = Vegas()
__all__ = ["Vegas", "exporter"]
