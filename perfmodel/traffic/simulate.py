"""A traffic trace through continuous batching on one replica, under a speculation policy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance
from perfmodel.acceptance.intervals import BETWEEN_REQUESTS
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.files.numbers import FloatArray
from perfmodel.traffic.acceptance_draws import AcceptanceDraws, request_acceptance
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
) -> Metrics:
    """Serve a trace with continuous batching and say what every request saw.

    Requests are admitted in order of arrival while batch, cache and the tokens of a step have room. Prompts
    are prefilled in chunks that share steps with decoding; a prompt's last chunk yields its first token. When
    the cache is full, the request that arrived last loses its cache and is prefilled again. Sequences draft
    and verify together; each commits what it accepted. The same arguments give the same outcome.

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
    return _Simulation(replica, trace, policy, hits, table, prefilled).run(progress)


class _Simulation:
    """One replica while it serves one trace."""

    def __init__(
        self,
        replica: Replica,
        trace: Trace,
        policy: ServingPolicy,
        hits: AcceptanceDraws,
        table: StepTimes,
        prefilled: bool,
    ) -> None:
        self.prefilled = prefilled
        self.replica, self.trace, self.hits, self.table = replica, trace, hits, table
        self.gammas = tuple(sorted({0, *policy.gammas}))
        self.policy = policy.begin(self.table)
        self.batch = Scheduler(replica, trace)
        self.now, self.arrived = 0.0, 0
        self.outcome = Metrics.of(trace, replica, policy.name)
        self.stopped_at: dict[int, float] = {}

    def run(self, progress: Callable[[int, int], None] | None) -> Metrics:
        """Serve every request to its last token."""
        total, reported = len(self.trace), 0
        done = 0
        while done < total:
            self._arrive()
            if not (self.batch.decoding or self.batch.prefilling or self.batch.waiting):
                self.now = float(self.trace.arrival[self.arrived])
                continue
            done += self._step()
            if progress is not None and done - reported >= max(1, total // 200):
                progress(done, total)
                reported = done
        return self.outcome

    def _arrive(self) -> None:
        while self.arrived < len(self.trace) and self.trace.arrival[self.arrived] <= self.now:
            prompt = int(self.trace.prompt_tokens[self.arrived])
            self.batch.waiting.append(Prompt(self.arrived, prompt, prompt * self.prefilled))
            self.arrived += 1

    def _step(self) -> int:
        """One mixed step, or a block of rounds in which nothing joins; returns how many requests finished."""
        batch = self.batch
        gamma = self._length()
        stopped = batch.make_room(gamma)
        self.stopped_at.update(dict.fromkeys(stopped, self.now))
        chunks = batch.chunks(gamma)
        tokens = self._rounds(gamma, 1 if chunks else self._most_rounds(gamma))
        seconds = self._seconds(tokens, gamma, chunks)
        if not chunks and self.arrived < len(self.trace):
            ends = self.now + np.cumsum(seconds.sum(axis=0))
            upto = 1 + int(np.searchsorted(ends[:-1], self.trace.arrival[self.arrived]))
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
            )
        )
        if gamma and batch.decoding:
            count, rounds = batch.decoding, tokens.size
            self.policy.learn(gamma, int(given.sum()) - rounds, rounds, count, batch.sum_context)
        finished = batch.commit(given)
        self.outcome.finish[finished] = self.now
        return int(finished.size) + self._finish_prompts(chunks)

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
        pieces = [(chunk.tokens, chunk.history, chunk.is_last) for chunk in chunks if chunk.tokens]
        if pieces:
            self.table.prefill(seconds, self.replica.verified(count, gamma), pieces)
        return seconds

    def _finish_prompts(self, chunks: list[Chunk]) -> int:
        """Take prefilled prompts into the batch; returns how many requests wanted no more than one token."""
        done = 0
        for index in self.batch.finish_chunks(chunks):
            if self.batch.generated[index] == 1:
                self.outcome.first_token[index] = self.now
            elif (stopped := self.stopped_at.pop(index, None)) is not None:
                self.outcome.gap(self.now - stopped)
            if self.batch.generated[index] == self.trace.output_tokens[index]:
                self.outcome.finish[index] = self.now
                done += 1
        return done
