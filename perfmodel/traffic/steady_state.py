"""What one replica does in the steady state, and which replicas serve a load within its targets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from perfmodel.acceptance import Acceptance, expected_tokens
from perfmodel.acceptance.intervals import BETWEEN_REQUESTS
from perfmodel.deployment import Deployment, Drafter
from perfmodel.errors import Fault, InfeasibleError, SpecError
from perfmodel.files.numbers import FloatArray
from perfmodel.latency import price_prefill
from perfmodel.planning.fitting import request_miss
from perfmodel.planning.price import SearchSpace
from perfmodel.speculation import TargetSteps, half_way, price, price_steps
from perfmodel.traffic.prefill_apart import transfer_seconds
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.step_times import without_least

__all__ = [
    "DEFAULT_GAMMAS", "Candidate", "Load", "Machine", "Points", "Targets", "most_that_fit", "points_of",
    "rank_candidates",
]  # fmt: skip

DEFAULT_GAMMAS = tuple(range(9))
"""Speculation lengths that are tried where none are named. [tokens]"""
_BATCHES = 40
_BUSY = np.linspace(0.01, 0.99, 99)
"""Shares of its time that a prefill replica may be busy: the largest within the target is taken. [1]"""


@dataclass(frozen=True)
class Load:
    """Requests per second, mean prompt and output, spread of their logarithms, burstiness of arrivals.

    Raises
    ------
    SpecError
        Naming what is out of range.
    """

    qps: float
    prompt_tokens: int
    output_tokens: int
    spread: float = 0.5
    burstiness: float = 1.0

    def __post_init__(self) -> None:
        checks = {
            "target-qps": 0.0 < self.qps < 1e9,
            "context": 1 <= self.prompt_tokens <= 10_000_000,
            "output-tokens": 2 <= self.output_tokens <= 10_000_000,
            "spread": 0.0 <= self.spread <= 3.0,
            "burst": 0.0 <= self.burstiness <= 1e4,
        }
        if not all(checks.values()):
            raise SpecError(
                Fault("", None, f"--{name}", "is out of range") for name in checks if not checks[name]
            )


@dataclass(frozen=True)
class Machine:
    """What all drafters of one deployment share: the target's own passes and its prefill.

    chunk, row, sequence : seconds of a prefill chunk, mean over a prompt's, and of one more row and sequence
        in a full step. [s]
    """

    batches: FloatArray
    gammas: FloatArray
    steps: TargetSteps
    chunks: int
    chunk: float
    row: float
    sequence: float = 0.0

    @classmethod
    def of(cls, replica: Replica, gammas: tuple[int, ...], load: Load) -> Machine:
        """Price what is shared by replicas that differ in their drafter; `gammas` rise from 0."""
        deployment = replica.deployment
        batches = np.unique(np.rint(np.geomspace(1, replica.max_batch, _BATCHES)))
        lengths = np.asarray(gammas, dtype=float)
        mean_context = half_way(load.prompt_tokens, load.output_tokens)
        steps = price_steps(deployment, batch=batches[:, None], context_len=mean_context, gamma=lengths)
        chunks = math.ceil(load.prompt_tokens / replica.max_step_tokens)
        most = float(replica.max_step_tokens)
        full, half = most, max(most / 2.0, 1.0)
        two = price_prefill(without_least(deployment), batch=1.0, prompt_tokens=np.array([full, half]))
        rows = np.broadcast_to(np.asarray(two.linear + two.communication + two.overhead), (2,))
        row = max(float(rows[0] - rows[1]), 0.0) / max(most / 2.0, 1.0)
        chunk, sequence = _price_chunk(deployment, load, chunks), float(deployment.engine.row_s)
        return cls(batches, lengths, steps, chunks, chunk, row, sequence)


def _price_chunk(deployment: Deployment, load: Load, chunks: int, prompts: int = 1) -> float:
    """Price a prefill chunk of each of so many prompts at a time, mean over those of a prompt. [s]"""
    size = load.prompt_tokens / chunks
    reached = size * np.arange(1.0, chunks + 1.0)
    step = price_prefill(deployment, batch=float(prompts), prompt_tokens=size, kv_tokens=reached)
    return float(np.broadcast_to(np.asarray(step.total), reached.shape).mean())


@dataclass(frozen=True)
class Points:
    """What a replica does at every (batch, gamma), and requests that a prefill replica takes. [1/s], [s]"""

    qps: FloatArray
    ttft: FloatArray
    tpot: FloatArray
    prefill_qps: FloatArray


def most_that_fit(replica: Replica, load: Load, apart: bool = False) -> int:
    """The largest batch whose caches fit, beside that of a prompt to come unless it is `apart`. [1]

    Of data-parallel groups each holds as many.
    """
    whole = load.prompt_tokens + load.output_tokens + replica.look_ahead
    each = float(replica.kv_bytes(whole, load.output_tokens + replica.look_ahead))
    every = int(replica.group_bytes / each) * replica.groups
    return every - (replica.max_batch > 1 and not apart)


def points_of(
    replica: Replica,
    machine: Machine,
    load: Load,
    share: float,
    most: int,
    alpha: float | Acceptance | None,
    apart: float | None = None,
) -> Points:
    """Return requests per second and latencies at every batch and gamma; infinite where that cannot be.

    Parameters
    ----------
    replica : what serves, with its drafter.
    machine : what replicas share that differ in their drafter alone.
    load : prompt and output of a request. [tokens]
    share : the share of requests that the latencies cover. [0..1]
    most : sequences that fit. [sequences]
    alpha : acceptance in place of the strategy's law. [0..1]
    apart : the time to first token within which other replicas prefill; None where steps mix chunks in. [s]
    """
    batch, gammas, drafter = machine.batches[:, None], machine.gammas, replica.drafter
    priced = price(
        replica.deployment, drafter, batch=batch, kv_budget=replica.kv_budget, gamma=gammas, alpha=alpha,
        context_len=load.prompt_tokens, output_tokens=load.output_tokens, steps=machine.steps,
    )  # fmt: skip
    prompts = 1 if apart is None else replica.groups
    target, *extra = replica.prefills
    chunk = machine.chunk if prompts == 1 else _price_chunk(target, load, machine.chunks, prompts)
    chunk += sum(_price_chunk(runs, load, machine.chunks, prompts) for runs in extra)
    micro, _, _ = replica.deployment.in_flight(batch)
    rows = machine.row * batch * (priced.match * gammas + 1.0) + machine.sequence * micro
    added = priced.draft_s + priced.verify.token_mixing + priced.overhead + rows
    alone = replica.schedules == "prefill-first"  # a chunk has a step of its own, for which decoding waits
    shared = 0.0 if alone else added
    longer = chunk if alone else np.maximum(chunk + added - priced.round_s, 0.0)
    longer = longer if apart is None else 0.0
    tokens = np.asarray(priced.tokens_per_round)
    qps = 1.0 / (priced.round_s * load.output_tokens / (batch * tokens) + machine.chunks * longer)
    busy = machine.chunks * (chunk + shared)
    used = qps * busy
    if apart is not None:
        busy, used = np.asarray(machine.chunks * chunk), _BUSY
    normal = max(NormalDist().inv_cdf(share), 0.0)
    slowest = 1.0 + normal * np.sqrt(load.burstiness * math.exp(load.spread**2) / batch)
    if priced.acceptance is not None:
        rest = np.asarray(priced.acceptance.rest)
        slow = expected_tokens(Acceptance.given(np.clip(rest - normal * BETWEEN_REQUESTS, 0.0, 1.0)), gammas)
        same = expected_tokens(Acceptance.given(rest), gammas)
        slowest = np.hypot(slowest - 1.0, same / slow - 1.0) + 1.0
    tpot = batch / (qps * load.output_tokens) * slowest
    uneven = (1.0 + load.burstiness * math.exp(load.spread**2)) / 2.0
    wait = busy * uneven / np.maximum(1.0 - used, 1e-9) / prompts
    late = np.maximum(wait * np.log(np.maximum(used, 1e-12) / (1.0 - share)), 0.0)
    own = busy * math.exp(load.spread * normal - load.spread**2 / 2.0)
    ttft = np.maximum(own + used * wait, busy + late) + replica.front_end_s
    prefill_qps = np.asarray(math.inf)
    if apart is not None:  # the busiest that leaves time for the transfer and the round of the first token
        moved = transfer_seconds(replica, load.prompt_tokens) + np.asarray(priced.round_s)
        place = np.maximum(np.searchsorted(ttft, apart - moved, side="right") - 1, 0)
        prefill_qps, ttft, used = _BUSY[place] * prompts / busy, ttft[place] + moved, np.zeros(1)
    used = np.maximum(used, qps * replica.request_s)
    drafts = gammas > 0 if drafter is not None else gammas == 0
    fits = (batch <= most) & (batch * (gammas + 1.0) < replica.max_step_tokens) & (used < 1.0) & drafts
    shape = (machine.batches.size, gammas.size)
    qps, ttft, tpot, prefill_qps = (
        np.broadcast_to(values, shape) for values in (qps, ttft, tpot, prefill_qps)
    )
    return Points(qps, np.where(fits, ttft, np.inf), np.where(fits, tpot, np.inf), prefill_qps)


@dataclass(frozen=True)
class Targets:
    """Time to first token and per output token, and the share of requests that must meet both. [s], [0..1]"""

    ttft: float
    tpot: float
    share: float = 0.9


@dataclass(frozen=True)
class Candidate:
    """One kind of replica, and what it sustains in the steady state. [1/s], [s], [tokens]

    `gamma` and `batch` are those at which it serves most requests within the targets. `prefill_qps` is what
    one replica that prefills takes, where others do that; infinite where all prefill for themselves. [1/s]
    """

    replica: Replica
    gamma: int
    batch: int
    qps: float
    ttft: float
    tpot: float
    prefill_qps: float = math.inf

    @property
    def apart(self) -> bool:
        """Whether other replicas prefill."""
        return math.isfinite(self.prefill_qps)

    def prefill_replicas(self, qps: float, replicas: float | None = None) -> int:
        """How many replicas prefill for that load, in proportion where more than it needs decode."""
        more = 1.0 if replicas is None else max(replicas / self.replicas(qps), 1.0)
        return max(1, math.ceil(qps / self.prefill_qps * more - 1e-9)) if self.apart else 0

    @property
    def label(self) -> str:
        """Who drafts."""
        return self.replica.drafter.label if self.replica.drafter else "none"

    def replicas(self, qps: float) -> int:
        """How many of them that load needs."""
        return max(1, math.ceil(qps / self.qps - 1e-9))

    def cost(self, replicas: int, prefill: int = 0) -> float:
        """Rent of so many, and of those that prefill for them. [USD/h]"""
        return (replicas + prefill) * self.replica.price_per_second * 3600.0


def rank_candidates(
    deployments: Sequence[Deployment],
    space: SearchSpace,
    load: Load,
    targets: Targets,
    *,
    max_batch: int | None = None,
    max_step_tokens: int | None = None,
    prefill_apart: bool = False,
    scheduler: str = "",
    refusals: dict[str, str] | None = None,
) -> list[Candidate]:
    r"""Price replicas of every deployment, plain and with their best drafter.

    Parameters
    ----------
    space : who may draft, at which budgets and lengths; plain decoding is always tried.
    max_batch, max_step_tokens, scheduler : as in `Replica.of`. [sequences], [tokens]
    prefill_apart : whether replicas of the same kind prefill and send the caches over the network, so that
        no step mixes prompts in.
    refusals : takes, for every accelerator that does not serve the load, how near it comes.

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

    Prompts wait as in a queue with one server that is busy for ``n (T + A)`` each. Prefilled apart, ``T + A``
    is ``R`` in the first equation, and each prefill replica is a queue that is busy for ``n T``, with a
    server for each data-parallel group, all of which prefill at once; a mixed step has one prompt's chunk.
    Where prefill comes first, a chunk's step lasts ``T`` and decoding waits: ``n T`` in place of
    ``n (T + A - R)``.
    """
    counts: Counter[str] = Counter()
    misses: list[tuple[float, str]] = []
    candidates: list[Candidate] = []
    nearest: dict[str, tuple[float, str]] = {}
    for deployment in deployments:
        before = len(misses)
        plain = Replica.of(deployment, scheduler, max_batch, max_step_tokens)
        machine = Machine.of(plain, tuple(sorted({0, *space.gammas})), load)
        for drafters in ([None], [drafter for drafter in space.drafters if drafter is not None]):
            several = [
                candidate
                for drafter in drafters
                for candidate in _candidates_of(
                    plain, machine, space, drafter, load, targets, counts, misses, prefill_apart
                )
            ]
            if several:
                candidates.append(max(several, key=lambda candidate: candidate.qps))
        reached = min(filter(lambda miss: miss[1], misses[before:]), default=None)
        name = str(deployment.hardware.name)
        if reached is not None and reached < nearest.get(name, (math.inf, "~")):
            nearest[name] = reached
    serving = {str(candidate.replica.deployment.hardware.name) for candidate in candidates}
    if refusals is not None:
        refusals.update({name: miss for name, (_, miss) in nearest.items() if name not in serving})
    if not candidates:
        raise InfeasibleError(dict(counts), min(filter(lambda miss: miss[1], misses), default=(0.0, ""))[1])

    def rent(candidate: Candidate) -> tuple[float, float]:
        prefill = candidate.prefill_replicas(load.qps)
        return candidate.cost(candidate.replicas(load.qps), prefill), -candidate.qps

    return sorted(candidates, key=rent)


def _candidates_of(
    plain: Replica,
    machine: Machine,
    space: SearchSpace,
    drafter: Drafter | None,
    load: Load,
    targets: Targets,
    counts: Counter[str],
    misses: list[tuple[float, str]],
    apart: bool,
) -> list[Candidate]:
    """Return the best operating point within the targets of each draft KV budget; count why there is none."""
    gammas = [gamma for gamma in space.gammas if gamma > 0] if drafter else [0]
    longest, candidates = load.prompt_tokens + load.output_tokens, []
    for budget in space.budgets_of(drafter, plain.deployment.model) if gammas else ():
        replica = replace(plain, drafter=drafter, kv_budget=float(budget), max_gamma=max(gammas))
        try:
            most = most_that_fit(replica, load, apart)
        except InfeasibleError as refusal:
            counts.update(refusal.counts)
            lacks = request_miss(plain.deployment, longest) or refusal.nearest_miss
            misses.append((math.inf, lacks))
            continue
        if most < 1:
            counts["one request exceeds the KV cache"] += 1
            misses.append((math.inf, request_miss(plain.deployment, longest)))
            continue
        points = points_of(
            replica, machine, load, targets.share, most, space.alpha, targets.ttft if apart else None
        )
        allowed = (points.ttft <= targets.ttft) & (points.tpot <= targets.tpot)
        if not allowed.any():
            counts.update(_missed(points, targets))
            misses.append(_miss(replica, points, targets))
            continue
        row, column = np.unravel_index(int(np.argmax(np.where(allowed, points.qps, 0.0))), allowed.shape)
        qps, ttft, tpot, prefill_qps = (
            float(values[row, column])
            for values in (points.qps, points.ttft, points.tpot, points.prefill_qps)
        )
        gamma, batch = int(machine.gammas[column]), int(machine.batches[row])
        candidates.append(Candidate(replica, gamma, batch, qps, ttft, tpot, prefill_qps))
    return candidates


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
        f"{replica.machine}{drafting} reaches "
        f"{points.ttft[row, column]:.3g} s to the first token and "
        f"{points.tpot[row, column] * 1e3:.3g} ms per token"
    )
