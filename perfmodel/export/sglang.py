"""SGLang: flags with a draft window, adaptive JSON, step costs. Engine version 0.5.23, checked 2026-11-28."""

from __future__ import annotations

from dataclasses import dataclass

import strategies
from perfmodel.errors import SpecError
from perfmodel.export.base import (
    Exported,
    ExportOptions,
    by_batch,
    check_form,
    flags_line,
    groups_of,
    most_planned,
    prepare,
    require_drafts,
    tell_loss,
)
from perfmodel.export.costs import additive_costs, flat_costs, verification_points
from perfmodel.export.grid import Grid, grid_of, narrowed
from perfmodel.files.quoting import json_text
from perfmodel.files.units import plural
from perfmodel.planning.plan import Plan
from perfmodel.planning.schedule import PlannedDrafter, Schedule
from perfmodel.software import Method
from perfmodel.software.checked import CHECKED
from perfmodel.software.sglang import IGNORED

FORMS = ("flags", "adaptive", "pinned", "guided", "context", "sps", "sps-additive")
ADAPTIVE = ("EAGLE", "EAGLE3", "NEXTN")
"""Algorithms that change their steps at run time; NEXTN is an alias of EAGLE."""
CONFIG_FILE = "adaptive.json"
CAPTURED = (*range(1, 9), *range(10, 33, 2), *range(40, 65, 4), *range(72, 257, 8), *range(272, 4097, 16))
"""Batch sizes of which 0.5.23 captures graphs under speculation (arg_groups/cuda_graph_hook.py)."""
UNREAD = (
    "sglang reads this file beside --speculative-adaptive --speculative-adaptive-config {} alone; --form "
    "flags leaves them out, for after merging one length is left, {}"
)
"""Where the flags keep one length, and a file of lengths is written all the same."""
TREE_KERNELS = (
    "a tree needs the flashinfer, fa3 or triton attention backend; trtllm_mha and block-sparse ones verify "
    "chains only"
)


@dataclass(frozen=True)
class SGLang:
    """Keys of the adaptive file are lower bounds of the batch, padded to a captured graph size before."""

    name: str = "sglang"
    checked_with: str = str(CHECKED["sglang"])
    forms: tuple[str, ...] = FORMS

    def export(self, plan: Plan, options: ExportOptions) -> Exported:
        """The plan as SGLang reads it: flags, a table of steps per batch, or a table of step costs."""
        form = check_form(self.name, FORMS, options)
        if form.startswith("sps"):
            return _costs(plan, options, additive=form == "sps-additive")
        drafter, method, path, schedule, notes = prepare(self.name, plan, options)
        whole = form in ("adaptive", "context")
        most = most_planned(plan, options.contexts) if whole else schedule.most
        require_drafts(most, "start sglang without --speculative-algorithm, or use --form adaptive")
        unfit = adaptive_refusal(method.name, groups_of(drafter, options), branches=drafter.branches)
        if form != "flags":
            if unfit:
                raise SpecError.single(
                    "request", "--form", f"sglang has no adaptive steps here: {unfit}", "use --form flags"
                )
            if len(schedule.bands) == 1:
                notes.append(UNREAD.format(CONFIG_FILE, schedule.most))
            if whole:
                return _by_cell(plan, options, schedule, notes, contexts=form == "context")
            what = by_batch(schedule, options)
            notes.append(tell_loss(plan, options, lambda batch, _: schedule.gamma(batch), what))
            notes += _padding_notes([band.first for band in schedule.bands])
            if form == "guided":
                notes.append("guided: neighbours of the planned length are candidates and acceptance chooses")
            table = (
                _guided(schedule, plan)
                if form == "guided"
                else {band.first: [band.gamma] for band in schedule.bands}
            )
            steps = f"--speculative-num-steps {most} --speculative-num-draft-tokens {most + 1}"
            notes.append(f"start with {steps}: the steps at the start are one of the file's")
            body = {str(first): {"candidate_steps": steps} for first, steps in table.items()}
            return Exported(json_text(body), tuple(notes), None if form == "guided" else schedule)
        varies = len(schedule.bands) > 1
        if varies and not unfit:
            most = most_planned(plan, options.contexts)
        flags, more = _flags(drafter, method, path, most)
        notes += more
        length = (lambda batch, _: schedule.gamma(batch)) if varies and not unfit else (lambda *_: most)
        what = by_batch(schedule, options) if varies and not unfit else "one length for every cell"
        notes.append(tell_loss(plan, options, length, what))
        if varies and not unfit:
            flags += ["--speculative-adaptive", "--speculative-adaptive-config", CONFIG_FILE]
            notes.append(
                f"write {CONFIG_FILE} with --form adaptive (every planned length, for the plug-in), pinned "
                "(one length a batch) or guided (acceptance chooses)"
            )
        elif varies:
            notes.append(
                f"the length changes with the batch, sglang keeps {plural(most, 'step')} for all: {unfit}; "
                "plan fewer batch sizes to see what that loses"
            )
        return flags_line(flags, notes, schedule)


def _by_cell(
    plan: Plan, options: ExportOptions, schedule: Schedule, notes: list[str], *, contexts: bool
) -> Exported:
    """Every length that the plan chooses at a batch, over all contexts: states and graphs exist for each."""
    grid = grid_of(narrowed(plan, options.contexts), schedule.last_batch)
    body: dict[str, dict[str, object]] = {}
    before: tuple[int, ...] = ()
    for (first, _), lengths in zip(grid.batches, grid.lengths, strict=True):
        if lengths != before:
            body[str(first)] = {"candidate_steps": sorted(set(lengths))}
            if contexts:
                body[str(first)]["ctx_buckets"] = _buckets(grid, lengths)
        before = lengths
    pinned = all(len(set(lengths)) == 1 for lengths in grid.lengths)
    if contexts:
        notes.append("ctx_buckets are PR 31716, open: releases read candidate_steps alone")
    elif not pinned:
        notes.append(
            "several lengths of one batch are those of its contexts: the plug-in with DRAFTPLAN_PLAN picks "
            "the plan's; without it acceptance picks, or one holds with --form pinned"
        )
    what = "batch and context ranges" if contexts else "the plug-in asks the plan"
    notes.append(tell_loss(plan, options, grid.length, "one length per batch" if pinned else what))
    most = max(map(max, grid.lengths))
    steps = f"--speculative-num-steps {most} --speculative-num-draft-tokens {most + 1}"
    notes.append(f"start with {steps}: the steps at the start are one of the file's")
    notes += _padding_notes([int(first) for first in body])
    return Exported(json_text(body), tuple(notes))


def _buckets(grid: Grid, lengths: tuple[int, ...]) -> dict[str, dict[str, list[int]]]:
    """Return one candidate per range of running contexts, from 1 to infinity without gaps."""
    return {
        f"{low}-{high}": {"candidate_steps": [length]}
        for (low, high), length in zip(grid.contexts, lengths, strict=True)
    }


def _padding_notes(firsts: list[int]) -> list[str]:
    """Return what padding a batch to a captured size does at the keys; the sizes to capture beside them."""
    notes = [
        "SGLang pads the batch to a captured graph size before it looks it up: a length begins up to one "
        "graph size early; keep --cuda-graph-bs fine around the thresholds"
    ]
    if missing := [str(first - 1) for first in firsts if first > 1 and first - 1 not in CAPTURED]:
        notes.append(f"capture batch {', '.join(missing)} too: those below are else padded over a threshold")
    return notes


def adaptive_refusal(algorithm: str, groups: int, *, branches: bool = False) -> str:
    """Why steps cannot change at run time, in SGLang's words; empty where they can."""
    if algorithm not in ADAPTIVE:
        return f"speculative_algorithm={algorithm} (only EAGLE/EAGLE3 are supported)"
    if branches:
        return "speculative_eagle_topk is above 1 (PR 24054, open, lifts that)"
    if groups > 1:
        return "attention DP is not supported (adaptive tier decisions are not synchronized across DP ranks)"
    return ""


def _flags(
    drafter: PlannedDrafter, method: Method, path: str | None, steps: int
) -> tuple[list[str], list[str]]:
    """Arguments of the server, and what they cannot say."""
    flags = ["--speculative-algorithm", method.name]
    gpus = str(drafter.tensor_parallel * drafter.data_parallel)  # SGLang counts those of all groups
    if drafter.expert_parallel or drafter.data_parallel > 1:
        flags += ["--tp-size", gpus]
    if drafter.data_parallel > 1:
        flags += ["--dp-size", str(drafter.data_parallel), "--enable-dp-attention"]
    if drafter.expert_parallel:
        flags += ["--ep-size", gpus]
    if path and method.name != "NGRAM":
        flags += ["--speculative-draft-model-path", path]
    if method.name not in ("NGRAM", "DFLASH"):
        flags += ["--speculative-num-steps", str(steps)]
        flags += ["--speculative-eagle-topk", str(drafter.topk or 1)]
    nodes = drafter.nodes if drafter.branches else steps + 1
    flags += ["--speculative-num-draft-tokens", str(nodes)]
    if method.name == "NGRAM":  # a tree of breadth 10 where nothing is said
        flags += ["--speculative-ngram-max-bfs-breadth", "1"]
    notes: list[str] = [TREE_KERNELS] if drafter.branches else []
    budget = drafter.kv_budget
    if budget is None:
        return flags, notes
    if not method.window:
        notes.append(
            f"the draft KV budget of {budget} tokens is not exported: {IGNORED.format(method.name)}"
        )
        return flags, notes
    sinks = int(getattr(strategies.load(drafter.strategy).selector, "sinks", 0))
    if method.name == "DFLASH":
        flags += ["--speculative-draft-window-size", str(budget)]
        notes.append(f"DFLASH drafts take a window only: the {sinks} sinks of the plan are part of it")
    elif method.name == "EAGLE3":
        flags += ["--speculative-draft-window-size", str(budget)]
        notes.append(f"EAGLE-3 drafts take a window only: the {sinks} sinks of the plan are part of it")
    elif budget > sinks:
        flags += ["--speculative-draft-window-size", str(budget - sinks)]
        flags += ["--speculative-draft-sink-size", str(sinks)]
        notes.append("sinks need the Triton or FlashInfer draft attention backend")
    else:
        notes.append(
            f"the draft KV budget of {budget} tokens is not exported: {sinks} sinks leave no window of it"
        )
    return flags, notes


def _guided(schedule: Schedule, plan: Plan) -> dict[int, list[int]]:
    """The planned length of every band and its neighbours among the schedule's own and the plan's lengths."""
    tiers = sorted({0, *(band.gamma for band in schedule.bands)})
    positive = [gamma for gamma in plan.gammas if gamma > 0]
    table = {}
    for band in schedule.bands:
        at = tiers.index(band.gamma)
        near = {band.gamma, tiers[max(at - 1, 0)], tiers[min(at + 1, len(tiers) - 1)]}
        if len(near) == 1 and positive:
            near.add(positive[0])
        table[band.first] = sorted(near)
    return table


def _costs(plan: Plan, options: ExportOptions, *, additive: bool) -> Exported:
    """Step costs at one planned context: what DSPARK's scheduler loads instead of assuming constant cost."""
    context_len, points = verification_points(plan, options.contexts)
    notes = ["for --speculative-dspark-sps-table-path; SGLang's tables have no context"]
    notes.append(f"times are those at context {context_len}; name another with --context")
    if additive:
        costs = additive_costs(points)
        notes.append(
            f"cost by batch plus cost by tokens: at most {costs.error:.1%} from the plan's own times"
        )
        body = {
            "bias_seconds": costs.bias_s,
            "bs_probes": list(costs.batches),
            "alpha_seconds": list(costs.alpha_s),
            "m_probes": list(costs.tokens),
            "theta_seconds": list(costs.theta_s),
        }
        return Exported(json_text(body), tuple(notes))
    table = flat_costs(points)
    notes.append("one time per token count: the slowest batch that verifies that many")
    flat = {
        "sample_batch_tokens": [tokens for tokens, _ in table],
        "sample_steps_per_sec": [1.0 / seconds for _, seconds in table],
        "max_batch_tokens": table[-1][0],
    }
    return Exported(json_text(flat), tuple(notes))


exporter = SGLang()
__all__ = ["SGLang", "adaptive_refusal", "exporter"]
