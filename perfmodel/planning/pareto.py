"""Throughput against latency: what is best at every batch size, and what nothing beats in both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.deployment import Deployment
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.files.numbers import FloatArray
from perfmodel.planning.choose import Choice, Constraints, rank
from perfmodel.planning.explain import nearest_miss
from perfmodel.planning.price import SearchSpace, count_configurations, price_pieces
from perfmodel.workload import Workload

__all__ = ["EVERYTHING", "PLAIN", "Front", "Knee", "knee", "pareto", "price_fronts"]

EVERYTHING = "recommended"
PLAIN = "plain decoding"


@dataclass(frozen=True)
class Front:
    """What is chosen at every batch size, and which of it no other of the same label beats in both.

    Attributes
    ----------
    label : who drafts; `PLAIN`, or `EVERYTHING`: what a plan recommends.
    tpot : seconds per output token of one sequence; of the front, rising. [s]
    throughput : output tokens per second and GPU. [tokens/s]
    batch, gamma, kv_budget, gpus : what they are. [sequences], [tokens], [tokens], [GPUs]
    hardware, drafters : which accelerator, and who drafts at each.
    beaten : seconds per token and throughput of the choices that are not on the front. [s], [tokens/s]
    """

    label: str
    tpot: FloatArray
    throughput: FloatArray
    batch: FloatArray
    gamma: FloatArray
    kv_budget: FloatArray
    gpus: FloatArray
    hardware: tuple[str, ...]
    drafters: tuple[str, ...]
    beaten: FloatArray

    def most_within(self, seconds: float) -> int | None:
        """Return where the most throughput is that keeps a time per token; None where nothing does. [s]"""
        kept = np.flatnonzero(self.tpot <= seconds)
        return int(kept[-1]) if kept.size else None


@dataclass(frozen=True)
class Knee:
    """The point of a front beyond which throughput costs more latency than before: its place."""

    place: int
    front: Front

    @property
    def tpot(self) -> float:
        """Seconds per output token there. [s]"""
        return float(self.front.tpot[self.place])

    @property
    def throughput(self) -> float:
        """Output tokens per second and GPU there. [tokens/s]"""
        return float(self.front.throughput[self.place])


def pareto(tpot: FloatArray, throughput: FloatArray) -> NDArray[np.intp]:
    """Return the indices of the points that no other beats in both, `tpot` rising; the first of equals."""
    order = np.lexsort((-throughput, tpot))
    reached = np.maximum.accumulate(np.concatenate([[-np.inf], throughput[order][:-1]]))
    kept: NDArray[np.intp] = order[throughput[order] > reached]
    return kept


def knee(front: Front) -> Knee | None:
    """Return the point of a front that is furthest above the line between its ends; None of fewer than three.

    Both axes are scaled to the front's own range (Satopää et al. 2011, "Kneedle", section III, without
    smoothing). None where no point is above that line.
    """
    if front.tpot.size < 3:
        return None
    x, y = ((axis - axis[0]) / (axis[-1] - axis[0]) for axis in (front.tpot, front.throughput))
    above = y - x
    place = int(np.argmax(above))
    return Knee(place, front) if above[place] > 0.0 else None


def price_fronts(deployments: Sequence[Deployment], workload: Workload, space: SearchSpace) -> list[Front]:
    """Return each drafter's front over batch sizes and deployments, and last that of what a plan recommends.

    At every batch size and deployment each drafter has the budget and the length that a plan would choose
    for it. Throughput is per GPU, so several hardware profiles and tensor parallelisms compare.

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
    by_label: dict[str, list[tuple[FloatArray, str, str]]] = {}
    limits = Constraints()
    for deployment in deployments:
        machine = str(deployment.hardware.name)
        for _, every in price_pieces(deployment, workload, space):
            choices = [Choice.among(priced, limits, Counter()) for priced in every]
            first = rank(choices, limits.near_tie)[0]
            for index, choice in enumerate(choices):
                label = choice.drafter.label if choice.drafter else PLAIN
                fits = np.isfinite(choice.tpot)
                by_label.setdefault(label, []).append((_points(choice, fits), machine, label))
                recommended = _points(choice, fits & (first == index))
                by_label.setdefault(EVERYTHING, []).append((recommended, machine, label))
    last = by_label.pop(EVERYTHING, [])
    fronts = [_front(label, parts) for label, parts in [*by_label.items(), (EVERYTHING, last)]]
    if not fronts[-1].tpot.size:
        size = count_configurations(deployments, workload, space)
        raise InfeasibleError({"does not fit in memory": size}, nearest_miss(deployments, workload, None))
    return [front for front in fronts if front.tpot.size]


def _points(choice: Choice, cells: NDArray[np.bool_]) -> FloatArray:
    """Return what was chosen in some cells, a row a field of `Front`."""
    runs = choice.at(np.flatnonzero(cells))
    each = runs.round.throughput / runs.deployment.gpus
    columns = (runs.round.tpot, each, runs.batch, runs.gamma, runs.kv_budget, runs.deployment.gpus)
    return np.stack([runs.expand(np.asarray(column, dtype=float)) for column in columns])


def _front(label: str, parts: Sequence[tuple[FloatArray, str, str]]) -> Front:
    """Return the points of one label as its front and what is beaten by it."""
    points = np.concatenate([columns for columns, *_ in parts], axis=1)
    names = [(machine, name) for columns, machine, name in parts for _ in range(columns.shape[1])]
    kept = pareto(points[0], points[1])
    tpot, throughput, batch, gamma, kv_budget, gpus = points[:, kept]
    hardware, drafters = (tuple(names[place][which] for place in kept) for which in (0, 1))
    beaten = np.delete(points[:2], kept, axis=1)
    return Front(label, tpot, throughput, batch, gamma, kv_budget, gpus, hardware, drafters, beaten)
