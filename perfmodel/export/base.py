"""What every exporter is given and gives back: options, an engine's own words, and what they cannot say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import strategies
from perfmodel import software
from perfmodel.errors import SpecError, nearest_name, shown
from perfmodel.export.checkpoints import Checkpoints, checkpoint, head_checkpoint
from perfmodel.export.loss import Length, loss_of, refuse_beyond
from perfmodel.files.quoting import name_or_path, shell_line, word
from perfmodel.planning.plan import NO_DRAFT, Plan
from perfmodel.planning.schedule import (
    MERGE_LOSS,
    MOST_LENGTHS,
    PlannedDrafter,
    Schedule,
    check_collapse,
    collapse,
    planned_drafter,
)
from perfmodel.software import Method

__all__ = [
    "ExportOptions", "Exported", "Exporter", "Method", "Prepared", "by_batch", "check_form",
    "flags_line", "groups_of", "most_planned", "prepare", "require_drafts", "schedule_of", "tell_loss",
]  # fmt: skip


MOST = 2**31 - 1
"""Largest number of sequences or replicas: engines keep both in 32 bits. [1]"""
_TO_DO = ("write ", "set ", "start ", "plan ")
"""How notes begin that say what to do first."""
QUOTED = (
    "quotes of a shell are in this line: paste it, or run eval \"... $(draftplan export ...)\"; a bare "
    "$(...) does not read them"
)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What a user may choose about an export.

    form : which of the engine's files; its first where absent.
    draft_path : checkpoint of the drafter; the plan's draft model where absent.
    method : the engine's own name of the method, in place of the one that the strategy means.
    collapse, weights, contexts, max_distinct, merge_loss, max_batch : see `planning.schedule.collapse`.
    data_parallel : replicas that schedule together. [1]
    semantics : what a key of a schedule means where an engine changed its mind: ``upper`` or ``lower`` bound.
    engine_version : release of the engine, which decides what it changed its mind about.
    max_loss : share of speed that a planned cell may lose; None for any. [1]
    """

    form: str | None = None
    draft_path: str | None = None
    method: str | None = None
    collapse: str = "weight"
    weights: Mapping[int, float] | None = None
    contexts: tuple[int, int] | None = None
    max_distinct: int | None = MOST_LENGTHS
    merge_loss: float = MERGE_LOSS
    max_batch: int | None = None
    data_parallel: int = 1
    semantics: str = "upper"
    engine_version: str | None = None
    max_loss: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no engine can be told, whatever the form. Raises SpecError."""
        check_collapse(self.collapse)
        if self.draft_path is not None:
            name_or_path(self.draft_path, "--draft-path")
        if self.method is not None:
            word(self.method, "--method")
        if self.engine_version is not None:
            word(self.engine_version, "--engine-version")
        for flag, share in (("--merge-loss", self.merge_loss), ("--max-loss", self.max_loss)):
            if share is not None and not 0.0 <= share <= 1.0:
                raise SpecError.single("request", flag, f"found {share}", "give a share from 0 to 1")
        for flag, count in (("--max-batch", self.max_batch), ("--dp", self.data_parallel)):
            if count is not None and count > MOST:
                raise SpecError.single("request", flag, f"found {shown(count)}", f"give at most {MOST}")
        if self.weights is not None and not all(map(math.isfinite, self.weights.values())):
            raise SpecError.single(
                "request", "--weights", "holds a share that is not finite", "write 4k=0.7,32k=0.3"
            )


@dataclass(frozen=True)
class Exported:
    """Text for the engine, and everything that a user must know beside it.

    schedule : the speculation length per batch that the text means, where it means one.
    flag : of the server, which takes the text; empty where the text is flags or a file.
    """

    text: str
    notes: tuple[str, ...] = field(default=())
    schedule: Schedule | None = None
    flag: str = ""

    @property
    def to_do(self) -> tuple[str, ...]:
        """Return the notes that say what must be there before the text can be used."""
        return tuple(note for note in self.notes if note.startswith(_TO_DO) or "--draft-path" in note)


class Exporter(Protocol):
    """One engine. A file of this package exposes one object `exporter`."""

    @property
    def name(self) -> str: ...

    @property
    def checked_with(self) -> str: ...

    @property
    def forms(self) -> tuple[str, ...]: ...

    def export(self, plan: Plan, options: ExportOptions) -> Exported: ...


class Prepared(NamedTuple):
    """What an engine is told of: the drafter, how it is run, its checkpoint, the lengths, and notes."""

    drafter: PlannedDrafter
    method: Method
    path: str | None
    schedule: Schedule
    notes: list[str]


def drafts_with_a_head(name: str) -> bool:
    """Return whether a strategy drafts with a head, whose checkpoint is no draft model of its own."""
    try:
        return strategies.load(name).drafters == ("head",)
    except strategies.StrategyError:
        return False


def prepare(
    engine: str, plan: Plan, options: ExportOptions, loads: Checkpoints = "hub"
) -> Prepared:
    """What every exporter of a drafter begins with.

    Parameters
    ----------
    engine : its name, which is that of its software.
    plan, options : what is exported, and how.
    loads : what it loads a model from.

    Raises
    ------
    SpecError
        When the plan is not one deployment or never speculates, the engine has no such method, or a
        checkpoint must be named.
    """
    served = software.load(engine)
    methods, refusal = served.methods, served.refusal
    drafter = planned_drafter(plan)
    if drafter.strategy == NO_DRAFT:
        raise SpecError.single(
            "plan", "cells", "never speculate",
            f"start {engine} without speculation; there is nothing to export",
        )  # fmt: skip
    word(drafter.strategy, "strategy", "plan")
    head = drafts_with_a_head(drafter.strategy)
    key = drafter.strategy + ("+draft" if drafter.draft_model and not head else "")
    if options.method is None and key not in methods:
        known = sorted({name.removesuffix("+draft") for name in methods} - {drafter.strategy})
        draft = "a --draft-model, with " if f"{key}+draft" in methods else ""
        raise SpecError.single(
            "plan", "strategy",
            f"{engine} cannot run {key.replace('+draft', ' with a draft model')}"
            + ("" if head else f": {refusal}"),
            f"plan with {draft}--strategy {','.join(known)}, or name the engine's own --method",
        )  # fmt: skip
    method = methods[key] if options.method is None else Method(options.method)
    if drafter.branches and not method.trees and options.method is None:
        raise SpecError.single(
            "plan", "topk", f"{engine} drafts chains with {method.name}: {served.chains_only}",
            "plan without --tree",
        )  # fmt: skip
    path, notes = options.draft_path, []
    if path is None and drafter.draft_model is not None:
        path, remark = checkpoint(drafter.draft_model, loads, served.label)
        notes = [remark] * bool(remark)
    if method.needs_path and path is None and head:
        path, remark = head_checkpoint(plan.model, drafter.strategy, loads, engine, served.label)
        notes = [remark]
    if method.needs_path and not path:
        raise SpecError.single(
            "request", "--draft-path", f"{method.name} of {engine} loads a checkpoint, none is named",
            "name one",
        )  # fmt: skip
    if path is not None and options.draft_path is None:
        name_or_path(path, "draft_model", "plan")
    schedule = schedule_of(plan, options)
    notes += schedule.notes
    if drafter.draft_tensor_parallel is not None and method.draft_gpus == "all":
        notes.append(
            f"a draft model on {drafter.draft_tensor_parallel} of {drafter.tensor_parallel} GPUs is not "
            f"exported: {method.name} of {engine} shares it among as many as the target"
        )
    return Prepared(drafter, method, path, schedule, notes)


def groups_of(drafter: PlannedDrafter, options: ExportOptions) -> int:
    """Return how many data-parallel ranks schedule together: the plan's, or more that are named. [1]"""
    return max(options.data_parallel, drafter.data_parallel)


def require_drafts(most: int, remedy: str) -> None:
    """Refuse lengths of which none drafts: SpecError says how to start the engine instead."""
    if most == 0:
        raise SpecError.single("plan", "cells", "collapse to no speculation at any batch size", remedy)


def schedule_of(plan: Plan, options: ExportOptions) -> Schedule:
    """The plan's speculation length per batch, collapsed as wished."""
    return collapse(
        plan,
        by=options.collapse,
        weights=options.weights,
        contexts=options.contexts,
        most_lengths=options.max_distinct,
        merge_loss=options.merge_loss,
        max_batch=options.max_batch,
    )


def most_planned(plan: Plan, contexts: tuple[int, int] | None = None) -> int:
    """Return the longest length of the planned cells between two contexts. [tokens]"""
    low, high = contexts or (0, max(cell.context_len for cell in plan.cells))
    return max(cell.gamma for cell in plan.cells if low <= cell.context_len <= high)


def tell_loss(plan: Plan, options: ExportOptions, length: Length, what: str) -> str:
    """Say what an export loses against the plan.

    Parameters
    ----------
    plan, options : what is exported, and how.
    length : the tokens that the text drafts at a batch size and a context. [tokens]
    what : how the plan was cut down, for people.

    Raises
    ------
    SpecError
        Where a cell loses more than the options allow.
    """
    loss = loss_of(plan, length, options.weights, options.contexts)
    refuse_beyond(loss, options.max_loss, what)
    return f"{what}: {loss}"


def by_batch(schedule: Schedule, options: ExportOptions) -> str:
    """Say how a schedule cut a plan down, for people."""
    contexts = schedule.context_lens
    if len(contexts) == 1:
        return "one length per batch"
    return (
        f"{len(contexts)} contexts from {contexts[0]} to {contexts[-1]} are one length per batch (by "
        f"{options.collapse})"
    )


def flags_line(flags: Sequence[str], notes: Sequence[str], schedule: Schedule) -> Exported:
    """Return flags of a server as one line of a shell; a note says how to use it where some are quoted."""
    line = shell_line(flags)
    quoted = line != " ".join(flags)
    return Exported(line + "\n", (*notes, QUOTED) if quoted else tuple(notes), schedule)


def check_form(engine: str, forms: tuple[str, ...], options: ExportOptions) -> str:
    """Return the form wished for, or the engine's first; SpecError where it has no such form."""
    if options.form is None:
        return forms[0]
    if options.form not in forms:
        raise SpecError.single(
            "request", "--form", f"{engine} has no form {options.form!r}", f"choose {', '.join(forms)}",
            nearest_name(options.form, forms),
        )  # fmt: skip
    return options.form
