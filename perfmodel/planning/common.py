"""What all pieces of work need: it travels once to each process that does them, and is read there once."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from functools import cached_property
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any
from weakref import WeakValueDictionary

__all__ = ["Arrived", "Common", "Counter", "at_counter", "given"]

_MOST_KEPT = 2
"""Values that a process keeps: of the work that it does, and of other work that it may go back to. [1]"""


class Common:
    """What all pieces of work have in common; a copy of it in another process is an `Arrived`.

    Parameters
    ----------
    value : anything that can be pickled, which happens once, and only where it leaves this process.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    @cached_property
    def data(self) -> bytes:
        """The value as it travels."""
        return pickle.dumps(self.value, protocol=pickle.HIGHEST_PROTOCOL)

    @cached_property
    def key(self) -> str:
        """Characters that stand for the value as it travels."""
        return hashlib.blake2b(self.data, digest_size=16).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return Arrived, (self.key, self.data)


class Arrived:
    """What all pieces of work have in common, where they are done.

    Parameters
    ----------
    key : that of the `Common`.
    data : the value as it travelled; where absent, this worker asks at the counter of its pool.
    """

    def __init__(self, key: str, data: bytes | None = None) -> None:
        self.key, self.data = key, data

    @property
    def value(self) -> Any:
        """The value, unpickled when it is first asked for in this process."""
        with _reading:
            if self.key not in _kept:
                data = _asked(self.key) if self.data is None else self.data
                value = pickle.loads(data)
                while len(_kept) >= _MOST_KEPT:
                    del _kept[next(iter(_kept))]
                _kept[self.key] = value
            return _kept[self.key]


def given(fn: Callable[..., Any], common: Common | Arrived, *piece: Any) -> Any:
    """Do a piece of work with what all pieces have in common."""
    return fn(common.value, *piece)


class Counter:
    """Where the workers of one pool ask for what they have in common, in the process that started them.

    Parameters
    ----------
    context : how the pool starts its processes, which have `counter.place` by inheritance.
    shelf : what may be asked for, by key.
    """

    def __init__(self, context: BaseContext, shelf: MutableMapping[str, Common]) -> None:
        ours, theirs = context.Pipe()
        self.place = (theirs, context.Lock())
        threading.Thread(target=_hand_out, args=(ours, shelf), daemon=True).start()

    def close(self) -> None:
        """Take no further workers; it ends with the last one that it has."""
        self.place[0].close()


def at_counter(theirs: Connection, turn: Any) -> None:
    """Tell a worker where to ask: the two parts of `Counter.place`."""
    global _counter
    _counter = (theirs, turn)


def shelf() -> MutableMapping[str, Common]:
    """An empty shelf, which keeps nothing alive that nobody works on any more."""
    return WeakValueDictionary()


_kept: dict[str, Any] = {}
_reading = threading.Lock()
_counter: tuple[Connection, Any] | None = None


def _hand_out(ours: Connection, shelf: MutableMapping[str, Common]) -> None:
    with suppress(EOFError, OSError), ours:
        while True:
            common = shelf.get(ours.recv())
            ours.send_bytes(common.data if common is not None else b"")


def _asked(key: str) -> bytes:
    if _counter is None:
        raise LookupError("this process has nobody to ask for what its work has in common")
    theirs, turn = _counter
    with turn:
        theirs.send(key)
        return theirs.recv_bytes()
