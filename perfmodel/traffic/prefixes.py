"""Which requests of a trace begin with the same tokens, block by block, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import SpecError

__all__ = ["Prefixes"]

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Prefixes:
    """The blocks that prompts begin with, one request after the other.

    A block is known by all tokens up to its end: two requests have a number in common exactly where their
    prompts are the same from the first token to the end of that block. Traces write ids of whole prefixes
    (Mooncake) or of what is in a block alone (Bailian); `of_ids` makes the same numbers of both.

    Parameters
    ----------
    blocks : numbers of all blocks, request after request; shape (blocks,).
    offsets : where each request's blocks begin, and where the last one's end; shape (requests + 1,).
    block_tokens : tokens of a block; the last one of a prompt may have fewer. [tokens]

    Raises
    ------
    SpecError
        When the offsets do not cut the blocks into requests, or a block has no tokens.
    """

    blocks: IntArray
    offsets: IntArray
    block_tokens: int

    def __post_init__(self) -> None:
        offsets = self.offsets
        if (
            offsets.size < 1
            or (offsets[0], offsets[-1]) != (0, self.blocks.size)
            or np.any(np.diff(offsets) < 0)
            or self.block_tokens < 1
        ):
            raise SpecError.single(
                "trace", "hash_ids", "the offsets do not cut the blocks into requests",
                "Give offsets from 0 to the number of blocks that do not fall, and blocks of 1 token or more",
            )  # fmt: skip

    @classmethod
    def of_ids(cls, ids: IntArray, offsets: IntArray, block_tokens: int) -> Prefixes:
        """Number the blocks of requests by all ids from their first one on; shapes as the attributes."""
        return cls(_prefix_numbers(ids, offsets), offsets, block_tokens)

    def __len__(self) -> int:
        return int(self.offsets.size) - 1

    @property
    def counts(self) -> IntArray:
        """Blocks of each request."""
        return np.diff(self.offsets)

    def first(self, count: int) -> Prefixes:
        """Those of the first `count` requests."""
        offsets = self.offsets[: count + 1]
        return Prefixes(self.blocks[: offsets[-1]], offsets, self.block_tokens)

    def take(self, requests: Sequence[int] | IntArray) -> Prefixes:
        """Those of some requests, in the order that they are named."""
        counts = self.counts[requests]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return Prefixes(self.blocks[_ranges(self.offsets[requests], counts)], offsets, self.block_tokens)

    def within(self, prompt_tokens: IntArray) -> Prefixes:
        """Without blocks that lie beyond the ends of the prompts."""
        counts = np.minimum(self.counts, -(-prompt_tokens // self.block_tokens))
        if counts.sum() == self.blocks.size:
            return self
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return Prefixes(self.blocks[_ranges(self.offsets[:-1], counts)], offsets, self.block_tokens)

    def repeated(self, prompt_tokens: IntArray) -> IntArray:
        """Tokens of each prompt that an earlier request began with as well, short of its last one. [tokens]

        The last token of a prompt is always computed: its logits are the first token of the answer.
        """
        size = self.blocks.size
        first = np.zeros(int(self.blocks.max()) + 1 if size else 0, dtype=np.int64)
        first[self.blocks[::-1]] = np.arange(size)[::-1]
        seen = np.concatenate([[0], np.cumsum(first[self.blocks] != np.arange(size))])
        blocks = seen[self.offsets[1:]] - seen[self.offsets[:-1]]
        repeated: IntArray = np.minimum(blocks * self.block_tokens, prompt_tokens - 1)
        return repeated


_MOST_PAIRS = 2**62
"""Numbers of pairs that an integer can hold."""


def _ranges(starts: IntArray, counts: IntArray) -> IntArray:
    """The indices of ranges that begin at `starts` and are `counts` long, one after the other."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if ends.size else 0
    indices: IntArray = np.repeat(starts - (ends - counts), counts) + np.arange(total)
    return indices


def _prefix_numbers(ids: IntArray, offsets: IntArray) -> IntArray:
    """A number for each block that says all ids from its request's first one to its own.

    Position by position: the number of the block before and the id make a pair, equal pairs get one number.
    Of requests that nobody shares a block with any more, the rest is numbered at once.
    """
    counts = np.diff(offsets)
    kinds = int(ids.max()) + 1 if ids.size else 0
    if kinds >= _MOST_PAIRS // max(counts.size, 1) or (ids.size and ids.min() < 0):
        distinct, ids = np.unique(ids, return_inverse=True)
        kinds = distinct.size
    numbers = np.zeros(ids.size, dtype=np.int64)
    rows = np.flatnonzero(counts)
    before = np.zeros(rows.size, dtype=np.int64)
    position = given = 0
    while rows.size:
        at = offsets[rows] + position
        pairs = before * kinds + ids[at]
        _, before, times = np.unique(pairs, return_inverse=True, return_counts=True)
        numbers[at] = given + before
        given += times.size
        position += 1
        alone, goes_on = times[before] == 1, counts[rows] > position
        lone = rows[alone & goes_on]
        rest = _ranges(offsets[lone] + position, counts[lone] - position)
        numbers[rest] = given + np.arange(rest.size)
        given += rest.size
        stays = ~alone & goes_on
        rows, before = rows[stays], before[stays]
    return numbers
