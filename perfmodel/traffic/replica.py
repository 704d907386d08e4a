"""One replica of an engine: its GPUs, its drafter, how much KV it holds and the limits of its scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perfmodel.deployment import Deployment, Drafter
from perfmodel.errors import Fault, InfeasibleError, SpecError, nearest_name
from perfmodel.files.numbers import FloatArray, Numeric
from perfmodel.files.units import format_bytes
from perfmodel.memory import MAX_PASS_TOKENS
from perfmodel.model import ModelSpec
from perfmodel.planning.fitting import request_miss
from perfmodel.software import SCHEDULERS, SchedulerKind, available, load
from perfmodel.speculation import Round, price

__all__ = ["MAX_BATCH", "MAX_STEP_TOKENS", "Replica"]

Lengths: TypeAlias = Numeric | NDArray[np.int64]

MAX_BATCH, MAX_STEP_TOKENS = 256, MAX_PASS_TOKENS
"""Limits of a scheduler where neither people nor a software that they name say others."""
_KNOTS, _DENSE_TO, _FARTHEST = 400, 4e6, 1e9
"""Contexts at which cache bytes are known; beyond every window and budget they are a line. [tokens]"""
_STRAIGHT = 1e-9


@dataclass(frozen=True)
class Replica:
    """One copy of the target on its GPUs, with its drafter, and the limits its scheduler works under.

    Parameters
    ----------
    deployment : the target on its GPUs under its engine.
    drafter : who drafts, or None.
    kv_budget : entries that the drafter may read; infinite where it has no budget. [tokens]
    max_batch : sequences in the running batch, those being prefilled included.
    max_step_tokens : tokens of one step: drafts to verify, bonus tokens and prefill chunks. [tokens]
    max_gamma : longest draft that memory is kept for; without meaning where nobody drafts. [tokens]
    scheduler : how it makes up a step, as `perfmodel.software.SchedulerKind` has it; that of the engine's
        software where empty, and mixed where it names none.

    Raises
    ------
    SpecError
        When a limit is out of range.
    """

    deployment: Deployment
    drafter: Drafter | None = None
    kv_budget: float = np.inf
    max_batch: int = MAX_BATCH
    max_step_tokens: int = MAX_STEP_TOKENS
    max_gamma: int = 16
    scheduler: SchedulerKind | Literal[""] = ""

    @classmethod
    def of(
        cls,
        deployment: Deployment,
        scheduler: str = "",
        max_batch: int | None = None,
        max_step_tokens: int | None = None,
    ) -> Replica:
        """Return a replica without a drafter, whose scheduler is of a kind or as a software has it.

        Parameters
        ----------
        scheduler : a kind, or the name of a software: its kind, and its own limits on this accelerator; the
            kind of the engine's software where empty.
        max_batch, max_step_tokens : limits in place of those; `MAX_BATCH` and `MAX_STEP_TOKENS` where no
            software is named. [sequences], [tokens]

        Raises
        ------
        SpecError
            When there is no such scheduler, or a limit is out of range.
        """
        kind: SchedulerKind | Literal[""] = next((name for name in SCHEDULERS if name == scheduler), "")
        batch, step = MAX_BATCH, MAX_STEP_TOKENS
        if scheduler and not kind:
            software = scheduler.strip().lower().replace("-", "_")
            if software not in available():
                names = (*SCHEDULERS, *(name.replace("_", "-") for name in available() if load(name).limits))
                raise SpecError.single(
                    "", "scheduler", f"found {scheduler[:60]!r}", f"Give one of {', '.join(names)}",
                    nearest_name(scheduler.lower(), names),
                )  # fmt: skip
            runs, hardware = load(software), deployment.hardware
            kind = runs.scheduler
            memory = float(np.asarray(hardware.memory_capacity))
            if (limits := runs.limits_on(str(hardware.name), memory)) is not None:
                batch, step = limits.max_batch, limits.max_step_tokens
        step = step if max_step_tokens is None else max_step_tokens
        batch = min(batch, step) if max_batch is None else max_batch
        return cls(deployment, max_batch=batch, max_step_tokens=step, scheduler=kind)

    def __post_init__(self) -> None:
        checks = {
            "max_step_tokens": (1, self.max_step_tokens, MAX_PASS_TOKENS),
            "max_batch": (1, self.max_batch, self.max_step_tokens),
            "max_gamma": (0, self.max_gamma, 64),
            "gpus": (1, self.gpus, 1024),
            "kv_budget": (1, self.kv_budget, np.inf),
        }
        faults = [
            Fault("replica", None, name, f"found {value}", f"Give {least} to {most}")
            for name, (least, value, most) in checks.items()
            if not least <= value <= most
        ]
        if self.drafter is not None and self.drafter.tree is not None and self.drafter.tree.topk > 1:
            problem = f"{self.drafter.label}: traffic is counted for chains only"
            faults.append(Fault("replica", None, "tree", problem, "Leave --tree out, or use plan or price"))
        if faults:
            raise SpecError(faults)

    @cached_property
    def schedules(self) -> SchedulerKind:
        """How its scheduler makes up a step."""
        software = self.deployment.engine.served_by
        return self.scheduler or (software.scheduler if software else "mixed")

    @property
    def request_s(self) -> float:
        """Seconds that a request takes of the engine's front end, which has one at a time. [s]"""
        return float(np.asarray(self.deployment.engine.request_s))

    @property
    def front_end_s(self) -> float:
        """Seconds that the first token of a request is later for the front end, if no other is there. [s]"""
        return self.request_s + float(np.asarray(self.deployment.engine.request_delay_s))

    @property
    def gpus(self) -> int:
        """GPUs that it runs on."""
        return int(self.deployment.gpus)

    @property
    def machine(self) -> str:
        """What it runs on, in words."""
        return f"{self.gpus} x {self.deployment.hardware.name}{self.deployment.layout}"

    @property
    def look_ahead(self) -> int:
        """Entries that the longest round may write beyond a context, bonus token included. [tokens]"""
        return (self.max_gamma if self.drafter else 0) + 1

    @property
    def price_per_second(self) -> float:
        """Rent of all its GPUs. [USD/s]"""
        return self.gpus * float(np.asarray(self.deployment.hardware.price_per_hour)) / 3600.0

    @property
    def power(self) -> float:
        """Board power of all its GPUs. [W]"""
        return self.gpus * float(np.asarray(self.deployment.hardware.tdp))

    @property
    def groups(self) -> int:
        """Data-parallel groups, each of which holds the caches of its own sequences."""
        return int(self.deployment.data_parallel)

    @property
    def prefills(self) -> list[Deployment]:
        """What a prompt is prefilled by: the target and, where one is loaded, the model that drafts."""
        drafter, target = self.drafter, self.deployment
        extra = drafter.extra_model(target.model) if drafter else None
        return [target, drafter.runs(target, extra)] if drafter and extra else [target]

    @cached_property
    def cache_bytes(self) -> float:
        """Bytes that all caches together may fill: the room on a GPU of each data-parallel group. [B]

        Sequences go to the group with the most room, so that all fill alike.
        """
        return self.group_bytes * self.groups

    @cached_property
    def group_bytes(self) -> float:
        """Bytes on each GPU that the caches of its data-parallel group may fill; no sequence has more. [B]

        Raises
        ------
        InfeasibleError
            When the weights leave no room for a single token.
        """
        idle = self._price_longest(np.ones(1), float(self.max_batch)).memory
        room = float(np.asarray(idle.usable - idle.beside_caches).ravel()[0])
        if room < float(self.kv_bytes(np.ones(1))[0]):
            raise InfeasibleError(
                {"does not fit in memory": 1},
                request_miss(self.deployment, 1.0)
                or f"{self.machine} lack {format_bytes(-room)} a GPU for {self.deployment.model.name} and "
                "what drafts beside its caches",
            )
        return room

    @property
    def match(self) -> float:
        """Share of rounds that draft at all. [1]"""
        return 1.0 if self.drafter is None else self.drafter.match(self.deployment.model).value

    def verified(self, batch: int, gamma: int) -> int:
        """Rows of a round of so many sequences, of which those without a match have one."""
        return batch + round(self.match * batch * gamma)

    @property
    def chooses_once(self) -> bool:
        """Whether the drafter chooses its entries at the end of the prompt, and keeps all later ones."""
        return self.drafter is not None and self.drafter.strategy.selector.moment == "prompt"

    @property
    def tabled_budget(self) -> float:
        """The draft KV budget that tables over contexts are made at. [tokens]

        One that grows with what is generated is looked up by the entries that it comes to, `draft_context`.
        """
        return np.inf if self.chooses_once else self.kv_budget

    def draft_context(self, contexts: Lengths, generated: Lengths) -> FloatArray:
        """The context at which tables of `tabled_budget` hold what a drafter reads and keeps. [tokens]

        Parameters
        ----------
        contexts, generated : entries of each sequence, and how many of them came after its prompt. [tokens]
        """
        kept = np.add(self.kv_budget, generated) if self.chooses_once else np.inf
        return np.minimum(contexts, kept)

    def kv_bytes(self, contexts: Lengths, generated: Lengths = 0.0) -> FloatArray:
        """Bytes on each GPU of its group that the cache of each sequence fills, the draft's included. [B]

        Entries for a round in flight are those of a context that is `look_ahead` longer.

        Parameters
        ----------
        contexts, generated : entries of each sequence, and how many of them came after its prompt. [tokens]
        """
        knots, target, draft = self._held
        read = self.draft_context(contexts, generated)
        return np.interp(contexts, knots, target) + np.interp(read, knots, draft)

    def kv_line(self, shortest: int, longest: int) -> tuple[float, float] | None:
        """Bytes of one sequence as a line of its context between two contexts: at 0 and per token; None where
        a window or budget between them bends it. [B]"""
        if self.chooses_once:
            return None
        knots, target, draft = self._held
        held = target + draft
        low, high = self.kv_bytes(np.array([shortest, longest]))
        slope = float((high - low) / max(longest - shortest, 1))
        inside = (knots > shortest) & (knots < longest)
        straight = low + slope * (knots[inside] - shortest)
        if np.any(np.abs(held[inside] / straight - 1.0) > _STRAIGHT):
            return None
        return float(low) - slope * shortest, slope

    @cached_property
    def most_bytes_per_token(self) -> float:
        """Bytes that one more token of context costs at most. [B]"""
        knots, target, draft = self._held
        return float((np.diff(target + draft) / np.diff(knots)).max())

    @cached_property
    def shared_bytes_per_token(self) -> float:
        """Bytes of a token that sequences with the same prefix can share: none of windows and budgets. [B]"""
        knots = self._held[0][-2:]
        return float(np.diff(self.kv_bytes(knots))[0] / np.diff(knots)[0])

    @cached_property
    def kept_bytes_per_token(self) -> float:
        """Bytes of a token that is kept after its request, in a window or not, draft KV budgets apart. [B]"""
        knots, target, _ = self._held
        slopes = np.diff(target) / np.diff(knots)
        return float(slopes.max()) + max(self.shared_bytes_per_token - float(slopes[-1]), 0.0)

    @cached_property
    def _held(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Contexts between which cache bytes are a line; the target's and the draft's of a sequence there."""
        windows = {cache.window for model in self.models for cache, _ in model.caches if cache.window}
        kinks = windows | ({self.kv_budget} if np.isfinite(self.kv_budget) else set())
        between = np.unique(np.rint(np.geomspace(1.0, _DENSE_TO, _KNOTS)))
        knots = np.unique(np.concatenate([between, np.array(sorted(map(float, kinks))), [_FARTHEST]]))
        memory = self._price_longest(knots, 1.0).memory
        states = np.add(memory.states, memory.kept_states)
        parts = (memory.target_kv + states, memory.draft_kv)
        target, draft = (np.broadcast_to(held, knots.shape) for held in parts)
        return knots, target, draft

    @property
    def models(self) -> list[ModelSpec]:
        """The models whose caches it keeps: the target and, where one is loaded, the model that drafts."""
        target = self.deployment.model
        extra = self.drafter.extra_model(target) if self.drafter else None
        return [target, extra] if extra else [target]

    def _price_longest(self, contexts: FloatArray, batch: float) -> Round:
        """Price the longest round."""
        return price(
            self.deployment, self.drafter, batch=batch, context_len=contexts, kv_budget=self.tabled_budget,
            gamma=float(self.look_ahead - 1), tokens_per_round=1.0,
        )  # fmt: skip
