"""What one serving software can run: who drafts by which strategy, and what it can bound or share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from strategies.base import Drafter

__all__ = ["DRAFT_MODEL", "Method", "Software"]

DRAFT_MODEL = "+draft"
"""Ends the key of a method in which a model of its own drafts."""


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
    """

    name: str
    label: str
    methods: Mapping[str, Method]
    refusal: str
    chains_only: str = "it has no trees"

    def method(self, strategy: str, drafter: Drafter) -> Method | None:
        """Return the way in which it runs a strategy, or None where it has none.

        Parameters
        ----------
        strategy : name of the drafting strategy.
        drafter : whose weights draft: self, draft, head or none.
        """
        return self.methods.get(strategy + (DRAFT_MODEL if drafter == "draft" else ""))

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
