"""Locks on long work: a file that says which process is at it, and that ends with that process."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
from pathlib import Path
from typing import Any, NamedTuple

from perfmodel.errors import SpecError, printable

__all__ = ["Owner", "lock", "owner_of", "token_of", "try_lock", "unlock"]

_ATTEMPTS = 5
_BEYOND = 1 << 30
"""Where Windows locks a byte, so that what stands before it can be read. [bytes]"""
_LONGEST = 4096
_OPEN = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class Owner(NamedTuple):
    """The process that wrote a lock: its id, its machine, and when it started, as that machine counts."""

    pid: int = 0
    host: str = ""
    started: str = ""

    def __str__(self) -> str:
        process = f"process {self.pid}" if self.pid else "another process"
        return process + (f" on {printable(self.host)}" if self.host and self.host != platform.node() else "")

    @property
    def is_elsewhere(self) -> bool:
        """Whether it runs, or ran, on another machine."""
        return bool(self.host) and self.host != platform.node()

    @property
    def runs(self) -> bool:
        """Whether that very process still runs on this machine: another that got its id does not count."""
        if self.pid <= 0 or self.is_elsewhere:
            return False
        now = _started(self.pid)
        if now or os.path.isdir(f"/proc/{os.getpid()}"):
            return bool(now) and now == (self.started or now)
        if os.name != "posix":  # there, a signal of 0 would end the process
            return True
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except OSError:
            return True
        return True


def lock(file: Path, what: str) -> int:
    """Take the lock that a file stands for, and write into it who has it; `unlock` gives it back.

    The system frees the lock when its process ends, however it ends: what a killed one left is taken over.
    Where the disk knows no locks, who wrote the file counts, as long as that process runs.

    Parameters
    ----------
    file : the lock; it is made.
    what : what is written under it, for the refusal.

    Returns
    -------
    The open file's descriptor.

    Raises
    ------
    SpecError
        Where another process has it, or where a process of another machine left it.
    OSError
        Where the file cannot be made.
    """
    for _ in range(_ATTEMPTS):
        descriptor = os.open(file, _OPEN | os.O_CREAT, 0o644)
        try:
            taken, owner = try_lock(descriptor), _read(descriptor)
            if taken is False or (owner and (owner.is_elsewhere or (taken is None and owner.runs))):
                raise _refusal(file, what, owner or Owner())
        except BaseException:
            os.close(descriptor)
            raise
        if _is_there(descriptor, file):
            try:
                _sign(descriptor)
            except BaseException:
                unlock(descriptor, file)
                raise
            return descriptor
        os.close(descriptor)  # its last owner deleted it in between
    raise _refusal(file, what, Owner())


def unlock(descriptor: int, file: Path) -> None:
    """Give a lock back: its file is deleted."""
    if os.name != "posix":  # there, an open file cannot be deleted
        os.close(descriptor)
        with contextlib.suppress(OSError):
            file.unlink()
        return
    for _ in range(2):  # what failed once may do the second time
        with contextlib.suppress(OSError):
            if _is_there(descriptor, file):
                file.unlink()
    os.close(descriptor)


def owner_of(file: Path) -> Owner | None:
    """Return who has a lock; None where nobody has it, such as when its process was killed.

    Of a process on another machine nobody here knows whether it still runs: it counts as having it.
    """
    try:
        descriptor = os.open(file, _OPEN)
    except OSError:
        return None
    try:
        owner, taken = _read(descriptor), try_lock(descriptor)
    finally:
        os.close(descriptor)
    if taken is False:
        return owner or Owner()
    return owner if owner and (owner.is_elsewhere or (taken is None and owner.runs)) else None


def token_of(file: Path) -> str:
    """Return what nobody knows of a lock who does not see its file, new each time it is taken; else empty."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        return str(json.loads(file.read_bytes()[:_LONGEST])["token"])
    return ""


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file or folder until it is closed.

    Returns
    -------
    True where it is locked now, False where another process has it locked, None where there are no locks.
    """
    try:
        if os.name == "posix":
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            os.lseek(descriptor, _BEYOND, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    except (BlockingIOError, PermissionError):
        return False
    except (OSError, ImportError):
        return None
    return True


def _sign(descriptor: int) -> None:
    """Write into a lock who has it."""
    owner = Owner(os.getpid(), platform.node(), _started(os.getpid()))
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    signed = {**owner._asdict(), "token": secrets.token_hex(16)}
    os.write(descriptor, (json.dumps(signed) + "\n").encode())


def _refusal(file: Path, what: str, owner: Owner) -> SpecError:
    if owner.is_elsewhere:
        problem, remedy = f"{owner} is writing it, or was killed there", f"If it has ended, delete {file}"
    else:
        problem, remedy = f"{owner} is writing it", "Wait until that has ended, or name another file"
    return SpecError.single(what, "", problem, remedy)


def _read(descriptor: int) -> Owner | None:
    """Who wrote an open lock; None where it says nothing that can be read."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        content: Any = json.loads(os.read(descriptor, _LONGEST))
        pid, host, started = content["pid"], content["host"], content["started"]
        if not (isinstance(pid, int) and isinstance(host, str) and isinstance(started, str)):
            return None
        return Owner(pid, host[:255], started[:40])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def _is_there(descriptor: int, file: Path) -> bool:
    """Whether an open file still is the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file, follow_symlinks=False))
    except OSError:
        return False


def _started(pid: int) -> str:
    """When a process started, as /proc counts; empty where nothing tells it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            return stream.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return ""
