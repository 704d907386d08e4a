"""A sweep to one tidy file, CSV, npz or parquet, written whole with one block of it in memory at a time."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from perfmodel.errors import SpecError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ENDINGS", "Rows", "check_ending", "write_csv", "write_sweep"]

ENDINGS = (".csv", ".csv.gz", ".npz", ".parquet")
_NAMES = ("hardware", "strategy", "draft_model")


class Rows(Protocol):
    """A piece of a sweep."""

    def to_frame(self) -> pd.DataFrame: ...


def check_ending(path: str | os.PathLike[str]) -> None:
    """Refuse a file whose ending is not one of `ENDINGS`, and parquet without pyarrow: SpecError."""
    if _writer(Path(path).name.lower()) is None:
        raise SpecError.single(
            str(path), "", "the ending of the file is not known", f"Known: {', '.join(ENDINGS)}"
        )
    if Path(path).suffix.lower() == ".parquet":
        _parquet(Path(path).name)


def write_sweep(
    blocks: Iterable[Rows], path: str | os.PathLike[str], size: int, *, scratch: Path | None = None
) -> None:
    """Write every configuration of a sweep as one row; the file appears when it is complete.

    Parameters
    ----------
    blocks : as `perfmodel.planning.price.sweep` yields them.
    path : ends on one of `ENDINGS`. In an npz, texts are codes into the array ``<column>_names``.
    size : how many rows there will be, `Grid.size`.
    scratch : folder on the same disk for the unfinished file; that of `path` when absent.

    Raises
    ------
    SpecError
        When the ending is unknown, the file cannot be written, or parquet is asked for without pyarrow.
    """
    target = Path(path).resolve()
    check_ending(path)
    write = _writer(target.name.lower())
    assert write is not None
    beside = target.parent if scratch is None else scratch
    try:
        with tempfile.TemporaryDirectory(dir=beside, prefix=f".{target.name[:50]}.") as folder:
            unfinished = Path(folder) / target.name
            write(blocks, unfinished, size)
            os.replace(unfinished, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SpecError.single(
            str(path), "", f"the file cannot be written: {reason}", "Name another file"
        ) from error


def write_csv(blocks: Iterable[Rows], stream: IO[str]) -> None:
    """Write every configuration as a CSV row; an empty kv_budget means the whole cache."""
    for index, block in enumerate(blocks):
        _frame(block).to_csv(stream, index=False, header=index == 0, lineterminator="\n")


def _writer(name: str) -> Callable[[Iterable[Rows], Path, int], None] | None:
    if name.endswith((".csv", ".csv.gz")):
        return _to_csv
    return {".npz": _to_npz, ".parquet": _to_parquet}.get(Path(name).suffix)


def _frame(block: Rows) -> pd.DataFrame:
    frame = block.to_frame()
    budgets = frame["kv_budget"]
    return frame.assign(kv_budget=budgets.where(np.isfinite(budgets)).astype("Int64"))


def _to_csv(blocks: Iterable[Rows], path: Path, size: int) -> None:
    del size
    with _text(path) as stream:
        write_csv(blocks, stream)


@contextlib.contextmanager
def _text(path: Path) -> Iterator[IO[str]]:
    if path.suffix.lower() != ".gz":
        with path.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        return
    import io

    # No file name and no time inside, so that equal sweeps give equal files.
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as stream,
    ):
        yield stream


def _to_npz(blocks: Iterable[Rows], path: Path, size: int) -> None:
    columns: dict[str, Any] = {}
    names: dict[str, dict[str, int]] = {name: {} for name in _NAMES}
    row = 0
    for block in blocks:
        frame = block.to_frame()
        for name in frame.columns:
            values = frame[name].to_numpy()
            if name in names:
                code = names[name].setdefault(str(frame[name].iloc[0]), len(names[name]))
                values = np.full(len(frame), code, dtype=np.int16)
            if name not in columns:
                file = path.with_name(f"{name}.npy")
                columns[name] = np.lib.format.open_memmap(file, mode="w+", dtype=values.dtype, shape=(size,))
            columns[name][row : row + len(frame)] = values
        row += len(frame)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in list(columns):
            columns.pop(name).flush()
            file = path.with_name(f"{name}.npy")
            with file.open("rb") as source, archive.open(_entry(name), "w", force_zip64=True) as entry:
                shutil.copyfileobj(source, entry, 1 << 20)
            file.unlink()
        for name, codes in names.items():
            with archive.open(_entry(f"{name}_names"), "w") as entry:
                np.lib.format.write_array(entry, np.asarray(list(codes), dtype=np.str_), allow_pickle=False)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(f"{name}.npy")
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _to_parquet(blocks: Iterable[Rows], path: Path, size: int) -> None:
    del size
    pa, pq = _parquet(path.name)
    writer = None
    try:
        for block in blocks:
            table = pa.Table.from_pandas(_frame(block), preserve_index=False)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _parquet(name: str) -> tuple[Any, Any]:
    """The two modules that write parquet."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise SpecError.single(
            name, "", "parquet needs pyarrow, which is not installed", "pip install 'draftplan[parquet]'"
        ) from None
    return pa, pq
