"""Computed seconds of what servers were measured at: steps, rounds, and closed loops with prefill inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.evidence.servers.rows import ServerRow
from perfmodel.files.numbers import FloatArray
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.latency import price_prefill
from perfmodel.memory import kv_bytes_per_gpu, weight_bytes_per_gpu
from perfmodel.planning.uncertainty import draw, interval, price_draws
from perfmodel.speculation import Configuration, price

__all__ = [
    "EngineOf", "ServerPrices", "closed_loop", "least_seconds", "possible_rows", "price_servers",
    "server_intervals",
]  # fmt: skip

EngineOf = Callable[[EngineOverhead, HardwareProfile], EngineOverhead]
"""Changes the engine of a row, on its hardware."""
DOUBTED = 0.2
"""Share of a source's rows below what the hardware allows from which none is believed. [1]"""
BURST = 0.5
"""Share of the others' prefills that a request decodes through when all begin at once: half of them come
before its own. [1]"""


def closed_loop(
    step: Numeric,
    prefill: Numeric,
    *,
    batch: Numeric,
    output_tokens: Numeric,
    burst: bool | Numeric = False,
) -> Numeric:
    r"""Mean seconds per output token of requests of which `batch` are served at a time. [s]

    .. math::
        TPOT = T + s (b - 1) T_{prefill} / O

    While a request decodes ``O`` tokens, each of the ``b - 1`` others is replaced once, and its prompt takes
    the GPUs for a prefill, whether its chunks join steps or stop them; ``s = 1``, or `BURST`.

    Parameters
    ----------
    step, prefill : one decode step of the batch, and the prefill of one prompt. [s]
    batch, output_tokens : requests at a time, and tokens that each puts out. [1], [tokens]
    burst : whether all began at once, so that outputs of one length end at once too.
    """
    share = np.where(burst, BURST, 1.0)
    seconds: Numeric = step + share * np.subtract(batch, 1.0) * prefill / output_tokens
    return seconds


@dataclass(frozen=True)
class ServerPrices:
    """What is computed for each row: seconds of what was measured, and of a plain step beside it. [s]"""

    seconds: FloatArray
    plain: FloatArray

    def speedup(self, rows: Sequence[ServerRow]) -> FloatArray:
        """Return plain decoding over seconds per token, NaN where nothing is drafted. [1]"""
        tokens = np.array([row.tokens_per_round for row in rows])
        return np.asarray(self.plain * tokens / self.seconds)


def price_servers(rows: Sequence[ServerRow], engine_of: EngineOf | None = None) -> ServerPrices:
    """Price what each row measured; engines as named, or as `engine_of` changes them."""
    seconds, plain = np.full((2, len(rows)), np.nan)
    for members, deployment, configuration, known in _groups(rows, engine_of):
        priced = price(deployment, rows[members[0]].group.drafter, **configuration, **known)
        some = [rows[index] for index in members]
        seconds[members] = _as_measured(deployment, some, np.broadcast_to(priced.round_s, len(members)))
        plain[members] = np.broadcast_to(priced.baseline.total, len(members))
    return ServerPrices(seconds, plain)


def least_seconds(row: ServerRow) -> float:
    """Seconds at the peaks of the hardware: no server takes less for what the row says. [s]

    Weights and cache cross memory once a step, and prompts of a closed loop cost their multiply-adds: a TPOT
    below that was measured of prompts that were cached, or of another dtype. 0 where the model has experts,
    of which not all are read.
    """
    hardware, model, gpus = row.group.hardware, row.group.target, float(row.tensor_parallel)
    if row.experts:
        return 0.0
    cache = row.batch * kv_bytes_per_gpu(model, row.context_len, gpus)
    read = (weight_bytes_per_gpu(model, gpus) + cache) / hardware.memory_bandwidth
    if math.isnan(row.prompt_tokens):
        return float(read)
    rate = hardware.peak(model.weight_dtype) * gpus
    prefill = 2.0 * float(model.active_parameters()) * row.prompt_tokens / rate
    burst = row.measured == "burst"
    return float(closed_loop(read, prefill, batch=row.batch, output_tokens=row.output_tokens, burst=burst))


def possible_rows(rows: Sequence[ServerRow]) -> NDArray[np.bool_]:
    """Return which rows can be what they say: no row below `least_seconds`, nor one of a doubted source.

    A source of whose rows `DOUBTED` or more lie below measured something else in all of them.
    """
    below = np.array([row.seconds < least_seconds(row) for row in rows])
    doubted = {
        source
        for source in {row.source for row in rows}
        if np.mean(below[[row.source == source for row in rows]]) >= DOUBTED
    }
    believed: NDArray[np.bool_] = np.array([row.source not in doubted for row in rows], dtype=bool)
    believed &= ~below
    return believed


def server_intervals(
    rows: Sequence[ServerRow], engine_of: EngineOf | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return low and high between which 80 % of cases are to lie, of every row's seconds. [s]"""
    low, high = np.full((2, len(rows)), np.nan)
    for members, deployment, configuration, known in _groups(rows, engine_of):
        some = [rows[index] for index in members]
        worlds = draw(deployment)
        drawn = price_draws(worlds, some[0].group.drafter, configuration, **known)
        round_s = np.broadcast_to(drawn.round_s, (len(members), worlds.size))
        runs = replace(
            worlds.deployment,
            tensor_parallel=np.asarray(deployment.tensor_parallel)[:, None],
            expert_parallel=np.asarray(deployment.expert_parallel)[:, None],
        )
        spread = worlds.verify_residual  # prefill errs as the other passes do
        low[members], high[members] = interval(_as_measured(runs, some, round_s, spread))
    return low, high


def _as_measured(
    deployment: Deployment, rows: Sequence[ServerRow], round_s: FloatArray, prefill_spread: Numeric = 1.0
) -> FloatArray:
    """Return seconds of rounds, or per token of the closed loops that these are; rows come first. [s]"""
    if rows[0].measured not in ("loop", "burst"):
        return np.asarray(round_s)

    def column(name: str) -> FloatArray:
        values = np.array([getattr(row, name) for row in rows], dtype=float)
        return values.reshape(-1, *[1] * (np.ndim(round_s) - 1))

    prefill = price_prefill(deployment, batch=1.0, prompt_tokens=column("prompt_tokens")).total
    batch, outputs = column("batch"), column("output_tokens")
    burst = rows[0].measured == "burst"
    return np.asarray(
        closed_loop(round_s, prefill * prefill_spread, batch=batch, output_tokens=outputs, burst=burst)
    )


def _groups(
    rows: Sequence[ServerRow], engine_of: EngineOf | None
) -> Iterator[tuple[list[int], Deployment, Configuration, dict[str, Any]]]:
    """Yield rows that are priced together, by their places, with their deployment and configurations."""
    together: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        together.setdefault(row.key, []).append(index)
    for members in together.values():
        some = [rows[index] for index in members]
        group = some[0].group
        engine = group.engine if engine_of is None else engine_of(group.engine, group.hardware)

        def column(name: str, some: Iterable[ServerRow] = some) -> FloatArray:
            return np.array([getattr(row, name) for row in some], dtype=float)

        deployment = Deployment(
            group.hardware, group.target, engine, column("tensor_parallel"), column("expert_parallel")
        )
        configuration = Configuration(
            batch=column("batch"), context_len=column("context_len"), kv_budget=column("kv_budget"),
            gamma=column("gamma"),
        )  # fmt: skip
        tokens = column("tokens_per_round")
        yield members, deployment, configuration, (
            {"tokens_per_round": tokens} if np.all(np.isfinite(tokens)) else {}
        )
