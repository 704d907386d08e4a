"""Finished pieces of long work, kept beside its output until that is whole, so that nothing done is lost."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from inspect import getsourcefile
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel._version import __version__
from perfmodel.errors import SpecError
from perfmodel.files.writing import write_whole

__all__ = ["Arrays", "Parts", "fingerprint"]

Arrays = Mapping[str, NDArray[Any]]

_MANIFEST = "manifest.json"


class Parts:
    """A folder ``<output>.parts-<key>`` with one npz per finished piece and a manifest of what it is for.

    A piece is there whole or not at all. The key is that of the question, so another question never finds
    these pieces, and the same one finds them wherever it was computed before.

    Parameters
    ----------
    output : the file that the pieces will become.
    key : what `fingerprint` says of the question.
    count : how many pieces there will be.
    """

    def __init__(self, output: str | os.PathLike[str], key: str, count: int) -> None:
        self.output, self.key, self.count = Path(output).resolve(), key, count
        self.folder = self.output.with_name(f"{self.output.name}.parts-{key}")

    def done(self) -> set[int]:
        """Which pieces are there."""
        with contextlib.suppress(OSError):
            matches = (re.fullmatch(r"([0-9]+)\.npz", name) for name in os.listdir(self.folder))
            return {int(match[1]) for match in matches if match and int(match[1]) < self.count}
        return set()

    def others(self) -> list[str]:
        """Folders with pieces of other questions to the same file."""
        pattern = re.compile(re.escape(self.output.name) + r"\.parts-[0-9a-f]{16}")
        with contextlib.suppress(OSError):
            names = sorted(os.listdir(self.output.parent))
            return [name for name in names if pattern.fullmatch(name) and name != self.folder.name]
        return []

    def write(self, index: int, arrays: Arrays) -> None:
        """Keep a piece. When this returns, the end of the process does not lose it.

        Raises
        ------
        SpecError
            When the folder cannot be written.
        """
        packed = io.BytesIO()
        np.savez(packed, **arrays)  # type: ignore[arg-type]
        self.begin()
        write_whole(self.folder / f"{index}.npz", packed.getbuffer())

    def read(self, index: int) -> dict[str, NDArray[Any]] | None:
        """Return a piece, or None where it is absent or damaged."""
        try:
            packed = io.BytesIO((self.folder / f"{index}.npz").read_bytes())
            with np.load(packed, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def begin(self) -> None:
        """Make the folder and say in it what it is for. Raises SpecError where that cannot be."""
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            problem = f"the file cannot be written: {error.strerror or error}"
            raise SpecError.single(str(self.output), "", problem, "Name another file") from error
        if not (manifest := self.folder / _MANIFEST).exists():
            about = {"output": self.output.name, "key": self.key, "pieces": self.count}
            write_whole(manifest, json.dumps({**about, "draftplan": __version__}, indent=1) + "\n")

    def remove(self) -> None:
        """Delete the pieces: the output is whole."""
        shutil.rmtree(self.folder, ignore_errors=True)


_OURS = ("perfmodel", "strategies", "hardware_profiles", "builtins", "numpy", "types", "collections")


def fingerprint(*values: Any) -> str:
    """Return 16 characters that stand for the values, their types and the version of the package.

    Numbers, texts, arrays, collections, dataclasses and plain objects are taken by value. Of a class that is
    not the package's own, the file that defines it counts too.

    Raises
    ------
    TypeError
        When a value can only be told by its identity.
    """
    digest = hashlib.sha256(__version__.encode())
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
    elif isinstance(value, (list, tuple)):
        put(str(len(value)).encode())
        for item in value:
            _feed(item, put)
    elif isinstance(value, (Mapping, set, frozenset)):
        items = value.items() if isinstance(value, Mapping) else ((item,) for item in value)
        for part in sorted(fingerprint(*item) for item in items):
            put(part.encode())
    elif is_dataclass(value):
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
