"""When clients send their requests, and when these have passed the front end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from perfmodel.errors import SpecError
from perfmodel.files.numbers import FloatArray

__all__ = ["Clients"]


class Clients:
    """Requests on their way to a server, in order.

    In an open loop each is sent when it arrives. In a closed loop at most `concurrency` are on their way or
    being served: those that have arrived beyond that wait with their clients until one is answered. The front
    end takes them one at a time.

    Parameters
    ----------
    arrival : when each request arrives, in order. [s]
    concurrency : requests in flight at most; None for an open loop.
    front_end, delay : seconds that a request takes of the front end, and that it is on its way besides. [s]

    Attributes
    ----------
    sent : when each was sent; its arrival until then. [s]
    """

    def __init__(
        self,
        arrival: FloatArray,
        concurrency: int | None = None,
        front_end: float = 0.0,
        delay: float = 0.0,
    ) -> None:
        if concurrency is not None and concurrency < 1:
            remedy = "Give 1 or more, or leave it out: an open loop"
            raise SpecError.single("simulation", "concurrency", f"found {concurrency}", remedy)
        self.sent = arrival if concurrency is None else arrival.copy()
        self._front_end, self._delay = front_end, delay
        self._free_slots = None if concurrency is None else deque([0.0] * min(concurrency, arrival.size))
        self._count = 0
        self._front_end_free = 0.0
        self._ready: float | None = None

    @property
    def next_ready(self) -> float:
        """When the next request has passed the front end; infinite while none is on its way. [s]"""
        if self._ready is None:
            self._ready = self._send()
        return math.inf if self._ready is None else self._ready

    def ready(self, now: float) -> Iterator[int]:
        """Yield the requests that have passed the front end by then, in order."""
        while self.next_ready <= now:
            yield self._count
            self._count += 1
            self._ready = None

    def answered(self, now: float, requests: int) -> None:
        """Note that so many requests were answered whole."""
        if self._free_slots is not None:
            self._free_slots.extend([now] * requests)

    def _send(self) -> float | None:
        """Send the next request as soon as it may be; returns when it has passed the front end. [s]"""
        if self._count >= self.sent.size:
            return None
        sent = float(self.sent[self._count])
        if self._free_slots is not None:
            if not self._free_slots:
                return None
            sent = max(sent, self._free_slots.popleft())
            self.sent[self._count] = sent
        if not self._front_end:
            return sent + self._delay
        self._front_end_free = max(self._front_end_free, sent) + self._front_end
        return self._front_end_free + self._delay
