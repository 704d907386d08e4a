"""vLLM: --speculative-config with a length per batch size. Engine version 0.33.0, checked 2026-11-28."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from perfmodel.errors import SpecError
from perfmodel.export.base import (
    Exported,
    ExportOptions,
    by_batch,
    check_form,
    groups_of,
    most_planned,
    prepare,
    require_drafts,
    schedule_of,
    tell_loss,
)
from perfmodel.export.grid import INFINITY, grid_of, narrowed
from perfmodel.files.quoting import environment, json_text, shell_line
from perfmodel.files.units import plural
from perfmodel.planning.plan import Cell, Plan
from perfmodel.planning.schedule import PlannedDrafter, Schedule
from perfmodel.software.checked import CHECKED

FORMS = ("speculative-config", "context", "per-seq-len", "env", "scheduler")
PLANNED_SCHEDULER = "perfmodel.integrations.vllm.PlannedScheduler"
PROMPT_LOOKUP_MAX = 4
"""Longest n-gram that is looked up; vLLM wants one bound named, its examples use 4. [tokens]"""


@dataclass(frozen=True)
class VLLM:
    """`speculative-config` is what a release reads; `context` and `per-seq-len` are open pull requests."""

    name: str = "vllm"
    checked_with: str = str(CHECKED["vllm"])
    forms: tuple[str, ...] = FORMS

    def export(self, plan: Plan, options: ExportOptions) -> Exported:
        """The plan as vLLM reads it; ranges are inclusive, gaps and the tail carry the last length on."""
        form = check_form(self.name, FORMS, options)
        drafter, method, path, schedule, notes = prepare(self.name, plan, options)
        most = schedule.most
        if form not in ("speculative-config", "env"):
            most = most_planned(plan, None if form == "scheduler" else options.contexts)
        require_drafts(most, "start vllm without --speculative-config, or use --form scheduler")
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
                f"diverge; num_speculative_tokens {most} is exported for every batch"
            )
            notes.append(tell_loss(plan, options, lambda *_: most, "one length for every cell"))
            return Exported(json_text(config), tuple(notes))
        if form == "context":
            grid = grid_of(narrowed(plan, options.contexts), schedule.last_batch)
            config["speculative_token_schedule"] = [
                [*batches, *contexts, length]
                for batches, row in zip(grid.batches, grid.lengths, strict=True)
                for contexts, length in zip(grid.contexts, row, strict=True)
            ]
            config["ctx_agg"] = "mean"
            notes.append(
                "speculative_token_schedule and ctx_agg are PR 48944, open: releases refuse them; ctx_agg "
                "looks up the mean of the running contexts, as the plan is priced (median and max are others)"
            )
            notes.append(tell_loss(plan, options, grid.length, "batch and context ranges"))
            return Exported(json_text(config), tuple(notes))
        if form == "scheduler":
            table, without = _graph_table(plan, schedule.last_batch)
            if table:
                config["num_speculative_tokens_per_batch_size"] = table
                notes += _scheduler_notes(len(table), without)
            words = [*_shares(drafter).split(), "--scheduler-cls", PLANNED_SCHEDULER]
            words += ["--speculative-config", json_text(config).strip()]
            notes.append(
                "set DRAFTPLAN_PLAN to the plan file; vLLM declares the scheduler interface non-public"
            )
            exact = grid_of(plan, max(schedule.last_batch, *(cell.batch_size for cell in plan.cells)))
            notes.append(tell_loss(plan, options, exact.length, "the scheduler class asks the plan"))
            return Exported(shell_line(words) + "\n", tuple(notes))
        what = by_batch(schedule, options)
        notes.append(tell_loss(plan, options, lambda batch, _: schedule.gamma(batch), what))
        if len(schedule.bands) > 1:
            config["num_speculative_tokens_per_batch_size"] = [
                [band.first, band.last, band.gamma] for band in schedule.bands
            ]
            notes += _graph_notes(sorted({band.gamma for band in schedule.bands}))
        return Exported(json_text(config), tuple(notes), schedule, "--speculative-config")


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


def _graph_table(plan: Plan, last_batch: int) -> tuple[list[list[int]], tuple[int, ...]]:
    """Return a schedule that names every length of the plan, and the lengths for which it has no batch.

    vLLM captures full decode graphs for the lengths of its schedule within max_num_seqs, for the longest
    alone where it has none. Every length stands at the widest batch that is left, the longest at the last.
    """
    lengths = sorted({cell.gamma for cell in plan.cells})
    if len(lengths) == 1:
        return [], ()
    kept, without = lengths[-last_batch:], lengths[:-last_batch]
    firsts = [1, *range(last_batch - len(kept) + 2, last_batch + 1)]
    lasts = [*(first - 1 for first in firsts[1:]), last_batch]
    rows = [[first, last, length] for first, last, length in zip(firsts, lasts, kept, strict=True)]
    return rows, tuple(without)


def _scheduler_notes(lengths: int, without: tuple[int, ...]) -> list[str]:
    notes = [
        f"the schedule beside the class is read for its {plural(lengths, 'length')} alone: without it vLLM "
        "captures decode graphs for the longest; the class decides. Give --max-batch the "
        "max_num_seqs of the server",
        "lengths that DRAFTPLAN_LEARN moves to are not in it and run without full graphs",
    ]
    if without:
        shorter = ", ".join(map(str, without))
        notes.append(
            f"no batch is left for length {shorter}, which gets no graphs: give --max-batch and the server's "
            f"max_num_seqs {lengths + len(without)} or more"
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
    line = environment("VLLM_ADAPTIVE_VERIFICATION_PROFILE_CONTEXT_LEN", str(median))
    return Exported(line, tuple(notes))


def _per_seq_len(plan: Plan, options: ExportOptions, config: dict[str, Any], notes: list[str]) -> Exported:
    """Entries [first context, last context, length]: here the batch axis is the one that collapses."""
    inside = narrowed(plan, options.contexts)
    turned = replace(inside, cells=tuple(map(_turned(plan.half_way), inside.cells)), request={})
    unlimited = replace(options, weights=None, contexts=None, max_batch=None)
    schedule = schedule_of(turned, unlimited)
    bands = [[band.first, band.last, band.gamma] for band in schedule.bands]
    bands[-1][1] = INFINITY
    config["num_speculative_tokens"] = max(schedule.most, 1)
    config["num_speculative_tokens_per_seq_len"] = bands
    notes.append("num_speculative_tokens_per_seq_len is PR 54801, open: releases refuse it")
    half = round(plan.half_way)
    what = f"all batch sizes are one length per context (by {options.collapse})"
    notes.append(tell_loss(plan, options, lambda _, context: schedule.gamma(context + half), what))
    return Exported(json_text(config), tuple(notes))


def _turned(half_way: float) -> Callable[[Cell], Cell]:
    """Return what swaps the axes of a cell: its running context becomes the batch."""
    return lambda cell: replace(
        cell, batch_size=cell.context_len + round(half_way), context_len=cell.batch_size
    )


exporter = VLLM()
__all__ = ["VLLM", "exporter"]
