"""Every configuration of a deployment, priced drafter by drafter in pieces of bounded memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from perfmodel.acceptance import Acceptance
from perfmodel.dataclass import dataclass
from perfmodel.deployment import Deployment, Drafter
from perfmodel.files.numbers import FloatArray, keep_memory
from perfmodel.latency import Once
from perfmodel.model import ModelSpec
from perfmodel.planning.executors import Mapper, in_order
from perfmodel.speculation import (
    Configuration,
    Drafts,
    Round,
    Terms,
    count_drafts,
    elements,
    half_way,
    price_steps,
    price_terms,
    take,
)  # fmt: skip
from perfmodel.workload import Workload

__all__ = [
    "CHUNK", "Part", "Priced", "Prices", "SearchSpace", "Task", "count_configurations", "price_drafters",
    "price_pieces", "price_task", "split", "sweep",
]  # fmt: skip

CHUNK = 262_144
"""Configurations priced at once: arrays stay in a core's cache, memory stays bounded. [configurations]"""

Part: TypeAlias = tuple[slice, slice]
"""Some batch sizes and some context lengths of a workload."""


@dataclass(frozen=True)
class SearchSpace:
    """What may be chosen for a cell of the workload.

    Parameters
    ----------
    drafters : who may draft; None is plain decoding, which has neither budget nor speculation length.
    gammas : speculation lengths. [tokens]
    kv_budgets : draft KV budgets, infinite for the whole cache; each strategy's own where None. [tokens]
    alpha : acceptance in place of the strategies' laws, a rate or a whole `Acceptance`. [0..1]
    deviations : standard deviations by which acceptance is above its expectation. [1]
    """

    drafters: Sequence[Drafter | None]
    gammas: Sequence[int]
    kv_budgets: Sequence[float] | None = None
    alpha: float | Acceptance | None = None
    deviations: float = 0.0

    def budgets_of(self, drafter: Drafter | None, target: ModelSpec) -> FloatArray:
        """Draft KV budgets of one drafter; the whole cache, infinite, comes first and wins ties. [tokens]"""
        return self._among(drafter, drafter.budgets(target) if drafter else ())

    def _among(self, drafter: Drafter | None, own: Sequence[float]) -> FloatArray:
        bound = drafter is not None and not drafter.whole_cache
        asked = self.kv_budgets if self.kv_budgets is not None and own and bound else own
        return np.asarray(sorted(asked or (np.inf,), key=np.isfinite), dtype=float)

    def gammas_of(self, drafter: Drafter | None) -> FloatArray:
        """The speculation lengths of one drafter. [tokens]"""
        return np.asarray(self.gammas if drafter else (0,), dtype=float)

    def sizes(self, target: ModelSpec) -> list[int]:
        """Configurations per cell, drafter by drafter."""
        return [
            self.budgets_of(drafter, target).size * self.gammas_of(drafter).size for drafter in self.drafters
        ]

    @property
    def most(self) -> int:
        """Configurations per cell that any one drafter has at most, whatever the target."""
        own = (drafter.default_budgets if drafter else () for drafter in self.drafters)
        counts = (
            self._among(drafter, budgets).size * self.gammas_of(drafter).size
            for budgets, drafter in zip(own, self.drafters, strict=True)
        )
        return max(counts, default=1)


@dataclass(frozen=True)
class Priced:
    """One drafter's configurations of one deployment, with their round.

    batch, context_len, kv_budget, gamma : each along an axis of its own, in this order, or all alike after
        `at`. [sequences], [tokens], [tokens], [tokens]
    round : every term on the axes it depends on; `expand` joins them.
    output_tokens : tokens that each sequence generates after its context; the round is the mean one. [tokens]
    """

    deployment: Deployment
    drafter: Drafter | None
    batch: FloatArray
    context_len: FloatArray
    kv_budget: FloatArray
    gamma: FloatArray
    round: Round
    output_tokens: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return np.broadcast_shapes(*(axis.shape for axis in self.axes))

    @property
    def axes(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Batch, context, draft KV budget and speculation length."""
        return self.batch, self.context_len, self.kv_budget, self.gamma

    def expand(self, term: Any) -> Any:
        """Return a term of the round with the shape of the configurations."""
        return np.broadcast_to(term, self.shape)

    def at(self, place: Any) -> Priced:
        """Return some of the configurations: every term indexed, nothing computed."""
        batch, context_len, kv_budget, gamma = (elements(axis, self.shape, place) for axis in self.axes)
        terms = take(self.round, self.shape, place)
        return Priced(
            self.deployment, self.drafter, batch, context_len, kv_budget, gamma, terms, self.output_tokens
        )

    @property
    def configuration(self) -> Configuration:
        """What was priced, by the names that `price` gives it."""
        return Configuration(
            batch=self.batch, context_len=self.context_len, kv_budget=self.kv_budget, gamma=self.gamma,
            output_tokens=self.output_tokens,
        )  # fmt: skip


Task: TypeAlias = tuple[Deployment, Workload, SearchSpace, Part]
"""A piece of a sweep: what is priced, and which cells of it."""


def count_configurations(deployments: Sequence[Deployment], workload: Workload, space: SearchSpace) -> int:
    """Count the configurations of a sweep."""
    cells = len(workload.batch_sizes) * len(workload.context_lens)
    return cells * sum(sum(space.sizes(deployment.model)) for deployment in deployments)


def split(workload: Workload, space: SearchSpace, chunk: int = CHUNK) -> list[Part]:
    """Split the (batch, context) plane so that no drafter's arrays exceed `chunk` configurations.

    The pieces come in (batch, context) order, and so do the cells of all of them together.
    """
    cells = max(1, chunk // space.most)
    columns = min(len(workload.context_lens), cells)
    rows = max(1, cells // columns)
    return [
        (slice(row, row + rows), slice(column, column + columns))
        for row, column in product(
            range(0, len(workload.batch_sizes), rows), range(0, len(workload.context_lens), columns)
        )
    ]


def price_drafters(deployment: Deployment, workload: Workload, space: SearchSpace) -> list[Priced]:
    """Price every configuration: one `Priced` a drafter, axes (batch, context, kv_budget, gamma).

    The target's own passes are priced once for all drafters, draft passes at their distinct counts only.

    Parameters
    ----------
    deployment : what serves.
    workload : batch sizes [sequences] and context lengths [tokens].
    space : who may draft, at which budgets and lengths. [tokens]
    """
    counted = _count(deployment, workload, space)
    return _join(deployment, workload, space, _price_terms(deployment, workload, space, counted))


def _count(deployment: Deployment, workload: Workload, space: SearchSpace) -> list[Drafts | None]:
    """Count what every drafter does in a round of one sequence; arguments as in `price_drafters`."""
    _, context_len = _cells(workload)
    return [
        None
        if drafter is None
        else count_drafts(
            deployment, drafter, context_len=context_len, gamma=space.gammas_of(drafter),
            kv_budget=space.budgets_of(drafter, deployment.model)[:, None],
            output_tokens=workload.output_tokens, alpha=space.alpha, deviations=space.deviations, alike=True,
        )
        for drafter in space.drafters
    ]  # fmt: skip


def _price_terms(
    deployment: Deployment, workload: Workload, space: SearchSpace, counted: Sequence[Drafts | None]
) -> list[Terms]:
    """Price the terms of every drafter's rounds; arguments as in `price_drafters`."""
    batch, context_len = _cells(workload)
    gammas, once = np.asarray(space.gammas, dtype=float), Once()
    middle = half_way(context_len, workload.output_tokens)
    steps = price_steps(deployment, batch=batch, context_len=middle, gamma=gammas, once=once)
    return [
        price_terms(
            deployment, drafter, drafts, batch=batch, context_len=context_len,
            gamma=space.gammas_of(drafter), output_tokens=workload.output_tokens, steps=steps, once=once,
        )
        for drafter, drafts in zip(space.drafters, counted, strict=True)
    ]  # fmt: skip


def _cells(workload: Workload) -> tuple[FloatArray, FloatArray]:
    """Return batch sizes and context lengths along their axes. [sequences], [tokens]"""
    batch = np.asarray(workload.batch_sizes, dtype=float)[:, None, None, None]
    return batch, np.asarray(workload.context_lens, dtype=float)[:, None, None]


def _join(
    deployment: Deployment, workload: Workload, space: SearchSpace, terms: Sequence[Terms]
) -> list[Priced]:
    """Join the terms of every drafter's rounds."""
    batch, context_len = _cells(workload)
    return [
        Priced(
            deployment, drafter, batch, context_len, space.budgets_of(drafter, deployment.model)[:, None],
            space.gammas_of(drafter), of_drafter.join(), workload.output_tokens,
        )
        for drafter, of_drafter in zip(space.drafters, terms, strict=True)
    ]  # fmt: skip


class Prices:
    """The prices of one deployment, asked for piece by piece: what pieces share is priced once for them.

    What drafters count knows no batch. Of what is priced each term lies on few axes, so those of many batch
    sizes are priced at once, as many as make none larger than `chunk` elements. They are joined piece by
    piece, and kept until others are asked for. Any order of pieces has the same prices.
    """

    def __init__(
        self, deployment: Deployment, workload: Workload, space: SearchSpace, chunk: int = CHUNK
    ) -> None:
        """Price nothing yet.

        Parameters
        ----------
        deployment, workload, space : as in `price_drafters`.
        chunk : as in `split`. [configurations]
        """
        keep_memory()
        self.deployment, self.workload, self.space, self.chunk = deployment, workload, space, chunk
        self._kept = _Kept()

    def of(self, part: Part) -> list[Priced]:
        """Return what `price_drafters` returns for a piece of `split`."""
        (rows, columns), cells, most = part, self.workload.part(*part), len(self.workload.batch_sizes)
        first, end = rows.start, min(rows.stop, most)
        if columns != self._kept.columns:
            self._kept = _Kept()  # what was kept is gone before more is counted
            self._kept = _Kept(columns, _count(self.deployment, cells, self.space))
        kept = self._kept
        if first not in kept.batches or end > kept.batches.stop:
            kept.batches, kept.terms = range(0), ()
            last = min(max(end, first + self._at_once(part, kept.counted)), most)
            wide = self.workload.part(slice(first, last), columns)
            kept.terms = _price_terms(self.deployment, wide, self.space, kept.counted)
            kept.batches = range(first, last)
        here = slice(first - kept.batches.start, end - kept.batches.start)
        terms = [of_drafter.of_batches(here) for of_drafter in kept.terms]
        return _join(self.deployment, cells, self.space, terms)

    def _at_once(self, part: Part, counted: Sequence[Drafts | None]) -> int:
        """Return how many batch sizes may be priced at once; where other contexts come between them, none."""
        contexts = len(self.workload.context_lens[part[1]])
        if contexts < len(self.workload.context_lens):
            return 0
        each = max(contexts * len(self.space.gammas), *(drafts.elements for drafts in counted if drafts), 1)
        if self.deployment.piped:  # the fullest stage is that of every configuration
            each = max(each, contexts * self.space.most)
        return self.chunk // each


@dataclasses.dataclass
class _Kept:
    """What is kept of some contexts: what drafters count, and the terms of some batch sizes."""

    columns: slice | None = None
    counted: Sequence[Drafts | None] = ()
    batches: range = range(0)
    terms: Sequence[Terms] = ()


def price_pieces(
    deployment: Deployment, workload: Workload, space: SearchSpace, chunk: int = CHUNK
) -> Iterator[tuple[Part, list[Priced]]]:
    """Price piece by piece, each as `price_drafters` does; arguments as in `Prices`."""
    prices = Prices(deployment, workload, space, chunk)
    for part in split(workload, space, chunk):
        yield part, prices.of(part)


def sweep(
    deployments: Sequence[Deployment],
    workload: Workload,
    space: SearchSpace,
    *,
    executor: Mapper | None = None,
    chunk: int = CHUNK,
) -> Iterator[Priced]:
    """Price every configuration, deployment by deployment, piece by piece and drafter by drafter.

    Parameters
    ----------
    executor : anything with ``Executor.map``; this process when absent. What comes, comes in the same order.
    chunk : configurations that one `Priced` holds at most, as long as one cell holds no more.
    """
    if executor is None:
        for deployment in deployments:
            for _, priced in price_pieces(deployment, workload, space, chunk):
                yield from priced
        return
    pieces = split(workload, space, chunk)
    tasks = [(deployment, workload, space, piece) for deployment in deployments for piece in pieces]
    for priced in in_order(executor, price_task, tasks):
        yield from priced


def price_task(task: Task) -> list[Priced]:
    """Price one piece of a sweep: what a worker is sent."""
    deployment, workload, space, piece = task
    return price_drafters(deployment, workload.part(*piece), space)
