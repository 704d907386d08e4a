"""What another software would gain over a plan: priced with the same engine's overheads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from perfmodel.deployment import Deployment, Drafter
from perfmodel.planning.cells import Cells
from perfmodel.planning.choose import Choice, Constraints, choose_deployed
from perfmodel.planning.plan import Cell, Elsewhere
from perfmodel.planning.price import SearchSpace, price_pieces
from perfmodel.planning.served import runs_in
from perfmodel.workload import Workload

__all__ = ["gained_elsewhere", "unbound"]


def gained_elsewhere(
    deployment: Deployment,
    workload: Workload,
    space: SearchSpace,
    constraints: Constraints,
    cells: Cells[Cell],
    *,
    one_deployment: bool = False,
) -> Elsewhere | None:
    """Return what would gain most over a plan in any of its cells; None where nothing gains materially.

    Parameters
    ----------
    deployment : what serves; its engine's overheads count.
    space : drafters that its software cannot run, or not at these budgets.
    constraints : as of the plan; a gain within its near tie is none.
    cells : of the plan, those that this deployment answers.
    one_deployment : whether one drafter and budget serves all cells.
    """
    if one_deployment:
        space, _ = choose_deployed(deployment, workload, space, constraints)
    shape = len(workload.batch_sizes), len(workload.context_lens)
    place = np.full(shape, -1)
    rows, columns = (np.searchsorted(axis, cells.numbers(name)) for axis, name in (
        (workload.batch_sizes, "batch_size"), (workload.context_lens, "context_len")
    ))
    place[rows, columns] = np.arange(len(cells))
    planned = np.append(cells.numbers("tpot_s"), np.nan)  # the last where nothing is planned
    best: Elsewhere | None = None
    for piece, every in price_pieces(deployment, workload, space):
        instead = place[piece].ravel()
        for priced in every:
            if priced.drafter is None:
                continue
            choice = Choice.among(priced, constraints, Counter())
            gains = np.nan_to_num(planned[instead] / choice.tpot - 1.0)
            most = int(np.argmax(gains))
            if instead[most] < 0 or gains[most] <= max(constraints.near_tie, best.gain if best else 0.0):
                continue
            best = _describe(choice, most, cells[int(instead[most])], float(gains[most]))
    return best


def _describe(choice: Choice, index: int, cell: Cell, gain: float) -> Elsewhere:
    """Return one cell of a choice beside what the plan has there."""
    drafter, runs = choice.drafter, choice.at([index])
    assert drafter is not None
    budget = float(runs.kv_budget[0])
    kv_budget = int(budget) if np.isfinite(budget) else None
    return Elsewhere(
        strategy=drafter.strategy.name,
        drafter=drafter.kind,
        draft_model=drafter.draft_model.name if drafter.draft_model else None,
        kv_budget=kv_budget,
        gamma=int(runs.gamma[0]),
        batch_size=cell.batch_size,
        context_len=cell.context_len,
        speedup=float(np.broadcast_to(runs.round.speedup, 1)[0]),
        planned_speedup=cell.speedup,
        gain=gain,
        runs_in=runs_in(drafter, [kv_budget]),
        needs=drafter.needs(runs.deployment.model),
    )


def unbound(drafters: Sequence[Drafter]) -> list[Drafter]:
    """Return the drafters at all their budgets, as software runs them that can bound what they read."""
    return [replace(drafter, whole_cache=False) for drafter in drafters]
