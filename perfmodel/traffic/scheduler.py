"""Who waits, who is being prefilled and who decodes on a replica: in order of arrival, out in reverse."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.traffic.prefix_cache import PrefixSharing
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.trace import Trace

__all__ = ["Chunk", "Prompt", "Scheduler"]

IntArray = NDArray[np.int64]


@dataclass
class Prompt:
    """What has to be prefilled before a request can decode; after a preemption all that it had so far."""

    index: int
    tokens: int
    done: int = 0


class Chunk(NamedTuple):
    """A piece of a prompt in one step: its tokens, those before it, and whether it is the last piece."""

    prompt: Prompt
    tokens: int
    history: int

    @property
    def is_last(self) -> bool:
        """Whether the prompt ends with it."""
        return self.history + self.tokens == self.prompt.tokens


class Scheduler:
    """The requests of one replica; the decoding ones as parallel arrays. All in order of arrival.

    What a step holds depends on `Replica.schedules`. Mixed, chunks of prompts fill the tokens that decoding
    sequences leave. Prefill first, chunks fill a step of their own as long as there are any. In flight,
    prompts share steps with decoding but are prefilled whole, unless one is longer than a step, and are let
    in when their cache has room to their last token, so that nobody loses it. With `share_steps` no prompt
    has a step of its own: others prefill them.

    Every request in `waiting` arrived after every one in `prefilling`, and these after every decoding one, so
    what a full cache takes away is always what came last, and goes back to where it was.

    Prompts that share a prefix hold it once, and prefill what is not held yet: `prefixes`.
    """

    def __init__(self, replica: Replica, trace: Trace, *, share_steps: bool = False) -> None:
        self.replica = replica
        self.outputs = trace.output_tokens
        self.generated = np.zeros(len(trace), dtype=np.int64)
        self.waiting: deque[Prompt] = deque()
        self.prefilling: deque[Prompt] = deque()
        self.index = np.zeros(0, dtype=np.int64)
        self.context = np.zeros(0, dtype=np.int64)
        self.prompt = np.zeros(0, dtype=np.int64)
        self.sum_context = 0
        self.prefixes = PrefixSharing(replica, replace(trace, prefixes=None) if share_steps else trace)
        shortest = int(trace.prompt_tokens.min())
        self._line = replica.kv_line(shortest, trace.longest + replica.look_ahead + 1)
        self._promise: dict[int, float] = {}
        self._apart = replica.schedules == "prefill-first" and not share_steps
        self._whole = replica.schedules == "in-flight"
        ends = trace.prompt_tokens + trace.output_tokens + replica.look_ahead
        self._at_end = replica.kv_bytes(ends, trace.output_tokens) if self._whole else np.zeros(0)

    @property
    def decoding(self) -> int:
        """How many sequences decode."""
        return int(self.index.size)

    @property
    def remaining(self) -> IntArray:
        """Tokens that each decoding sequence still has to put out. [tokens]"""
        left: IntArray = self.outputs[self.index] - self.generated[self.index]
        return left

    def held(self, ahead: int, grown: IntArray | None = None) -> float:
        """Bytes of all caches, with entries ahead of every decoding sequence, each grown by some. [B]"""
        promised = sum(self._promised(prompt) for prompt in self.prefilling) - self.prefixes.saved
        if not self.decoding:
            return promised
        if self._line is not None:
            at_zero, per_token = self._line
            entries = self.sum_context + ahead * self.decoding + (0 if grown is None else int(grown.sum()))
            return promised + at_zero * self.decoding + per_token * entries
        contexts = self.context + ahead if grown is None else self.context + ahead + grown
        return promised + float(self.replica.kv_bytes(contexts, contexts - self.prompt).sum())

    @property
    def mean_prompt(self) -> float:
        """Entries of the decoding sequences that were there when their prompts ended, mean. [tokens]"""
        return float(self.prompt.mean()) if self.decoding else 0.0

    @property
    def admits_one(self) -> bool:
        """Whether the first waiting request will be let into the next step that decodes."""
        if self._apart or not self.waiting:
            return False
        if self.decoding + len(self.prefilling) >= self.replica.max_batch:
            return False
        return self._reserved() + self._reserve(self.waiting[0]) <= self.replica.cache_bytes

    def make_room(self, gamma: int) -> list[int]:
        """Take the cache from what arrived last until a round fits; returns which of them decoded."""
        stopped = []
        while self.held(gamma + 1) > self.replica.cache_bytes:
            if self.prefilling:
                prompt = self.prefilling.pop()
                self.prefixes.release(prompt.index)
                self.waiting.appendleft(Prompt(prompt.index, prompt.tokens))
            else:
                stopped.append(int(self.index[-1]))
                self.prefixes.release(stopped[-1])
                self.waiting.appendleft(Prompt(stopped[-1], int(self.context[-1])))
                self.sum_context -= int(self.context[-1])
                self.index, self.context, self.prompt = self.index[:-1], self.context[:-1], self.prompt[:-1]
        self._keep_prefixes(gamma + 1)
        return stopped

    def alone(self) -> list[Chunk]:
        """Prefill chunks that take a step of their own while decoding waits; none where steps are shared."""
        return self._chunks(self.replica.max_step_tokens) if self._apart else []

    def chunks(self, gamma: int) -> list[Chunk]:
        """Prefill chunks that fill a step beside its decode rows; none where they have steps of their own."""
        if self._apart:
            return []
        return self._chunks(self.replica.max_step_tokens - self.decoding * (gamma + 1))

    def _chunks(self, rows: int) -> list[Chunk]:
        """Prefill chunks of so many rows together; waiting requests are let in as they fit."""
        chunks: list[Chunk] = []
        for prompt in self.prefilling:
            if rows <= 0:
                return chunks
            rows -= self._cut(chunks, prompt, rows)
        if rows <= 0 or not self.waiting:
            return chunks
        free = self.replica.cache_bytes - self._reserved()
        while rows > 0 and self.waiting and self.decoding + len(self.prefilling) < self.replica.max_batch:
            prompt = self.waiting[0]
            free -= self._reserve(prompt)
            done = max(prompt.done, self.prefixes.match(prompt.index, prompt.tokens))
            if free < 0 or (self._whole and rows < prompt.tokens - done <= self.replica.max_step_tokens):
                break
            self.waiting.popleft()
            prompt.done = done
            self.prefixes.enter(prompt.index)
            self.prefilling.append(prompt)
            rows -= self._cut(chunks, prompt, rows)
        self._keep_prefixes(self.replica.look_ahead)
        return chunks

    def _keep_prefixes(self, ahead: int) -> None:
        """Give up prefixes that nobody uses where the caches, so many entries ahead, need their room."""
        if self.prefixes.keeps:
            self.prefixes.keep(self.replica.cache_bytes - self.held(ahead))

    def _reserved(self) -> float:
        """Bytes that nobody new may fill: those of the next round, or of all sequences at their ends. [B]"""
        if not self._whole:
            return self.held(self.replica.look_ahead)
        prefilling = [prompt.index for prompt in self.prefilling]
        return float(self._at_end[self.index].sum() + self._at_end[prefilling].sum()) - self.prefixes.saved

    def _reserve(self, prompt: Prompt) -> float:
        """Bytes that a waiting request must find free. [B]"""
        needed = float(self._at_end[prompt.index]) if self._whole else self._promised(prompt)
        return needed - self.prefixes.saves(prompt.index)

    @staticmethod
    def _cut(chunks: list[Chunk], prompt: Prompt, rows: int) -> int:
        tokens = min(rows, prompt.tokens - prompt.done)
        chunks.append(Chunk(prompt, tokens, prompt.done))
        return tokens

    def _promised(self, prompt: Prompt) -> float:
        """Bytes of a whole prompt and its first round. [B]"""
        if prompt.tokens not in self._promise:
            longest = np.array([prompt.tokens + self.replica.look_ahead])
            self._promise[prompt.tokens] = float(self.replica.kv_bytes(longest)[0])
        return self._promise[prompt.tokens]

    def commit(self, tokens: IntArray) -> IntArray:
        """Append what every sequence was given, at most what it wants; returns those that are done."""
        given = np.minimum(tokens, self.remaining)
        self.generated[self.index] += given
        self.context = self.context + given
        self.sum_context += int(given.sum())
        going = self.generated[self.index] < self.outputs[self.index]
        done = self.index[~going]
        if done.size:
            self._keep_prefixes(0)
            for index in done.tolist():
                self.prefixes.release(index)
            self.sum_context -= int(self.context[~going].sum())
            self.index, self.context = self.index[going], self.context[going]
            self.prompt = self.prompt[going]
        return done

    def finish_chunks(self, chunks: list[Chunk]) -> list[int]:
        """Note what was prefilled; a whole prompt yields a token and decodes. Returns whose prompts ended."""
        ended = []
        for prompt, tokens, _ in chunks:
            prompt.done += tokens
            self.prefixes.extend(prompt.index, prompt.done)
            if prompt.done < prompt.tokens:
                continue
            self.prefilling.popleft()
            ended.append(prompt.index)
            self.generated[prompt.index] += 1
            if self.generated[prompt.index] < self.outputs[prompt.index]:
                self.index = np.append(self.index, prompt.index)
                self.context = np.append(self.context, prompt.tokens + 1)
                self.prompt = np.append(self.prompt, prompt.tokens)
                self.sum_context += prompt.tokens + 1
            else:
                self.prefixes.release(prompt.index)
        return ended
