"""The cache of prompt blocks that engines keep: held once, shared, kept while there is room."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from perfmodel.traffic.prefixes import Prefixes
from perfmodel.traffic.replica import Replica
from perfmodel.traffic.trace import Trace

__all__ = ["PREFILLED_AGAIN", "PrefixCache", "PrefixSharing", "cannot_share", "sharing_remarks"]

IntArray = NDArray[np.int64]


class PrefixCache:
    """Blocks of prompts that are held, by whom, and which go first where room is short.

    A request finds the longest run of its leading blocks that is held. What running requests use stays; what
    nobody uses any more goes when others need the room, least recently used first and of those the end of the
    prefix before its beginning, so that what is left can still be found. That is the order of vLLM's block
    pool (https://docs.vllm.ai/en/latest/design/prefix_caching) and of SGLang's radix tree
    (https://arxiv.org/abs/2312.07104, section 3).

    Blocks that the same requests share are one *segment*, of which a leading part may be held: a request has
    a handful of them however long its prompt is. All counts are kept in blocks and told in tokens.

    Parameters
    ----------
    prefixes : the blocks that each request begins with.

    Attributes
    ----------
    block_tokens : tokens of a block. [tokens]
    """

    def __init__(self, prefixes: Prefixes) -> None:
        self.block_tokens = prefixes.block_tokens
        self._segments, self._lengths, self._offsets = _segments(prefixes)
        self._held: dict[int, int] = {}
        self._users: dict[int, int] = {}
        self._unused: OrderedDict[int, None] = OrderedDict()
        self._uses: dict[int, int] = {}
        self._used = self._spare = self._sum_uses = 0

    @property
    def used(self) -> int:
        """Tokens that running requests use, each counted once. [tokens]"""
        return self._used * self.block_tokens

    @property
    def spare(self) -> int:
        """Tokens that are kept and nobody uses. [tokens]"""
        return self._spare * self.block_tokens

    @property
    def shared(self) -> int:
        """Tokens that running requests use beyond the first that uses them. [tokens]"""
        return (self._sum_uses - self._used) * self.block_tokens

    def match(self, request: int, *, used_only: bool = False) -> int:
        """Tokens of the longest run of a request's leading blocks that is held. [tokens]

        Parameters
        ----------
        request : its index in the trace.
        used_only : count only what running requests use.
        """
        run = 0
        for segment, length in self._path(request):
            held = self._held.get(segment, 0)
            if used_only and segment not in self._users:
                break
            run += held
            if held < length:
                break
        return run * self.block_tokens

    def hold(self, request: int, tokens: int) -> None:
        """Let a running request use its leading blocks up to so many tokens: those not held yet are from now.

        Parameters
        ----------
        request : its index in the trace.
        tokens : tokens of its prompt whose cache is there; a block that is not whole counts where it is the
            request's last. [tokens]
        """
        before = self._uses.get(request, 0)
        upto = tokens // self.block_tokens
        begins = 0
        for segment, length in self._path(request):
            uses = min(upto - begins, length)
            if uses <= 0:
                break
            if begins + uses > before:
                self._use(segment, uses, joins=before <= begins)
            begins += length
        upto = max(before, min(upto, begins))
        self._sum_uses += upto - before
        if upto:
            self._uses[request] = upto

    def _use(self, segment: int, blocks: int, *, joins: bool) -> None:
        """Let one more request, or one that did already, use a segment up to so many blocks."""
        held = self._held.get(segment, 0)
        if joins:
            users = self._users.get(segment, 0)
            self._users[segment] = users + 1
            if not users and held:
                del self._unused[segment]
                self._spare -= held
                self._used += held
        if blocks > held:
            self._held[segment] = blocks
            self._used += blocks - held

    def release(self, request: int) -> None:
        """Let a request use its blocks no longer; they are kept until `shrink`."""
        blocks = self._uses.pop(request, 0)
        self._sum_uses -= blocks
        used = []
        begins = 0
        for segment, length in self._path(request):
            if begins >= blocks:
                break
            used.append(segment)
            begins += length
        for segment in reversed(used):
            self._users[segment] -= 1
            if not self._users[segment]:
                del self._users[segment]
                self._unused[segment] = None
                self._used -= self._held[segment]
                self._spare += self._held[segment]

    def shrink(self, room: float) -> None:
        """Give up blocks that nobody uses until they need no more than some room. [tokens]"""
        most = max(int(room // self.block_tokens), 0)
        while self._spare > most:
            segment = next(iter(self._unused))
            gone = min(self._spare - most, self._held[segment])
            self._spare -= gone
            self._held[segment] -= gone
            if not self._held[segment]:
                del self._held[segment], self._unused[segment]

    def _path(self, request: int) -> list[tuple[int, int]]:
        """The segments of a request, first to last, and the blocks of each."""
        part = slice(self._offsets[request], self._offsets[request + 1])
        return list(zip(self._segments[part].tolist(), self._lengths[part].tolist(), strict=True))


def _segments(prefixes: Prefixes) -> tuple[IntArray, IntArray, IntArray]:
    """Runs of blocks that the same requests share: segments and their blocks, and where each request's begin.

    A block that as many requests have as the one before it is in the same segment: all that have it have that
    one too. A segment is named by its first block.
    """
    blocks, size = prefixes.blocks, prefixes.blocks.size
    times = np.bincount(blocks)[blocks] if size else np.zeros(0, dtype=np.int64)
    begins = np.ones(size, dtype=bool)
    begins[1:] = times[1:] != times[:-1]
    begins[prefixes.offsets[:-1][prefixes.counts > 0]] = True
    at = np.flatnonzero(begins)
    return blocks[at], np.diff(np.append(at, size)), np.searchsorted(at, prefixes.offsets)


class PrefixSharing:
    """A prefix cache in the memory of a replica: what it saves running requests, and what it may keep. [B]

    Layers that keep every token share their entries; what a sliding window keeps is each sequence's own, and
    so is a draft cache of fixed size. What nobody uses any more is kept with all that layers store of it.
    What requests put out is not kept: traces do not say who begins with it.

    Parameters
    ----------
    replica : whose memory it is.
    trace : whose prompts they are; without `Trace.prefixes` nothing is shared.
    """

    def __init__(self, replica: Replica, trace: Trace) -> None:
        self._replica, self._prompts = replica, trace.prompt_tokens
        on = trace.prefixes is not None and not cannot_share(replica)
        self._cache = PrefixCache(trace.prefixes) if on and trace.prefixes is not None else None
        self.cached = np.full(len(trace), -1, dtype=np.int64) if on else None

    @property
    def keeps(self) -> bool:
        """Whether it keeps anything that nobody uses."""
        return self._cache is not None and self._cache.spare > 0

    @property
    def saved(self) -> float:
        """Bytes that running requests would hold more if each held its own prefix. [B]"""
        if self._cache is None:
            return 0.0
        return self._cache.shared * self._replica.shared_bytes_per_token

    def saves(self, request: int) -> float:
        """Bytes of a waiting request that running ones hold already. [B]"""
        if self._cache is None:
            return 0.0
        return self._cache.match(request, used_only=True) * self._replica.shared_bytes_per_token

    def match(self, request: int, tokens: int) -> int:
        """Tokens that a request need not prefill: what is held of its prompt, less the last one. [tokens]

        Parameters
        ----------
        request : its index in the trace.
        tokens : what it would prefill without; after a preemption more than its prompt. [tokens]
        """
        return min(self._cache.match(request), tokens - 1) if self._cache is not None else 0

    def enter(self, request: int) -> None:
        """Let a request use what is held of its prompt, and note how much that was when it first came in."""
        if self._cache is None or self.cached is None:
            return
        held = self._cache.match(request)
        self._cache.hold(request, held)
        if self.cached[request] < 0:
            self.cached[request] = min(held, int(self._prompts[request]) - 1)

    def extend(self, request: int, tokens: int) -> None:
        """Note that so many tokens of a request have been prefilled, and may be found by others. [tokens]"""
        if self._cache is None:
            return
        whole = tokens >= int(self._prompts[request])
        self._cache.hold(request, tokens + self._cache.block_tokens - 1 if whole else tokens)

    def release(self, request: int) -> None:
        """Let a request use its prompt no longer, as it ended or lost its cache."""
        if self._cache is not None:
            self._cache.release(request)

    def keep(self, free: float) -> None:
        """Give up what nobody uses until it fits into the bytes that running requests leave. [B]"""
        if self._cache is not None:
            self._cache.shrink(free / self._replica.kept_bytes_per_token)


def cannot_share(replica: Replica) -> str:
    """Why requests on a replica cannot share their prefixes; empty where they can.

    A recurrent layer keeps one state for all tokens so far, which another request cannot begin from part of.
    """
    recurrent = next((model.name for model in replica.models if model.state_bytes), None)
    return f"{recurrent} has recurrent layers, whose states are not kept by block" if recurrent else ""


def sharing_remarks(replica: Replica, trace: Trace) -> list[str]:
    """What people should know of how the prefixes of a trace are shared on a replica; often nothing."""
    if trace.prefixes is None:
        return []
    if reason := cannot_share(replica):
        return [f"{PREFILLED_AGAIN}: {reason}"]
    if replica.groups > 1:
        return [
            f"prefixes are taken to be in one cache; {replica.groups} data-parallel groups have one each, "
            "and find as much where requests are routed by their prefix"
        ]
    return []


PREFILLED_AGAIN = "prefixes are prefilled again for every request, so times to first token are upper bounds"
"""What is said where prompts repeat and no prefix cache is priced."""
