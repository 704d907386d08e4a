"""Finished pieces of long work, kept beside its output until that is whole, so that nothing done is lost."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel._version import __version__
from perfmodel.errors import SpecError

__all__ = ["Arrays", "Parts"]

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
            found = (re.fullmatch(r"([0-9]+)\.npz", name) for name in os.listdir(self.folder))
            return {int(match[1]) for match in found if match and int(match[1]) < self.count}
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
        try:
            self._put(f"{index}.npz", packed.getbuffer())
        except OSError as failure:
            raise self._refused(failure) from failure

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
            if not (self.folder / _MANIFEST).exists():
                about: dict[str, str | int] = {
                    "output": self.output.name,
                    "key": self.key,
                    "pieces": self.count,
                }
                about["draftplan"] = __version__
                self._put(_MANIFEST, (json.dumps(about, indent=1) + "\n").encode())
        except OSError as failure:
            raise self._refused(failure) from failure

    def remove(self) -> None:
        """Delete the pieces: the output is whole."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _refused(self, failure: OSError) -> SpecError:
        reason = failure.strerror or str(failure)
        return SpecError.single(
            str(self.output), "", f"the file cannot be written: {reason}", "Name another file"
        )

    def _put(self, name: str, content: bytes | memoryview) -> None:
        handle, unfinished = tempfile.mkstemp(dir=self.folder, prefix=f".{name}.")
        try:
            with open(handle, "wb") as stream:
                stream.write(content)
            os.replace(unfinished, self.folder / name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)
            raise
