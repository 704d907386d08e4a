"""Files that appear whole or not at all: the one way out."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import SpecError
from perfmodel.files.lock import try_lock

__all__ = ["TEMPORARY", "Scratch", "Target", "foreign_in", "is_abandoned", "place_for", "remove_abandoned",
           "replacing", "target_of", "write_pieces", "write_whole"]  # fmt: skip

TEMPORARY = re.compile(r"\..{0,50}\.draftplan-[a-z0-9_]{8}", re.DOTALL)
"""Names of the folders in which files lie until they are whole."""
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,6})|/dev/(?:stdout|stderr)")
_MOST_LINKS = 40
_ATTEMPTS = 5
_A_DAY = 86400.0
"""Age at which a folder is abandoned where nothing else tells. [s]"""
_NAME_ANOTHER = "Name another file"


class Target(NamedTuple):
    """Where the name of an output leads.

    Attributes
    ----------
    file : the name with its links followed.
    status : of what is there; None where nothing is there yet.
    descriptor : the file that this process was given open under that name; None where it has to be opened.
    """

    file: Path
    status: os.stat_result | None
    descriptor: int | None = None

    @property
    def is_stream(self) -> bool:
        """Whether bytes are handed on there, to a device, a pipe or an open file, and nothing is replaced."""
        if self.descriptor is not None:
            return True
        return self.status is not None and not stat.S_ISREG(self.status.st_mode)


class Scratch:
    """Bytes that are too many for memory, in a file without a name that goes when its process ends.

    It lies where the system keeps temporary files, which ``TMPDIR`` names.

    Raises
    ------
    SpecError
        Where nothing can be written there, or its disk is full.
    """

    def __init__(self) -> None:
        self.size = 0
        try:
            self._stream = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._full(error) from error
        weakref.finalize(self, self._stream.close)

    def append(self, content: bytes | bytearray) -> None:
        """Write more at the end. Raises SpecError where the disk is full."""
        left = memoryview(content)
        try:
            self._stream.seek(self.size)
            while left:
                written = self._stream.write(left)
                left = left[written:]
                self.size += written
        except OSError as error:
            raise self._full(error) from error

    def read(self, begin: int, size: int) -> bytes:
        """So many bytes from one on, fewer at the end."""
        self._stream.seek(begin)
        return self._stream.read(size)

    def mapped(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """All of it as elements of an array that is read where it lies."""
        return np.memmap(self._stream, dtype, mode="r")

    @staticmethod
    def _full(error: OSError) -> SpecError:
        try:
            folder = tempfile.gettempdir()
        except OSError:
            folder = "the folder of temporary files"
        reason = error.strerror or str(error)
        return SpecError.single(folder, "", reason, "Make room, or name a folder on another disk: TMPDIR=...")


def target_of(path: str | os.PathLike[str]) -> Target:
    """Return where an output's name leads.

    Links are followed, also to a file that is not there yet. A read-only file is refused whoever asks.

    Raises
    ------
    SpecError
        Where no file can be written: a folder, a disk, a socket, a name that no file can have, links that
        lead to themselves, a folder that is not there, a file or a folder that may not be written to.
    """
    name = os.fspath(path)
    if not name or os.path.basename(name) in ("", ".", ".."):
        problem = "the file cannot be written: this names a folder, or nothing"
        raise SpecError.single(name, "", problem, "Name a file")
    try:
        return _allowed(name, _followed(name))
    except SpecError:
        raise
    except (OSError, ValueError) as error:  # the latter: a name that no file can have
        raise _unwritable(name, error) from error


def place_for(path: str | os.PathLike[str]) -> Path:
    """Return the regular file, there or to come, that an output's name leads to, as `target_of` does.

    Raises
    ------
    SpecError
        As `target_of`; and for devices and pipes, in which nothing can be replaced.
    """
    target = target_of(path)
    if target.is_stream:
        problem = "this is a device or a pipe, and what is written there is replaced when it is whole"
        raise SpecError.single(os.fspath(path), "", problem, "Name a regular file")
    return target.file


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], scratch: Path | None = None) -> Iterator[Path]:
    """Yield an unfinished file, alone in its folder, that takes the place of `path` when the block ends well.

    Readers see the former or the new content, never a part of it. Links are followed; the permissions and,
    where this process may give files away, the owner stay. What killed processes left of the same file goes.

    Parameters
    ----------
    scratch : folder on the same disk for the unfinished file; that of `path` when absent.

    Raises
    ------
    SpecError
        Where the file cannot be written; the former content then still stands.
    """
    file = place_for(path)
    if scratch is None:
        remove_abandoned(file.parent, _prefix(file))
    try:
        with _temporary(scratch or file.parent, _prefix(file)) as folder:
            unfinished = folder / file.name
            yield unfinished
            _finish(unfinished, file)
            os.replace(unfinished, file)
    except OSError as error:
        raise _unwritable(os.fspath(path), error) from error


def write_whole(path: str | os.PathLike[str], content: str | bytes | memoryview) -> None:
    """Write a file so that readers see the old or the new content, never a part of it. Text is UTF-8.

    To a device, a pipe and what the shell opened for this process (``/dev/stdout``, ``>(...)``) the content
    is handed on.

    Raises
    ------
    SpecError
        Where the file cannot be written, the old content then still stands; or nobody reads a named pipe.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    target = target_of(path)
    if target.is_stream:
        try:
            _hand_on(target, data)
        except OSError as error:
            raise _unwritable(os.fspath(path), error) from error
        return
    with replacing(path) as unfinished, open(unfinished, "wb") as stream:
        stream.write(data)


def write_pieces(path: str | os.PathLike[str], pieces: Iterable[bytes]) -> None:
    """Write a file of many pieces as `write_whole` does, none of which is kept.

    Raises
    ------
    SpecError
        As there.
    """
    if target_of(path).is_stream:
        write_whole(path, b"".join(pieces))
        return
    with replacing(path) as unfinished, open(unfinished, "wb") as stream:
        stream.writelines(pieces)


def remove_abandoned(folder: Path, prefix: str = "") -> list[Path]:
    """Delete what killed processes left in a folder before it was whole; returns what is gone."""
    gone = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            own = entry.name.startswith(prefix) and is_abandoned(Path(entry.path))
            if own and not foreign_in(Path(entry.path)):
                shutil.rmtree(entry.path, ignore_errors=True)
                gone.append(Path(entry.path))
    return gone


def foreign_in(folder: Path) -> str:
    """Return the first thing in a folder of an unfinished file that is none; empty without one.

    Such a folder holds the file under its own name, and columns of an npz until they are packed.
    """
    begins = folder.name[1:].rpartition(".draftplan-")[0]
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            named = entry.name[:50] == begins or entry.name.endswith(".npy")
            if not named or not entry.is_file(follow_symlinks=False):
                return entry.name
    return ""


def is_abandoned(folder: Path) -> bool:
    """Whether this is a folder of an unfinished file whose process has ended."""
    if not TEMPORARY.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
        return False
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        taken = try_lock(descriptor)
    except OSError:
        taken = None
    finally:
        if descriptor is not None:
            os.close(descriptor)
    if taken is not None:
        return taken
    with contextlib.suppress(OSError):
        return time.time() - folder.stat().st_mtime > _A_DAY
    return False


def _followed(name: str) -> Target:
    """Where links lead, one after the other, and what is there."""
    file = name
    for _ in range(_MOST_LINKS):
        match = _DESCRIPTOR.fullmatch(os.path.abspath(file))
        if match:
            descriptor = int(match[1]) if match[1] else 2 if file.endswith("stderr") else 1
            return Target(Path(file), os.fstat(descriptor), descriptor)
        if not os.path.islink(file):
            break
        file = os.path.join(os.path.dirname(file), os.readlink(file))
    else:
        raise OSError(errno.ELOOP, "its links lead to themselves")
    try:
        status = os.stat(file)
    except FileNotFoundError:
        status = None
    return Target(Path(os.path.realpath(file)), status)


def _allowed(name: str, target: Target) -> Target:
    """Pass on what may be written to; refuse anything else with what to do about it."""
    file, status, descriptor = target
    problem, remedy = "", _NAME_ANOTHER
    if descriptor is not None or (status is not None and _hands_on(status.st_mode)):
        return target
    if status is None:
        folder = file.parent
        if not folder.is_dir():
            problem, remedy = f"the folder {folder} is not there", "Make it, or name a file in another"
        elif file.name in ("", ".", ".."):
            problem = "its link leads to a folder"
        elif not os.access(folder, os.W_OK | os.X_OK):
            problem = f"you may not write to the folder {folder}"
    elif stat.S_ISDIR(status.st_mode):
        problem, remedy = "this is a folder", "Name a file in it"
    elif not stat.S_ISREG(status.st_mode):
        problem = "this is a disk or a socket"
    elif not status.st_mode & stat.S_IWUSR or not os.access(file, os.W_OK):
        problem, remedy = "it is read-only", f"{_NAME_ANOTHER}, or let it be written: chmod u+w"
    elif not os.access(file.parent, os.W_OK | os.X_OK):
        problem = f"you may not write to its folder {file.parent}"
    if problem:
        raise SpecError.single(name, "", f"the file cannot be written: {problem}", remedy)
    return target


def _hands_on(mode: int) -> bool:
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _hand_on(target: Target, data: bytes | memoryview) -> None:
    """Write to a device, a pipe or an open file. Raises OSError."""
    if target.descriptor is not None:
        descriptor = os.dup(target.descriptor)
    else:  # a named pipe that nobody reads must not wait
        unwaiting = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(target.file, os.O_WRONLY | unwaiting)
        if os.name == "posix":
            os.set_blocking(descriptor, True)
    with open(descriptor, "wb") as stream:
        stream.write(data)


def _finish(unfinished: Path, file: Path) -> None:
    """Have the disk hold a file, with the owner and the permissions of the one whose place it takes."""
    descriptor = os.open(unfinished, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
        with contextlib.suppress(FileNotFoundError):
            former, now = os.stat(file), os.fstat(descriptor)
            if hasattr(os, "fchown") and (former.st_uid, former.st_gid) != (now.st_uid, now.st_gid):
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, former.st_uid, former.st_gid)
            os.chmod(unfinished, stat.S_IMODE(former.st_mode) & 0o777)
    finally:
        os.close(descriptor)


def _prefix(file: Path) -> str:
    return f".{file.name[:50]}.draftplan-"


@contextlib.contextmanager
def _temporary(beside: Path, prefix: str) -> Iterator[Path]:
    """Yield a folder that is locked while it is used, so that others can tell it from an abandoned one."""
    folder, descriptor = _locked_folder(beside, prefix)
    try:
        yield folder
    finally:
        try:
            for _ in range(2):  # what failed once may do the second time
                shutil.rmtree(folder, ignore_errors=True)
        finally:  # also when a signal ends this process meanwhile: others see that it is abandoned
            if descriptor is not None:
                os.close(descriptor)


def _locked_folder(beside: Path, prefix: str) -> tuple[Path, int | None]:
    for _ in range(_ATTEMPTS):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=beside))
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # taken for an abandoned one in between
            continue
        except OSError:
            return folder, None
        if try_lock(descriptor) is not False and folder.exists():
            return folder, descriptor
        os.close(descriptor)
    raise OSError(errno.EBUSY, "its folder is busy")


def _unwritable(name: str, error: Exception) -> SpecError:
    """The refusal for what the system said."""
    number = error.errno if isinstance(error, OSError) else None
    full = "Make room, or name a file on another disk"
    remedy = {
        errno.ENAMETOOLONG: "Shorten the name",
        **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), full),
        errno.ENXIO: "Start what reads it first, or name a regular file",
        errno.ELOOP: "Delete the link, or name another file",
    }.get(number or 0, "Name a file in a folder you may write to")
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if number == errno.ENXIO:
        reason = "nobody reads this named pipe"
    return SpecError.single(name, "", f"the file cannot be written: {reason}", remedy)
