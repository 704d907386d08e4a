"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from perfmodel.errors import SpecError

__all__ = ["replacing", "write_whole"]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], scratch: Path | None = None) -> Iterator[Path]:
    """Yield an unfinished file, alone in its folder, that takes the place of `path` when the block ends well.

    Readers see the former or the new content, never a part of it; links are followed, permissions kept.

    Parameters
    ----------
    scratch : folder on the same disk for the unfinished file; that of `path` when absent.

    Raises
    ------
    SpecError
        Where the file cannot be written; the former content then still stands.
    """
    target = Path(os.path.realpath(path))
    try:
        beside = scratch or target.parent
        with tempfile.TemporaryDirectory(dir=beside, prefix=f".{target.name[:50]}.") as folder:
            unfinished = Path(folder) / target.name
            yield unfinished
            with unfinished.open("r+b") as stream:
                os.fsync(stream.fileno())
            if target.exists():
                unfinished.chmod(target.stat().st_mode & 0o777)
            unfinished.replace(target)
    except OSError as error:
        problem = f"the file cannot be written: {error.strerror or error}"
        raise SpecError.single(str(path), "", problem, "Name a file in a folder you may write to") from error


def write_whole(path: str | os.PathLike[str], content: str | bytes | memoryview) -> None:
    """Write a file so that readers see the old or the new content, never a part of it. Text is UTF-8.

    Raises SpecError where the file cannot be written; the old content then still stands.
    """
    with replacing(path) as unfinished:
        unfinished.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
