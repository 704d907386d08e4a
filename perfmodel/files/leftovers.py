"""What runs left that ended early: pieces of long work, and files that never became whole."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from perfmodel._version import __version__
from perfmodel.errors import SpecError
from perfmodel.files.checkpoint import FOLDER, LOCK, MANIFEST, PIECE, read_manifest
from perfmodel.files.lock import lock, owner_of, unlock
from perfmodel.files.writing import TEMPORARY, foreign_in, is_abandoned

__all__ = ["Leftover", "leftovers_in", "leftovers_of", "read_age", "remove_leftover"]

PIECES, UNFINISHED = "pieces", "unfinished file"
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


@dataclass(frozen=True)
class Leftover:
    """A folder that lies beside an output.

    Parameters
    ----------
    folder : its path.
    kind : `PIECES` or `UNFINISHED`.
    output : name of the file that it was to become.
    done, pieces : finished pieces, and all of them; None where that is not known. [1]
    version : of the draftplan that began it; empty where it is not known.
    size : of its files. [bytes]
    age : since something in it was written. [s]
    used_by : who is at it; empty where nobody is.
    foreign : a file in it that draftplan did not write; empty where there is none.
    """

    folder: Path
    kind: str
    output: str
    done: int | None
    pieces: int | None
    version: str
    size: int
    age: float
    used_by: str
    foreign: str

    @property
    def state(self) -> str:
        """In a few words, what becomes of it."""
        if self.foreign:
            return "not all of it is draftplan's"
        if self.used_by:
            return f"used by {self.used_by}"
        if self.kind == UNFINISHED:
            return "abandoned"
        return "the same command goes on" if self.version == __version__ else "of another version: not used"


def leftovers_in(folder: str | os.PathLike[str]) -> list[Leftover]:
    """Return what lies in a folder, and not below it. Raises SpecError where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            paths = sorted(
                Path(entry.path) for entry in entries if _is_named_so(entry.name) and entry.is_dir()
            )
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise SpecError.single(
            os.fspath(folder), "", f"the folder cannot be read: {reason}", "Name a folder, or an output"
        ) from error
    return [_look_at(path) for path in paths]


def leftovers_of(name: str) -> list[Leftover]:
    """Return what a name stands for: a folder's leftovers, one leftover, or those of one output.

    Raises
    ------
    SpecError
        Where it stands for nothing.
    """
    path = Path(os.path.abspath(name))
    if "\0" not in name and _is_named_so(path.name) and os.path.isdir(path):
        return [_look_at(path)]
    if os.path.isdir(name):
        return leftovers_in(name)
    beside = leftovers_in(path.parent) if path.parent.is_dir() else []
    own = [leftover for leftover in beside if leftover.output in (path.name, path.name[:50])]
    if not own:
        raise SpecError.single(name, "", "nothing lies here", "`draftplan parts list FOLDER` shows what does")
    return own


def remove_leftover(leftover: Leftover) -> None:
    """Delete a leftover.

    Raises
    ------
    SpecError
        Where it is in use, is a link, holds what draftplan did not write, or cannot be deleted.
    """
    now = _look_at(leftover.folder)
    name = str(now.folder)
    if now.foreign:
        problem = f"it holds {now.foreign!r}, which draftplan did not write"
        raise SpecError.single(name, "", problem, "Look into it, and delete it by hand")
    if now.used_by:
        remedy = "Wait until that has ended"
        if (owner := owner_of(now.folder / LOCK)) and owner.is_elsewhere:
            remedy += f"; if it was killed there, delete {now.folder / LOCK}"
        raise SpecError.single(name, "", f"it is used by {now.used_by}", remedy)
    try:
        descriptor = lock(now.folder / LOCK, name) if now.kind == PIECES else None
        try:
            shutil.rmtree(now.folder)
        finally:
            if descriptor is not None:
                unlock(descriptor, now.folder / LOCK)
    except OSError as error:
        raise SpecError.single(
            name, "", f"it cannot be deleted: {error.strerror or error}", "Delete it by hand"
        ) from error


def read_age(text: str) -> float:
    """Read an age such as ``7d``, ``12h`` or ``30m``; seconds without a unit. [s] Raises SpecError."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhdw]?)", text.strip().lower())
    if not match:
        raise SpecError.single("", "", f"found {text[:40]!r}", "Write an age such as 7d, 12h or 30m")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def _is_named_so(name: str) -> bool:
    return bool(FOLDER.fullmatch(name) or TEMPORARY.fullmatch(name))


def _look_at(folder: Path) -> Leftover:
    match = FOLDER.fullmatch(folder.name)
    files = list(_files(folder))
    newest = max([status.st_mtime for _, status in files], default=folder.lstat().st_mtime)
    size = sum(status.st_size for _, status in files)
    age = max(0.0, time.time() - newest)
    foreign = _foreign(folder, [(file, status.st_mode) for file, status in files])
    if not match:
        used = "" if folder.is_symlink() or is_abandoned(folder) else "another process"
        output = folder.name[1:].rpartition(".draftplan-")[0]
        return Leftover(folder, UNFINISHED, output, None, None, "", size, age, used, foreign)
    manifest = {} if foreign else read_manifest(folder)
    pieces, version = manifest.get("pieces"), manifest.get("draftplan")
    owner = None if foreign else owner_of(folder / LOCK)
    return Leftover(
        folder, PIECES, match[1], sum(bool(PIECE.fullmatch(str(file))) for file, _ in files),
        pieces if isinstance(pieces, int) else None, version if isinstance(version, str) else "",
        size, age, str(owner) if owner else "", foreign,
    )  # fmt: skip


def _files(folder: Path, inside: Path = Path()) -> Iterator[tuple[Path, os.stat_result]]:
    """What lies in a folder, and in folders of unfinished files in it; links are not followed."""
    if folder.is_symlink():
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = inside / entry.name
            with contextlib.suppress(OSError):
                yield name, entry.stat(follow_symlinks=False)
            if not inside.parts and TEMPORARY.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path), name)


def _foreign(folder: Path, files: Sequence[tuple[Path, int]]) -> str:
    """The first thing that draftplan did not write: the folder itself where it is a link."""
    if folder.is_symlink():
        return "a link"
    match = FOLDER.fullmatch(folder.name)
    if not match:
        return foreign_in(folder)
    has_manifest = any(str(file) == MANIFEST for file, _ in files)
    for file, mode in files:
        if len(file.parts) == 2:
            own = stat.S_ISREG(mode)
        elif TEMPORARY.fullmatch(file.name):
            own = stat.S_ISDIR(mode)
        else:
            own = stat.S_ISREG(mode) and (
                file.name in (MANIFEST, LOCK) or bool(PIECE.fullmatch(file.name) and has_manifest)
            )
        if not own:
            return str(file)
    if has_manifest and read_manifest(folder).get("key") != match[2]:
        return MANIFEST
    return ""
