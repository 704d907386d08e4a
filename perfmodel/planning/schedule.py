"""One speculation length per batch band: the context axis collapsed, few lengths, and what that loses."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from perfmodel.acceptance.online import moved_tokens
from perfmodel.errors import SpecError, nearest_name
from perfmodel.planning.plan import NO_DRAFT, Cell, Plan

__all__ = [
    "COLLAPSES", "Band", "PlannedDrafter", "Schedule", "check_collapse", "collapse", "midpoints",
    "nearest_cells", "planned_drafter", "speedups", "tokens_by_gamma",
]  # fmt: skip

COLLAPSES = ("weight", "regret")
MOST_LENGTHS = 4
"""Distinct speculation lengths by default: an engine captures graphs and buffers for every one. [1]"""
MERGE_LOSS = 0.01
"""Lengths are merged while no batch size loses more than this share of its speed. [1]"""


@dataclass(frozen=True)
class PlannedDrafter:
    """What a running engine has one of: a drafter, a draft KV budget, GPUs."""

    strategy: str
    draft_model: str | None
    kv_budget: int | None
    hardware: str
    tensor_parallel: int
    draft_tensor_parallel: int | None = None
    expert_parallel: bool = False
    topk: int | None = None
    nodes: int | None = None
    data_parallel: int = 1

    @property
    def shape(self) -> tuple[int | None, int | None]:
        """The topk and the nodes of its tree; None twice for a chain."""
        return self.topk, self.nodes

    @property
    def branches(self) -> bool:
        """Whether it drafts a tree that is no chain."""
        return (self.topk or 1) > 1


@dataclass(frozen=True)
class Band:
    """Batch sizes from `first` to `last`, both included, and their speculation length."""

    first: int
    last: int
    gamma: int


@dataclass(frozen=True)
class Schedule:
    """The answer of a plan as a function of the batch size alone.

    collapse_loss, collapse_worst : share of speed that ignoring the context loses, mean over the workload
        and in the worst cell. [1]
    merge_loss : share of speed that merging lengths loses on top, in the worst batch size. [1]
    """

    deployment: PlannedDrafter
    bands: tuple[Band, ...]
    context_lens: tuple[int, ...]
    collapse_loss: float
    collapse_worst: float
    merge_loss: float
    notes: tuple[str, ...] = field(default=())

    def gamma(self, batch_size: int) -> int:
        """The length of a batch size; the first and last band reach beyond their ends. [tokens]"""
        index = bisect_right([band.first for band in self.bands], batch_size) - 1
        return self.bands[max(index, 0)].gamma

    @property
    def most(self) -> int:
        """The largest speculation length. [tokens]"""
        return max(band.gamma for band in self.bands)

    @property
    def last_batch(self) -> int:
        """The largest batch size that the bands name."""
        return self.bands[-1].last


def tokens_by_gamma(
    cell: Cell, gammas: Sequence[int], shift: float = 0.0, match: float | None = None
) -> list[float]:
    """Return the tokens per round of a cell's drafter at each length. [tokens]

    Parameters
    ----------
    cell : where; its acceptance is the plan's.
    gammas : speculation lengths. [tokens]
    shift : by how much acceptance is above the plan's, on the logit scale. [1]
    match : share of rounds that draft at all, and the shift is of those; the plan's, and the shift is of all
        rounds, where None. [0..1]
    """
    accepted = cell.accepted if match is None else cell.accepted_of_drafting
    if accepted is None:
        return [1.0] * len(gammas)
    drafted = np.minimum(np.asarray(gammas, dtype=float), cell.most_gamma or np.inf)
    tokens = moved_tokens(*accepted, drafted, shift, cell.tree)
    if match is not None:
        tokens = 1.0 + match * (tokens - 1.0)
    listed: list[float] = tokens.tolist()
    return listed


def speedups(
    cell: Cell,
    gammas: Sequence[int],
    shift: float = 0.0,
    slower: float = 1.0,
    match: float | None = None,
) -> list[float]:
    """Return the speedup over decoding without a drafter at each length; 0 where it was not priced. [1]

    At gamma 0 it is 1, or less in an engine whose plain steps take longer while the drafter is loaded.

    Parameters
    ----------
    cell, gammas, shift, match : as for `tokens_by_gamma`.
    slower : how many times longer than planned a round takes, relative to plain decoding. [1]
    """
    rounds = cell.round_by_gamma_s
    tokens = tokens_by_gamma(cell, gammas, shift, match)
    return [
        cell.baseline_s * (tokens[index] if gamma else 1.0) / (rounds[index] * (slower if gamma else 1.0))
        if index < len(rounds)
        else 0.0
        for index, gamma in enumerate(gammas)
    ]


def planned_drafter(plan: Plan) -> PlannedDrafter:
    """The one drafter, draft KV budget and GPUs of a plan; SpecError where cells do not agree."""
    drafters = {
        (
            *(cell.strategy, cell.draft_model, cell.kv_budget, cell.draft_tensor_parallel),
            *(cell.topk, cell.nodes),
        )
        for cell in plan.cells
        if cell.speculates
    }
    machines = {(cell.hardware or plan.hardware, cell.tensor_parallel) for cell in plan.cells}
    if len(drafters) > 1 or len(machines) > 1:
        what = "drafters or draft KV budgets" if len(drafters) > 1 else "accelerators or numbers of GPUs"
        raise SpecError.single(
            "plan",
            "cells",
            f"use {max(len(drafters), len(machines))} different {what}; a running engine has one",
            "plan with --one-deployment, or name one --strategy, --draft-model, --draft-budget, --hardware "
            "and --tp",
        )
    nobody = (NO_DRAFT, None, None, None, None, None)
    strategy, draft_model, kv_budget, draft_gpus, topk, nodes = next(iter(drafters), nobody)
    hardware, tensor_parallel = next(iter(machines))
    return PlannedDrafter(
        strategy, draft_model, kv_budget, hardware, tensor_parallel, draft_gpus, plan.expert_parallel, topk,
        nodes, plan.data_parallel,
    )  # fmt: skip


def midpoints(values: Sequence[float]) -> tuple[float, ...]:
    """Where the nearest of sorted values changes, on a logarithmic scale."""
    return tuple(math.sqrt(low * high) for low, high in pairwise(values))


def nearest_cells(plan: Plan) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[Cell, ...], ...]]:
    """Batch sizes, contexts, and each batch's cells: the nearest context's where one was infeasible."""
    places = {(cell.batch_size, cell.context_len): cell for cell in plan.cells}
    batches, contexts = (tuple(sorted(set(values))) for values in zip(*places, strict=True))

    def cell_near(batch: int, context: int) -> Cell:
        known = [other for other in contexts if (batch, other) in places]
        return places[batch, min(known, key=lambda other: abs(math.log(other / context)))]

    return batches, contexts, tuple(tuple(cell_near(batch, at) for at in contexts) for batch in batches)


def collapse(
    plan: Plan,
    *,
    by: str = "weight",
    weights: Mapping[int, float] | None = None,
    contexts: tuple[int, int] | None = None,
    most_lengths: int | None = MOST_LENGTHS,
    merge_loss: float = MERGE_LOSS,
    max_batch: int | None = None,
) -> Schedule:
    """Collapse a plan's contexts into one speculation length per batch band.

    Parameters
    ----------
    by : ``weight`` loses least in the weighted mean of log speed, ``regret`` least in the worst context. A
        collapsed length lies between those of the contexts that it stands for.
    weights : share of time per planned context; equal when absent. [1]
    contexts : collapse only the planned contexts from the first to the second, both included. [tokens]
    most_lengths : most distinct speculation lengths; None for no limit. [1]
    merge_loss : share of its speed that a batch size may lose to have fewer lengths. [1]
    max_batch : last batch size of the last band; the largest planned one when absent.

    Raises
    ------
    SpecError
        When the plan is not one deployment, or an option cannot be.
    """
    deployment = planned_drafter(plan)
    _check(plan, by, weights, contexts, most_lengths, merge_loss, max_batch)
    low, high = contexts or (0, math.inf)
    cells = [cell for cell in plan.cells if low <= cell.context_len <= high]
    batches = sorted({cell.batch_size for cell in cells})
    shares = dict.fromkeys({cell.context_len for cell in cells}, 1.0) if weights is None else weights
    rows = [
        _Row([cell for cell in cells if cell.batch_size == batch], plan.gammas, shares, by)
        for batch in batches
    ]
    gammas, merged = _merged(rows, most_lengths, merge_loss)
    losses = [loss for row in rows for loss in row.losses(row.gamma)]
    total = sum(weight for row in rows for weight in row.weights)
    mean = sum(weight * loss for row in rows for weight, loss in row.weighed(row.gamma)) / total
    return Schedule(
        deployment=deployment,
        bands=_bands(batches, gammas, max_batch),
        context_lens=tuple(sorted({cell.context_len for cell in cells})),
        collapse_loss=max(mean, 0.0),
        collapse_worst=max(*losses, 0.0),
        merge_loss=merged,
        notes=_notes(plan, batches, max_batch),
    )


class _Row:
    """The cells of one batch size, and what each length loses in them against the plan's own choice."""

    def __init__(
        self, cells: list[Cell], gammas: Sequence[int], shares: Mapping[int, float], by: str
    ) -> None:
        self.gammas = gammas
        self.weights = [shares.get(cell.context_len, 0.0) for cell in cells]
        if not any(self.weights):
            self.weights = [1.0] * len(cells)
        self.speeds = [speedups(cell, gammas) for cell in cells]
        self.chosen = [cell.gamma for cell in cells]
        between = [gamma for gamma in gammas if min(self.chosen) <= gamma <= max(self.chosen)]
        self.by = by
        self.gamma = min(between, key=lambda gamma: (round(self.score(gamma), 12), gamma))

    def losses(self, gamma: int) -> list[float]:
        """Share of speed lost in every cell; 1 where the length was not priced. [1]"""
        at = self.gammas.index
        return [
            1.0 - speed[at(gamma)] / speed[at(own)]
            for speed, own in zip(self.speeds, self.chosen, strict=True)
        ]

    def weighed(self, gamma: int) -> list[tuple[float, float]]:
        """Weight and loss of every cell."""
        return list(zip(self.weights, self.losses(gamma), strict=True))

    def score(self, gamma: int) -> float:
        """What is minimised: the mean logarithm lost, or the worst loss."""
        if self.by == "regret":
            return max(self.losses(gamma))
        mean = sum(-weight * math.log(max(1.0 - loss, 1e-12)) for weight, loss in self.weighed(gamma))
        return mean / sum(self.weights)

    def loss_beyond(self, gamma: int) -> float:
        """What another length loses on top of the row's own. [1]"""
        return max(0.0, self.score(gamma) - self.score(self.gamma))


def _merged(rows: list[_Row], most: int | None, allowed: float) -> tuple[list[int], float]:
    """Drop one length after another, the cheapest first, while no row loses more than is allowed."""
    kept = sorted({row.gamma for row in rows})
    loss = {(index, gamma): row.loss_beyond(gamma) for index, row in enumerate(rows) for gamma in kept}

    def assigned(lengths: list[int]) -> tuple[float, list[int]]:
        choice = [
            row.gamma if row.gamma in lengths else min(lengths, key=lambda gamma: (loss[index, gamma], gamma))
            for index, row in enumerate(rows)
        ]
        return max(loss[index, gamma] for index, gamma in enumerate(choice)), choice

    worst, choice = assigned(kept)
    while len(kept) > 1:
        fewer = [[other for other in kept if other != gamma] for gamma in kept]
        candidate = min(fewer, key=lambda lengths: (round(assigned(lengths)[0], 12), lengths))
        cost, lengths = assigned(candidate)
        if cost >= allowed and (most is None or len(kept) <= most):
            break
        kept, worst, choice = candidate, cost, lengths
    return choice, worst


def _bands(batches: list[int], gammas: list[int], max_batch: int | None) -> tuple[Band, ...]:
    """Ranges of batch sizes with equal lengths; they change where the nearest planned batch size does."""
    last = max(max_batch or batches[-1], 1)
    starts = [1, *(math.floor(middle) + (middle % 1 > 0) for middle in midpoints(batches))]
    bands: list[Band] = []
    for start, stop, gamma in zip(starts, [*(start - 1 for start in starts[1:]), last], gammas, strict=True):
        if start > last:
            break
        if bands and bands[-1].gamma == gamma:
            start = bands.pop().first
        bands.append(Band(start, min(stop, last), gamma))
    return tuple(bands)


def check_collapse(by: str) -> None:
    """Refuse what is no way to collapse contexts. Raises SpecError."""
    if by not in COLLAPSES:
        raise SpecError.single(
            "request", "--collapse", f"found {by!r}", "choose weight or regret", nearest_name(by, COLLAPSES)
        )


def _check(
    plan: Plan,
    by: str,
    weights: Mapping[int, float] | None,
    contexts: tuple[int, int] | None,
    most: int | None,
    merge_loss: float,
    max_batch: int | None,
) -> None:
    planned = {cell.context_len for cell in plan.cells}
    check_collapse(by)
    if weights is not None and (
        not set(weights) <= planned or not all(math.isfinite(w) and w >= 0 for w in weights.values())
        or not any(weights.values())
    ):  # fmt: skip
        raise SpecError.single(
            "request", "--weights",
            "found " + ",".join(f"{context}={share:g}" for context, share in weights.items()),
            f"give a share above 0 to one of the planned contexts, {', '.join(map(str, sorted(planned)))}",
        )  # fmt: skip
    if contexts is not None and not any(contexts[0] <= context <= contexts[1] for context in planned):
        raise SpecError.single(
            "request", "--context", f"no planned context lies between {contexts[0]} and {contexts[1]}",
            f"planned are {', '.join(map(str, sorted(planned)))}",
        )  # fmt: skip
    if (
        (most is not None and most < 1)
        or not 0.0 <= merge_loss < 1.0
        or (max_batch is not None and max_batch < 1)
    ):
        raise SpecError.single(
            "request",
            "--max-distinct, --merge-loss, --max-batch",
            f"found {most!r}, {merge_loss!r}, {max_batch!r}",
            "give at least one length, a share below one and at least one sequence",
        )


def _notes(plan: Plan, batches: list[int], max_batch: int | None) -> tuple[str, ...]:
    """What the plan does not cover and the bands answer for all the same."""
    notes = []
    if max_batch is not None and max_batch > batches[-1]:
        notes.append(
            f"batch sizes above {batches[-1]} were not planned: the length of {batches[-1]} holds there"
        )
    asked = plan.request.get("batch_sizes") or batches
    missing = sorted(set(asked) - {cell.batch_size for cell in plan.cells})
    if missing:
        notes.append(f"nothing is feasible at batch {', '.join(map(str, missing))}: the nearest one answers")
    return tuple(notes)
