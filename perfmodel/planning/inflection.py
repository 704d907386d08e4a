"""From which context on larger batches make speculation pay more, by the prices of the question itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perfmodel.deployment import Deployment
from perfmodel.files.numbers import FloatArray, distinct_values
from perfmodel.planning.cells import Cells
from perfmodel.planning.near_tie import NEAR_TIE
from perfmodel.planning.plan import Cell
from perfmodel.planning.price import SearchSpace, price_pieces
from perfmodel.workload import Workload

__all__ = ["bear_out", "inflection_context"]

SHORTEST = 256
"""Context from which on it is looked for. [tokens]"""
CONTEXTS, BATCHES = 40, 6
"""Context lengths and batch sizes that are priced, the asked contexts beside them. [1]"""


def inflection_context(deployment: Deployment, workload: Workload, space: SearchSpace) -> float:
    """Context length beyond which a larger batch makes speculation pay more, not less. [tokens]

    The smallest context from which on, up to the longest that the model was made for, the best speedup, plain
    decoding included, falls between no two of the batch sizes asked about, and is above 1 and highest at the
    largest. MagicDec (arXiv 2408.11049) section 3.2 calls it the inflection point. Whether the memory holds
    such batches does not count. Infinite where no context is, or only one batch size is asked about.

    Parameters
    ----------
    deployment : what serves.
    workload : its batch sizes; at most `BATCHES` of them are priced, the ends among them. [sequences]
    space : who may draft, at which budgets and lengths.
    """
    sizes, asked = np.asarray(workload.batch_sizes), workload.context_lens
    if sizes.size < 2:
        return float("inf")
    sizes = sizes[distinct_values(np.linspace(0, sizes.size - 1, BATCHES).round().astype(int))]
    longest = max(deployment.model.max_position, *asked, SHORTEST + 1)
    some = np.asarray(asked)[np.linspace(0, len(asked) - 1, CONTEXTS).round().astype(int)]
    grid = distinct_values(np.append(np.geomspace(SHORTEST, longest, CONTEXTS).round(), some))
    cells = Workload(sizes.tolist(), grid.tolist(), output_tokens=workload.output_tokens)
    speedup = best_speedups(deployment, cells, space)
    pays_more = np.all(np.diff(speedup, axis=0) >= -1e-6, axis=0) & (speedup[-1] > 1.0 + NEAR_TIE)
    pays_more &= speedup[-1] > speedup[0]
    first = grid.size - int(np.argmin(pays_more[::-1])) if not pays_more.all() else 0
    return float(grid[first]) if first < grid.size else float("inf")


def best_speedups(deployment: Deployment, workload: Workload, space: SearchSpace) -> FloatArray:
    """Return the best speedup of any drafter, plain decoding included, axes (batch, context). [1]"""
    best = np.ones((len(workload.batch_sizes), len(workload.context_lens)))
    for (rows, columns), every in price_pieces(deployment, workload, space):
        for priced in every:
            speedup = priced.expand(priced.round.speedup).max(axis=(-2, -1))
            best[rows, columns] = np.maximum(best[rows, columns], speedup)
    return best


def bear_out(context: float, cells: Sequence[Cell]) -> bool:
    """Whether a plan's own cells bear an inflection length out, as far as they go beyond it.

    At each of their contexts with several batches drafting is recommended at the largest, and none gains less
    than a smaller one by more than a near tie. Limits of memory and time may have it otherwise than the
    prices; then nothing is said.
    """
    columns = Cells.of(cells, Cell)
    context_len, speedup = columns.numbers("context_len"), columns.numbers("speedup")
    beyond = np.flatnonzero(context_len >= context)
    beyond = beyond[np.lexsort((columns.numbers("batch_size")[beyond], context_len[beyond]))]
    context_len, speedup, gamma = context_len[beyond], speedup[beyond], columns.numbers("gamma")[beyond]
    alike = context_len[1:] == context_len[:-1]  # a batch and the next smaller one, of one context
    first, last = np.flatnonzero(np.append(True, ~alike)), np.flatnonzero(np.append(~alike, True))
    rises = np.all(speedup[1:][alike] >= speedup[:-1][alike] / (1.0 + NEAR_TIE))
    if beyond.size == 0:
        return True
    rises &= np.all(speedup[last] >= speedup[first])
    return bool(rises and np.all(gamma[last] > 0) and np.any(alike))
