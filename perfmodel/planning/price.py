"""Every configuration of a deployment, priced drafter by drafter in pieces of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from perfmodel.acceptance import Acceptance
from perfmodel.deployment import Deployment, Drafter
from perfmodel.files.numbers import FloatArray
from perfmodel.model import ModelSpec
from perfmodel.planning.executors import Mapper, in_order
from perfmodel.speculation import Configuration, Round, elements, half_way, price, price_steps, take
from perfmodel.workload import Workload

__all__ = [
    "CHUNK", "Part", "Priced", "SearchSpace", "Task", "count_configurations", "price_drafters", "split",
    "sweep",
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

    The target's own passes are priced once for all drafters.

    Parameters
    ----------
    deployment : what serves.
    workload : batch sizes [sequences] and context lengths [tokens].
    space : who may draft, at which budgets and lengths. [tokens]
    """
    batch = np.asarray(workload.batch_sizes, dtype=float)[:, None, None, None]
    context_len = np.asarray(workload.context_lens, dtype=float)[:, None, None]
    gammas = np.asarray(space.gammas, dtype=float)
    middle = half_way(context_len, workload.output_tokens)
    steps = price_steps(deployment, batch=batch, context_len=middle, gamma=gammas)
    priced = []
    for drafter in space.drafters:
        budget, gamma = space.budgets_of(drafter, deployment.model)[:, None], space.gammas_of(drafter)
        terms = price(
            deployment, drafter, batch=batch, context_len=context_len, kv_budget=budget, gamma=gamma,
            output_tokens=workload.output_tokens, alpha=space.alpha, deviations=space.deviations, steps=steps,
        )  # fmt: skip
        priced.append(
            Priced(
                deployment, drafter, batch, context_len, budget, gamma, terms, workload.output_tokens
            )
        )
    return priced


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
    pieces = split(workload, space, chunk)
    tasks = [(deployment, workload, space, piece) for deployment in deployments for piece in pieces]
    for priced in in_order(executor, price_task, tasks):
        yield from priced


def price_task(task: Task) -> list[Priced]:
    """Price one piece of a sweep: what a worker is sent."""
    deployment, workload, space, piece = task
    return price_drafters(deployment, workload.part(*piece), space)
