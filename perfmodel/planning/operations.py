"""What the kernels of a round compute and move on each GPU, beside the seconds they are priced at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from perfmodel.deployment import Deployment
from perfmodel.files.numbers import FloatArray, Numeric
from perfmodel.latency import ForwardPass, StepLatency, price_pass
from perfmodel.latency.forward_pass import with_states
from perfmodel.model import BYTES
from perfmodel.model.launches import Attend, Recur
from perfmodel.planning.price import Priced
from perfmodel.speculation import draft_with, half_way, target_passes

__all__ = ["Operation", "PassOfRound", "count_operations", "operations", "passes_of"]

KINDS = {"linear": "linear layers", "attention": "attention", "recurrence": "recurrent states"}
"""What the kernels of a cause are called."""


@dataclass(frozen=True)
class Operation:
    """All kernels of one kind in one forward pass, on one GPU; the numbers broadcast.

    phase : which pass. name : which kernels. flops : a multiplication and an addition count two [FLOP].
    bytes : weights or cache entries read [B]. seconds : as priced [s].
    """

    phase: str
    name: str
    flops: Numeric
    bytes: Numeric
    seconds: Numeric

    @property
    def intensity(self) -> FloatArray:
        """Arithmetic per byte moved. [FLOP/B]"""
        return np.asarray(np.divide(self.flops, self.bytes), dtype=float)

    @property
    def rate(self) -> FloatArray:
        """Arithmetic per second. [FLOP/s]"""
        return np.asarray(np.divide(self.flops, self.seconds), dtype=float)


class PassOfRound(NamedTuple):
    """A forward pass of a round: which one, of what, what it reads, how often it runs, what it takes."""

    phase: str
    deployment: Deployment
    forward: ForwardPass
    times: Numeric
    seconds: StepLatency


def passes_of(priced: Priced) -> list[PassOfRound]:
    """Return the plain step and, where somebody drafts, a draft pass if any and the verification."""
    deployment, drafter, round_ = priced.deployment, priced.drafter, priced.round
    middle = half_way(priced.context_len, priced.output_tokens)
    verified = priced.gamma if drafter is None else drafter.verified(priced.gamma)
    step, verification = target_passes(batch=priced.batch, context_len=middle, gamma=verified)
    passes = [PassOfRound("plain step", deployment, step, 1.0, round_.baseline)]
    if drafter is None:
        return passes
    half = priced.output_tokens / 2.0
    drafting = draft_with(
        deployment, drafter, batch=priced.batch, context_len=middle, kv_budget=priced.kv_budget,
        gamma=priced.gamma, generated=half, output_tokens=half,
    )  # fmt: skip
    if drafting.deployment is not None:
        passes.append(
            PassOfRound(
                "draft pass", drafting.deployment, drafting.forward, drafting.counts.passes, round_.draft
            )
        )
    verify = round_.verify if np.all(round_.match == 1.0) else price_pass(deployment, verification)
    return [*passes, PassOfRound("verification", deployment, verification, round_.match, verify)]


def count_operations(deployment: Deployment, forward: ForwardPass) -> dict[str, tuple[Numeric, Numeric]]:
    """Count FLOPs and bytes of a pass on one GPU by cause: weights, cache entries, states. [FLOP], [B]

    ``2 rows n k`` per matrix that a row visits; ``2 rows heads entries (key_dim + value_dim)`` per attention
    layer. Shapes on a GPU and what is read are those that `perfmodel.latency.price_pass` prices. A cause that
    the model lacks is left out.
    """
    model, gpus = deployment.model, np.asarray(deployment.tensor_parallel, dtype=float)
    forward = with_states(deployment.engine, forward)
    micro, together, _ = deployment.in_flight(forward.batch)
    forward, everyone = replace(forward, batch=micro), replace(forward, batch=together)
    nothing = np.zeros(())
    visited, weights = nothing, nothing
    for layer in model.linears:
        passed = everyone if layer.experts else forward
        rows, times = passed.runs(layer, forward.rows)
        split, dealt = deployment.shares(layer)
        matrix = times * layer.count * layer.elements_per_gpu(split)
        visited = visited + layer.visits(rows, dealt) * matrix
        weights = weights + layer.distinct_experts(rows, dealt) * matrix * layer.stored_bytes
    counted: dict[str, tuple[Numeric, Numeric]] = {}
    counted["linear"] = (2.0 * visited, weights * forward.weight_fraction)
    entry_bytes = BYTES[model.kv_dtype] * forward.kv_fraction
    for mixer, count in model.token_mixers:
        cause = "attention" if mixer.reach else "recurrence"
        for launch in mixer.ways(forward)[0]:
            if isinstance(launch, Attend):
                work, moved = launch.flops(gpus), launch.elements(gpus) * entry_bytes
            elif isinstance(launch, Recur):
                work, moved = launch.flops / launch.shards(gpus), launch.bytes_moved(gpus)
            else:
                continue
            before = counted.get(cause, (nothing, nothing))
            each = np.multiply(forward.batch, count)
            counted[cause] = before[0] + each * work, before[1] + each * moved
    return counted


def operations(priced: Priced) -> list[Operation]:
    """Return the linear layers, the attention and the states of every pass of `passes_of`."""
    return [
        Operation(phase, KINDS[cause], flops, moved, getattr(seconds, cause))
        for phase, deployment, forward, _, seconds in passes_of(priced)
        for cause, (flops, moved) in count_operations(deployment, forward).items()
    ]
