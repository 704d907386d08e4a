"""llama.cpp: speculation flags and relative batch costs. Flags of November 2026, read 2026-11-28."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.errors import SpecError
from perfmodel.export.base import Exported, ExportOptions, check_form, flags_line, prepare, tell_loss
from perfmodel.export.costs import verified_tokens, verify_seconds
from perfmodel.files.quoting import decimal, environment
from perfmodel.files.units import plural
from perfmodel.planning.plan import Plan
from perfmodel.software.checked import CHECKED
from perfmodel.software.llamacpp import NO_WINDOW

FORMS = ("flags", "costs")
LOOKUP = 3
"""Tokens that a lookup looks for, where as many are drafted at least. [tokens]"""
SIZED = ("ngram-simple", "ngram-map-k", "ngram-map-k4v")
"""Types of lookups whose two sizes are flags of their own."""


@dataclass(frozen=True)
class LlamaCpp:
    """One length for everything: it has neither a batch nor a context table."""

    name: str = "llamacpp"
    checked_with: str = str(CHECKED["llamacpp"])
    forms: tuple[str, ...] = FORMS

    def export(self, plan: Plan, options: ExportOptions) -> Exported:
        """Flags of llama-server, or GGML_BATCH_COSTS (pull request 17034)."""
        if check_form(self.name, FORMS, options) == "costs":
            return _costs(plan)
        drafter, method, path, schedule, notes = prepare(self.name, plan, options, "gguf")
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
        notes.append(tell_loss(plan, options, lambda *_: gamma, "one length for every batch and context"))
        flags = ["--spec-type", method.name]
        if method.name.startswith("draft"):
            if path:
                flags += ["--model-draft", path]
                if not path.endswith(".gguf"):
                    notes.append(f"llama.cpp loads GGUF files: --model-draft {path} is none by its name")
            flags += ["--spec-draft-n-max", str(gamma), "--spec-draft-n-min", "0"]
        else:
            flags += _lookup_flags(method.name, gamma)
            if gamma < LOOKUP:
                notes.append(
                    f"a lookup of {plural(gamma, 'token')}: nothing is drafted where it is longer than "
                    "the draft, and short ones match more often and are accepted less"
                )
        flags.append("--metrics")
        notes.append("--metrics lets /metrics answer, from which acceptance is read back")
        if drafter.kv_budget is not None:
            notes.append(
                f"the draft KV budget of {drafter.kv_budget} tokens is not exported: {NO_WINDOW}"
            )
        return flags_line(flags, notes, schedule)


def _lookup_flags(name: str, gamma: int) -> list[str]:
    """Return the sizes of a lookup: --spec-draft-n-max is for types that begin with ``draft`` alone.

    ngram-simple drafts nothing where fewer tokens follow a match than were looked up (common/ngram-map.cpp).
    """
    if name in SIZED:
        sizes = f"--spec-{name}-size"
        return [f"{sizes}-n", str(min(LOOKUP, gamma)), f"{sizes}-m", str(gamma)]
    if name == "ngram-mod":
        return ["--spec-ngram-mod-n-max", str(gamma), "--spec-ngram-mod-n-min", "1"]
    raise SpecError.single(
        "request", "--method", f"{name} of llama.cpp has no flag for the length of a draft",
        f"name one of {', '.join((*SIZED, 'ngram-mod'))} or a type that begins with draft-",
    )  # fmt: skip


def _costs(plan: Plan) -> Exported:
    """Relative cost per token of a pass over 1, 2, ... tokens; lengths between are interpolated. [1]"""
    candidates = [cell for cell in plan.cells if cell.speculates]
    if not candidates:
        raise SpecError.single(
            "plan", "cells", "hold no speculated round", "plan with a drafter that pays somewhere"
        )
    cell = min(candidates, key=lambda candidate: (candidate.batch_size, candidate.context_len))
    known = {1.0: cell.baseline_s}
    known |= {
        verified_tokens(cell, gamma): seconds
        for gamma, seconds in verify_seconds(cell, plan.gammas).items()
    }
    tokens = np.arange(1, int(max(known)) + 1)
    costs = np.interp(tokens, list(known), list(known.values())) / (tokens * cell.baseline_s)
    notes = [
        f"costs of batch {cell.batch_size} at context {cell.context_len} relative to one token",
        "GGML_BATCH_COSTS is pull request 17034: releases ignore it",
    ]
    if cell.batch_size > 1:
        notes.append("batch 1 does not speculate in the plan: the smallest batch that does stands for it")
    line = environment("GGML_BATCH_COSTS", ",".join(decimal(cost, 4) for cost in costs.tolist()))
    return Exported(line, tuple(notes))


exporter = LlamaCpp()
__all__ = ["LlamaCpp", "exporter"]
