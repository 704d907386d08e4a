"""One replica of an engine: what its steps cost, from tables priced once, and how much KV it can hold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from perfmodel.engine import EngineOverhead
from perfmodel.errors import InfeasibleError
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import StepLatency, step_latency
from perfmodel.memory import kv_bytes_per_gpu
from perfmodel.model import ModelSpec
from perfmodel.speculation import Drafter, price_round, target_steps

FloatArray = NDArray[np.float64]

CAUSES = ("draft", "linear", "attention", "communication", "overhead")
KNOTS = 64
"""Context lengths at which attention is priced; between them it is a line in the context. [1]"""


@dataclass(frozen=True)
class Replica:
    """One copy of the target on its GPUs, with its drafter, and the limits its scheduler works under.

    max_batch : sequences that decode together. max_step_tokens : tokens of one step, prefill chunks included.
    """

    hardware: HardwareProfile
    target: ModelSpec
    engine: EngineOverhead
    drafter: Drafter | None = None
    kv_budget: float = np.inf
    tensor_parallel: int = 1
    max_batch: int = 256
    max_step_tokens: int = 8192
    max_gamma: int = 16

    @cached_property
    def kv_capacity(self) -> int:
        """Cache entries that all sequences together may hold, drafts in flight included. [tokens]

        Raises
        ------
        InfeasibleError
            When the weights leave no room.
        """
        idle = price_round(
            self.hardware,
            self.target,
            self.engine,
            self.drafter,
            batch=float(self.max_batch),
            context_len=1e7,
            kv_budget=self.kv_budget,
            gamma=float(self.max_gamma),
            tensor_parallel=float(self.tensor_parallel),
            tokens_per_round=1.0,
        ).memory
        per_token = float(kv_bytes_per_gpu(self.target, 1e7, self.tensor_parallel)) / 1e7
        held = float(idle.weights + idle.draft_weights + idle.activations)
        if self.drafter is not None and np.isfinite(self.kv_budget):
            held += float(idle.draft_kv)
        room = (float(np.asarray(idle.usable)) - held) / per_token
        if room < 1:
            raise InfeasibleError(
                {"does not fit in memory": 1},
                f"{self.tensor_parallel} x {self.hardware.name} lack {-room * per_token / 1e9:.1f} GB a GPU for "
                f"{self.target.name} with a batch of {self.max_batch}",
            )
        return int(room)


class StepTable:
    """Seconds of any step of a replica by look-up: rows give linear layers, communication and overhead, sequences and
    mean context give attention and drafting. Priced once with the same equations as everything else."""

    def __init__(self, replica: Replica, gammas: tuple[int, ...], longest_context: int) -> None:
        self.replica, self.gammas = replica, gammas
        self.contexts = np.unique(np.rint(np.geomspace(16, max(longest_context, 64), KNOTS)))
        self.batches = np.arange(1, replica.max_batch + 1, dtype=float)
        most_rows = replica.max_step_tokens + replica.max_batch * (max(gammas) + 1)
        rows = np.arange(1, most_rows + 1, dtype=float)
        by_rows = self._target(batch=rows, query_tokens=1.0, kv_tokens=1.0)
        zero = np.zeros(1)
        self.linear = np.concatenate([zero, np.broadcast_to(by_rows.linear, rows.shape)])
        self.communication = np.concatenate([zero, np.broadcast_to(by_rows.communication, rows.shape)])
        self.overhead = np.concatenate([zero, np.broadcast_to(by_rows.overhead, rows.shape)])
        self.attention = {gamma: self._attention(gamma) for gamma in gammas}
        self.draft = {gamma: self._draft(gamma) for gamma in gammas if gamma}
        self.chunks = np.unique(np.rint(np.geomspace(1, replica.max_step_tokens, 32)))
        self.chunk_attention = np.broadcast_to(
            self._target(
                batch=1.0,
                query_tokens=self.chunks[:, None],
                kv_tokens=np.concatenate([zero, self.contexts]) + (self.chunks[:, None] + 1.0) / 2.0,
            ).attention,
            (self.chunks.size, self.contexts.size + 1),
        )

    def decode(self, batch: int, mean_context: FloatArray, gamma: int) -> dict[str, FloatArray]:
        """Seconds by cause of rounds of `batch` sequences at each mean context, without anything else in the step."""
        rows = batch * (gamma + 1)
        engine = self.replica.engine
        seconds = {
            "linear": np.full(mean_context.shape, self.linear[rows]),
            "attention": np.interp(mean_context, self.contexts, self.attention[gamma][batch - 1]),
            "communication": np.full(mean_context.shape, self.communication[rows]),
            "overhead": np.full(mean_context.shape, self.overhead[rows]),
        }
        if gamma:
            seconds["draft"] = np.interp(mean_context, self.contexts, self.draft[gamma][batch - 1])
            per_round = float(np.asarray(engine.round_s)) + float(np.asarray(engine.round_row_s)) * batch
            seconds["overhead"] = seconds["overhead"] + per_round
        return seconds

    def add_prefill(self, seconds: dict[str, FloatArray], decode_rows: int, chunks: list[tuple[int, int]]) -> None:
        """Put prefill chunks of (tokens, history) into a step: its rows grow, its attention takes longer, in place."""
        rows = decode_rows + sum(tokens for tokens, _ in chunks)
        for name, table in (("linear", self.linear), ("communication", self.communication), ("overhead", self.overhead)):
            seconds[name] = seconds[name] + table[rows] - table[decode_rows]
        for tokens, history in chunks:
            seconds["attention"] = seconds["attention"] + self._chunk_seconds(tokens, history)

    def _chunk_seconds(self, tokens: int, history: int) -> float:
        """Attention of one chunk, between the priced sizes by lines in the chunk and in the history. [s]"""
        histories = np.concatenate([[0.0], self.contexts])
        above = int(np.clip(np.searchsorted(self.chunks, tokens), 1, self.chunks.size - 1))
        share = (tokens - self.chunks[above - 1]) / (self.chunks[above] - self.chunks[above - 1])
        low, high = (np.interp(history, histories, self.chunk_attention[row]) for row in (above - 1, above))
        return float(low + share * (high - low))

    def _target(self, *, batch: FloatArray | float, query_tokens: FloatArray | float, kv_tokens: FloatArray | float) -> StepLatency:
        replica = self.replica
        return step_latency(
            replica.hardware,
            replica.target,
            replica.engine,
            batch=batch,
            query_tokens=query_tokens,
            kv_tokens=kv_tokens,
            tensor_parallel=float(replica.tensor_parallel),
        )

    def _attention(self, gamma: int) -> FloatArray:
        """Attention of a round's target pass, shape (batch, context). [s]"""
        steps = target_steps(
            self.replica.hardware,
            self.replica.target,
            self.replica.engine,
            batch=self.batches[:, None],
            context_len=self.contexts,
            gamma=float(gamma),
            tensor_parallel=float(self.replica.tensor_parallel),
        )
        return np.broadcast_to(steps.verify.attention, (self.batches.size, self.contexts.size))

    def _draft(self, gamma: int) -> FloatArray:
        """All draft passes of a round, shape (batch, context). [s]"""
        replica = self.replica
        priced = price_round(
            replica.hardware,
            replica.target,
            replica.engine,
            replica.drafter,
            batch=self.batches[:, None],
            context_len=self.contexts,
            kv_budget=replica.kv_budget,
            gamma=float(gamma),
            tensor_parallel=float(replica.tensor_parallel),
            tokens_per_round=1.0,
        )
        return np.broadcast_to(priced.draft_s, (self.batches.size, self.contexts.size))
