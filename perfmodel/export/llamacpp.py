"""llama.cpp: speculation flags and relative batch costs. Flags of November 2026, read 2026-11-20."""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.errors import SpecError
from perfmodel.export.base import (
    Exported,
    ExportOptions,
    Method,
    checked_form,
    common_notes,
    method_of,
    schedule_of,
)
from perfmodel.planning.plan import Plan
from perfmodel.planning.schedule import planned_drafter

METHODS = {
    "eagle": Method("draft-eagle3", needs_path=True),
    "mtp": Method("draft-mtp"),
    "ngram": Method("ngram-simple"),
    "full_kv+draft": Method("draft-simple", needs_path=True),
    "streaming_llm+draft": Method("draft-simple", needs_path=True),
}
REFUSAL = "no --spec-type drafts with the target's own weights"
FORMS = ("flags", "costs")


@dataclass(frozen=True)
class LlamaCpp:
    """One length for everything: it has neither a batch nor a context table."""

    name: str = "llamacpp"
    checked_with: str = "flags of November 2026, read on 2026-11-20"
    forms: tuple[str, ...] = FORMS

    def export(self, plan: Plan, options: ExportOptions) -> Exported:
        """Flags of llama-server, or GGML_BATCH_COSTS (pull request 17034)."""
        if checked_form(self.name, FORMS, options) == "costs":
            return _costs(plan)
        deployment = planned_drafter(plan)
        method, path = method_of(self.name, METHODS, REFUSAL, deployment, options)
        schedule = schedule_of(plan, options)
        notes = common_notes(schedule, options)
        gamma = schedule.gamma(1)
        if len(schedule.bands) > 1:
            lengths = ", ".join(f"{band.gamma} from batch {band.first}" for band in schedule.bands)
            notes.append(
                f"llama.cpp keeps one length for every batch; the plan has {lengths}; that of batch 1 holds"
            )
        if gamma == 0:
            raise SpecError.single(
                "plan", "cells", "do not speculate at batch 1", "start llama-server without --spec-type"
            )
        flags = ["--spec-type", method.name]
        if path and method.name.startswith("draft"):
            flags += ["--model-draft", path]
        flags += ["--spec-draft-n-max", str(gamma), "--spec-draft-n-min", "0"]
        budget = deployment.kv_budget
        if budget is not None:
            notes.append(f"the draft KV budget of {budget} tokens is not exported: only its types can be")
        return Exported(" ".join(flags) + "\n", tuple(notes), schedule)


def _costs(plan: Plan) -> Exported:
    """Relative cost per token of a pass over 1, 2, ... tokens; lengths between are interpolated. [1]"""
    candidates = [cell for cell in plan.cells if cell.speculates]
    if not candidates:
        raise SpecError.single(
            "plan", "cells", "hold no speculated round", "plan with a drafter that pays somewhere"
        )
    cell = min(candidates, key=lambda candidate: (candidate.batch_size, candidate.context_len))
    a_pass = cell.draft_s / cell.gamma
    overhead = max(cell.round_s - cell.draft_s - cell.verify_s, 0.0)
    known = {1: cell.baseline_s}
    for gamma, round_s in zip(plan.gammas, cell.round_by_gamma_s, strict=True):
        if gamma > 0:
            known[gamma + 1] = max(round_s - gamma * a_pass - overhead, cell.baseline_s)
    counts = sorted(known)
    costs = []
    for tokens in range(1, counts[-1] + 1):
        low = max(count for count in counts if count <= tokens)
        high = min(count for count in counts if count >= tokens)
        share = 0.0 if high == low else (tokens - low) / (high - low)
        seconds = known[low] + share * (known[high] - known[low])
        costs.append(seconds / (tokens * cell.baseline_s))
    notes = [
        f"costs of batch {cell.batch_size} at context {cell.context_len} relative to one token",
        "GGML_BATCH_COSTS is pull request 17034: releases ignore it",
    ]
    if cell.batch_size > 1:
        notes.append("batch 1 does not speculate in the plan: the smallest batch that does stands for it")
    return Exported("GGML_BATCH_COSTS=" + ",".join(f"{cost:.4g}" for cost in costs) + "\n", tuple(notes))


exporter = LlamaCpp()
__all__ = ["METHODS", "LlamaCpp", "exporter"]
