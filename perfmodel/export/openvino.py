"""OpenVINO GenAI: lengths per request and the draft's cache eviction. Ran with 2026.4.1 on 2026-11-21."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perfmodel.export.base import (
    Exported,
    ExportOptions,
    by_batch,
    check_form,
    prepare,
    tell_loss,
)
from perfmodel.files.quoting import json_text
from perfmodel.planning.plan import Plan
from perfmodel.software.checked import CHECKED

BLOCK = 32
"""Tokens per cache block: eviction sizes are multiples of it. [tokens]"""
SAFE_WITH_BUDGET = 2
"""Longest length that an evicting draft survives however few of its tokens are accepted. [tokens]"""
LOOKUP = 3
"""Longest n-gram that a prompt lookup looks for: none is looked up where it is not set. [tokens]"""
FORMS = ("pipeline",)


@dataclass(frozen=True)
class OpenVINO:
    """A request carries its own number of assistant tokens, so the helper sets it per batch and context."""

    name: str = "openvino"
    checked_with: str = str(CHECKED["openvino"])
    forms: tuple[str, ...] = FORMS

    def export(self, plan: Plan, options: ExportOptions) -> Exported:
        """What `perfmodel.integrations.openvino` reads: lengths by batch, and the draft's cache eviction."""
        check_form(self.name, FORMS, options)
        drafter, method, path, schedule, notes = prepare(self.name, plan, options, "folder")
        notes.append(
            tell_loss(plan, options, lambda batch, _: schedule.gamma(batch), by_batch(schedule, options))
        )
        body: dict[str, Any] = {
            "generation_config": {"num_assistant_tokens": schedule.gamma(1)},
            "num_assistant_tokens_by_batch": [[band.first, band.last, band.gamma] for band in schedule.bands],
        }
        if method.name == "draft_model":
            body["draft_model"] = path
            if path is None:
                notes.append(
                    "drafting with the target: name the target's folder once more as the draft model"
                )
        else:
            body["prompt_lookup"] = True
            body["generation_config"]["max_ngram_size"] = LOOKUP
        budget = drafter.kv_budget
        if budget is not None and method.window:
            size = max(budget // BLOCK, 3) * BLOCK
            sizes = {"start_size": BLOCK, "recent_size": size - 2 * BLOCK, "max_cache_size": size}
            body["draft_cache_eviction"] = sizes
            longest = max(cell.context_len for cell in plan.cells) + int(plan.output_tokens)
            above = -(-2 * longest // BLOCK) * BLOCK
            body["target_cache_eviction"] = {"max_cache_size": above}
            notes.append(
                "a draft with its own evicting cache needs eviction on the target too: its limit is above "
                "every planned context and its output"
            )
            if schedule.most > SAFE_WITH_BUDGET:
                notes.append(
                    f"with a draft KV budget the engine aborts a request of more than {SAFE_WITH_BUDGET} "
                    "tokens when a round accepts too few ('new_size_in_tokens >= old_size_in_tokens'): plan "
                    f"with --gamma 1,{SAFE_WITH_BUDGET}"
                )
            if size != budget:
                notes.append(
                    f"the budget of {budget} tokens became {size}: whole blocks of {BLOCK}, at least three"
                )
        if schedule.most > 1 and max(cell.batch_size for cell in plan.cells) > 1:
            notes.append(
                "several requests of more than 1 token change their output unless their prompts are "
                "prefilled whole: raise max_num_batched_tokens (256 by default) above all prompts together"
            )
        if any(band.gamma == 0 for band in schedule.bands):
            notes.append(
                "num_assistant_tokens 0 means the engine's default: send such requests to a plain pipeline"
            )
        return Exported(json_text(body), tuple(notes), schedule)


exporter = OpenVINO()
__all__ = ["OpenVINO", "exporter"]
