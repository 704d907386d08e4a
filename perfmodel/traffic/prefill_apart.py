"""Prompts that replicas of their own prefill: how long each takes and when its cache has arrived."""

from __future__ import annotations

import heapq

import numpy as np

from perfmodel.files.numbers import FloatArray
from perfmodel.latency import price_prefill
from perfmodel.latency.all_reduce import over_network
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.step_times import CAUSES, StepTimes, total_of
from perfmodel.traffic.trace import Trace

__all__ = ["prompt_seconds", "ready_times", "transfer_seconds"]

_LENGTHS = 64


def transfer_seconds(replica: Replica, prompt_tokens: FloatArray | float) -> FloatArray:
    """Seconds until the caches of prompts are on another replica of the same kind. [tokens] -> [s]

    Every GPU sends what it holds, the draft's cache too, to its like over its own share of the network.
    """
    held = replica.kv_bytes(np.asarray(prompt_tokens, dtype=float))
    return np.asarray(over_network(replica.deployment.hardware, bytes=held))


def prompt_seconds(table: StepTimes, prompt_tokens: FloatArray) -> FloatArray:
    """Seconds of prefill of prompts that share no step with decoding, chunk by chunk. [tokens] -> [s]

    Each data-parallel group prefills a prompt of its own, as long. Between `_LENGTHS` lengths it is a line.
    """
    most = table.replica.max_step_tokens
    lengths = np.unique(np.rint(np.geomspace(1.0, max(float(np.max(prompt_tokens)), 2.0), _LENGTHS)))

    def in_chunks(length: int) -> float:
        total = 0.0
        for start in range(0, length, most):
            size = min(most, length - start)
            seconds = [0.0] * len(CAUSES)
            table.prefill(seconds, 0, [(size, start, start + size == length)])
            total += total_of(seconds) + _beside_others(table.replica, size, start + size)
        return total

    return np.interp(prompt_tokens, lengths, [in_chunks(int(length)) for length in lengths])


def _beside_others(replica: Replica, tokens: int, reached: int) -> float:
    """Seconds that a chunk takes more beside those of the other groups, which visit the same experts. [s]"""
    if not replica.deployment.grouped:
        return 0.0
    alone, together = (
        sum(
            float(np.sum(price_prefill(runs, batch=prompts, prompt_tokens=tokens, kv_tokens=reached).total))
            for runs in replica.prefills
        )
        for prompts in (1.0, float(replica.groups))
    )
    return together - alone


def ready_times(table: StepTimes, trace: Trace, replicas: int) -> FloatArray:
    """When the caches of a trace's prompts have arrived where they are decoded. [s]

    Each of so many prefill replicas takes the prompt that has waited longest, and serves one at a time in
    each of its data-parallel groups.
    """
    busy = prompt_seconds(table, trace.prompt_tokens.astype(float))
    free_at = [0.0] * (replicas * table.replica.groups)
    ready = np.empty(len(trace))
    passed = trace.arrival + table.replica.front_end_s
    for index, (arrival, lasts) in enumerate(zip(passed.tolist(), busy.tolist(), strict=True)):
        ready[index] = max(heapq.heappop(free_at), arrival) + lasts
        heapq.heappush(free_at, ready[index])
    return ready + transfer_seconds(table.replica, trace.prompt_tokens.astype(float))
