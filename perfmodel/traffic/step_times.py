"""Seconds of any step of a replica by look-up, priced once with the equations of everything else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from perfmodel.latency import StepLatency, prefill_latency, step_latency
from perfmodel.model import ModelSpec
from perfmodel.speculation import price_round, target_steps
from perfmodel.traffic.replica import Replica

__all__ = ["CAUSES", "StepTable"]

FloatArray = NDArray[np.float64]

CAUSES = ("draft", "linear", "attention", "communication", "overhead")
"""What the time of a step goes to; the first axis of every array of seconds."""
DRAFT, LINEAR, ATTENTION, COMMUNICATION, OVERHEAD = range(len(CAUSES))

_CONTEXTS = 96
_CHUNKS = 64
_SHORTEST = 16.0


class StepTable:
    """The seconds of steps that decode, prefill, or both.

    Rows of a step give linear layers, communication and overhead; number and mean context of its sequences
    give their attention and drafting; every prefill chunk has an attention of its own. Between priced
    contexts and chunks everything is a line.

    Parameters
    ----------
    gammas : speculation lengths that will be asked for. [tokens]
    longest : longest context that will be asked for. [tokens]
    """

    def __init__(self, replica: Replica, gammas: Sequence[int], longest: int) -> None:
        self.replica = replica
        self._contexts = np.unique(np.rint(np.geomspace(_SHORTEST, max(longest, 64), _CONTEXTS)))
        self._batches = np.arange(1.0, replica.max_batch + 1.0)
        rows = np.arange(1.0, replica.max_step_tokens + 1.0)
        by_rows = step_latency(
            replica.hardware, replica.target, replica.engine, batch=rows, kv_tokens=1.0,
            tensor_parallel=float(replica.tensor_parallel),
        )  # fmt: skip
        prefill = _Prefill(replica, replica.target, self._contexts)
        self._prefill = prefill
        with_logits = _from_zero(by_rows.linear, rows.size)
        self._logits = with_logits - prefill.linear  # of as many rows as the index, beyond one
        self._communication = _from_zero(by_rows.communication, rows.size)
        self._overhead = _from_zero(by_rows.overhead, rows.size)
        self._attention: dict[int, FloatArray] = {}
        self._draft: dict[int, FloatArray] = {}
        for gamma in gammas:
            self._attention[gamma], self._draft[gamma] = self._round(gamma)
        extra = replica.drafter.extra_model(replica.target) if replica.drafter and any(gammas) else None
        self._draft_prefill = _Prefill(replica, extra, self._contexts) if extra else None
        self._draft_begins = self._beginning() if any(gammas) else np.zeros(self._contexts.size)
        self._round_s = float(np.asarray(replica.engine.round_s))
        self._round_row_s = float(np.asarray(replica.engine.round_row_s))

    def decode(self, batch: int, mean_context: FloatArray, gamma: int) -> FloatArray:
        """Seconds by cause of rounds of `batch` sequences at each mean context: (causes, rounds). [s]"""
        rows = batch * (gamma + 1)
        seconds = np.zeros((len(CAUSES), mean_context.size))
        seconds[LINEAR] = self._prefill.linear[rows] + self._logits[rows]
        seconds[ATTENTION] = np.interp(mean_context, self._contexts, self._attention[gamma][batch - 1])
        seconds[COMMUNICATION] = self._communication[rows]
        seconds[OVERHEAD] = self._overhead[rows]
        if gamma:
            seconds[DRAFT] = np.interp(mean_context, self._contexts, self._draft[gamma][batch - 1])
            seconds[OVERHEAD] += self._round_s + self._round_row_s * batch
        return seconds

    def prefill(self, seconds: FloatArray, decode_rows: int, chunks: Sequence[tuple[int, int, bool]]) -> None:
        """Put prefill chunks into a step of so many decode rows, in place.

        A chunk is its tokens, the tokens of its prompt before it, and whether it is the prompt's last. Logits
        are computed for the last token of each chunk. A draft model prefills what the target does, and a
        self-speculating drafter chooses its entries when a prompt ends.
        """
        tokens = sum(chunk[0] for chunk in chunks)
        rows, logits = decode_rows + tokens, decode_rows + len(chunks)
        before = self._prefill.linear[decode_rows] + self._logits[decode_rows]
        seconds[LINEAR] += self._prefill.linear[rows] + self._logits[logits] - before
        seconds[COMMUNICATION] += self._communication[rows] - self._communication[decode_rows]
        seconds[OVERHEAD] += self._overhead[rows] - self._overhead[decode_rows]
        seconds[ATTENTION] += self._prefill.attention(chunks)
        if self._draft_prefill is not None:
            draft = self._draft_prefill
            seconds[DRAFT] += draft.linear[tokens] + draft.other[tokens] + draft.attention(chunks)
        for size, history, last in chunks:
            if last:
                seconds[DRAFT] += np.interp(size + history, self._contexts, self._draft_begins)

    def added(self, batch: int, mean_context: float, gamma: int) -> float:
        """Seconds that rounds add to a step which prefill chunks fill: attention, drafts, their rows. [s]

        Rows are taken at the price of one more row in a full step; a batch beyond the replica's costs in
        proportion.
        """
        full = self._prefill.linear.size - 1
        half = max(full // 2, 1)
        rows = self._prefill.linear + self._communication + self._overhead
        a_row = float(rows[full] - rows[half]) / max(full - half, 1)
        most = min(batch, self._batches.size)
        seconds = float(np.interp(mean_context, self._contexts, self._attention[gamma][most - 1]))
        if gamma:
            seconds += float(np.interp(mean_context, self._contexts, self._draft[gamma][most - 1]))
            seconds += self._round_s + self._round_row_s * most
        logits = self._logits[min(most * (gamma + 1), full)]
        added: float = (seconds + float(logits) + a_row * most * (gamma + 1)) * batch / most
        return added

    def _round(self, gamma: int) -> tuple[FloatArray, FloatArray]:
        """Attention of a round's target pass, and all its draft passes; shape (batch, context). [s]"""
        replica = self.replica
        width = float(replica.tensor_parallel)
        batch, contexts = self._batches[:, None], self._contexts
        steps = target_steps(
            replica.hardware, replica.target, replica.engine, batch=batch, context_len=contexts,
            gamma=float(gamma), tensor_parallel=width,
        )  # fmt: skip
        shape = (self._batches.size, self._contexts.size)
        attention = np.broadcast_to(steps.verify.attention, shape)
        if not gamma:
            return attention, np.zeros(shape)
        priced = price_round(
            replica.hardware, replica.target, replica.engine, replica.drafter, batch=batch,
            context_len=contexts, kv_budget=replica.kv_budget, gamma=float(gamma), tensor_parallel=width,
            tokens_per_round=1.0, steps=steps,
        )  # fmt: skip
        return attention, np.broadcast_to(priced.draft_s, shape)

    def _beginning(self) -> FloatArray:
        """What a drafter does once when a prompt of each context ends: choose and copy its entries. [s]"""
        replica, drafter = self.replica, self.replica.drafter
        if drafter is None:
            return np.zeros(self._contexts.size)
        counts = drafter.strategy.draft_pass(
            context_len=self._contexts, kv_budget=replica.kv_budget, gamma=1.0, drafter=drafter.kind
        )
        entries = np.broadcast_to(np.asarray(counts.prefill_kv_tokens, dtype=float), self._contexts.shape)
        weights = drafter.weights(replica.target, counts)
        if weights is None or not np.any(entries):
            return np.zeros(self._contexts.size)
        read = step_latency(
            replica.hardware, weights, replica.engine, batch=1.0, kv_tokens=entries,
            tensor_parallel=float(replica.tensor_parallel),
        )  # fmt: skip
        return np.broadcast_to(np.asarray(read.attention), self._contexts.shape)


class _Prefill:
    """What prefill chunks cost one model: linear layers and the rest by rows, attention by chunk."""

    def __init__(self, replica: Replica, model: ModelSpec, contexts: FloatArray) -> None:
        def priced(chunk: FloatArray, history: FloatArray | float = 0.0) -> StepLatency:
            return prefill_latency(
                replica.hardware, model, replica.engine, batch=1.0, prompt_tokens=chunk,
                kv_tokens=history + chunk, tensor_parallel=float(replica.tensor_parallel),
            )  # fmt: skip

        rows = np.arange(1.0, replica.max_step_tokens + 1.0)
        by_rows = priced(rows)
        self.linear = _from_zero(by_rows.linear, rows.size)
        self.other = _from_zero(by_rows.communication + by_rows.overhead, rows.size)
        self._sizes = np.unique(np.rint(np.geomspace(1, replica.max_step_tokens, _CHUNKS)))
        self._histories = np.concatenate([[0.0], contexts])
        table = np.asarray(priced(self._sizes[:, None], self._histories).attention)
        self._launch = float(table[0, 0])
        self._per_token = (table - self._launch) / self._sizes[:, None]

    def attention(self, chunks: Iterable[tuple[int, int, bool]]) -> float:
        """Attention of the chunks of one step, which one launch computes together. [s]"""
        total = self._launch
        for size, history, _ in chunks:
            above = int(np.searchsorted(self._sizes, size))
            low = high = float(np.interp(history, self._histories, self._per_token[above]))
            if self._sizes[above] > size:
                low = float(np.interp(history, self._histories, self._per_token[above - 1]))
            smaller = self._sizes[max(above - 1, 0)]
            share = (size - smaller) / max(self._sizes[above] - smaller, 1.0)
            total += size * (low + share * (high - low))
        return total


def _from_zero(seconds: FloatArray | float, count: int) -> FloatArray:
    """Seconds of 0 to `count` rows: none for none. [s]"""
    return np.concatenate([np.zeros(1), np.broadcast_to(np.asarray(seconds, dtype=float), (count,))])
