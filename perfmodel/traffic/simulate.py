"""A traffic trace through continuous batching on one replica, under a speculation policy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance
from perfmodel.acceptance.intervals import BETWEEN_REQUESTS
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.files.numbers import FloatArray
from perfmodel.traffic.acceptance_draws import AcceptanceDraws, request_acceptance
from perfmodel.traffic.clients import Clients
from perfmodel.traffic.metrics import Metrics, Steps
from perfmodel.traffic.policies import FixedGamma, FollowPlan, ServingPolicy
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.scheduler import Chunk, Prompt, Scheduler
from perfmodel.traffic.step_times import CAUSES, StepTimes
from perfmodel.traffic.trace import Trace

__all__ = ["FixedGamma", "FollowPlan", "simulate"]

IntArray = NDArray[np.int64]

PLAIN_BLOCK, DRAFTED_BLOCK = 256, 32
"""Rounds priced together at most while nothing joins or leaves, without and with drafts. [rounds]"""


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
    needed = float(replica.kv_bytes(trace.longest + replica.look_ahead, trace.output_tokens).max())
    if needed > replica.group_bytes:
        raise InfeasibleError(
            {"a request exceeds the KV cache": 1},
            f"the longest request has {trace.longest} tokens and needs {needed / 1e9:.1f} GB a GPU, "
            f"the cache has {replica.group_bytes / 1e9:.1f}",
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
    hits = AcceptanceDraws(first, rest, trace.output_tokens, seed=seed)
    if table is None:
        table = StepTimes(replica, sorted({0, *policy.gammas}), trace.longest)
    front_end = (0.0, 0.0) if prefilled else (replica.request_s, replica.front_end_s - replica.request_s)
    clients = Clients(trace.arrival, concurrency, *front_end)
    return _Simulation(replica, trace, policy, hits, table, clients, prefilled).run(progress)


class _Simulation:
    """One replica while it serves one trace."""

    def __init__(
        self,
        replica: Replica,
        trace: Trace,
        policy: ServingPolicy,
        hits: AcceptanceDraws,
        table: StepTimes,
        clients: Clients,
        prefilled: bool,
    ) -> None:
        self.clients, self.prefilled = clients, prefilled
        self.replica, self.trace, self.hits, self.table = replica, trace, hits, table
        self.gammas = tuple(sorted({0, *policy.gammas}))
        self.policy = policy.begin(self.table)
        self.batch = Scheduler(replica, trace, share_steps=prefilled)
        self.now = 0.0
        self.outcome = Metrics.of(trace, replica, policy.name, clients.sent)
        self.outcome.cached = self.batch.prefixes.cached
        self.stopped_at: dict[int, float] = {}
        self.waited = np.zeros(len(trace)) if replica.schedules == "prefill-first" else None

    def run(self, progress: Callable[[int, int], None] | None) -> Metrics:
        """Serve every request to its last token."""
        total, reported = len(self.trace), 0
        done = 0
        while done < total:
            self._arrive()
            if not (self.batch.decoding or self.batch.prefilling or self.batch.waiting):
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
            prompt = int(self.trace.prompt_tokens[index])
            self.batch.waiting.append(Prompt(index, prompt, prompt * self.prefilled))

    def _step(self) -> int:
        """A step that prefills, or a block of rounds in which nothing joins; returns how many finished."""
        batch = self.batch
        if alone := batch.alone():
            return self._prefill_alone(alone)
        gamma = self._length()
        stopped = batch.make_room(gamma)
        self.stopped_at.update(dict.fromkeys(stopped, self.now))
        chunks = batch.chunks(gamma)
        tokens = self._rounds(gamma, 1 if chunks else self._most_rounds(gamma))
        seconds = self._seconds(tokens, gamma, chunks)
        if not chunks and math.isfinite(self.clients.next_ready):
            ends = self.now + np.cumsum(seconds.sum(axis=0))
            upto = 1 + int(np.searchsorted(ends[:-1], self.clients.next_ready))
            tokens, seconds = tokens[:upto], seconds[:, :upto]
        given = tokens.sum(axis=0)
        self.now = self.outcome.record(
            Steps(
                start=self.now,
                seconds=seconds,
                gamma=gamma,
                decoding=batch.decoding,
                context=batch.sum_context / max(batch.decoding, 1),
                waiting=len(batch.waiting),
                prefilled=sum(chunk.tokens for chunk in chunks),
                accepted=int(given.sum()) - tokens.size,
                held_first=batch.held(gamma + 1),
                held_last=batch.held(gamma + 1, given - tokens[-1]),
                stopped=len(stopped),
                waits=self._waits(),
            )
        )
        if gamma and batch.decoding:
            count, rounds = batch.decoding, tokens.size
            self.policy.learn(gamma, int(given.sum()) - rounds, rounds, count, batch.sum_context)
        finished = batch.commit(given)
        self.outcome.finish[finished] = self.now
        return int(finished.size) + self._finish_prompts(chunks)

    def _prefill_alone(self, chunks: list[Chunk]) -> int:
        """One step of chunks before which decoding waits; returns how many requests finished."""
        batch = self.batch
        seconds = np.zeros((len(CAUSES), 1))
        self._add_prefill(seconds, 0, chunks)
        held = batch.held(0)
        self.now = self.outcome.record(
            Steps(
                start=self.now,
                seconds=seconds,
                gamma=0,
                decoding=0,
                context=0.0,
                waiting=len(batch.waiting),
                prefilled=sum(chunk.tokens for chunk in chunks),
                accepted=0,
                held_first=held,
                held_last=held,
                stopped=0,
            )
        )
        assert self.waited is not None
        self.waited[batch.index] += float(seconds.sum())
        return self._finish_prompts(chunks)

    def _waits(self) -> FloatArray | None:
        """Seconds that each decoding sequence waited for prefills since its last round, if any did. [s]"""
        if self.waited is None:
            return None
        waits: FloatArray = self.waited[self.batch.index]
        self.waited[self.batch.index] = 0.0
        return waits if waits.any() else None

    def _length(self) -> int:
        """What the policy says, as far as a step has room to verify it."""
        count = self.batch.decoding
        if not count:
            return 0
        joined = bool(self.batch.prefilling) or (self.batch.admits_one and not self.prefilled)
        wanted = self.policy.length(count, self.batch.sum_context, joined)
        most = self.replica.max_step_tokens // count - 1
        return wanted if wanted <= most else max(gamma for gamma in self.gammas if gamma <= most)

    def _most_rounds(self, gamma: int) -> int:
        """Rounds that certainly fit into the cache one after the other; at least the first does."""
        batch = self.batch
        most = DRAFTED_BLOCK if gamma else PLAIN_BLOCK
        free = self.replica.cache_bytes - batch.held(gamma + 1)
        a_round = batch.decoding * (gamma + 1) * self.replica.most_bytes_per_token
        return max(1, min(most, 1 + int(free / a_round))) if a_round > 0.0 else most

    def _rounds(self, gamma: int, most: int) -> IntArray:
        """Tokens that every sequence commits per round, shape (rounds, sequences), to the first that ends."""
        batch = self.batch
        left = batch.remaining
        if not left.size:
            return np.zeros((1, 0), dtype=np.int64)
        if gamma == 0:
            return np.ones((min(most, int(left.min())), left.size), dtype=np.int64)
        rounds = []
        generated, outputs = batch.generated[batch.index], batch.outputs[batch.index]
        for _ in range(most):
            tokens = self.hits.tokens(batch.index, generated, gamma)
            rounds.append(tokens)
            generated = generated + tokens
            if (generated >= outputs).any():
                break
        return np.stack(rounds)

    def _seconds(self, tokens: IntArray, gamma: int, chunks: list[Chunk]) -> FloatArray:
        """Seconds by cause of each round, prefill chunks included; shape (causes, rounds). [s]"""
        count = self.batch.decoding
        if count:
            given = tokens.sum(axis=1)
            before = self.batch.sum_context + np.cumsum(given) - given
            mean_context = before / count
            seconds = self.table.decode(count, mean_context, gamma, mean_context - self.batch.mean_prompt)
        else:
            seconds = np.zeros((len(CAUSES), 1))
        self._add_prefill(seconds, self.replica.verified(count, gamma), chunks)
        return seconds

    def _add_prefill(self, seconds: FloatArray, decode_rows: int, chunks: list[Chunk]) -> None:
        """Put prefill chunks into a step of so many decode rows, in place."""
        pieces = [(chunk.tokens, chunk.history, chunk.is_last) for chunk in chunks if chunk.tokens]
        if pieces:
            self.table.prefill(seconds, decode_rows, pieces)

    def _finish_prompts(self, chunks: list[Chunk]) -> int:
        """Take prefilled prompts into the batch; returns how many requests wanted no more than one token."""
        done = 0
        for index in self.batch.finish_chunks(chunks):
            if self.batch.generated[index] == 1:
                self.outcome.first_token[index] = self.now
            elif (stopped := self.stopped_at.pop(index, None)) is not None:
                self.outcome.gap(stopped, self.now)
            if self.batch.generated[index] == self.trace.output_tokens[index]:
                self.outcome.finish[index] = self.now
                done += 1
        return done
