"""What one serving software can run: who drafts by which strategy, and what it can bound or share."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from strategies.base import Drafter

__all__ = ["DRAFT_MODEL", "SCHEDULERS", "Limits", "Method", "Older", "SchedulerKind", "Software"]

DRAFT_MODEL = "+draft"
"""Ends the key of a method in which a model of its own drafts."""

SchedulerKind = Literal["mixed", "prefill-first", "in-flight"]
"""How a step is made up.

mixed : decoding sequences first, chunks of prompts in the tokens that are left (vLLM, and SGLang with
``--enable-mixed-chunk``). prefill-first : chunks of prompts in steps of their own, for which decoding
waits (SGLang). in-flight : as mixed, but prompts whole, and only those whose whole output has room
(TensorRT-LLM).
"""
SCHEDULERS: tuple[SchedulerKind, ...] = get_args(SchedulerKind)


@dataclass(frozen=True)
class Limits:
    """What a software's scheduler puts into a step where nobody says otherwise.

    Attributes
    ----------
    max_batch : sequences in the running batch. [sequences]
    max_step_tokens : tokens of one step. [tokens]
    from_memory : memory of an accelerator from which they hold. [B]
    unlike : part of an accelerator's name for which they do not hold.
    """

    max_batch: int
    max_step_tokens: int
    from_memory: float = 0.0
    unlike: str = ""

    def hold(self, accelerator: str, memory: float) -> bool:
        """Return whether they hold on an accelerator with so much memory. [B]"""
        return memory >= self.from_memory and not (self.unlike and self.unlike in accelerator.lower())


@dataclass(frozen=True)
class Older:
    """What some older releases spend on top, by the paths of an engine's figures.

    Attributes
    ----------
    since, until : the first release that does, and the first that does so no more.
    more : what is added to each figure. [s]
    reason : why, in a few words.
    source : where that, and the figures, come from.
    """

    since: str
    until: str
    more: Mapping[str, float]
    reason: str
    source: str

    def holds(self, release: str) -> bool:
        """Return whether a release is one of them; False for one that is not known."""
        return _number(self.since) <= _number(release) < _number(self.until)


def _number(release: str) -> tuple[int, ...]:
    """Return a release such as ``v0.11.0`` or ``0.16 or later`` as a number; empty where it is none."""
    leading = re.match(r"v?(\d+(?:\.\d+)*)", release.strip())
    return tuple(int(part) for part in leading.group(1).split(".")) if leading else ()


@dataclass(frozen=True)
class Method:
    """A software's way to run a drafter.

    Attributes
    ----------
    name : what the software calls it.
    needs_path : whether a checkpoint must be named.
    window : whether it can bound the cache entries that a draft reads.
    draft_gpus : on how many GPUs a draft model can run: ``all`` of the target's, or ``one or all``.
    trees : whether it can draft a tree.
    reason : why it bounds nothing, in the software's words.
    """

    name: str
    needs_path: bool = False
    window: bool = False
    draft_gpus: Literal["all", "one or all"] = "all"
    trees: bool = False
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Software:
    """A serving software. A file of this package exposes one object ``software``.

    Attributes
    ----------
    name : what engine files, exporters and users call it.
    label : its name in sentences.
    methods : its methods by strategy, with ``+draft`` where a model of its own drafts.
    refusal : why it runs no others, in its own words.
    chains_only : why it drafts no tree, where a method does not.
    scheduler : how it makes up a step.
    limits : its scheduler's own, the first that hold; none where it serves one request at a time or nobody
        knows.
    older : what its older releases spend beside the figures of its engines, which are of newer ones.
    """

    name: str
    label: str
    methods: Mapping[str, Method]
    refusal: str
    chains_only: str = "it has no trees"
    scheduler: SchedulerKind = "mixed"
    limits: tuple[Limits, ...] = ()
    older: tuple[Older, ...] = ()

    def method(self, strategy: str, drafter: Drafter) -> Method | None:
        """Return the way in which it runs a strategy, or None where it has none.

        Parameters
        ----------
        strategy : name of the drafting strategy.
        drafter : whose weights draft: self, draft, head or none.
        """
        return self.methods.get(strategy + (DRAFT_MODEL if drafter == "draft" else ""))

    def limits_on(self, accelerator: str, memory: float) -> Limits | None:
        """Return its scheduler's limits on an accelerator with so much memory; None where unknown. [B]"""
        return next((limits for limits in self.limits if limits.hold(accelerator, memory)), None)

    def why_not(
        self, strategy: str, drafter: Drafter, kv_budget: float = math.inf, *, branches: bool = False
    ) -> str:
        """Return why it cannot run a strategy at a draft KV budget, in its own words; empty where it can.

        Parameters
        ----------
        strategy, drafter : as for `method`.
        kv_budget : cache entries that a draft may read; infinite for all. [tokens]
        branches : whether it drafts a tree.
        """
        method = self.method(strategy, drafter)
        if method is None:
            return self.refusal if drafter == "self" else "it has no method for that"
        if branches and not method.trees:
            return f"{method.name} drafts chains: {self.chains_only}"
        if math.isinf(kv_budget) or method.window:
            return ""
        return method.reason or f"{method.name} reads the whole cache"
