"""Measured cells priced as a surface, so that published curves can be drawn beside ours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perfmodel.deployment import Deployment
from perfmodel.errors import SpecError
from perfmodel.evidence.published.measurements import Measurement
from perfmodel.planning.choose import Constraints
from perfmodel.planning.price import SearchSpace
from perfmodel.planning.speedup_map import Surface, price_surface
from perfmodel.workload import Workload

__all__ = ["price_measured"]

LONGEST = 8
"""Longest speculation length tried where the best one is wanted for measured cells. [tokens]"""


def price_measured(rows: Sequence[Measurement]) -> Surface:
    """Price the drafter of some measured cells at their budget and over all their batch sizes and contexts.

    Speculation lengths are the measured one where all rows share one, and else the best of 1 to `LONGEST`.
    Cells that were not measured are priced too; what seems not to fit in memory stays, because it was run.

    Raises
    ------
    SpecError
        When the rows do not share a deployment, a drafter and a draft KV budget.
    """
    first = rows[0]
    alike = {(row.key, row.tensor_parallel, row.expert_parallel, row.kv_budget) for row in rows}
    if len(alike) != 1:
        raise SpecError.single(
            "",
            "rows",
            f"are of {len(alike)} deployments, drafters or draft KV budgets",
            "a curve is drawn for one",
        )
    lengths = {row.gamma for row in rows}
    fixed = len(lengths) == 1 and not any(row.gamma_is_best or np.isnan(row.gamma) for row in rows)
    group = first.group
    return price_surface(
        Deployment(
            group.hardware, group.target, group.engine, first.tensor_parallel, first.expert_parallel
        ),
        Workload(sorted({row.batch for row in rows}), sorted({row.context_len for row in rows})),
        group.drafter,
        SearchSpace(
            [],
            [int(first.gamma)] if fixed else list(range(1, LONGEST + 1)),
            [int(first.kv_budget)] if np.isfinite(first.kv_budget) else None,
        ),
        constraints=Constraints(fit_memory=False),
    )
