"""What one replica does in the steady state at every batch and speculation length: requests, latencies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance, expected_tokens
from perfmodel.engine import EngineOverhead
from perfmodel.errors import Fault, SpecError
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import prefill_latency
from perfmodel.model import ModelSpec
from perfmodel.speculation import TargetSteps, price_round, target_steps
from perfmodel.traffic.acceptance_draws import BETWEEN_REQUESTS
from perfmodel.traffic.replica import Replica

__all__ = ["Load", "Points", "Site", "most_that_fit", "points_of"]

FloatArray = NDArray[np.float64]

_BATCHES = 40


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
class Site:
    """What all drafters of one accelerator and number of GPUs share: the target's own passes and its prefill.

    chunk, row : seconds of a prefill chunk, mean over a prompt's, and of one more row in a full step. [s]
    """

    hardware: HardwareProfile
    width: int
    batches: FloatArray
    gammas: FloatArray
    steps: TargetSteps
    chunks: int
    chunk: float
    row: float

    @classmethod
    def of(cls, replica: Replica, gammas: tuple[int, ...], load: Load) -> Site:
        """Price what is shared by replicas that differ in their drafter; `gammas` rise from 0."""
        hardware, target, engine, width = (
            replica.hardware,
            replica.target,
            replica.engine,
            replica.tensor_parallel,
        )
        batches = np.unique(np.rint(np.geomspace(1, replica.max_batch, _BATCHES)))
        lengths = np.asarray(gammas, dtype=float)
        steps = target_steps(
            hardware, target, engine, batch=batches[:, None],
            context_len=load.prompt_tokens + load.output_tokens / 2.0, gamma=lengths,
            tensor_parallel=float(width),
        )  # fmt: skip
        chunks = math.ceil(load.prompt_tokens / replica.max_step_tokens)
        prefill = partial(prefill_latency, hardware, target, engine, tensor_parallel=float(width))
        most = float(replica.max_step_tokens)
        two = prefill(batch=1.0, prompt_tokens=np.array([most, max(most / 2.0, 1.0)]))
        rows = np.broadcast_to(np.asarray(two.linear + two.communication + two.overhead), (2,))
        row = max(float(rows[0] - rows[1]), 0.0) / max(most / 2.0, 1.0)
        chunk = _chunk_seconds(target, engine, hardware, width, load, chunks)
        return cls(hardware, width, batches, lengths, steps, chunks, chunk, row)


def _chunk_seconds(
    model: ModelSpec, engine: EngineOverhead, hardware: HardwareProfile, width: int, load: Load, chunks: int
) -> float:
    """Seconds of a prefill chunk of one model, mean over those of a prompt. [s]"""
    size = load.prompt_tokens / chunks
    reached = size * np.arange(1.0, chunks + 1.0)
    step = prefill_latency(
        hardware,
        model,
        engine,
        batch=1.0,
        prompt_tokens=size,
        kv_tokens=reached,
        tensor_parallel=float(width),
    )
    return float(np.broadcast_to(np.asarray(step.total), reached.shape).mean())


@dataclass(frozen=True)
class Points:
    """What a replica does at every (batch, gamma). [1/s], [s]"""

    qps: FloatArray
    ttft: FloatArray
    tpot: FloatArray


def most_that_fit(replica: Replica, load: Load) -> int:
    """The largest batch whose caches fit beside the one of a prompt that comes in. [sequences]"""
    whole = load.prompt_tokens + load.output_tokens + replica.look_ahead
    each = float(replica.kv_bytes(np.array([whole]))[0])
    return int(replica.cache_bytes / each) - (replica.max_batch > 1)


def points_of(
    replica: Replica, site: Site, load: Load, share: float, most: int, alpha: float | Acceptance | None
) -> Points:
    """Requests per second and latencies at every batch and gamma; infinite latencies where that cannot be."""
    batch, gammas, drafter = site.batches[:, None], site.gammas, replica.drafter
    priced = price_round(
        replica.hardware,
        replica.target,
        replica.engine,
        drafter,
        batch=batch,
        context_len=load.prompt_tokens + load.output_tokens / 2.0,
        kv_budget=replica.kv_budget,
        gamma=gammas,
        tensor_parallel=float(site.width),
        alpha=alpha,
        steps=site.steps,
    )
    chunk = site.chunk
    if drafter is not None and (extra := drafter.extra_model(replica.target)) is not None:
        chunk += _chunk_seconds(extra, replica.engine, replica.hardware, site.width, load, site.chunks)
    added = priced.draft_s + priced.verify.attention + priced.overhead + site.row * batch * (gammas + 1.0)
    longer = np.maximum(chunk + added - priced.round_s, 0.0)
    tokens = np.asarray(priced.tokens_per_round)
    qps = 1.0 / (priced.round_s * load.output_tokens / (batch * tokens) + site.chunks * longer)
    busy = site.chunks * (chunk + added)
    used = qps * busy
    normal = max(NormalDist().inv_cdf(share), 0.0)
    slowest = 1.0 + normal * np.sqrt(load.burstiness * math.exp(load.spread**2) / batch)
    if priced.acceptance is not None:
        rest = np.asarray(priced.acceptance.rest)
        slow = expected_tokens(Acceptance.given(np.clip(rest - normal * BETWEEN_REQUESTS, 0.0, 1.0)), gammas)
        same = expected_tokens(Acceptance.given(rest), gammas)
        slowest = np.hypot(slowest - 1.0, same / slow - 1.0) + 1.0
    tpot = batch / (qps * load.output_tokens) * slowest
    uneven = (1.0 + load.burstiness * math.exp(load.spread**2)) / 2.0
    wait = busy * uneven / np.maximum(1.0 - used, 1e-9)
    late = np.maximum(wait * np.log(np.maximum(used, 1e-12) / (1.0 - share)), 0.0)
    own = busy * math.exp(load.spread * normal - load.spread**2 / 2.0)
    ttft = np.maximum(own + used * wait, busy + late)
    drafts = gammas > 0 if drafter is not None else gammas == 0
    fits = (batch <= most) & (batch * (gammas + 1.0) < replica.max_step_tokens) & (used < 1.0) & drafts
    shape = (site.batches.size, gammas.size)
    qps, ttft, tpot = (np.broadcast_to(values, shape) for values in (qps, ttft, tpot))
    return Points(qps, np.where(fits, ttft, np.inf), np.where(fits, tpot, np.inf))
