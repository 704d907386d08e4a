"""A traffic trace through continuous batching on one replica, under a speculation policy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.outcome import Outcome
from perfmodel.policy import SpeculationPolicy
from perfmodel.serving import CAUSES, Replica, StepTable
from perfmodel.traces import Trace

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BLOCK = 64
"""Rounds priced together while nothing joins, leaves or changes the decision. [rounds]"""
REFRESH = 256
"""Rounds after which an adaptive policy takes what it has learned into its table. [rounds]"""
BETWEEN_REQUESTS = 0.08
"""Standard deviation of acceptance between requests of one kind of traffic. Source: llama.cpp MTP over 9 prompts .082,
SpecForge EAGLE-3 over 7 data sets .114 (median), Gemma-4 over 9 tasks .080. [1]"""


@dataclass(frozen=True)
class FixedLength:
    """The policy of one speculation length for every step; 0 is plain continuous batching."""

    gamma: int

    def length(self, n_decode: int, sum_context: int) -> int:
        """Tokens to draft in the next round."""
        return self.gamma


@dataclass
class Scheduled:
    """The policy of a compiled plan; an adaptive one learns acceptance as it goes."""

    policy: SpeculationPolicy
    adaptive: bool = False
    rounds: int = 0

    def length(self, n_decode: int, sum_context: int) -> int:
        """Tokens to draft in the next round."""
        return self.policy.decide(n_decode, sum_context).gamma

    def learn(self, drafted: int, accepted: int, rounds: int) -> None:
        """Count what was accepted; every `REFRESH` rounds the table is rebuilt."""
        if not self.adaptive or drafted == 0:
            return
        self.policy.observe(drafted, accepted, rounds)
        self.rounds += rounds
        if self.rounds >= REFRESH:
            self.policy.refresh()
            self.rounds = 0


@dataclass
class _Request:
    """A request between its arrival and its last token."""

    index: int
    prompt: int
    prefilled: int = 0


@dataclass
class _Running:
    """The sequences that decode, as parallel arrays in order of admission."""

    index: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    context: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    remaining: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return int(self.index.size)

    def add(self, index: int, context: int, remaining: int) -> None:
        """Let one more sequence decode."""
        self.index = np.append(self.index, index)
        self.context = np.append(self.context, context)
        self.remaining = np.append(self.remaining, remaining)

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drop the sequences that are not in the mask."""
        self.index, self.context, self.remaining = self.index[mask], self.context[mask], self.remaining[mask]


def request_acceptance(replica: Replica, trace: Trace, *, alpha: float | None, spread: float, seed: int) -> FloatArray:
    """Acceptance rate of every request of a trace: the drafter's law at its context, spread as a Beta. [0..1]"""
    if replica.drafter is None:
        return np.zeros(len(trace))
    contexts = trace.prompt_tokens + trace.output_tokens / 2.0
    mean = np.broadcast_to(
        np.asarray(
            alpha
            if alpha is not None
            else replica.drafter.acceptance(
                replica.target, context_len=contexts, kv_budget=replica.kv_budget
            ).rest,
            dtype=float,
        ),
        contexts.shape,
    )
    if spread <= 0.0:
        return np.array(mean)
    inside = np.clip(mean, 1e-3, 1.0 - 1e-3)
    weight = np.maximum(inside * (1.0 - inside) / spread**2 - 1.0, 0.5)
    return np.random.default_rng([seed, 1]).beta(inside * weight, (1.0 - inside) * weight)


def simulate(
    replica: Replica,
    trace: Trace,
    policy: FixedLength | Scheduled,
    *,
    alpha: float | None = None,
    spread: float = BETWEEN_REQUESTS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Serve a trace with continuous batching and say what every request saw.

    Requests are admitted in order of arrival while the batch and the KV cache have room. Prompts are prefilled in
    chunks that share steps with decoding; a prompt's last chunk yields its first token. When the cache is full the
    sequence admitted last loses its cache and is prefilled again. Decoding sequences draft and verify together; each
    commits what it accepted.

    Parameters
    ----------
    policy : how many tokens to draft, asked before every block of rounds in which nothing joins or leaves.
    alpha : acceptance rate of all requests on average; the drafter's law at each request's context when absent. [0..1]
    spread : standard deviation of acceptance between requests. [1]
    progress : called with (finished, requests) now and then.

    Raises
    ------
    InfeasibleError
        When the weights leave no room, or one request alone exceeds the cache.
    """
    longest = int((trace.prompt_tokens + trace.output_tokens).max())
    capacity = replica.kv_capacity
    if longest + replica.max_gamma + 1 > capacity:
        raise InfeasibleError(
            {"a request exceeds the KV cache": 1}, f"the longest request needs {longest} tokens, the cache holds {capacity}"
        )
    return _Simulation(replica, trace, policy, longest, alpha, spread, seed).run(progress)


class _Simulation:
    """The state of one simulated replica."""

    def __init__(
        self,
        replica: Replica,
        trace: Trace,
        policy: FixedLength | Scheduled,
        longest: int,
        alpha: float | None,
        spread: float,
        seed: int,
    ) -> None:
        self.replica, self.trace, self.policy = replica, trace, policy
        if isinstance(policy, FixedLength):
            gammas: tuple[int, ...] = (policy.gamma,)
        else:
            gammas = policy.policy.plan.gammas
        if max(gammas) > replica.max_gamma or (max(gammas) and replica.drafter is None):
            raise SpecError.single("simulation", "policy", f"drafts up to {max(gammas)} tokens, the replica does not")
        self.table = StepTable(replica, gammas, longest)
        self.alpha = request_acceptance(replica, trace, alpha=alpha, spread=spread, seed=seed)
        self.random = np.random.default_rng([seed, 2])
        self.waiting: deque[_Request] = deque()
        self.prefilling: deque[_Request] = deque()
        self.running = _Running()
        self.now, self.arrived = 0.0, 0
        self.generated = np.zeros(len(trace), dtype=np.int64)
        self.outcome = Outcome.of(trace, replica)

    def run(self, progress: Callable[[int, int], None] | None) -> Outcome:
        """Serve every request to its last token."""
        done, told = 0, 0
        while done < len(self.trace):
            self._arrive()
            self._admit()
            if not self.prefilling and not len(self.running):
                self.now = max(self.now, float(self.trace.arrival[self.arrived]))
                continue
            done += self._step()
            if progress is not None and done - told >= max(1, len(self.trace) // 100):
                progress(done, len(self.trace))
                told = done
        self.outcome.close(self.now)
        return self.outcome

    def _arrive(self) -> None:
        while self.arrived < len(self.trace) and self.trace.arrival[self.arrived] <= self.now:
            self.waiting.append(_Request(self.arrived, int(self.trace.prompt_tokens[self.arrived])))
            self.arrived += 1

    def _held(self) -> int:
        """Cache entries held or promised: contexts of what decodes, whole prompts of what is being prefilled."""
        return int(self.running.context.sum()) + sum(request.prompt for request in self.prefilling)

    def _admit(self) -> None:
        """Begin to prefill waiting requests, in order, while batch and cache have room for them and a round."""
        slots = self.replica.max_batch - len(self.running) - len(self.prefilling)
        held = self._held()
        look_ahead = self.replica.max_gamma + 1
        while self.waiting and slots > 0:
            sequences = len(self.running) + len(self.prefilling) + 1
            if held + self.waiting[0].prompt + sequences * look_ahead > self.replica.kv_capacity:
                break
            request = self.waiting.popleft()
            held += request.prompt
            slots -= 1
            self.prefilling.append(request)

    def _step(self) -> int:
        """One mixed step, or a block of rounds in which nothing joins; returns how many requests finished."""
        gamma = self._length()
        self._make_room(gamma)
        chunks = self._chunks(len(self.running) * (gamma + 1))
        tokens = self._until_first_finish(self._accepted(gamma, 1 if chunks else BLOCK))
        tokens = tokens[: self._rounds_that_fit(tokens, gamma)]
        seconds = self._seconds(tokens, gamma, chunks)
        if not chunks and self.arrived < len(self.trace):
            ends = self.now + np.cumsum(sum(seconds.values()))
            before = 1 + int(np.searchsorted(ends[:-1], self.trace.arrival[self.arrived]))
            tokens, seconds = tokens[:before], {cause: values[:before] for cause, values in seconds.items()}
        lasted = float(self.outcome.record(seconds, len(self.running), tokens, self._held(), gamma))
        self.now += lasted
        if isinstance(self.policy, Scheduled) and gamma:
            sequences = tokens.size
            self.policy.learn(gamma * sequences, int(tokens.sum()) - sequences, sequences)
        return self._commit(tokens) + self._finish_prefill(chunks)

    def _length(self) -> int:
        count = len(self.running)
        return self.policy.length(count, int(self.running.context.sum())) if count else 0

    def _chunks(self, decode_rows: int) -> list[tuple[_Request, int]]:
        """Prefill chunks that fill this step beside its decode rows, oldest request first."""
        room = self.replica.max_step_tokens - decode_rows
        chunks = []
        for request in self.prefilling:
            size = min(room, request.prompt - request.prefilled)
            if size <= 0:
                break
            chunks.append((request, size))
            room -= size
        return chunks

    def _accepted(self, gamma: int, rounds: int) -> IntArray:
        """Tokens that every sequence commits in each of some rounds, shape (rounds, sequences)."""
        count = len(self.running)
        if gamma == 0:
            return np.ones((rounds, count), dtype=np.int64)
        alpha = np.clip(self.alpha[self.running.index], 1e-12, 1.0 - 1e-12)
        accepted = np.log(self.random.random((rounds, count))) / np.log(alpha)  # geometric: failures come at 1 - alpha
        return 1 + np.minimum(accepted, gamma).astype(np.int64)

    def _until_first_finish(self, tokens: IntArray) -> IntArray:
        """The rounds up to and with the first in which a sequence reaches its last token."""
        if not tokens.shape[1]:
            return tokens[:1]
        ends = np.flatnonzero((np.cumsum(tokens, axis=0) >= self.running.remaining).any(axis=1))
        return tokens[: ends[0] + 1] if ends.size else tokens

    def _rounds_that_fit(self, tokens: IntArray, gamma: int) -> int:
        """How many of the rounds can start with their look-ahead still inside the cache; at least one can."""
        grown = np.concatenate([[0], np.cumsum(tokens.sum(axis=1))[:-1]])
        held = self._held() + len(self.running) * (gamma + 1)
        return max(1, int(np.searchsorted(grown + held, self.replica.kv_capacity, side="right")))

    def _make_room(self, gamma: int) -> None:
        """Take the cache from what was admitted last until a round fits; it waits first in line to be prefilled again."""
        while self._held() + len(self.running) * (gamma + 1) > self.replica.kv_capacity:
            if self.prefilling:
                request = self.prefilling.pop()
                self.waiting.appendleft(_Request(request.index, request.prompt))
            else:
                self.waiting.appendleft(_Request(int(self.running.index[-1]), int(self.running.context[-1])))
                self.running.keep(np.arange(len(self.running)) < len(self.running) - 1)
            self.outcome.preemptions += 1

    def _seconds(self, tokens: IntArray, gamma: int, chunks: list[tuple[_Request, int]]) -> dict[str, FloatArray]:
        """Seconds by cause of each of the rounds, prefill chunks included; shape (rounds,). [s]"""
        count = len(self.running)
        if count:
            grown = np.concatenate([[0], np.cumsum(tokens.sum(axis=1))[:-1]])
            seconds = self.table.decode(count, (self.running.context.sum() + grown) / count, gamma)
        else:
            seconds = {cause: np.zeros(1) for cause in CAUSES}
        if chunks:
            shares = [(size, request.prefilled) for request, size in chunks]
            self.table.add_prefill(seconds, count * (gamma + 1), shares)
        return seconds

    def _commit(self, tokens: IntArray) -> int:
        """Append what was accepted and let finished sequences leave; returns how many did."""
        if not len(self.running):
            return 0
        committed = np.minimum(tokens.sum(axis=0), self.running.remaining)
        self.generated[self.running.index] += committed
        self.running.context = self.running.context + committed
        self.running.remaining = self.running.remaining - committed
        ended = self.running.remaining == 0
        self.outcome.finish[self.running.index[ended]] = self.now
        self.running.keep(~ended)
        return int(ended.sum())

    def _finish_prefill(self, chunks: list[tuple[_Request, int]]) -> int:
        """Account for prefilled chunks; a whole prompt yields a token and starts to decode."""
        done = 0
        for request, size in chunks:
            request.prefilled += size
            self.outcome.prefilled_tokens += size
            if request.prefilled < request.prompt:
                continue
            self.prefilling.popleft()
            index = request.index
            if self.generated[index] == 0:
                self.outcome.first_token[index] = self.now
            self.generated[index] += 1
            remaining = int(self.trace.output_tokens[index] - self.generated[index])
            if remaining == 0:
                self.outcome.finish[index] = self.now
                done += 1
            else:
                self.running.add(index, request.prompt + 1, remaining)
        return done
