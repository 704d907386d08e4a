"""TensorRT-LLM: speculative_config with a draft_len_schedule. PyTorch backend to 1.4rc, read 2026-11-20."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from perfmodel.errors import SpecError
from perfmodel.export.base import (
    Exported,
    ExportOptions,
    by_batch,
    check_form,
    prepare,
    require_drafts,
    tell_loss,
)
from perfmodel.export.costs import additive_costs, verification_points
from perfmodel.export.loss import loss_of
from perfmodel.files.quoting import json_text, yaml_text
from perfmodel.planning.plan import Plan
from perfmodel.planning.schedule import Band, PlannedDrafter, Schedule
from perfmodel.software import Method
from perfmodel.software.checked import CHECKED
from perfmodel.software.tensorrt_llm import NO_WINDOW

FORMS = ("yaml", "sps")
SEMANTICS = {
    "upper": "inclusive upper bounds, as 1.3 and 1.4 read them (PR 10860, March 2026): 0 above the last",
    "lower": "lower bounds, as 1.2 reads them (PR 8194, October 2025): the last one reaches on",
}
"""What a key of draft_len_schedule is, and in which releases."""
FIRST, TURNED = (1, 2), (1, 3)
"""Releases with a schedule, and those in which its keys are upper bounds."""
FOLLOWED = ("NGram", "Draft_Target")
"""Methods with which releases whose keys are lower bounds follow the schedule (PR 8194)."""


@dataclass(frozen=True)
class TensorRTLLM:
    """Keys are inclusive upper bounds and 0 follows the last one; in 1.2 they are lower bounds."""

    name: str = "tensorrt_llm"
    checked_with: str = str(CHECKED["tensorrt_llm"])
    forms: tuple[str, ...] = FORMS

    def export(self, plan: Plan, options: ExportOptions) -> Exported:
        """The plan as the `--config` file of trtllm-serve, or its step costs."""
        if check_form(self.name, FORMS, options) == "sps":
            return _costs(plan, options)
        semantics = _semantics(options)
        drafter, method, path, schedule, notes = prepare(self.name, plan, options)
        require_drafts(schedule.most, "start trtllm-serve without speculative_config")
        if drafter.kv_budget is not None:
            notes.append(f"the draft KV budget of {drafter.kv_budget} tokens is not exported: {NO_WINDOW}")
        what = by_batch(schedule, options)
        if len(schedule.bands) > 1 and (whole := _unscheduled(drafter, method, semantics)):
            notes.append(f"{whole}: max_draft_len of {schedule.most} holds for every batch")
            schedule = replace(schedule, bands=(Band(1, schedule.last_batch, schedule.most),))
            what = "one length for every cell"
        schedule, raised = _starting_at_the_most(schedule)
        if raised:
            notes.append(raised)
        notes.append(tell_loss(plan, options, lambda batch, _: schedule.gamma(batch), what))
        lines = [
            f"tensor_parallel_size: {drafter.tensor_parallel}",
            f"moe_expert_parallel_size: {drafter.tensor_parallel}",
        ] * (drafter.expert_parallel and drafter.data_parallel == 1)
        if drafter.data_parallel > 1:
            lines += _groups(drafter)
            notes += ["its attention data parallelism has one GPU to a group"] * (drafter.tensor_parallel > 1)
        lines += ["speculative_config:", f"  decoding_type: {yaml_text(method.name)}"]
        if path and method.name != "NGram":
            lines.append(f"  speculative_model: {yaml_text(path)}")
        lines.append(f"  max_draft_len: {schedule.most}")
        if drafter.branches and drafter.nodes:
            lines += [
                "  use_dynamic_tree: true",
                f"  dynamic_tree_max_topK: {drafter.topk}",
                f"  max_total_draft_tokens: {drafter.nodes - 1}",
            ]
            notes.append("dynamic trees need full attention: no sliding windows, no latent attention (MLA)")
        if len(schedule.bands) > 1:
            keys = {
                band.last if semantics == "upper" else band.first: band.gamma for band in schedule.bands
            }
            if semantics == "upper" and schedule.bands[-1].gamma == 0:
                keys.pop(schedule.bands[-1].last)
            body = ", ".join(f"{key}: {gamma}" for key, gamma in keys.items())
            lines.append(f"  # keys are {SEMANTICS[semantics]}")
            lines.append(f"  draft_len_schedule: {{{body}}}")
            notes += _schedule_notes(plan, schedule, options, semantics)
        return Exported("\n".join(lines) + "\n", tuple(notes), schedule)


def _groups(drafter: PlannedDrafter) -> list[str]:
    """Keys by which every GPU has attention for sequences of its own; the sizes count all GPUs."""
    gpus = drafter.tensor_parallel * drafter.data_parallel
    dealt = [f"moe_expert_parallel_size: {gpus}"] * drafter.expert_parallel
    return [f"tensor_parallel_size: {gpus}", *dealt, "enable_attention_dp: true"]


def _unscheduled(drafter: PlannedDrafter, method: Method, semantics: str) -> str:
    """Why no schedule is followed; empty where one is."""
    if drafter.branches:
        return "draft_len_schedule is for chains, not for trees"
    if semantics == "lower" and method.name not in FOLLOWED:
        return (
            "1.2 follows draft_len_schedule with NGram and with a draft model in an engine of its own, not "
            f"with {method.name}"
        )
    return ""


def _starting_at_the_most(schedule: Schedule) -> tuple[Schedule, str]:
    """The smallest key must map to max_draft_len: where it does not, batch 1 alone drafts the most."""
    first, most = schedule.bands[0], schedule.most
    if first.gamma == most:
        return schedule, ""
    head = [Band(1, 1, most)]
    rest = [Band(2, first.last, first.gamma)] if first.last > 1 else []
    raised = replace(schedule, bands=(*head, *rest, *schedule.bands[1:]))
    if len(raised.bands) > 1 and raised.bands[1].gamma == most:
        raised = replace(raised, bands=(Band(1, raised.bands[1].last, most), *raised.bands[2:]))
    return raised, (
        f"the smallest key must map to max_draft_len: batch 1 drafts {most} instead of the planned "
        f"{first.gamma}"
    )


def _semantics(options: ExportOptions) -> str:
    """Return what a key means in the release that is named, else what is asked for.

    Raises
    ------
    SpecError
        For a release that has no schedule, and for a meaning that no release has.
    """
    if options.semantics not in SEMANTICS:
        raise SpecError.single(
            "request", "--semantics", f"found {options.semantics!r}", "choose upper or lower"
        )
    if options.engine_version is None:
        return options.semantics
    numbers = re.match(r"v?([0-9]{1,6})\.([0-9]{1,6})(?![0-9])", options.engine_version)
    if numbers is None:
        raise SpecError.single(
            "request", "--engine-version", f"found {options.engine_version!r}", "write a release, as 1.2.1"
        )
    release = (int(numbers[1]), int(numbers[2]))
    if release < FIRST:
        raise SpecError.single(
            "request", "--engine-version",
            f"TensorRT-LLM {options.engine_version} has no draft_len_schedule", "use 1.2 or later",
        )  # fmt: skip
    return "upper" if release >= TURNED else "lower"


def _schedule_notes(plan: Plan, schedule: Schedule, options: ExportOptions, semantics: str) -> list[str]:
    notes = [f"keys of draft_len_schedule are {SEMANTICS[semantics]}"]
    if options.engine_version is None:
        notes.append(
            "the same keys mean another schedule in the other releases: name yours with --engine-version "
            "(candidates of 1.3 before 13 March 2026 still read lower bounds)"
        )
    if semantics == "lower":
        notes.append("1.2 follows the schedule with NGram and with a draft model in an engine of its own")
    elif schedule.bands[-1].gamma > 0:
        notes.append(
            f"above batch {schedule.last_batch} nothing is drafted: raise --max-batch to max_batch_size"
        )
    if any(band.gamma == 0 for band in schedule.bands):
        floor = loss_of(
            plan, lambda batch, _: max(schedule.gamma(batch), 1), options.weights, options.contexts
        )
        priced = f"; with it {floor}" if 1 in plan.gammas else ""
        notes.append(
            "at length 0 the drafter's state is not refreshed and acceptance falls when the batch shrinks "
            f"again (PR 16888, open, keeps at least 1{priced})"
        )
    return notes


def _costs(plan: Plan, options: ExportOptions) -> Exported:
    """The table of confidence scheduling: time by verified tokens, and by batch on top. [ms in the file]"""
    context_len, points = verification_points(plan, options.contexts)
    costs = additive_costs(points)
    body: dict[str, Any] = {
        "token_counts": list(costs.tokens),
        "step_time_ms": [1e3 * (costs.bias_s + theta) for theta in costs.theta_s],
        "batch_sizes": list(costs.batches),
        "batch_overhead_ms": [1e3 * alpha for alpha in costs.alpha_s],
    }
    notes = (
        "for confidence_sps_table_path, with enable_confidence_scheduling and enable_ragged_verify both on",
        f"times are those at context {context_len}, at most {costs.error:.1%} from the plan's own; the "
        "table has no context",
    )
    return Exported(json_text(body), notes)


exporter = TensorRTLLM()
__all__ = ["TensorRTLLM", "exporter"]
