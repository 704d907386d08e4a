"""What every exporter is given and gives back: a wish, an engine's own words, and what they cannot say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import strategies
from perfmodel.errors import SpecError, nearest_name
from perfmodel.planning.plan import NO_DRAFT, Plan
from perfmodel.planning.schedule import MERGE_LOSS, MOST_LENGTHS, Deployment, Ladder, collapse

__all__ = [
    "Exported", "Exporter", "Method", "Wish", "checked_form", "common_notes", "compact_json", "drafter_key",
    "ladder_of", "method_of", "sinks_of",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a user may choose about an export.

    form : which of the engine's files; its first where absent.
    draft_path : checkpoint of the drafter; the plan's draft model where absent.
    method : the engine's own name of the method, in place of the one that the strategy means.
    collapse, weights, contexts, max_distinct, merge_loss, max_batch : see `planning.schedule.collapse`.
    data_parallel : replicas that schedule together. [1]
    semantics : what a key of a schedule means where an engine changed its mind: ``upper`` or ``lower`` bound.
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


@dataclass(frozen=True)
class Exported:
    """Text for the engine, and everything that a user must know beside it.

    ladder : the speculation length per batch that the text means, where it means one.
    """

    text: str
    notes: tuple[str, ...] = field(default=())
    ladder: Ladder | None = None


class Exporter(Protocol):
    """One engine. A file of this package exposes one object `exporter`."""

    @property
    def name(self) -> str: ...

    @property
    def checked_with(self) -> str: ...

    @property
    def forms(self) -> tuple[str, ...]: ...

    def export(self, plan: Plan, wish: Wish) -> Exported: ...


@dataclass(frozen=True)
class Method:
    """An engine's way to run a drafter.

    name : what the engine calls it. needs_path : a checkpoint must be named. window : it can bound what the
    drafter reads. reason : why it cannot, in the engine's words.
    """

    name: str
    needs_path: bool = False
    window: bool = False
    reason: str = ""


def drafter_key(deployment: Deployment) -> str:
    """The strategy's name, with ``+draft`` where a model of its own drafts."""
    return deployment.strategy + ("+draft" if deployment.draft_model else "")


def method_of(
    engine: str, methods: Mapping[str, Method], refusal: str, deployment: Deployment, wish: Wish
) -> tuple[Method, str | None]:
    """The engine's method for a plan's drafter and the checkpoint that it loads.

    Raises
    ------
    SpecError
        When the plan never speculates, the engine has no such method, or a checkpoint must be named.
    """
    if deployment.strategy == NO_DRAFT:
        raise SpecError.single(
            "plan",
            "cells",
            "never speculate",
            f"start {engine} without speculation; there is nothing to export",
        )
    key = drafter_key(deployment)
    if wish.method is None and key not in methods:
        known = sorted({name.removesuffix("+draft") for name in methods} - {deployment.strategy})
        draft = "a --draft-model, with " if f"{key}+draft" in methods else ""
        raise SpecError.single(
            "plan",
            "strategy",
            f"{engine} cannot run {key.replace('+draft', ' with a draft model')}: {refusal}",
            f"plan with {draft}--strategy {','.join(known)}, or name the engine's own --method",
        )
    method = methods.get(key, Method("")) if wish.method is None else Method(wish.method)
    path = wish.draft_path or deployment.draft_model
    if method.needs_path and not path:
        raise SpecError.single(
            "request",
            "--draft-path",
            f"{method.name} of {engine} loads a checkpoint, none is named",
            "name one",
        )
    return method, path


def ladder_of(plan: Plan, wish: Wish) -> Ladder:
    """The plan's speculation length per batch, collapsed as wished."""
    return collapse(
        plan,
        by=wish.collapse,
        weights=wish.weights,
        contexts=wish.contexts,
        most_lengths=wish.max_distinct,
        merge_loss=wish.merge_loss,
        max_batch=wish.max_batch,
    )


def common_notes(ladder: Ladder, wish: Wish) -> list[str]:
    """What the collapse lost and what the plan does not cover."""
    notes = list(ladder.notes)
    if len(ladder.context_lens) > 1:
        notes.append(
            f"{len(ladder.context_lens)} contexts from {ladder.context_lens[0]} to "
            f"{ladder.context_lens[-1]} are one "
            f"length per batch (by {wish.collapse}): {ladder.collapse_loss:.2%} of speed lost on average, "
            f"{ladder.collapse_worst:.2%} in the worst cell"
        )
    if ladder.merge_loss > 0.0:
        notes.append(f"merging lengths loses at most {ladder.merge_loss:.2%} of a batch's speed on top")
    return notes


def sinks_of(deployment: Deployment) -> int:
    """Entries that a windowed drafter keeps at the start of the context, part of its budget. [tokens]"""
    return int(getattr(strategies.load(deployment.strategy).selector, "sinks", 0))


def compact_json(body: Any) -> str:
    """JSON on one line, for a command line or a file."""
    return json.dumps(body, allow_nan=False) + "\n"


def checked_form(engine: str, forms: tuple[str, ...], wish: Wish) -> str:
    """The form wished for, or the engine's first; SpecError where it has no such form."""
    if wish.form is None:
        return forms[0]
    if wish.form not in forms:
        raise SpecError.single(
            "request", "--form", f"{engine} has no form {wish.form!r}", f"choose {', '.join(forms)}",
            nearest_name(wish.form, forms),
        )  # fmt: skip
    return wish.form
