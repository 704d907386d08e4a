"""Finished pieces of long work, kept beside its output until that is whole, so that nothing done is lost."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import stat
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from inspect import getsourcefile
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel._version import __version__
from perfmodel.errors import SpecError, shown
from perfmodel.files.build import build_here
from perfmodel.files.lock import lock, owner_of, token_of, unlock
from perfmodel.files.opening import PROFILE, read_file
from perfmodel.files.writing import place_for, remove_abandoned, replacing

__all__ = ["FOLDER", "LOCK", "MANIFEST", "PIECE", "Arrays", "Parts", "fingerprint", "read_manifest"]

Arrays = Mapping[str, NDArray[Any]]

MANIFEST, LOCK = "manifest.json", "lock"
PIECE = re.compile(r"([0-9]+)\.npz")
FOLDER = re.compile(r"(.+)\.parts-([0-9a-f]{16})", re.DOTALL)
"""Names of the folders that hold pieces: the output's name, and the key of the question."""
_holders: dict[Path, int] = {}
"""The folders that this process holds, and the threads that do."""
_registry = threading.Lock()
_ATTEMPTS = 5


class Parts:
    """A folder ``<output>.parts-<key>`` with one npz per finished piece and a manifest of what it is for.

    A piece is there whole or not at all. The key is that of the question, so another question never finds
    these pieces, and the same one finds them wherever it was computed before.

    Parameters
    ----------
    output : the file that the pieces will become; its links are followed.
    key : what `fingerprint` says of the question.
    count : how many pieces there will be.

    Raises
    ------
    SpecError
        Where the output cannot be written, as `perfmodel.files.writing.place_for`.
    """

    def __init__(self, output: str | os.PathLike[str], key: str, count: int) -> None:
        self.output, self.key, self.count = place_for(output), key, count
        self.folder = self.output.with_name(f"{self.output.name}.parts-{key}")
        self._token = ""

    def done(self) -> set[int]:
        """Which pieces are there; none are where the manifest is of another version or question."""
        if not self._are_own():
            return set()
        with contextlib.suppress(OSError):
            matches = (PIECE.fullmatch(name) for name in os.listdir(self.folder))
            return {int(match[1]) for match in matches if match and int(match[1]) < self.count}
        return set()

    def others(self) -> list[str]:
        """Folders with pieces of other questions to the same file."""
        with contextlib.suppress(OSError):
            names = sorted(os.listdir(self.output.parent))
            matches = [match for match in map(FOLDER.fullmatch, names) if match]
            return [
                match[0]
                for match in matches
                if match[1] == self.output.name and match[0] != self.folder.name
            ]
        return []

    def remarks(self) -> list[str]:
        """What to say of pieces that lie there and are not used."""
        sentences = []
        for name in self.others():
            made_by = read_manifest(self.output.parent / name).get("draftplan")
            if made_by in (None, __version__):
                problem = f"{name} holds pieces of another question to {self.output.name}"
            else:
                problem = f"{name} holds pieces to {self.output.name} of draftplan {shown(made_by)}, not used"
            sentences.append(f"{problem}; `draftplan parts remove` deletes them")
        if not self._are_own():
            made_by = shown(read_manifest(self.folder).get("draftplan"))
            sentences.append(f"the pieces in {self.folder.name} are of draftplan {made_by} and are not used")
        return sentences

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from this output's pieces while the block runs; nothing stays without a piece.

        One thread may hold them more than once.

        Raises
        ------
        SpecError
            When another process is writing this output, or the folder cannot be made.
        """
        with _registry:
            holder = _holders.get(self.folder)
        file = self.folder / LOCK
        if holder == threading.get_ident():
            self._token = token_of(file)
            yield
            return
        descriptor = self._locked(file)
        self._token = token_of(file)
        try:
            with _registry:
                _holders[self.folder] = threading.get_ident()
            self.begin()
            remove_abandoned(self.folder)
            remove_abandoned(self.output.parent, f".{self.output.name[:50]}.draftplan-")
            for other in self.others():
                if owner := owner_of(self.output.parent / other / LOCK):
                    problem = f"{owner} is writing another answer to it"
                    raise SpecError.single(
                        str(self.output), "", problem, "Wait until that has ended, or name another file"
                    )
            yield
        finally:
            remove_abandoned(self.folder)  # a signal may have come while one was being deleted
            if not self.done():
                self.remove()
            unlock(descriptor, file)
            with _registry:
                _holders.pop(self.folder, None)

    def are_seen(self) -> bool:
        """Whether this process, wherever it runs, sees the folder that another holds now."""
        return bool(self._token) and token_of(self.folder / LOCK) == self._token

    def write(self, index: int, arrays: Arrays) -> None:
        """Keep a piece. When this returns, the end of the process does not lose it.

        Raises
        ------
        SpecError
            When the folder cannot be written.
        """
        self.begin()
        self._write_piece(index, arrays)

    def add(self, index: int, arrays: Arrays) -> None:
        """Keep a piece for another process, which holds them; nothing is kept when that has given them up.

        Raises
        ------
        SpecError
            When the folder is gone or cannot be written.
        """
        self._write_piece(index, arrays)
        if not (self.folder / MANIFEST).exists():
            with contextlib.suppress(OSError):
                (self.folder / f"{index}.npz").unlink()
                self.folder.rmdir()

    def read(self, index: int) -> dict[str, NDArray[Any]] | None:
        """Return a piece, or None where it is absent or damaged."""
        file = self.folder / f"{index}.npz"
        try:
            if not stat.S_ISREG(os.stat(file, follow_symlinks=False).st_mode):
                return None
            with file.open("rb") as packed, np.load(packed, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def begin(self) -> None:
        """Make the folder and say in it what it is for; pieces of another version that lie there are deleted.

        Raises
        ------
        SpecError
            Where that cannot be.
        """
        try:
            self._make()
            if not self._are_own():
                _delete(self.folder)
            if not (self.folder / MANIFEST).exists():
                about = {"output": self.output.name, "key": self.key, "pieces": self.count}
                text = json.dumps({**about, "draftplan": __version__, "numpy": np.__version__}, indent=1)
                self._write(MANIFEST, f"{text}\n".encode())
        except OSError as error:
            raise self._unwritable(error) from error

    def remove(self) -> None:
        """Delete the pieces: the output is whole. What others put into the folder stays."""
        _delete(self.folder)
        with contextlib.suppress(OSError):
            (self.folder / LOCK).unlink()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _make(self) -> None:
        self.folder.mkdir(exist_ok=True)
        if self.folder.is_symlink():
            raise OSError(errno.ELOOP, f"{self.folder.name} is a link")

    def _locked(self, file: Path) -> int:
        """Make the folder and take its lock; whoever had it may delete the folder in between."""
        for attempt in range(_ATTEMPTS):
            try:
                self._make()
                return lock(file, str(self.output))
            except FileNotFoundError as error:
                if attempt == _ATTEMPTS - 1:
                    raise self._unwritable(error) from error
            except OSError as error:
                with contextlib.suppress(OSError):
                    self.folder.rmdir()  # which succeeds where nothing was there
                raise self._unwritable(error) from error
        raise AssertionError

    def _are_own(self) -> bool:
        """Whether the folder is of this question and version, or says nothing yet."""
        manifest = read_manifest(self.folder)
        stated = manifest.get("key", self.key), manifest.get("draftplan", __version__)
        return stated == (self.key, __version__)

    def _write(self, name: str, content: bytes) -> None:
        with replacing(self.folder / name, self.folder) as unfinished:
            unfinished.write_bytes(content)

    def _write_piece(self, index: int, arrays: Arrays) -> None:
        file = self.folder / f"{index}.npz"
        with replacing(file, self.folder) as unfinished, unfinished.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    def _unwritable(self, error: OSError) -> SpecError:
        problem = f"the file cannot be written: {error.strerror or error}"
        return SpecError.single(str(self.output), "", problem, "Name another file")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what a folder of pieces says of itself; nothing where it says nothing that can be read."""
    with contextlib.suppress(SpecError, ValueError, RecursionError):
        content = json.loads(read_file(folder / MANIFEST, PROFILE))
        return content if isinstance(content, dict) else {}
    return {}


def _delete(folder: Path) -> None:
    """Delete the pieces of a folder, and last what says that they are pieces."""
    with contextlib.suppress(OSError):
        pieces = [name for name in os.listdir(folder) if PIECE.fullmatch(name)]
        for name in (*pieces, *pieces, MANIFEST):  # what failed once may do the second time
            with contextlib.suppress(OSError):
                (folder / name).unlink()
    remove_abandoned(folder)


_OURS = ("perfmodel", "strategies", "hardware_profiles", "builtins", "numpy", "types", "collections")


def fingerprint(*values: Any) -> str:
    """Return 16 characters that stand for the values, their types and what computes with them.

    The latter is the `Build`: pieces that another one computed may differ in their last bits.

    Numbers, texts, arrays, collections, dataclasses and plain objects are taken by value. Of a class that is
    not the package's own, the file that defines it counts too.

    Raises
    ------
    TypeError
        When a value can only be told by its identity.
    """
    digest = hashlib.sha256(repr(build_here()).encode())
    _feed(values, digest.update)
    return digest.hexdigest()[:16]


def _feed(value: Any, put: Callable[[bytes], None]) -> None:
    kind = type(value)
    put(f"<{kind.__module__}.{kind.__qualname__}>".encode())
    if kind.__module__.partition(".")[0] not in _OURS:
        put(_source(kind))
    if value is None or isinstance(value, (bool, int, str, PurePath)):
        put(str(value).encode("utf-8", "surrogatepass"))
    elif isinstance(value, bytes):
        put(value)
    elif isinstance(value, float):
        put((value.hex() if math.isfinite(value) else str(value)).encode())
    elif isinstance(value, Enum):
        put(value.name.encode())
    elif isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.hasobject:
            raise TypeError(f"an array of objects has no value: {kind}")
        put(f"{value.dtype.str}{value.shape}".encode())
        put(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Sequence):
        put(str(len(value)).encode())
        for item in value:
            _feed(item, put)
    elif isinstance(value, (Mapping, set, frozenset)):
        items = value.items() if isinstance(value, Mapping) else ((item,) for item in value)
        for part in sorted(fingerprint(*item) for item in items):
            put(part.encode())
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            put(field.name.encode())
            _feed(getattr(value, field.name), put)
    elif isinstance(value, type) or callable(value) or not hasattr(value, "__dict__"):
        raise TypeError(f"a {kind.__name__} has no value to be told by")
    else:
        _feed(vars(value), put)
    put(b"</>")


def _source(kind: type) -> bytes:
    try:
        file = getsourcefile(kind)
    except TypeError:
        return b""
    return Path(file).read_bytes() if file and Path(file).is_file() else b""
