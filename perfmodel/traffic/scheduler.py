"""Who waits, who is being prefilled and who decodes on a replica: in order of arrival, out in reverse."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from perfmodel.traffic.acceptance_draws import AcceptanceDraws
from perfmodel.traffic.decoding import AnyLength, OneLength
from perfmodel.traffic.prefix_cache import PrefixSharing
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.trace import Trace
from perfmodel.traffic.waiting import Prompt, Waiting

__all__ = ["Chunk", "Prompt", "Scheduler"]

_TABLED = 1 << 22
"""Longest context up to which the bytes of every one are tabled, where they are no line. [tokens]"""


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
    """The requests of one replica, those that wait, are prefilled and decode. All in order of arrival.

    What a step holds depends on `Replica.schedules`. Mixed, chunks of prompts fill the tokens that decoding
    sequences leave. Prefill first, chunks fill a step of their own as long as there are any. In flight,
    prompts share steps with decoding but are prefilled whole, unless one is longer than a step, and are let
    in when their cache has room to their last token, so that nobody loses it. With `share_steps` no prompt
    has a step of its own: others prefill them.

    Every request in `waiting` arrived after every one in `prefilling`, and these after every decoding one, so
    what a full cache takes away is always what came last, and goes back to where it was.

    Prompts that share a prefix hold it once, and prefill what is not held yet: `prefixes`.

    Parameters
    ----------
    draws : what every request accepts.
    gamma : the one length that every round has; None where it may change. [tokens]

    Attributes
    ----------
    held_before : bytes of all caches when `make_room` was done, before chunks were let in. [B]
    """

    def __init__(
        self,
        replica: Replica,
        trace: Trace,
        draws: AcceptanceDraws,
        *,
        gamma: int | None = None,
        share_steps: bool = False,
    ) -> None:
        self.replica = replica
        self.outputs = trace.output_tokens
        self.waiting = Waiting(replica, trace.prompt_tokens)
        self.prefilling: deque[Prompt] = deque()
        self.prefixes = PrefixSharing(replica, replace(trace, prefixes=None) if share_steps else trace)
        shortest = int(trace.prompt_tokens.min())
        self._line = replica.kv_line(shortest, trace.longest + replica.look_ahead + 1)
        always = gamma is not None and gamma < replica.max_step_tokens // replica.max_batch
        self.decoding: OneLength | AnyLength
        if gamma is not None and always:
            self.decoding = OneLength(trace.output_tokens, draws, gamma)
        else:
            self.decoding = AnyLength(trace.output_tokens, draws, replica.max_batch)
        self._had: dict[int, int] = {}
        self._max_batch = replica.max_batch
        self.held_before = 0.0
        reach = trace.longest + 2 * replica.look_ahead
        tabled = self._line is None and not replica.chooses_once and reach <= _TABLED
        self._bytes = replica.kv_bytes(np.arange(reach + 1)) if tabled else None
        self._decoding_held: dict[tuple[int, int], float] = {}
        self._shares = self.prefixes.cached is not None
        self._apart = replica.schedules == "prefill-first" and not share_steps
        self._whole = replica.schedules == "in-flight"
        if self._whole:
            ends = trace.prompt_tokens + trace.output_tokens + replica.look_ahead
            self._at_end = replica.kv_bytes(ends, trace.output_tokens)

    def arrive(self, index: int, *, prefilled: bool = False) -> None:
        """Take in a request that has passed the front end; all come in order.

        Parameters
        ----------
        prefilled : whether it brings the cache of its prompt.
        """
        self.waiting.arrive(index, prefilled=prefilled)

    def held(self, ahead: int, gamma: int = 0, rounds: int = 0, grown: int = 0) -> float:
        """Bytes of all caches, with entries ahead of every decoding sequence. [B]

        Parameters
        ----------
        gamma, rounds : after so many rounds of those that `decoding.given` said last, with so many drafts.
        grown : tokens that these commit to all sequences together. [tokens]
        """
        promised = sum([prompt.bytes for prompt in self.prefilling]) if self.prefilling else 0.0
        if self._shares:
            promised -= self.prefixes.saved
        decoding = self.decoding
        count = decoding.count
        if not count:
            return promised
        if self._line is not None:
            at_zero, per_token = self._line
            entries = decoding.sum_context + ahead * count + grown
            return promised + at_zero * count + per_token * entries
        if (asked := (ahead, rounds)) not in self._decoding_held:
            contexts = decoding.contexts(gamma, rounds) + ahead
            if self._bytes is not None:
                each = self._bytes[contexts]
            else:
                each = self.replica.kv_bytes(contexts, contexts - decoding.prompts)
            self._decoding_held[asked] = float(np.add.reduce(each))
        return promised + self._decoding_held[asked]

    @property
    def admits_one(self) -> bool:
        """Whether the first waiting request will be let into the next step that decodes."""
        if self._apart or not self.waiting:
            return False
        if self.decoding.count + len(self.prefilling) >= self._max_batch:
            return False
        return self._reserved() + self._reserve(self.waiting.first) <= self.replica.cache_bytes

    def make_room(self, gamma: int) -> list[int]:
        """Take the cache from what arrived last until a round fits; returns which of them decoded."""
        stopped = []
        while (held := self.held(gamma + 1)) > self.replica.cache_bytes:
            if self.prefilling:
                prompt = self.prefilling.pop()
                self.prefixes.release(prompt.index)
                self.waiting.appendleft(Prompt(prompt.index, prompt.tokens, prompt.bytes))
            else:
                index, context, had = self.decoding.stop_last()
                self._decoding_held.clear()
                self._had[index] = had
                stopped.append(index)
                self.prefixes.release(index)
                longest = np.array([context + self.replica.look_ahead])
                self.waiting.appendleft(Prompt(index, context, float(self.replica.kv_bytes(longest)[0])))
        self.held_before = held
        if self._shares:
            self._keep_prefixes(gamma + 1)
        return stopped

    def alone(self) -> list[Chunk]:
        """Prefill chunks that take a step of their own while decoding waits; none where steps are shared."""
        return self._chunks(self.replica.max_step_tokens) if self._apart else []

    def chunks(self, gamma: int) -> list[Chunk]:
        """Prefill chunks that fill a step beside its decode rows; none where they have steps of their own."""
        if self._apart:
            return []
        return self._chunks(self.replica.max_step_tokens - self.decoding.count * (gamma + 1))

    def _chunks(self, rows: int) -> list[Chunk]:
        """Prefill chunks of so many rows together; waiting requests are let in as they fit."""
        chunks: list[Chunk] = []
        if not self.prefilling and not self.waiting:
            return chunks
        for prompt in self.prefilling:
            if rows <= 0:
                return chunks
            rows -= self._cut(chunks, prompt, rows)
        if rows <= 0 or not self.waiting:
            return chunks
        if self.decoding.count + len(self.prefilling) >= self._max_batch:
            return chunks
        free = self.replica.cache_bytes - self._reserved()
        while rows > 0 and self.waiting and self.decoding.count + len(self.prefilling) < self._max_batch:
            prompt = self.waiting.first
            free -= self._reserve(prompt)
            done = prompt.done
            if self._shares:
                done = max(done, self.prefixes.match(prompt.index, prompt.tokens))
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
        if self._shares and self.prefixes.keeps:
            self.prefixes.keep(self.replica.cache_bytes - self.held(ahead))

    def _reserved(self) -> float:
        """Bytes that nobody new may fill: those of the next round, or of all sequences at their ends. [B]"""
        if not self._whole:
            return self.held(self.replica.look_ahead)
        prefilling = [prompt.index for prompt in self.prefilling]
        at_end = self._at_end[self.decoding.index].sum() + self._at_end[prefilling].sum()
        return float(at_end) - self.prefixes.saved

    def _reserve(self, prompt: Prompt) -> float:
        """Bytes that a waiting request must find free. [B]"""
        needed = float(self._at_end[prompt.index]) if self._whole else prompt.bytes
        return needed - self.prefixes.saves(prompt.index) if self._shares else needed

    @staticmethod
    def _cut(chunks: list[Chunk], prompt: Prompt, rows: int) -> int:
        tokens = min(rows, prompt.tokens - prompt.done)
        chunks.append(Chunk(prompt, tokens, prompt.done))
        return tokens

    def commit(self, gamma: int, rounds: int) -> list[int]:
        """Go on by rounds of those that `decoding.given` said last; returns the requests that are done."""
        done = self.decoding.advance(gamma, rounds)
        self._decoding_held.clear()
        if done:
            if self._shares:
                self._keep_prefixes(0)
                for index in done:
                    self.prefixes.release(index)
            self.decoding.leave()
            self._decoding_held.clear()
        return done

    def finish_chunks(self, chunks: Sequence[Chunk]) -> list[tuple[int, int]]:
        """Note what was prefilled; a whole prompt yields a token and decodes.

        Returns
        -------
        Whose prompts ended, and the tokens that each has put out.
        """
        ended = []
        for prompt, tokens, _ in chunks:
            prompt.done += tokens
            index = prompt.index
            if self._shares:
                self.prefixes.extend(index, prompt.done)
            if prompt.done < prompt.tokens:
                continue
            self.prefilling.popleft()
            generated = self._had.pop(index, 0) + 1
            ended.append((index, generated))
            if generated < self.outputs[index]:
                self.decoding.join(index, prompt.tokens, generated)
                self._decoding_held.clear()
            else:
                self.prefixes.release(index)
        return ended
