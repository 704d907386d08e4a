"""Seconds of any step of a replica by look-up, priced once with the equations of everything else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from perfmodel.deployment import Deployment
from perfmodel.files.numbers import FloatArray
from perfmodel.latency import ForwardPass, StepLatency, least_eager_s, price_pass, price_prefill
from perfmodel.speculation import Round, draft_with, price
from perfmodel.traffic.replica import Replica

__all__ = ["CAUSES", "StepTimes", "without_least"]

CAUSES = ("draft", "linear", "attention", "communication", "overhead")
"""What the time of a step goes to; the first axis of every array of seconds."""
DRAFT, LINEAR, ATTENTION, COMMUNICATION, OVERHEAD = range(len(CAUSES))

_CONTEXTS = 96
_CHUNKS = 64
_SHORTEST = 16.0


class StepTimes:
    """The seconds of steps that decode, prefill, or both.

    Rows of a step give linear layers, communication and overhead; number and mean context of its sequences
    give their attention and drafting; every prefill chunk has an attention of its own. Between priced
    contexts and chunks everything is a line.

    Parameters
    ----------
    gammas : speculation lengths that will be asked for. [tokens]
    longest : longest context that will be asked for. [tokens]

    Attributes
    ----------
    contexts : those that are priced; between two of them everything is a line. [tokens]
    """

    def __init__(self, replica: Replica, gammas: Sequence[int], longest: int) -> None:
        self.replica = replica
        evenly = np.rint(np.geomspace(_SHORTEST, max(longest, 64), _CONTEXTS))
        kinks = [replica.kv_budget] if replica.kv_budget < evenly[-1] else []
        self.contexts = np.union1d(evenly, np.maximum(kinks, _SHORTEST))
        self._batches = np.arange(1.0, replica.max_batch + 1.0)
        rows = np.arange(1.0, replica.max_step_tokens + 1.0)
        one_pass = ForwardPass(batch=rows, kv_tokens=1.0)
        silent = replace(replica.deployment, engine=replace(replica.deployment.engine, row_s=0.0))
        with_rows, by_rows = (price_pass(each, one_pass) for each in (replica.deployment, silent))
        prefill = _Prefill(replica, silent, self.contexts)
        self._prefill = prefill
        # Logits of as many rows as the index, and the engine's time for them, beyond one.
        self._logits = _from_zero(by_rows.linear, rows.size) - prefill.linear
        self._gathers = _from_zero(by_rows.communication, rows.size) - prefill.communication
        self._overhead = _from_zero(by_rows.overhead, rows.size)
        self._upkeep = self._overhead - prefill.overhead
        self._sequences = _from_zero(np.subtract(with_rows.overhead, by_rows.overhead), rows.size)
        self._rounds = {gamma: self._price_round(gamma) for gamma in gammas}
        drafter = replica.drafter if any(gammas) else None
        extra = drafter.extra_model(replica.deployment.model) if drafter else None
        self._draft_prefill = (
            _Prefill(replica, drafter.runs(replica.deployment, extra), self.contexts)
            if drafter and extra
            else None
        )
        self._draft_begins = self._price_beginning() if any(gammas) else np.zeros(self.contexts.size)

    def decode(
        self, batch: int, mean_context: FloatArray, gamma: int, mean_generated: FloatArray | float = 0.0
    ) -> FloatArray:
        """Return the seconds of rounds by cause, shape (causes, rounds). [s]

        Parameters
        ----------
        batch : sequences that decode together. [sequences]
        mean_context : their mean context, one a round. [tokens]
        gamma : the speculation length, one of those that the table was made for. [tokens]
        mean_generated : how much of it came after their prompts. [tokens]
        """
        seconds = np.zeros((len(CAUSES), mean_context.size))
        seconds[LINEAR] = self._mean(batch, gamma, self._prefill.linear, self._logits)
        seconds[COMMUNICATION] = self._mean(batch, gamma, self._prefill.communication, self._gathers)
        read = {DRAFT: self.replica.draft_context(mean_context, mean_generated)}
        for cause, by_context in self._rounds[gamma].items():
            seconds[cause] = np.interp(read.get(cause, mean_context), self.contexts, by_context[batch - 1])
        seconds[OVERHEAD] += self._mean(batch, gamma, self._overhead) + self._sequences[batch]
        return seconds

    def _mean(self, batch: int, gamma: int, *by_rows: FloatArray) -> float:
        """Return the mean over rounds that draft and those that find nothing, as `mean_pass` has it. [s]"""
        plain, full = (sum(table[rows] for table in by_rows) for rows in (batch, batch * (gamma + 1)))
        return float(full if self.replica.match == 1.0 else plain + self.replica.match * (full - plain))

    def prefill(self, seconds: FloatArray, decode_rows: int, chunks: Sequence[tuple[int, int, bool]]) -> None:
        """Put prefill chunks into a step of so many decode rows, in place.

        A chunk is its tokens, the tokens of its prompt before it, and whether it is the prompt's last. Logits
        are computed for the last token of each chunk. A draft model prefills what the target does, and a
        self-speculating drafter chooses its entries when a prompt ends. A step with a chunk takes each of the
        two at least what launching its layers with experts does.
        """
        tokens = sum(chunk[0] for chunk in chunks)
        rows, logits = decode_rows + tokens, decode_rows + len(chunks)
        for cause, by_rows, of_logits in (
            (LINEAR, self._prefill.linear, self._logits),
            (COMMUNICATION, self._prefill.communication, self._gathers),
            (OVERHEAD, self._prefill.overhead, self._upkeep),
        ):
            before = by_rows[decode_rows] + of_logits[decode_rows]
            seconds[cause] += by_rows[rows] + of_logits[logits] - before
        seconds[OVERHEAD] += self._sequences[len(chunks)]
        seconds[ATTENTION] += self._prefill.attention(chunks)
        if self._prefill.least:
            seconds[OVERHEAD] += np.maximum(self._prefill.least - seconds[DRAFT + 1 :].sum(axis=0), 0.0)
        if self._draft_prefill is not None:
            draft = self._draft_prefill
            by_tokens = draft.linear[tokens] + draft.communication[tokens] + draft.overhead[tokens]
            seconds[DRAFT] += max(by_tokens + draft.attention(chunks), draft.least)
        for size, history, last in chunks:
            if last:
                seconds[DRAFT] += np.interp(size + history, self.contexts, self._draft_begins)

    def added(self, batch: int, mean_context: float, gamma: int, mean_generated: float = 0.0) -> float:
        """Seconds that rounds add to a step which prefill chunks fill: attention, drafts, their rows. [s]

        Rows are taken at the price of one more row in a full step; a batch beyond the replica's costs in
        proportion.
        """
        full = self._prefill.linear.size - 1
        half = max(full // 2, 1)
        rows = self._prefill.linear + self._prefill.communication + self._overhead
        a_row = float(rows[full] - rows[half]) / max(full - half, 1)
        most = min(batch, self._batches.size)
        read = {DRAFT: self.replica.draft_context(mean_context, mean_generated)}
        seconds = sum(
            float(np.interp(read.get(cause, mean_context), self.contexts, by_context[most - 1]))
            for cause, by_context in self._rounds[gamma].items()
        )
        decode_rows = self.replica.verified(most, gamma)
        logit_rows = min(decode_rows, full)
        logits = self._logits[logit_rows] + self._gathers[logit_rows]
        once = float(logits + self._sequences[most])
        added: float = (seconds + once + a_row * decode_rows) * batch / most
        return added

    def _price_round(self, gamma: int) -> dict[int, FloatArray]:
        """Price what varies with the context in a round, by cause, axes (batch, context). [s]

        The target's attention, all draft passes, and the engine's own time of a round or of a plain step
        with the drafter loaded.
        """

        def price_at(kv_budget: float) -> Round:
            return price(
                self.replica.deployment, self.replica.drafter, batch=self._batches[:, None],
                context_len=self.contexts, kv_budget=kv_budget, gamma=float(gamma),
            )  # fmt: skip

        priced = price_at(self.replica.kv_budget)
        drafts = price_at(self.replica.tabled_budget) if self.replica.chooses_once else priced
        terms = {ATTENTION: priced.verify.token_mixing, DRAFT: drafts.draft_s, OVERHEAD: priced.overhead}
        shape = (self._batches.size, self.contexts.size)
        return {cause: np.broadcast_to(term, shape) for cause, term in terms.items() if np.any(term)}

    def _price_beginning(self) -> FloatArray:
        """Price what a drafter does when a prompt of each context ends: choose and copy its entries. [s]"""
        replica, nothing = self.replica, np.zeros(self.contexts.size)
        if replica.drafter is None:
            return nothing
        drafting = draft_with(
            replica.deployment, replica.drafter, batch=1.0, context_len=self.contexts,
            kv_budget=replica.kv_budget, gamma=1.0,
        )  # fmt: skip
        entries = np.broadcast_to(np.asarray(drafting.counts.prefill_kv_tokens, dtype=float), nothing.shape)
        if drafting.deployment is None or not np.any(entries):
            return nothing
        reading = price_pass(drafting.deployment, ForwardPass(batch=1.0, kv_tokens=entries))
        return np.broadcast_to(np.asarray(reading.attention), nothing.shape)


class _Prefill:
    """What prefill chunks cost one model: linear layers and the rest by rows, attention by chunk.

    A step of chunks takes at least `least`, which is in none of these. [s]
    """

    def __init__(self, replica: Replica, deployment: Deployment, contexts: FloatArray) -> None:
        at_once = without_least(deployment)

        def price_chunk(chunk: FloatArray, history: FloatArray | float = 0.0) -> StepLatency:
            return price_prefill(at_once, batch=1.0, prompt_tokens=chunk, kv_tokens=history + chunk)

        rows = np.arange(1.0, replica.max_step_tokens + 1.0)
        by_rows = price_chunk(rows)
        self.linear = _from_zero(by_rows.linear, rows.size)
        self.communication = _from_zero(by_rows.communication, rows.size)
        self.overhead = _from_zero(by_rows.overhead, rows.size)
        self._sizes = np.unique(np.rint(np.geomspace(1, replica.max_step_tokens, _CHUNKS)))
        self._histories = np.concatenate([[0.0], contexts])
        mixing = price_chunk(self._sizes[:, None], self._histories).token_mixing
        table = np.broadcast_to(mixing, (self._sizes.size, self._histories.size))
        self._launch = float(table[0, 0])
        self.least = float(least_eager_s(deployment))
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


def without_least(deployment: Deployment) -> Deployment:
    """Return the deployment with prefills whose layers with experts are launched for nothing."""
    return replace(deployment, engine=replace(deployment.engine, eager_expert_layer_s=0.0))


def _from_zero(seconds: FloatArray | float, count: int) -> FloatArray:
    """Seconds of 0 to `count` rows: none for none. [s]"""
    return np.concatenate([np.zeros(1), np.broadcast_to(np.asarray(seconds, dtype=float), (count,))])
