"""Which replicas serve some traffic within its targets, by the steady state, and what they cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance
from perfmodel.engine import EngineOverhead
from perfmodel.errors import InfeasibleError
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.speculation import Drafter
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.steady_state import Load, Points, Site, most_that_fit, points_of

__all__ = ["Choices", "Load", "Offer", "Targets", "offers"]

FloatArray = NDArray[np.float64]

DEFAULT_LENGTHS = tuple(range(9))


@dataclass(frozen=True)
class Targets:
    """Time to first token and per output token, and the share of requests that must meet both. [s], [0..1]"""

    ttft: float
    tpot: float
    share: float = 0.9


@dataclass(frozen=True)
class Offer:
    """One kind of replica, and what it sustains in the steady state. [1/s], [s], [tokens]

    `gamma` and `batch` are those at which it serves most requests within the targets.
    """

    replica: Replica
    gamma: int
    batch: int
    qps: float
    ttft: float
    tpot: float

    @property
    def label(self) -> str:
        """Who drafts."""
        return self.replica.drafter.label if self.replica.drafter else "none"

    def replicas(self, qps: float) -> int:
        """How many of them that load needs."""
        return max(1, math.ceil(qps / self.qps - 1e-9))

    def cost(self, replicas: int) -> float:
        """Rent of so many. [USD/h]"""
        return replicas * self.replica.price_per_second * 3600.0


@dataclass(frozen=True)
class Choices:
    """What there is to choose from; as in `perfmodel.plan`, and the limits of a scheduler."""

    hardware: Sequence[HardwareProfile]
    target: ModelSpec
    engine: EngineOverhead
    drafters: Sequence[Drafter]
    kv_budgets: Sequence[int] | None = None
    gammas: Sequence[int] = DEFAULT_LENGTHS
    tensor_parallel: Sequence[int] = (1, 2, 4, 8)
    alpha: float | Acceptance | None = None
    max_batch: int = 256
    max_step_tokens: int = 8192


def offers(choices: Choices, load: Load, targets: Targets) -> list[Offer]:
    r"""Price replicas of every accelerator and number of GPUs, plain and with their best drafter.

    Returns
    -------
    Those that meet the targets at some load, cheapest first, by the rent of as many as the load needs.

    Raises
    ------
    InfeasibleError
        When none does; it counts why, and names the nearest miss.

    Notes
    -----
    A request takes ``n`` chunks of prefill. A step that a chunk joins lasts ``T + A``, one that only decodes
    ``R``; in both every sequence gains ``k`` tokens. With ``b`` sequences decoding (Little's law)

    .. math::
        \lambda = 1 / (R\,O / (b\,k) + n (T + A - R)), \qquad TPOT = b / (\lambda\,O)

    Prompts wait as in a queue with one server that is busy for ``n (T + A)`` each.
    """
    counts: Counter[str] = Counter()
    misses: list[tuple[float, str]] = []
    found: list[Offer] = []
    for profile in choices.hardware:
        for width in choices.tensor_parallel:
            plain = Replica(
                profile,
                choices.target,
                choices.engine,
                tensor_parallel=width,
                max_batch=choices.max_batch,
                max_step_tokens=choices.max_step_tokens,
            )
            site = Site.of(plain, tuple(sorted({0, *choices.gammas})), load)
            for drafters in ([None], choices.drafters):
                several = [
                    offer
                    for drafter in drafters
                    for offer in _offers_of(choices, site, drafter, load, targets, counts, misses)
                ]
                if several:
                    found.append(max(several, key=lambda offer: offer.qps))
    if not found:
        raise InfeasibleError(dict(counts), min(misses)[1] if misses else "")
    return sorted(found, key=lambda offer: (offer.cost(offer.replicas(load.qps)), -offer.qps))


def _offers_of(
    choices: Choices,
    site: Site,
    drafter: Drafter | None,
    load: Load,
    targets: Targets,
    counts: Counter[str],
    misses: list[tuple[float, str]],
) -> list[Offer]:
    """The best operating point within the targets of each draft KV budget; why there is none is counted."""
    own = drafter.strategy.default_budgets if drafter else ()
    budgets = (choices.kv_budgets if choices.kv_budgets and own else own) or (np.inf,)
    gammas = [gamma for gamma in choices.gammas if gamma > 0] if drafter else [0]
    found = []
    for budget in budgets if gammas else ():
        replica = Replica(
            site.hardware,
            choices.target,
            choices.engine,
            drafter,
            float(budget),
            site.width,
            choices.max_batch,
            choices.max_step_tokens,
            max(gammas),
        )
        try:
            most = most_that_fit(replica, load)
        except InfeasibleError as refusal:
            counts.update(refusal.counts)
            misses.append((math.inf, refusal.nearest_miss))
            continue
        if most < 1:
            counts["one request exceeds the KV cache"] += 1
            continue
        points = points_of(replica, site, load, targets.share, most, choices.alpha)
        allowed = (points.ttft <= targets.ttft) & (points.tpot <= targets.tpot)
        if not allowed.any():
            counts.update(_missed(points, targets))
            misses.append(_miss(replica, points, targets))
            continue
        row, column = np.unravel_index(int(np.argmax(np.where(allowed, points.qps, 0.0))), allowed.shape)
        qps, ttft, tpot = (float(values[row, column]) for values in (points.qps, points.ttft, points.tpot))
        found.append(Offer(replica, int(site.gammas[column]), int(site.batches[row]), qps, ttft, tpot))
    return found


def _missed(points: Points, targets: Targets) -> Counter[str]:
    """Which target is missed by whatever meets the other one."""
    slow = not np.any(points.tpot <= targets.tpot)
    late = not np.any(points.ttft <= targets.ttft)
    if slow or late:
        reasons = [
            name
            for name, fails in (("misses the TPOT target", slow), ("misses the TTFT target", late))
            if fails
        ]
        return Counter(reasons)
    return Counter(["misses one of the targets at every load"])


def _miss(replica: Replica, points: Points, targets: Targets) -> tuple[float, str]:
    """How far the nearest point is from the targets, and what it does instead."""
    excess = np.maximum(points.ttft / targets.ttft, points.tpot / targets.tpot)
    row, column = np.unravel_index(int(np.argmin(excess)), excess.shape)
    drafting = f" with {replica.drafter.label}" if replica.drafter else ""
    return float(excess[row, column]), (
        f"{replica.tensor_parallel} x {replica.hardware.name}{drafting} reaches "
        f"{points.ttft[row, column]:.3g} s to the first token and "
        f"{points.tpot[row, column] * 1e3:.3g} ms per token"
    )
