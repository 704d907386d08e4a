"""vLLM: --speculative-config with a length per batch size. Engine version 0.33.0, checked 2026-11-21."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from perfmodel.errors import SpecError
from perfmodel.export.base import (
    Exported,
    ExportOptions,
    check_form,
    compact_json,
    groups_of,
    prepare,
    require_drafts,
    schedule_of,
)
from perfmodel.planning.plan import Plan
from perfmodel.planning.schedule import PlannedDrafter, Schedule, midpoints, nearest_cells

FORMS = ("speculative-config", "context", "per-seq-len", "env", "scheduler")
PLANNED_SCHEDULER = "perfmodel.integrations.vllm.PlannedScheduler"
PROMPT_LOOKUP_MAX = 4
"""Longest n-gram that is looked up; vLLM wants one bound named, its examples use 4. [tokens]"""


@dataclass(frozen=True)
class VLLM:
    """`speculative-config` is what a release reads; `context` and `per-seq-len` are open pull requests."""

    name: str = "vllm"
    checked_with: str = "0.33.0 on 2026-11-21"
    forms: tuple[str, ...] = FORMS

    def export(self, plan: Plan, options: ExportOptions) -> Exported:
        """The plan as vLLM reads it; ranges are inclusive, gaps and the tail carry the last length on."""
        form = check_form(self.name, FORMS, options)
        drafter, method, path, schedule, notes = prepare(self.name, plan, options)
        by_batch = form in ("speculative-config", "env")
        most = schedule.most if by_batch else max(cell.gamma for cell in plan.cells)
        require_drafts(most, "start vllm without --speculative-config, or use --form scheduler")
        notes = notes if form == "speculative-config" else []
        if drafter.kv_budget is not None:
            why = method.reason or "its method reads the whole cache"
            notes.append(
                f"the draft KV budget of {drafter.kv_budget} tokens is not exported: {why}; "
                "plan with --draft-budget all for what this deployment will do"
            )
        config: dict[str, Any] = {"method": method.name}
        if path and method.name != "ngram":
            config["model"] = path
        if drafter.strategy == "p_eagle":
            config["parallel_drafting"] = True
        if method.name == "ngram":
            config["prompt_lookup_max"] = PROMPT_LOOKUP_MAX
        if drafter.draft_tensor_parallel is not None and method.draft_gpus != "all":
            if drafter.draft_tensor_parallel not in (1, drafter.tensor_parallel):
                raise SpecError.single(
                    "plan", "draft_tensor_parallel",
                    f"is {drafter.draft_tensor_parallel}: vllm runs a draft model on one GPU or on all "
                    f"{drafter.tensor_parallel}",
                    "plan with --draft-tp 1",
                )  # fmt: skip
            config["draft_tensor_parallel_size"] = drafter.draft_tensor_parallel
        config["num_speculative_tokens"] = most
        if _shares(drafter) and form != "scheduler":
            notes.append(f"start vllm with {_shares(drafter)} beside it, as the plan was made for it")
        if form == "env":
            return _environment(schedule, notes)
        if form == "per-seq-len":
            return _per_seq_len(plan, options, config, notes)
        if (groups := groups_of(drafter, options)) > 1:
            notes.append(
                f"data parallel {groups}: vLLM disables the schedule because ranks could "
                f"diverge; {most} speculative tokens are exported for every batch"
            )
            return Exported(compact_json(config), tuple(notes))
        if form == "context":
            config["num_speculative_tokens_per_batch_size"] = _with_contexts(plan, schedule)
            notes.append("entries of five numbers are PR 48944, open: releases refuse them")
            return Exported(compact_json(config), tuple(notes))
        if form == "scheduler":
            shares = f"{_shares(drafter)} ".lstrip()
            arguments = (
                f"{shares}--scheduler-cls {PLANNED_SCHEDULER} "
                f"--speculative-config '{compact_json(config).strip()}'"
            )
            notes.append(
                "set DRAFTPLAN_PLAN to the plan file; vLLM declares the scheduler interface non-public"
            )
            return Exported(arguments + "\n", tuple(notes))
        if len(schedule.bands) > 1:
            config["num_speculative_tokens_per_batch_size"] = [
                [band.first, band.last, band.gamma] for band in schedule.bands
            ]
            notes += _graph_notes(sorted({band.gamma for band in schedule.bands}))
        return Exported(compact_json(config), tuple(notes), schedule)


def _shares(drafter: PlannedDrafter) -> str:
    """Arguments of the server by which GPUs share more than every layer; empty where they do not."""
    groups = f" --data-parallel-size {drafter.data_parallel}" if drafter.data_parallel > 1 else ""
    dealt = " --enable-expert-parallel" if drafter.expert_parallel else ""
    return f"--tensor-parallel-size {drafter.tensor_parallel}{groups}{dealt}" if groups or dealt else ""


def _graph_notes(gammas: list[int]) -> list[str]:
    notes = [
        f"{len(gammas)} distinct lengths: model runner V1 falls back to piecewise graphs (14 to 31 % of a "
        "single stream, issues 49548 and 49986), V2 captures one graph family for each",
        "the batch that is looked up counts joining prefills (issue 49548): lengths may flip while "
        "requests join",
    ]
    if 0 in gammas:
        notes.append(
            "length 0 is not plain decoding: the drafter stays loaded and keeps its cache up to date "
            "(issue 49986)"
        )
    return notes


def _environment(schedule: Schedule, notes: list[str]) -> Exported:
    """The one context that adaptive verification profiles its step costs at: the planned median."""
    contexts = schedule.context_lens
    median = contexts[(len(contexts) - 1) // 2]
    notes.append(
        "with enable_adaptive_verification vLLM trims verification itself; give it num_speculative_tokens "
        f"{schedule.most} and no schedule"
    )
    return Exported(f"VLLM_ADAPTIVE_VERIFICATION_PROFILE_CONTEXT_LEN={median}\n", tuple(notes))


def _with_contexts(plan: Plan, schedule: Schedule) -> list[list[int]]:
    """Entries [first batch, last batch, first context, last context, length] of every planned cell."""
    batches, contexts, rows = nearest_cells(plan)
    entries: list[list[int]] = []
    for row, (first, last) in zip(rows, _ranges(batches, 1, schedule.last_batch), strict=True):
        for cell, (low, high) in zip(row, _ranges(contexts, 0, contexts[-1]), strict=True):
            if first > last or low > high:
                continue
            before = entries[-1] if entries else None
            if before and before[:2] == [first, last] and before[4] == cell.gamma and before[3] + 1 == low:
                before[3] = high
            else:
                entries.append([first, last, low, high, cell.gamma])
    return entries


def _ranges(values: tuple[int, ...], start: int, last: int) -> list[tuple[int, int]]:
    """Whole numbers nearest to each value on a logarithmic scale: inclusive ranges from `start` to `last`."""
    firsts = [start, *(math.ceil(middle) for middle in midpoints(values))]
    stops = [*(first - 1 for first in firsts[1:]), max(last, firsts[-1])]
    return list(zip(firsts, [min(stop, last) if last < values[-1] else stop for stop in stops], strict=True))


def _per_seq_len(plan: Plan, options: ExportOptions, config: dict[str, Any], notes: list[str]) -> Exported:
    """Entries [first context, last context, length]: here the batch axis is the one that collapses."""
    cells = [replace(cell, batch_size=cell.context_len, context_len=cell.batch_size) for cell in plan.cells]
    turned = replace(plan, cells=tuple(cells), request={})
    unlimited = replace(options, weights=None, contexts=None, max_batch=None)
    schedule = schedule_of(turned, unlimited)
    bands = [[band.first if band.first > 1 else 0, band.last, band.gamma] for band in schedule.bands]
    config["num_speculative_tokens"] = max(schedule.most, 1)
    config["num_speculative_tokens_per_seq_len"] = bands
    notes.append("num_speculative_tokens_per_seq_len is PR 54801, open: releases refuse it")
    notes.append(
        f"all batch sizes are one length per context (by {options.collapse}): "
        f"{schedule.collapse_loss:.2%} of speed lost on average, {schedule.collapse_worst:.2%} in the "
        "worst cell"
    )
    return Exported(compact_json(config), tuple(notes))


exporter = VLLM()
__all__ = ["VLLM", "exporter"]
