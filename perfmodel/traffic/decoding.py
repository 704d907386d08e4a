"""The sequences that decode on a replica: how far each is, and which of them end when."""

from __future__ import annotations

import heapq
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from perfmodel.traffic.acceptance_draws import AcceptanceDraws

__all__ = ["AnyLength", "Decoding", "OneLength", "total_tokens"]

IntArray = NDArray[np.int64]

_NOTHING = np.zeros(0, dtype=np.int64)


def total_tokens(by_round: IntArray) -> int:
    """Tokens of some rounds together, mostly one. [tokens]"""
    return int(by_round[0]) if by_round.size == 1 else int(by_round.sum())


class Decoding(Protocol):
    """Sequences that decode together, in order of arrival.

    Attributes
    ----------
    count : how many they are. [sequences]
    sum_context, sum_prompt : entries of all of them, and those that were there when their prompts ended.
        [tokens]
    """

    count: int
    sum_context: int
    sum_prompt: int

    @property
    def index(self) -> IntArray:
        """Which requests they are; shape (sequences,)."""
        ...

    @property
    def prompts(self) -> IntArray:
        """Entries of each that were there when its prompt ended; shape (sequences,). [tokens]"""
        ...

    def contexts(self, gamma: int = 0, rounds: int = 0) -> IntArray:
        """Entries of each after some rounds of what `given` said last; shape (sequences,). [tokens]"""
        ...

    def join(self, index: int, prompt: int, generated: int) -> None:
        """Take in a request whose prompt, after a preemption all it had, has ended with a token."""
        ...

    def stop_last(self) -> tuple[int, int, int]:
        """Let go of what arrived last; returns its index, its entries and what it has put out. [tokens]"""
        ...

    def given(self, gamma: int, most: int) -> tuple[int, IntArray | None]:
        """Rounds up to the first in which one ends, and tokens that each round commits to all together.

        None where every sequence is given one token a round.

        Parameters
        ----------
        gamma : tokens that each drafts. [tokens]
        most : rounds at most.
        """
        ...

    def advance(self, gamma: int, rounds: int) -> list[int]:
        """Go on by rounds of what `given` said last; returns who has ended, each with what it wanted."""
        ...

    def leave(self) -> None:
        """Let go of those that have ended."""
        ...


class OneLength:
    """Sequences that draft as many tokens in every round: when each ends is known when it joins.

    Parameters
    ----------
    output_tokens : of every request of the trace. [tokens]
    draws : what every request accepts.
    gamma : tokens that each drafts in every round. [tokens]
    """

    def __init__(self, output_tokens: IntArray, draws: AcceptanceDraws, gamma: int) -> None:
        self.count = self.sum_context = self.sum_prompt = 0
        self._outputs, self._draws, self.gamma = output_tokens, draws, gamma
        self._round = 0
        self._ends: list[tuple[int, int]] = []
        self._running: dict[int, _Course] = {}
        self._ended: list[int] = []
        self._left = self._left_prompt = 0
        # Tokens of all together from round `_sums_from` on.
        self._sums, self._sums_from = np.zeros(1024, dtype=np.int64), 0
        self._drawn, self._given, self._offsets = range(0), np.zeros(0, dtype=np.uint8), [0]
        # What the running ones reach, one after the other, and where round 0 of each would be.
        self._reached, self._upto = np.zeros(1024, dtype=np.int64), 0
        self._begins: IntArray | None = None

    @property
    def index(self) -> IntArray:
        return np.fromiter(self._running, np.int64, self.count)

    @property
    def prompts(self) -> IntArray:
        return np.fromiter([course.prompt for course in self._running.values()], np.int64, self.count)

    def contexts(self, gamma: int = 0, rounds: int = 0) -> IntArray:  # noqa: ARG002
        now = self._round + rounds
        if not self.gamma:
            running = self._running.values()
            return np.array([course.context(now) for course in running], dtype=np.int64)
        if self._begins is None:
            self._begins = np.array([course.begins for course in self._running.values()], dtype=np.int64)
        contexts: IntArray = self._reached[self._begins + now]
        return contexts

    def join(self, index: int, prompt: int, generated: int) -> None:
        if self.gamma:
            tokens = self._rounds(index, generated)
            lasts = tokens.size
            reached = self._more_reached(lasts + 1)
            reached[0] = prompt + 1
            tokens.cumsum(out=reached[1:])
            reached[1:] += prompt + 1
            course = _Course(self._round, prompt, generated, tokens, reached, self._upto - lasts - 1)
            self._from_now(lasts)[:lasts] += tokens
        else:
            course = _Course(self._round, prompt, generated)
            lasts = int(self._outputs[index]) - generated
        self._running[index] = course
        self._begins = None
        heapq.heappush(self._ends, (self._round + lasts, index))
        self.count += 1
        self.sum_context += prompt + 1
        self.sum_prompt += prompt

    def _rounds(self, index: int, generated: int) -> NDArray[np.uint8]:
        """Tokens of each round of a request to its end."""
        if generated > 1:
            return self._draws.rounds(index, generated, self.gamma)
        if index not in self._drawn:
            self._draws.forget(next(iter(self._running), index))
            self._drawn, self._given, offsets = self._draws.first_rounds(index, self.gamma)
            self._offsets = offsets.tolist()
        place = index - self._drawn.start
        return self._given[self._offsets[place] : self._offsets[place + 1]]

    def _more_reached(self, count: int) -> IntArray:
        """Room for what one more sequence reaches."""
        if self._upto + count > self._reached.size:
            courses = self._running.values()
            self._upto = sum(course.reached.size for course in courses)
            self._reached = np.empty(2 * (self._upto + count) + 1024, dtype=np.int64)
            at = 0
            for course in courses:
                kept = course.reached
                course.lie_at(at)
                course.reached = self._reached[at : at + kept.size]
                course.reached[:] = kept
                at += kept.size
        self._upto += count
        return self._reached[self._upto - count : self._upto]

    def _from_now(self, rounds: int) -> IntArray:
        """The sums of at least so many rounds from the next one on."""
        begin = self._round - self._sums_from
        if begin + rounds > self._sums.size:
            left = self._sums[begin:]
            self._sums = np.zeros(2 * max(left.size, rounds), dtype=np.int64)
            self._sums[: left.size] = left
            self._sums_from, begin = self._round, 0
        return self._sums[begin:]

    def stop_last(self) -> tuple[int, int, int]:
        index, course = self._running.popitem()
        self._begins = None
        self._ends = [(end, each) for end, each in self._ends if each != index]
        heapq.heapify(self._ends)
        context = course.context(self._round)
        self.count -= 1
        self.sum_context -= context
        self.sum_prompt -= course.prompt
        if course.tokens is not None:
            left = course.tokens[self._round - course.joined :]
            self._from_now(left.size)[: left.size] -= left
        return index, context, course.generated + context - course.prompt - 1

    def given(self, gamma: int, most: int) -> tuple[int, IntArray | None]:
        rounds = min(most, self._ends[0][0] - self._round)
        return rounds, self._from_now(rounds)[:rounds] if gamma else None

    def advance(self, gamma: int, rounds: int) -> list[int]:
        tokens = total_tokens(self._from_now(rounds)[:rounds]) if gamma else rounds * self.count
        self._round += rounds
        ends, now = self._ends, self._round
        ended: list[int] = []
        self._left = self._left_prompt = 0
        while ends and ends[0][0] == now:
            index = heapq.heappop(ends)[1]
            ended.append(index)
            course = self._running[index]
            wanted = course.prompt + 1 - course.generated + int(self._outputs[index])
            tokens -= course.context(now) - wanted
            self._left += wanted
            self._left_prompt += course.prompt
        self.sum_context += tokens
        self._ended = ended
        return ended

    def leave(self) -> None:
        for index in self._ended:
            del self._running[index]
        self._begins = None
        self.count -= len(self._ended)
        self.sum_context -= self._left
        self.sum_prompt -= self._left_prompt


class _Course:
    """How one sequence goes on from the round in which it joins; one that never drafts has no tokens listed.

    reached : its entries before each round, and at its end. [tokens] begins : where those of round 0 would be
    among what all reach.
    """

    __slots__ = ("begins", "generated", "joined", "prompt", "reached", "tokens")

    def __init__(
        self,
        joined: int,
        prompt: int,
        generated: int,
        tokens: NDArray[np.uint8] | None = None,
        reached: IntArray = _NOTHING,
        place: int = 0,
    ) -> None:
        self.joined, self.prompt, self.generated = joined, prompt, generated
        self.tokens, self.reached = tokens, reached
        self.lie_at(place)

    def lie_at(self, place: int) -> None:
        """Note where `reached` begins."""
        self.begins = place - self.joined

    def context(self, now: int) -> int:
        """Its entries before a round. [tokens]"""
        rounds = now - self.joined
        return self.prompt + 1 + rounds if self.tokens is None else int(self.reached[rounds])


class AnyLength:
    """Sequences that may draft more or fewer tokens from one round to the next.

    Parameters
    ----------
    output_tokens : of every request of the trace. [tokens]
    draws : what every request accepts.
    most : sequences at most.
    """

    def __init__(self, output_tokens: IntArray, draws: AcceptanceDraws, most: int) -> None:
        self.count = self.sum_context = self.sum_prompt = 0
        self._outputs, self._draws = output_tokens, draws
        self._columns = np.zeros((5, most), dtype=np.int64)
        self._set(0)
        self._last: list[IntArray] = []

    def _set(self, count: int) -> None:
        """Look at the columns of so many sequences: `_left` are tokens that each still has to put out."""
        self.count = count
        self.index, self._contexts, self.prompts, self._generated, self._left = self._columns[:, :count]

    def join(self, index: int, prompt: int, generated: int) -> None:
        left = int(self._outputs[index]) - generated
        self._columns[:, self.count] = (index, prompt + 1, prompt, generated, left)
        self._set(self.count + 1)
        self.sum_context += prompt + 1
        self.sum_prompt += prompt

    def stop_last(self) -> tuple[int, int, int]:
        index, context, prompt, generated, _ = self._columns[:, self.count - 1].tolist()
        self._set(self.count - 1)
        self.sum_context -= context
        self.sum_prompt -= prompt
        return index, context, generated

    def given(self, gamma: int, most: int) -> tuple[int, IntArray | None]:
        if gamma == 0:
            return min(most, int(self._left.min())), None
        self._draws.forget(int(self.index[0]))
        sums = []
        generated = self._generated
        self._last = []
        for _ in range(most):
            tokens = self._draws.tokens(self.index, generated, gamma)
            self._last.append(tokens)
            sums.append(int(tokens.sum()))
            generated = generated + tokens
            if (generated - self._generated >= self._left).any():
                break
        return len(sums), np.array(sums)

    def contexts(self, gamma: int = 0, rounds: int = 0) -> IntArray:
        contexts: IntArray = self._contexts + self._grown(gamma, rounds)
        return contexts

    def _grown(self, gamma: int, rounds: int) -> IntArray | int:
        """Tokens that each is given in some rounds of what `given` said last; shape (sequences,)."""
        return sum(self._last[:rounds], start=0) if gamma else rounds

    def advance(self, gamma: int, rounds: int) -> list[int]:
        if gamma:
            tokens = np.minimum(self._grown(gamma, rounds), self._left)
            self.sum_context += int(tokens.sum())
        else:
            tokens = np.int64(rounds)
            self.sum_context += rounds * self.count
        self._contexts += tokens
        self._generated += tokens
        self._left -= tokens
        ended: list[int] = self.index[self._left == 0].tolist() if self.count else []
        return ended

    def leave(self) -> None:
        going = self._left > 0
        self.sum_context -= int(self._contexts[~going].sum())
        self.sum_prompt -= int(self.prompts[~going].sum())
        stay = self._columns[:, : self.count][:, going]
        self._columns[:, : stay.shape[1]] = stay
        self._set(stay.shape[1])
