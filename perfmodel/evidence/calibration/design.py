"""Which cells to measure next: the ones that tell most about figures that are still uncertain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from perfmodel.engine import EngineOverhead
from perfmodel.evidence.calibration.response import KINDS, NAMES, Observations, Prior, respond
from perfmodel.evidence.published.measurements import Measurement
from perfmodel.evidence.published.steps import price_measurements
from perfmodel.files.numbers import FloatArray

__all__ = ["Candidates", "Informing", "NextCell", "candidates", "next_cells"]


BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTEXTS = (1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000)
GAMMAS = (1, 2, 4, 8)
WORTH = 0.3
"""Share of what is uncertain of a figure that a cell must remove to be named for it. [1]"""


@dataclass(frozen=True)
class NextCell:
    """One cell worth measuring.

    `learns` is the figure whose uncertainty it reduces most, `to` the deviation that remains as a share of
    the one before; `gain` is the rise of the logarithm of the determinant of the information.
    """

    kind: str
    target_model: str
    draft_model: str
    tensor_parallel: int
    batch: int
    context_len: int
    gamma: int
    learns: str
    to: float
    gain: float

    @property
    def meaning(self) -> str:
        """What to time, in words."""
        return NAMES[self.kind]

    @property
    def request(self) -> str:
        """What to time where, in words."""
        gamma = f", gamma {self.gamma}" if self.gamma else ""
        gpus = f" on {self.tensor_parallel} GPUs" if self.tensor_parallel > 1 else ""
        return (
            f"time the {self.meaning} of {self.target_model}{gpus} at batch {self.batch}, context "
            f"{self.context_len}{gamma}"
        )


@dataclass(frozen=True)
class Candidates:
    """Cells that could be measured, and how each would inform: one row of relative slopes over noise each."""

    rows: tuple[Measurement, ...]
    seen: Observations
    informs: FloatArray


def candidates(
    measured: Sequence[Measurement],
    engine: EngineOverhead,
    figures: Sequence[Prior],
    *,
    batches: Iterable[int] = BATCHES,
    contexts: Iterable[int] = CONTEXTS,
    gammas: Iterable[int] = GAMMAS,
) -> Candidates:
    """Return the grid of cells around the measured ones: same models, GPUs and drafters, if they fit.

    Parameters
    ----------
    engine : the engine at the figures that are known so far.
    """
    grid = [
        cell
        for pattern in {row.key: row for row in measured}.values()
        for cell in _around(pattern, batches, contexts, gammas)
    ]
    priced = price_measurements(grid, engine=engine)
    rows = tuple(cell for cell, fits in zip(grid, priced.fits, strict=True) if fits)
    pairs: dict[tuple[object, ...], tuple[int, int]] = {}
    for index, cell in enumerate(rows):
        place = (cell.batch, cell.context_len, cell.tensor_parallel)
        pairs.setdefault((cell.group.target.name, *place), (index, 0))
        for kind in range(1, KINDS.index("round")) if cell.gamma > 0.0 else ():
            step = (cell.key, cell.gamma, *place, kind)
            pairs[step] = (index, kind)
    row, kinds = (np.array(part, dtype=np.intp) for part in zip(*pairs.values(), strict=True))
    seen = Observations(row, kinds, np.ones(row.size))
    response = respond(rows, seen, engine, figures)
    known = engine.quantities
    values = np.array(
        [0.0 if prior.relative else float(np.asarray(known[prior.path].value)) for prior in figures]
    )
    seconds = np.maximum(response.base + response.slopes @ values, 1e-9)
    return Candidates(rows, seen, response.slopes / (seconds * seen.noise)[:, None])


def _around(
    pattern: Measurement, batches: Iterable[int], contexts: Iterable[int], gammas: Iterable[int]
) -> Iterator[Measurement]:
    """Yield the cells of a grid that are like a measured one in everything else."""
    drafts = pattern.group.drafter is not None
    for batch, context, gamma in product(batches, contexts, gammas if drafts else (0,)):
        if context <= pattern.group.target.max_position:
            budget = min(pattern.kv_budget, 512.0) if drafts else math.inf
            yield replace(pattern, batch=batch, context_len=context, gamma=float(gamma), kv_budget=budget)


@dataclass(frozen=True)
class Informing:
    """What each of the cells that could be measured would tell, after what was.

    information : of what was measured so far, without the prior, ``[figures, figures]``.
    """

    pool: Candidates
    information: FloatArray
    figures: Sequence[Prior]

    def of(self, free: NDArray[np.bool_]) -> Informing:
        """Return that of some figures, the others known."""
        return Informing(
            replace(self.pool, informs=self.pool.informs[:, free]),
            self.information[np.ix_(free, free)],
            [figure for figure, is_free in zip(self.figures, free, strict=True) if is_free],
        )

    def next_cells(self, count: int = 5) -> tuple[NextCell, ...]:
        """Return the cells that tell most, one after the other; none where no cell fits."""
        return next_cells(self.pool, self.information, self.figures, count) if self.pool.rows else ()

    def best_for(self, path: str) -> NextCell | None:
        """Return the cell that narrows one figure most; None where no cell tells `WORTH` about it."""
        paths = [figure.path for figure in self.figures]
        if path not in paths or not self.pool.rows:
            return None
        figure = paths.index(path)
        rows, inverse = _scaled(self.pool, self.information, self.figures)
        moved = rows @ inverse
        removed = moved[:, figure] ** 2 / (1.0 + np.einsum("ij,ij->i", moved, rows)) / inverse[figure, figure]
        best = int(removed.argmax())
        if removed[best] < WORTH:
            return None
        gain = float(np.log1p(moved[best] @ rows[best]))
        return _next_cell(self.pool, best, path, float(np.sqrt(1.0 - min(removed[best], 1.0))), gain)


def _scaled(
    pool: Candidates, information: FloatArray, figures: Sequence[Prior]
) -> tuple[FloatArray, FloatArray]:
    """Return what each cell tells, and the covariance of the figures, both in deviations of the priors."""
    scale = np.array([prior.deviation for prior in figures])
    rows = pool.informs * scale
    return rows, np.asarray(np.linalg.inv(information * np.outer(scale, scale) + np.eye(scale.size)))


def _next_cell(pool: Candidates, index: int, learns: str, to: float, gain: float) -> NextCell:
    row, kind = pool.rows[pool.seen.row[index]], KINDS[pool.seen.kind[index]]
    return NextCell(
        kind=kind,
        target_model=row.group.target.name,
        draft_model=row.group.drafter.label if row.group.drafter and kind != "target" else "",
        tensor_parallel=row.tensor_parallel,
        batch=row.batch,
        context_len=row.context_len,
        gamma=int(row.gamma) if kind != "target" else 0,
        learns=learns,
        to=to,
        gain=gain,
    )


def next_cells(
    pool: Candidates, information: FloatArray, figures: Sequence[Prior], count: int = 5
) -> tuple[NextCell, ...]:
    """Return the cells that, one after the other, raise the determinant of the information most.

    Parameters
    ----------
    information : of what was measured so far, without the prior, ``[figures, figures]``.

    Notes
    -----
    Greedy D-optimal design: by the matrix determinant lemma a cell with slopes ``a`` multiplies the
    determinant of ``M`` by ``1 + a' M^-1 a``.
    """
    rows, inverse = _scaled(pool, information, figures)
    chosen: list[NextCell] = []
    open_cells = np.ones(rows.shape[0], dtype=bool)
    for _ in range(min(count, rows.shape[0])):
        spread = np.einsum("ij,jk,ik->i", rows, inverse, rows)
        best = int(np.where(open_cells, spread, -1.0).argmax())
        moved = inverse @ rows[best]
        after = inverse - np.outer(moved, moved) / (1.0 + spread[best])
        remains = np.sqrt(np.diag(after) / np.diag(inverse))
        figure = int(remains.argmin())
        gain = float(np.log1p(spread[best]))
        chosen.append(_next_cell(pool, best, figures[figure].path, float(remains[figure]), gain))
        inverse = after
        open_cells[best] = False
    return tuple(chosen)
