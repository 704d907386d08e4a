"""SGLang: flags with a draft window, adaptive JSON, step costs. Engine version 0.5.23, checked 2026-11-21."""

from __future__ import annotations

from dataclasses import dataclass

import strategies
from perfmodel.errors import SpecError
from perfmodel.export.base import (
    Exported,
    ExportOptions,
    check_form,
    compact_json,
    groups_of,
    prepare,
    require_drafts,
)
from perfmodel.export.costs import additive_costs, flat_costs, verification_points
from perfmodel.planning.plan import Plan
from perfmodel.planning.schedule import PlannedDrafter, Schedule
from perfmodel.software import Method
from perfmodel.software.sglang import IGNORED

FORMS = ("flags", "adaptive", "guided", "sps", "sps-additive")
ADAPTIVE = ("EAGLE", "EAGLE3", "NEXTN")
"""Algorithms that change their steps at run time; NEXTN is an alias of EAGLE."""
CONFIG_FILE = "adaptive.json"
TREE_KERNELS = (
    "a tree needs the flashinfer, fa3 or triton attention backend; trtllm_mha and block-sparse ones verify "
    "chains only"
)


@dataclass(frozen=True)
class SGLang:
    """Keys of the adaptive file are lower bounds of the batch, padded to a captured graph size before."""

    name: str = "sglang"
    checked_with: str = "0.5.23 on 2026-11-21"
    forms: tuple[str, ...] = FORMS

    def export(self, plan: Plan, options: ExportOptions) -> Exported:
        """The plan as SGLang reads it: flags, a table of steps per batch, or a table of step costs."""
        form = check_form(self.name, FORMS, options)
        if form.startswith("sps"):
            return _costs(plan, options, additive=form == "sps-additive")
        drafter, method, path, schedule, notes = prepare(self.name, plan, options)
        require_drafts(schedule.most, "start sglang without --speculative-algorithm")
        unfit = adaptive_refusal(method.name, groups_of(drafter, options), branches=drafter.branches)
        if form != "flags":
            if unfit:
                raise SpecError.single(
                    "request", "--form", f"sglang has no adaptive steps here: {unfit}", "use --form flags"
                )
            notes.append(
                "SGLang pads the batch to a captured graph size before it looks it up: a length begins up to "
                "one graph size early; keep --cuda-graph-bs fine around the thresholds"
            )
            if form == "guided":
                notes.append("guided: neighbours of the planned length are candidates and acceptance chooses")
            table = (
                _guided(schedule, plan)
                if form == "guided"
                else {band.first: [band.gamma] for band in schedule.bands}
            )
            body = {str(first): {"candidate_steps": steps} for first, steps in table.items()}
            return Exported(compact_json(body), tuple(notes), None if form == "guided" else schedule)
        flags, more = _flags(drafter, method, path, schedule)
        notes += more
        if len(schedule.bands) > 1 and not unfit:
            flags += ["--speculative-adaptive", "--speculative-adaptive-config", CONFIG_FILE]
            notes.append(f"write {CONFIG_FILE} with --form adaptive (pinned) or --form guided")
        elif len(schedule.bands) > 1:
            notes.append(
                f"the length changes with the batch, sglang keeps {schedule.most} steps for all: {unfit}; "
                "plan fewer batch sizes to see what that loses"
            )
        return Exported(" ".join(flags) + "\n", tuple(notes), schedule)


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
    drafter: PlannedDrafter, method: Method, path: str | None, schedule: Schedule
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
    steps = schedule.most
    if method.name not in ("NGRAM", "DFLASH"):
        flags += ["--speculative-num-steps", str(steps)]
        flags += ["--speculative-eagle-topk", str(drafter.topk or 1)]
    nodes = drafter.nodes if drafter.branches else steps + 1
    flags += ["--speculative-num-draft-tokens", str(nodes)]
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
        flags += ["--speculative-dflash-draft-window-size", str(budget)]
        notes.append(f"DFLASH drafts take a window only: the {sinks} sinks of the plan are part of it")
    elif method.name == "EAGLE3":
        flags += ["--speculative-draft-window-size", str(budget)]
        notes.append(f"EAGLE-3 drafts take a window only: the {sinks} sinks of the plan are part of it")
    elif budget > sinks:
        flags += ["--speculative-draft-window-size", str(budget - sinks)]
        flags += ["--speculative-draft-sink-size", str(sinks)]
        notes.append("sinks need the Triton or FlashInfer draft attention backend")
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
        return Exported(compact_json(body), tuple(notes))
    table = flat_costs(points)
    notes.append("one time per token count: the slowest batch that verifies that many")
    flat = {
        "sample_batch_tokens": [tokens for tokens, _ in table],
        "sample_steps_per_sec": [1.0 / seconds for _, seconds in table],
        "max_batch_tokens": table[-1][0],
    }
    return Exported(compact_json(flat), tuple(notes))


exporter = SGLang()
__all__ = ["SGLang", "adaptive_refusal", "exporter"]
