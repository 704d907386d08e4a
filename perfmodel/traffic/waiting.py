"""The requests that wait for a replica, in order of arrival; each is looked up when its turn comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.traffic.replica import Replica

__all__ = ["Prompt", "Waiting"]

_AT_ONCE = 4096
"""Requests whose lengths and bytes are looked up together."""


@dataclass(slots=True)
class Prompt:
    """What has to be prefilled before a request can decode; after a preemption all that it had so far.

    `bytes` are those of its cache when it is whole, with its first round. [B]
    """

    index: int
    tokens: int
    bytes: float
    done: int = 0


class Waiting:
    """A queue of prompts. Those that have just arrived are a range of indices, however many they are.

    Parameters
    ----------
    replica : for which they wait.
    prompt_tokens : of every request of the trace. [tokens]
    """

    def __init__(self, replica: Replica, prompt_tokens: NDArray[np.int64]) -> None:
        self._replica, self._prompt_tokens = replica, prompt_tokens
        self._front: deque[Prompt] = deque()
        self._next = self._upto = 0
        self._prefilled = False
        self._lengths: list[int] = []
        self._promises: list[float] = []
        self._known_from = 0

    def __len__(self) -> int:
        return len(self._front) + self._upto - self._next

    def __iter__(self) -> Iterator[Prompt]:
        yield from self._front
        yield from map(self._prompt, range(self._next, self._upto))

    def arrive(self, index: int, *, prefilled: bool = False) -> None:
        """Take in the next request of the trace, and whether all bring the caches of their prompts."""
        self._upto, self._prefilled = index + 1, prefilled

    @property
    def first(self) -> Prompt:
        """Who has waited longest. Raises IndexError where nobody waits."""
        if not self._front and self._next < self._upto:
            self._front.append(self._prompt(self._next))
            self._next += 1
        return self._front[0]

    def popleft(self) -> Prompt:
        """Let go of the first."""
        prompt = self.first
        self._front.popleft()
        return prompt

    def appendleft(self, prompt: Prompt) -> None:
        """Put one that arrived before all others back."""
        self._front.appendleft(prompt)

    def _prompt(self, index: int) -> Prompt:
        place = index - self._known_from
        if not 0 <= place < len(self._lengths):
            prompts = self._prompt_tokens[index : index + _AT_ONCE]
            self._lengths, self._known_from, place = prompts.tolist(), index, 0
            self._promises = self._replica.kv_bytes(prompts + self._replica.look_ahead).tolist()
        tokens = self._lengths[place]
        return Prompt(index, tokens, self._promises[place], tokens if self._prefilled else 0)
