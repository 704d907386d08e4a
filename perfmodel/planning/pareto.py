"""Throughput against latency: what no other configuration beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.deployment import Deployment
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.files.numbers import FloatArray
from perfmodel.planning.explain import nearest_miss
from perfmodel.planning.price import SearchSpace, count_configurations, sweep
from perfmodel.workload import Workload

__all__ = ["EVERYTHING", "PLAIN", "Front", "pareto", "price_fronts"]

EVERYTHING = "everything"
PLAIN = "plain decoding"


@dataclass(frozen=True)
class Front:
    """Configurations that no other of the same label beats in both, latency rising.

    tpot : seconds per output token of one sequence [s]. throughput : output tokens per second and GPU
    [tokens/s]. batch, gamma, kv_budget : what they are. [sequences], [tokens], [tokens]
    """

    label: str
    tpot: FloatArray
    throughput: FloatArray
    batch: FloatArray
    gamma: FloatArray
    kv_budget: FloatArray


def pareto(tpot: FloatArray, throughput: FloatArray) -> NDArray[np.intp]:
    """Return the indices of the points that no other beats in both, `tpot` rising; the first of equals."""
    order = np.lexsort((-throughput, tpot))
    reached = np.maximum.accumulate(np.concatenate([[-np.inf], throughput[order][:-1]]))
    kept: NDArray[np.intp] = order[throughput[order] > reached]
    return kept


def price_fronts(deployments: Sequence[Deployment], workload: Workload, space: SearchSpace) -> list[Front]:
    """Price every configuration that fits; return each drafter's front and last that of all.

    Throughput is per GPU, so several hardware profiles and tensor parallelisms compare.

    Raises
    ------
    SpecError
        When there is more than one context length: latencies at different contexts do not compare.
    InfeasibleError
        When nothing fits.
    """
    if len(workload.context_lens) != 1:
        wrong = f"holds {len(workload.context_lens)} lengths"
        raise SpecError.single("request", "context_lens", wrong, "a front is drawn for one")
    by_label: dict[str, list[FloatArray]] = {}
    for priced in sweep(deployments, workload, space):
        fits = priced.expand(priced.round.memory.fits)
        per_gpu = priced.round.throughput / priced.deployment.gpus
        columns = (priced.round.tpot, per_gpu, priced.batch, priced.gamma, priced.kv_budget)
        label = priced.drafter.label if priced.drafter else PLAIN
        by_label.setdefault(label, []).append(np.stack([priced.expand(column)[fits] for column in columns]))
    points = {label: np.concatenate(parts, axis=1) for label, parts in by_label.items()}
    points[EVERYTHING] = np.concatenate(list(points.values()), axis=1)
    if not points[EVERYTHING].size:
        size = count_configurations(deployments, workload, space)
        raise InfeasibleError({"does not fit in memory": size}, nearest_miss(deployments, workload, None))
    return [
        Front(label, *columns[:, pareto(columns[0], columns[1])])
        for label, columns in points.items()
        if columns.size
    ]
