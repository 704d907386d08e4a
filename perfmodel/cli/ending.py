"""How a process ends that is told to: as after a failure, with everything cleaned up."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["Terminated", "terminating"]


class Terminated(BaseException):
    """The process was asked to end; `code` is what a shell calls that end, 128 more than the signal."""

    def __init__(self, number: int) -> None:
        self.code = 128 + number
        super().__init__(number)


@contextlib.contextmanager
def terminating() -> Iterator[None]:
    """Turn the signals that ask for an end into `Terminated` while the block runs.

    Signals that the process was started to ignore, as under nohup, stay ignored.
    """
    names = ("SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number in numbers if former[number] is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, former[number])


def _terminate(number: int, frame: FrameType | None) -> None:
    del frame
    raise Terminated(number)
