"""Every configuration of a grid, priced in chunks of bounded memory, on one core or on many machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.plan import NO_DRAFT
from perfmodel.speculation import Drafter, Round, price_round, target_steps
from perfmodel.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 262_144
"""Configurations priced at once: arrays stay in a core's cache, memory stays bounded. [configurations]"""

IN_FLIGHT = 32
"""Tasks that an executor holds at a time; the blocks of one take some 10 MB. [tasks]"""

COLUMNS = {
    "tokens_per_round": "tokens_per_round",
    "round_s": "round_s",
    "tpot_s": "tpot",
    "speedup": "speedup",
    "throughput_tokens_per_s": "throughput",
}
"""Columns of a sweep and the property of `Round` that each one is."""


class Mapper(Protocol):
    """Anything with ``Executor.map``: a process pool, a Dask client's executor."""

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Grid:
    """The axes of a sweep; configurations are their product. [sequences], [tokens], [GPUs]

    A drafter of None is plain decoding, which has neither budget nor speculation length. `alpha` replaces the
    strategies' acceptance laws; `deviations` is how many standard deviations above its expectation
    acceptance is.
    """

    hardware: Sequence[HardwareProfile]
    target: ModelSpec
    engine: EngineOverhead
    workload: Workload
    drafters: Sequence[Drafter | None]
    gammas: Sequence[int]
    kv_budgets: Sequence[int] | None = None
    tensor_parallel: Sequence[int] = (1,)
    alpha: float | Acceptance | None = None
    deviations: float = 0.0

    def only(self, drafters: Sequence[Drafter | None], kv_budgets: Sequence[int] | None = None) -> Grid:
        """The same grid for some drafters, and for some draft KV budgets where these are given."""
        return replace(
            self, drafters=drafters, kv_budgets=self.kv_budgets if kv_budgets is None else kv_budgets
        )

    def budgets_of(self, drafter: Drafter | None) -> NDArray[np.float64]:
        """The draft KV budgets of one drafter: the grid's or its own, infinite where it has none. [tokens]"""
        own = drafter.strategy.default_budgets if drafter else ()
        asked = self.kv_budgets if self.kv_budgets is not None and own else own
        return np.asarray(asked or (np.inf,), dtype=float)

    def gammas_of(self, drafter: Drafter | None) -> NDArray[np.float64]:
        """The speculation lengths of one drafter. [tokens]"""
        return np.asarray(self.gammas if drafter else (0,), dtype=float)

    def per_cell(self) -> list[int]:
        """Configurations per (batch, context) cell, drafter by drafter."""
        return [self.budgets_of(drafter).size * self.gammas_of(drafter).size for drafter in self.drafters]

    @property
    def size(self) -> int:
        """How many configurations there are."""
        cells = len(self.workload.batch_sizes) * len(self.workload.context_lens)
        return len(self.hardware) * len(self.tensor_parallel) * cells * sum(self.per_cell())


@dataclass(frozen=True)
class Block:
    """A rectangular piece of a sweep: one deployment and drafter, axes (batch, context, kv_budget, gamma).

    It holds the round unexpanded, every term on the axes it depends on; `column` joins them.
    """

    hardware: str
    tensor_parallel: int
    drafter: Drafter | None
    batch_sizes: NDArray[np.float64]
    context_lens: NDArray[np.float64]
    kv_budgets: NDArray[np.float64]
    gammas: NDArray[np.float64]
    round: Round

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths of the axes batch, context, kv_budget, gamma."""
        return self.batch_sizes.size, self.context_lens.size, self.kv_budgets.size, self.gammas.size

    def column(self, name: str) -> NDArray[Any]:
        """One of `COLUMNS` as an array of the block's shape."""
        value = self.round.memory.fits if name == "fits" else getattr(self.round, COLUMNS[name])
        return np.broadcast_to(value, self.shape)

    def to_frame(self) -> pd.DataFrame:
        """One row per configuration, lower-case columns with the unit in the name."""
        import pandas as pd

        axes = np.meshgrid(self.batch_sizes, self.context_lens, self.kv_budgets, self.gammas, indexing="ij")
        names = ("batch_size", "context_len", "kv_budget", "gamma")
        draft_model = self.drafter.draft_model if self.drafter else None
        return pd.DataFrame(
            {
                "hardware": self.hardware,
                "tensor_parallel": self.tensor_parallel,
                "strategy": self.drafter.strategy.name if self.drafter else NO_DRAFT,
                "draft_model": draft_model.name if draft_model else "",
                **{name: axis.ravel() for name, axis in zip(names, axes, strict=True)},
                **{name: self.column(name).ravel() for name in (*COLUMNS, "fits")},
            }
        ).astype({"batch_size": int, "context_len": int, "gamma": int})


@dataclass(frozen=True)
class Task:
    """Some rows and columns of the (batch, context) plane of one deployment: a worker's piece of work."""

    grid: Grid
    hardware: int
    tensor_parallel: int
    rows: slice
    columns: slice


def tasks(grid: Grid, *, chunk: int = CHUNK) -> list[Task]:
    """Split a grid's (batch, context) plane so that no drafter's arrays exceed `chunk` configurations."""
    cells = max(1, chunk // max(grid.per_cell(), default=1))
    batches, contexts = len(grid.workload.batch_sizes), len(grid.workload.context_lens)
    columns = min(contexts, cells)
    rows = max(1, cells // columns)
    return [
        Task(grid, hardware, width, slice(row, row + rows), slice(column, column + columns))
        for hardware in range(len(grid.hardware))
        for width in grid.tensor_parallel
        for row in range(0, batches, rows)
        for column in range(0, contexts, columns)
    ]


def sweep(
    grid: Grid, *, executor: Mapper | None = None, chunk: int = CHUNK, in_flight: int = IN_FLIGHT
) -> Iterator[Block]:
    """Price every configuration of the grid, block by block, in the order of `tasks`.

    Parameters
    ----------
    executor : anything with ``Executor.map``; this process when absent. Blocks come in the same order.
    chunk : configurations that one block holds at most, as long as one cell holds no more.
    in_flight : tasks that an executor is given ahead of what is consumed; at least two for each worker.
    """
    work = tasks(grid, chunk=chunk)
    priced = map(price_task, work) if executor is None else _priced_ahead(executor, work, in_flight)
    for blocks in priced:
        yield from blocks


def _priced_ahead(executor: Mapper, work: Sequence[Task], in_flight: int) -> Iterator[list[Block]]:
    """Price tasks in two groups at a time: one is consumed while the next is priced, and no more are held."""
    size = max(1, in_flight // 2)
    ahead: Iterator[list[Block]] = iter(())
    for start in range(0, len(work), size):
        coming = executor.map(price_task, work[start : start + size])
        yield from ahead
        ahead = coming
    yield from ahead


def price_task(task: Task) -> list[Block]:
    """Price one task: one block per drafter, the target's own passes priced once for all of them."""
    grid, hardware = task.grid, task.grid.hardware[task.hardware]
    batches = np.asarray(grid.workload.batch_sizes[task.rows], dtype=float)
    contexts = np.asarray(grid.workload.context_lens[task.columns], dtype=float)
    batch, context_len = batches[:, None, None, None], contexts[:, None, None]
    tensor_parallel = float(task.tensor_parallel)
    steps = target_steps(
        hardware,
        grid.target,
        grid.engine,
        batch=batch,
        context_len=context_len,
        gamma=np.asarray(grid.gammas, dtype=float),
        tensor_parallel=tensor_parallel,
    )
    blocks = []
    for drafter in grid.drafters:
        budgets, gammas = grid.budgets_of(drafter), grid.gammas_of(drafter)
        priced = price_round(
            hardware,
            grid.target,
            grid.engine,
            drafter,
            batch=batch,
            context_len=context_len,
            kv_budget=budgets[:, None],
            gamma=gammas,
            tensor_parallel=tensor_parallel,
            alpha=grid.alpha,
            deviations=grid.deviations,
            steps=steps,
        )
        name = str(hardware.name)
        blocks.append(Block(name, task.tensor_parallel, drafter, batches, contexts, budgets, gammas, priced))
    return blocks
