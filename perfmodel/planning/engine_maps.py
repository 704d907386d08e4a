"""One workload on several engines, and what each loses by what its software cannot run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perfmodel.deployment import Deployment, Drafter
from perfmodel.files.numbers import FloatArray
from perfmodel.planning.answers import answer_cells
from perfmodel.planning.cells import Cells
from perfmodel.planning.choose import Constraints
from perfmodel.planning.plan import Cell, Plan
from perfmodel.planning.price import SearchSpace
from perfmodel.workload import Workload

__all__ = ["EngineMap", "compare_engines"]


@dataclass(frozen=True)
class EngineMap:
    """A plan of one engine, beside what any of the engines compared could run on its step times.

    Attributes
    ----------
    name : of its software, or of the engine where that names none or two have the same.
    plan : of what it can run.
    anything : cells of what any of them can run, priced as if this one could: its overheads, its kernels.
    loss : tokens per second that are lost by the difference, as a share of those of `anything`, axes
        (batch, context); 0 within a near tie, nan where the plan has no cell. [1]
    """

    name: str
    plan: Plan
    anything: Cells[Cell]
    loss: FloatArray

    @property
    def worst(self) -> tuple[Cell, Cell] | None:
        """The cell that loses most, and what could run there; None where nothing is lost."""
        if not np.nanmax(self.loss, initial=0.0) > 0.0:
            return None
        batches, contexts = axes_of(self.plan)
        row, column = np.unravel_index(int(np.nanargmax(self.loss)), self.loss.shape)
        here = {"batch_size": batches[row], "context_len": contexts[column]}
        return self.plan.columns.where(**here)[0], self.anything.where(**here)[0]


def axes_of(plan: Plan) -> tuple[list[int], list[int]]:
    """Return the batch sizes and the context lengths that a plan was asked about. [sequences], [tokens]"""
    return sorted(plan.request["batch_sizes"]), sorted(plan.request["context_lens"])


def compare_engines(
    plans: Sequence[Plan],
    deployments: Sequence[Deployment],
    drafters: Sequence[Sequence[Drafter]],
    workload: Workload,
    space: SearchSpace,
    constraints: Constraints,
) -> list[EngineMap]:
    """Return the plan of every engine with what it loses by what it cannot run.

    Parameters
    ----------
    plans, deployments, drafters : one an engine; what was planned, what serves, and who may draft there.
    workload, constraints : those of the plans.
    space : lengths, budgets and acceptance of the plans; its drafters do not count.
    """
    every = _distinct([drafter for each in drafters for drafter in each])
    anyone = SearchSpace([None, *every], space.gammas, space.kv_budgets, space.alpha)
    software = [plan.software for plan in plans]
    maps = []
    for plan, deployment in zip(plans, deployments, strict=True):
        cells = answer_cells(deployment, workload, anyone, constraints, draws=0, seed=0).cells
        name = plan.software if software.count(plan.software) == 1 and plan.software else plan.engine
        maps.append(EngineMap(name, plan, cells, _losses(plan, cells, constraints.near_tie)))
    return maps


def _losses(plan: Plan, anything: Cells[Cell], near_tie: float) -> FloatArray:
    """Return the share of tokens per second that every cell of a plan lacks. [1]"""
    batches, contexts = axes_of(plan)
    planned, could = (np.full((len(batches), len(contexts)), np.nan) for _ in range(2))
    for seconds, cells in ((planned, plan.columns), (could, anything)):
        rows = np.searchsorted(batches, cells.numbers("batch_size"))
        seconds[rows, np.searchsorted(contexts, cells.numbers("context_len"))] = cells.numbers("tpot_s")
    loss = 1.0 - could / planned
    return np.where(loss <= near_tie, np.where(np.isnan(loss), np.nan, 0.0), loss)


def _distinct(drafters: Sequence[Drafter]) -> list[Drafter]:
    """Return each way to draft once; one that a software bounds and another does not is two."""
    ways = {(drafter.label, drafter.whole_cache): drafter for drafter in drafters}
    return list(ways.values())
