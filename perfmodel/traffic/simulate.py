"""A traffic trace through continuous batching on one replica, under a speculation policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance
from perfmodel.acceptance.intervals import BETWEEN_REQUESTS
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.files.numbers import FloatArray
from perfmodel.files.units import format_bytes
from perfmodel.planning.fitting import request_miss
from perfmodel.traffic.acceptance_draws import AcceptanceDraws, request_acceptance
from perfmodel.traffic.clients import Clients
from perfmodel.traffic.decoding import OneLength, total_tokens
from perfmodel.traffic.metrics import Metrics, Steps
from perfmodel.traffic.policies import FixedGamma, FollowPlan, ServingPolicy
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.scheduler import Chunk, Scheduler
from perfmodel.traffic.step_times import CAUSES, StepTimes, total_of
from perfmodel.traffic.trace import Trace

__all__ = ["FixedGamma", "FollowPlan", "simulate"]

IntArray = NDArray[np.int64]

PLAIN_BLOCK, DRAFTED_BLOCK = 256, 32
"""Rounds priced together at most while nothing joins or leaves, without and with drafts. [rounds]"""
FEW = 7
"""Rounds up to which one after the other is quicker than all at once. [rounds]"""
_NUMBERS = np.arange(PLAIN_BLOCK)


def simulate(
    replica: Replica,
    trace: Trace,
    policy: ServingPolicy,
    *,
    alpha: float | Acceptance | None = None,
    spread: float = BETWEEN_REQUESTS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    table: StepTimes | None = None,
    prefilled: bool = False,
    concurrency: int | None = None,
) -> Metrics:
    """Serve a trace with continuous batching and say what every request saw.

    Requests are admitted in order of arrival while batch, cache and the tokens of a step have room. Prompts
    are prefilled in chunks that share steps with decoding, or as `Scheduler` says of other kinds; a prompt's
    last chunk yields its first token. When the cache is full, the request that arrived last loses its cache
    and is prefilled again. Prompts that begin alike hold what they share once and prefill the rest, as far as
    `Trace.prefixes` says so and the model's layers allow it. Sequences draft and verify together; each
    commits what it accepted. The same arguments give the same outcome.

    Parameters
    ----------
    policy : how many tokens to draft; asked before every block of rounds in which nothing joins or leaves. A
        length whose verification exceeds the tokens of a step is shortened.
    alpha : acceptance of all requests on average; the drafter's law at each request's context when absent.
        [0..1]
    spread : standard deviation of acceptance between requests. [1]
    progress : called with (finished, requests) now and then.
    table : the replica's steps where they are priced already, for these lengths and contexts.
    prefilled : whether requests arrive with the caches of their prompts; one that loses its own is prefilled.
    concurrency : requests in flight at most: a closed loop, in which the next one is sent when one is
        answered; None for an open loop.

    Raises
    ------
    InfeasibleError
        When the weights leave no room, or one request alone exceeds the cache.
    SpecError
        When the policy drafts more than the replica is made for.
    """
    # Bytes never fall with what was generated: who puts out most needs most.
    most = int(trace.output_tokens.max())
    needed = float(replica.kv_bytes(trace.longest + replica.look_ahead, most))
    if needed > replica.group_bytes:
        raise InfeasibleError(
            {"a request exceeds the KV cache": 1},
            f"the longest request has {trace.longest} tokens and needs {format_bytes(needed)} a GPU, the "
            f"cache has {format_bytes(replica.group_bytes)}"
            + (f"; {miss}" if (miss := request_miss(replica.deployment, trace.longest)) else ""),
        )
    if max(policy.gammas) >= replica.look_ahead and max(policy.gammas):
        raise SpecError.single(
            "simulation", "policy",
            f"{policy.name} drafts up to {max(policy.gammas)} tokens, the replica {replica.look_ahead - 1}",
            "Give the replica a drafter and a larger max_gamma",
        )  # fmt: skip
    if not 0.0 <= spread < 0.5:
        raise SpecError.single("simulation", "spread", f"found {spread}", "Give 0 or more, below 0.5")
    first, rest = request_acceptance(replica, trace, alpha=alpha, spread=spread, seed=seed)
    draws = AcceptanceDraws(first, rest, trace.output_tokens, seed=seed)
    if table is None:
        table = StepTimes(replica, sorted({0, *policy.gammas}), trace.longest)
    front_end = (0.0, 0.0) if prefilled else (replica.request_s, replica.front_end_s - replica.request_s)
    clients = Clients(trace.arrival, concurrency, *front_end)
    return _Simulation(replica, trace, policy, draws, table, clients, prefilled).run(progress)


class Block(NamedTuple):
    """Rounds of an unchanged batch: seconds of each, and of all by cause. [s]"""

    each: Sequence[float] | FloatArray
    by_cause: list[float]


class _Simulation:
    """One replica while it serves one trace."""

    def __init__(
        self,
        replica: Replica,
        trace: Trace,
        policy: ServingPolicy,
        draws: AcceptanceDraws,
        table: StepTimes,
        clients: Clients,
        prefilled: bool,
    ) -> None:
        self.clients, self.prefilled = clients, prefilled
        self.replica, self.outputs, self.table = replica, trace.output_tokens, table
        self.gammas = tuple(sorted({0, *policy.gammas}))
        self.policy = policy.begin(self.table)
        only = max(self.gammas) if isinstance(self.policy, FixedGamma) or len(self.gammas) == 1 else None
        self.batch = Scheduler(replica, trace, draws, gamma=only, share_steps=prefilled)
        self.now = 0.0
        self.outcome = Metrics.of(trace, replica, policy.name, clients.sent)
        self.outcome.cached = self.batch.prefixes.cached
        self.stopped_at: dict[int, float] = {}
        self.waited = np.zeros(len(trace)) if replica.schedules == "prefill-first" else None

    def run(self, progress: Callable[[int, int], None] | None) -> Metrics:
        """Serve every request to its last token."""
        total, reported = self.outputs.size, 0
        done = 0
        while done < total:
            self._arrive()
            if not (self.batch.decoding.count or self.batch.prefilling or self.batch.waiting):
                self.now = self.clients.next_ready
                continue
            finished = self._step()
            self.clients.answered(self.now, finished)
            done += finished
            if progress is not None and done - reported >= max(1, total // 200):
                progress(done, total)
                reported = done
        return self.outcome

    def _arrive(self) -> None:
        for index in self.clients.ready(self.now):
            self.batch.arrive(index, prefilled=self.prefilled)

    def _step(self) -> int:
        """A step that prefills, or a block of rounds in which nothing joins; returns how many finished."""
        batch, decoding = self.batch, self.batch.decoding
        if alone := batch.alone():
            return self._prefill_alone(alone)
        gamma = self._length() if decoding.count else 0
        if stopped := batch.make_room(gamma):
            self.stopped_at.update(dict.fromkeys(stopped, self.now))
        chunks = batch.chunks(gamma)
        held = held_last = batch.held(gamma + 1) if chunks else batch.held_before
        count, context = decoding.count, decoding.sum_context
        rounds, prefilled = 1, 0
        each: Sequence[float] | FloatArray
        if chunks or not count:
            given = decoding.given(gamma, 1)[1] if count else None
            by_cause = self._seconds_of_round(gamma)
            rows = self.replica.verified(count, gamma) if gamma else count
            prefilled = self._add_prefill(by_cause, rows, chunks)
            each = (total_of(by_cause),)
        else:
            most, given = decoding.given(gamma, self._most_rounds(gamma, held))
            each, by_cause = self._block(gamma, most, given)
            rounds = len(each)
            if rounds > 1:
                before_last = (rounds - 1) * count if given is None else total_tokens(given[: rounds - 1])
                held_last = batch.held(gamma + 1, gamma, rounds - 1, before_last)
        tokens = rounds * count if given is None else total_tokens(given[:rounds])
        self.now = self.outcome.record(
            Steps(
                self.now, each, by_cause, gamma, count, context / count if count else 0.0, len(batch.waiting),
                prefilled, tokens - rounds * count, held, held_last, len(stopped),
                None if self.waited is None else self._waits(self.waited),
            )
        )  # fmt: skip
        if gamma and count:
            self.policy.learn(gamma, tokens - rounds * count, rounds * count, count, context)
        done = 0
        if count:
            finished = batch.commit(gamma, rounds)
            for index in finished:
                self.outcome.finish[index] = self.now
            done = len(finished)
        return done + self._finish_prompts(chunks) if chunks else done

    def _prefill_alone(self, chunks: list[Chunk]) -> int:
        """One step of chunks before which decoding waits; returns how many requests finished."""
        batch = self.batch
        seconds = [0.0] * len(CAUSES)
        waiting = len(batch.waiting)
        prefilled = self._add_prefill(seconds, 0, chunks)
        lasted, held = total_of(seconds), batch.held(0)
        self.now = self.outcome.record(
            Steps(self.now, (lasted,), seconds, 0, 0, 0.0, waiting, prefilled, 0, held, held, 0)
        )
        assert self.waited is not None
        self.waited[batch.decoding.index] += lasted
        return self._finish_prompts(chunks)

    def _waits(self, waited: FloatArray) -> FloatArray | None:
        """Seconds that each decoding sequence waited for prefills since its last round, if any did. [s]"""
        index = self.batch.decoding.index
        waits: FloatArray = waited[index]
        waited[index] = 0.0
        return waits if waits.any() else None

    def _length(self) -> int:
        """What the policy says, as far as a step has room to verify it."""
        decoding = self.batch.decoding
        if isinstance(decoding, OneLength):
            return decoding.gamma
        count = decoding.count
        joined = bool(self.batch.prefilling) or (self.batch.admits_one and not self.prefilled)
        wanted = self.policy.length(count, decoding.sum_context, joined)
        most = self.replica.max_step_tokens // count - 1
        return wanted if wanted <= most else max(gamma for gamma in self.gammas if gamma <= most)

    def _most_rounds(self, gamma: int, held: float) -> int:
        """Rounds that certainly fit into the cache one after the other; at least the first does."""
        most = DRAFTED_BLOCK if gamma else PLAIN_BLOCK
        free = self.replica.cache_bytes - held
        a_round = self.batch.decoding.count * (gamma + 1) * self.replica.most_bytes_per_token
        return max(1, min(most, 1 + int(free / a_round))) if a_round > 0.0 else most

    def _seconds_of_round(self, gamma: int) -> list[float]:
        """Seconds by cause of the next round; none where nothing decodes. [s]"""
        decoding = self.batch.decoding
        count = decoding.count
        if not count:
            return [0.0] * len(CAUSES)
        context = decoding.sum_context / count
        return self.table.rounds(count, gamma).at(context, context - decoding.sum_prompt / count)

    def _block(self, gamma: int, rounds: int, given: IntArray | None) -> Block:
        """What rounds take, to the first that ends when a request is ready to join.

        Parameters
        ----------
        rounds : how many at most.
        given : tokens that each commits to all sequences together; None where each is given one. [tokens]
        """
        decoding, until = self.batch.decoding, self.clients.next_ready
        count, context = decoding.count, decoding.sum_context
        prompt = decoding.sum_prompt / count
        take = self.table.rounds(count, gamma)
        each: list[float] = []
        by_cause, lasted = [0.0] * len(CAUSES), 0.0
        for number in range(min(rounds, FEW)):
            mean = context / count
            seconds = take.at(mean, mean - prompt)
            a_round = total_of(seconds)
            if number == 0 and rounds > FEW and self.now + FEW * a_round < until:
                break
            each.append(a_round)
            lasted += a_round
            for cause, more in enumerate(seconds):
                by_cause[cause] += more
            if self.now + lasted >= until:
                return Block(each, by_cause)
            context += count if given is None else int(given[number])
        if len(each) == rounds:
            return Block(each, by_cause)
        return self._long_block(gamma, rounds, given)

    def _long_block(self, gamma: int, rounds: int, given: IntArray | None) -> Block:
        """`_block` at once, for many rounds."""
        decoding, until = self.batch.decoding, self.clients.next_ready
        count = decoding.count
        before = _NUMBERS[:rounds] * count if given is None else given.cumsum() - given
        mean_context = (before + decoding.sum_context) / count
        seconds = self.table.decode(count, mean_context, gamma, mean_context - decoding.sum_prompt / count)
        each = seconds.sum(axis=0)
        if math.isfinite(until):
            ends = self.now + each.cumsum()
            upto = 1 + int(ends[:-1].searchsorted(until))
            each, seconds = each[:upto], seconds[:, :upto]
        return Block(each, seconds.sum(axis=1).tolist())

    def _add_prefill(self, seconds: list[float], rows: int, chunks: list[Chunk]) -> int:
        """Put prefill chunks into a step of so many decode rows, in place; returns their tokens."""
        pieces = [(chunk.tokens, chunk.history, chunk.is_last) for chunk in chunks if chunk.tokens]
        if pieces:
            self.table.prefill(seconds, rows, pieces)
        return sum([piece[0] for piece in pieces])

    def _finish_prompts(self, chunks: list[Chunk]) -> int:
        """Take prefilled prompts into the batch; returns how many requests wanted no more than one token."""
        done = 0
        for index, generated in self.batch.finish_chunks(chunks):
            if generated == 1:
                self.outcome.first_token[index] = self.now
            elif (stopped := self.stopped_at.pop(index, None)) is not None:
                self.outcome.gap(stopped, self.now)
            if generated == self.outputs[index]:
                self.outcome.finish[index] = self.now
                done += 1
        return done
