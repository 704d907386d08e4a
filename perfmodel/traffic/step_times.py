"""Seconds of any step of a replica by look-up, priced once with the equations of everything else."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from perfmodel.deployment import Deployment
from perfmodel.files.numbers import FloatArray
from perfmodel.latency import ForwardPass, StepLatency, least_eager_s, price_pass, price_prefill
from perfmodel.speculation import Round, draft_with, price
from perfmodel.traffic.replica import Replica

__all__ = ["CAUSES", "Rounds", "StepTimes", "total_of", "without_least"]

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
        self._knots: list[float] = self.contexts.tolist()
        self._known: dict[tuple[int, int], Rounds] = {}
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
        begins = self._price_beginning() if any(gammas) else np.zeros(self.contexts.size)
        self._begins = _Line(DRAFT, self._knots, begins) if np.any(begins) else None
        # The same figures where a step looks up one.
        self._shared = [
            (cause, by_rows.tolist(), of_logits.tolist())
            for cause, by_rows, of_logits in (
                (LINEAR, prefill.linear, self._logits),
                (COMMUNICATION, prefill.communication, self._gathers),
                (OVERHEAD, prefill.overhead, self._upkeep),
            )
        ]
        self._beside: list[float] = self._sequences.tolist()

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
        rounds = self.rounds(batch, gamma)
        seconds = np.empty((len(CAUSES), mean_context.size))
        seconds[:] = rounds.fixed_column
        for line in rounds.lines:
            read = mean_context
            if line.cause == DRAFT:
                read = self.replica.draft_context(mean_context, mean_generated)
            seconds[line.cause] += np.interp(read, self.contexts, line.seconds)
        return seconds

    def rounds(self, batch: int, gamma: int) -> Rounds:
        """What rounds of so many sequences and drafts take, at any context."""
        if (known := self._known.get((batch, gamma))) is not None:
            return known
        fixed = np.zeros(len(CAUSES))
        fixed[LINEAR] = self._mean(batch, gamma, self._prefill.linear, self._logits)
        fixed[COMMUNICATION] = self._mean(batch, gamma, self._prefill.communication, self._gathers)
        fixed[OVERHEAD] = self._mean(batch, gamma, self._overhead) + self._sequences[batch]
        lines = []
        for cause, by_context in self._rounds[gamma].items():
            seconds = by_context[batch - 1]
            if np.all(seconds == seconds[0]):
                fixed[cause] += seconds[0]
            else:
                lines.append(_Line(cause, self._knots, seconds))
        kept = self.replica.kv_budget if self.replica.chooses_once else np.inf
        known = self._known[batch, gamma] = Rounds(fixed, tuple(lines), kept)
        return known

    def _mean(self, batch: int, gamma: int, *by_rows: FloatArray) -> float:
        """Return the mean over rounds that draft and those that find nothing, as `mean_pass` has it. [s]"""
        plain, full = (sum(table[rows] for table in by_rows) for rows in (batch, batch * (gamma + 1)))
        return float(full if self.replica.match == 1.0 else plain + self.replica.match * (full - plain))

    def prefill(
        self, seconds: list[float], decode_rows: int, chunks: Sequence[tuple[int, int, bool]]
    ) -> None:
        """Put prefill chunks into a step of so many decode rows, in place.

        A chunk is its tokens, the tokens of its prompt before it, and whether it is the prompt's last. Logits
        are computed for the last token of each chunk. A draft model prefills what the target does, and a
        self-speculating drafter chooses its entries when a prompt ends. A step with a chunk takes each of the
        two at least what launching its layers with experts does.

        Parameters
        ----------
        seconds : by cause, those of the step's round. [s]
        """
        tokens = sum([chunk[0] for chunk in chunks])
        rows, logits = decode_rows + tokens, decode_rows + len(chunks)
        for cause, by_rows, of_logits in self._shared:
            before = by_rows[decode_rows] + of_logits[decode_rows]
            seconds[cause] += by_rows[rows] + of_logits[logits] - before
        seconds[OVERHEAD] += self._beside[len(chunks)]
        seconds[ATTENTION] += self._prefill.attention(chunks)
        if self._prefill.least:
            _, linear, attention, communication, overhead = seconds
            lasted = linear + attention + communication + overhead
            seconds[OVERHEAD] += max(self._prefill.least - lasted, 0.0)
        if self._draft_prefill is not None:
            draft = self._draft_prefill
            seconds[DRAFT] += max(draft.by_tokens[tokens] + draft.attention(chunks), draft.least)
        if self._begins is not None:
            for size, history, last in chunks:
                if last:
                    seconds[DRAFT] += self._begins.at(size + history)

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


class _Line:
    """Seconds of one cause between contexts: looked up as `numpy.interp` does, to the last bit. [s]

    Parameters
    ----------
    knots : contexts that are priced, ascending. [tokens]
    seconds : what is priced there, one a knot. [s]
    """

    def __init__(self, cause: int, knots: list[float], seconds: FloatArray) -> None:
        self.cause, self.seconds = cause, seconds
        self._knots, self._last = knots, len(knots) - 1
        self._values: list[float] = seconds.tolist()
        self._slopes: list[float] = (np.diff(seconds) / np.diff(knots)).tolist()

    def at(self, context: float) -> float:
        """Seconds at one context. [s]"""
        place = bisect_right(self._knots, context) - 1
        if place < 0:
            return self._values[0]
        if place >= self._last:
            return self._values[-1]
        return self._slopes[place] * (context - self._knots[place]) + self._values[place]


class Rounds:
    """What rounds of one number of sequences and drafts take.

    Attributes
    ----------
    fixed_column : seconds by cause whatever the context; shape (causes, 1). [s]
    lines : what varies with the context.
    """

    def __init__(self, fixed: FloatArray, lines: tuple[_Line, ...], kept: float) -> None:
        self.fixed_column, self.lines = fixed[:, None], lines
        self._fixed: list[float] = fixed.tolist()
        self._kept = kept

    def at(self, mean_context: float, mean_generated: float = 0.0) -> list[float]:
        """Seconds of one round by cause; arguments as of `StepTimes.decode`. [s]"""
        seconds = self._fixed.copy()
        for line in self.lines:
            read = mean_context
            if line.cause == DRAFT:
                read = min(mean_context, self._kept + mean_generated)
            seconds[line.cause] += line.at(read)
        return seconds


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
        self.by_tokens: list[float] = (self.linear + self.communication + self.overhead).tolist()
        sizes = np.unique(np.rint(np.geomspace(1, replica.max_step_tokens, _CHUNKS)))
        histories = np.concatenate([[0.0], contexts])
        mixing = price_chunk(sizes[:, None], histories).token_mixing
        table = np.broadcast_to(mixing, (sizes.size, histories.size))
        self._launch = float(table[0, 0])
        self.least = float(least_eager_s(deployment))
        knots: list[float] = histories.tolist()
        per_token = (table - self._launch) / sizes[:, None]
        self._sizes: list[float] = sizes.tolist()
        self._per_token = [_Line(ATTENTION, knots, of_size) for of_size in per_token]

    def attention(self, chunks: Iterable[tuple[int, int, bool]]) -> float:
        """Attention of the chunks of one step, which one launch computes together. [s]"""
        total = self._launch
        for size, history, _ in chunks:
            above = bisect_left(self._sizes, size)
            low = high = self._per_token[above].at(history)
            if self._sizes[above] > size:
                low = self._per_token[above - 1].at(history)
            smaller = self._sizes[max(above - 1, 0)]
            share = (size - smaller) / max(self._sizes[above] - smaller, 1.0)
            total += size * (low + share * (high - low))
        return total


def total_of(seconds: Sequence[float]) -> float:
    """The sum of a few numbers, one after the other as numpy adds so few: `sum` rounds otherwise. [s]"""
    total = 0.0
    for each in seconds:
        total += each
    return total


def without_least(deployment: Deployment) -> Deployment:
    """Return the deployment with prefills whose layers with experts are launched for nothing."""
    return replace(deployment, engine=replace(deployment.engine, eager_expert_layer_s=0.0))


def _from_zero(seconds: FloatArray | float, count: int) -> FloatArray:
    """Seconds of 0 to `count` rows: none for none. [s]"""
    return np.concatenate([np.zeros(1), np.broadcast_to(np.asarray(seconds, dtype=float), (count,))])
