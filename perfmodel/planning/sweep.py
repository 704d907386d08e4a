"""A sweep to one tidy file: what was priced stays priced, and the same command goes on."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from perfmodel.deployment import Deployment, Drafter
from perfmodel.errors import SpecError, printable
from perfmodel.files.checkpoint import Arrays, Parts, fingerprint
from perfmodel.files.writing import replacing
from perfmodel.planning.columns import SWEPT, swept
from perfmodel.planning.executors import Mapper, in_order
from perfmodel.planning.plan import NO_DRAFT
from perfmodel.planning.price import (
    CHUNK,
    Priced,
    SearchSpace,
    Task,
    count_configurations,
    price_task,
    split,
)  # fmt: skip
from perfmodel.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ENDINGS", "Rows", "Sweep", "check_ending", "rows_of", "sweep_parts", "sweep_to_file", "write_csv"]

Rows = dict[str, Any]
"""One drafter's configurations, a row each: column name -> one text for all rows, or an array."""

ENDINGS = (".csv", ".csv.gz", ".npz", ".parquet")
_NAMES = ("hardware", "strategy", "draft_model")


@dataclass(frozen=True)
class Sweep:
    """What a sweep prices: every configuration of a search space on every cell of every deployment."""

    deployments: Sequence[Deployment]
    workload: Workload
    space: SearchSpace
    chunk: int = CHUNK

    @property
    def size(self) -> int:
        """How many configurations there are."""
        return count_configurations(self.deployments, self.workload, self.space)

    @property
    def tasks(self) -> list[Task]:
        """Its pieces, in order."""
        pieces = split(self.workload, self.space, self.chunk)
        return [
            (deployment, self.workload, self.space, piece)
            for deployment in self.deployments
            for piece in pieces
        ]


def rows_of(priced: Priced) -> Rows:
    """Return one row per configuration, lower-case columns with the unit in the name."""
    drafter, axes = priced.drafter, [priced.expand(axis).ravel() for axis in priced.axes]
    draft_model = drafter.draft_model if drafter else None
    return {
        "hardware": str(priced.deployment.hardware.name),
        "tensor_parallel": np.full(axes[0].size, int(priced.deployment.tensor_parallel)),
        "strategy": _strategy(drafter) if drafter else NO_DRAFT,
        "draft_model": draft_model.name if draft_model else "",
        "batch_size": axes[0].astype(int),
        "context_len": axes[1].astype(int),
        "output_tokens": np.full(axes[0].size, round(priced.output_tokens)),
        "kv_budget": axes[2],
        "gamma": axes[3].astype(int),
        **{name: swept(priced, name).ravel() for name in SWEPT},
        "fits": priced.expand(priced.round.memory.fits).ravel(),
        "pipeline_parallel": np.full(axes[0].size, int(priced.deployment.pipeline_parallel)),
        "data_parallel": np.full(axes[0].size, int(priced.deployment.data_parallel)),
    }


def _strategy(drafter: Drafter) -> str:
    """Return the strategy's name; of a tree with what its steps, the column gamma, leave open."""
    tree = drafter.tree
    return drafter.strategy.name + (f" topk {tree.topk} nodes {tree.nodes}" if tree else "")


def sweep_to_file(
    sweep: Sweep,
    path: str | os.PathLike[str],
    *,
    executor: Mapper | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Price a sweep into one file; a run that was cut off at any moment goes on where it stopped.

    The file is the same, bit for bit, whatever computed it and however often that was cut off. Until it is
    whole, finished tasks lie beside it in a folder ``<file>.parts-<key>``.

    Parameters
    ----------
    executor : as in `perfmodel.planning.price.sweep`.
    progress : called with (configurations that are safe, all of them), first with what was there already.

    Raises
    ------
    SpecError
        When the file or the folder cannot be written, another process is writing it, or the executor is lost.
    """
    check_ending(path)
    tasks, parts = sweep.tasks, sweep_parts(sweep, path)
    sizes = [
        count_configurations([deployment], workload.part(*piece), space)
        for deployment, workload, space, piece in tasks
    ]
    with parts.held():
        done = parts.done()
        safe = sum(sizes[index] for index in done)
        if progress is not None:
            progress(safe, sweep.size)
        missing = [index for index in range(len(tasks)) if index not in done]
        priced = in_order(executor, price_task, [tasks[index] for index in missing])
        for index, drafters in zip(missing, priced, strict=True):
            parts.write(index, _pack(drafters))
            safe += sizes[index]
            if progress is not None:
                progress(safe, sweep.size)
        write_sweep(_stored(parts, tasks), path, sweep.size, scratch=parts.folder)
        parts.remove()


def sweep_parts(sweep: Sweep, path: str | os.PathLike[str]) -> Parts:
    """Return where the finished tasks of a sweep lie, and which those are."""
    return Parts(path, fingerprint("sweep", sweep), len(sweep.tasks))


def _pack(drafters: Iterable[Priced]) -> Arrays:
    return {
        f"{place}.{name}": np.asarray(values)
        for place, priced in enumerate(drafters)
        for name, values in rows_of(priced).items()
    }


def _stored(parts: Parts, tasks: Sequence[Task]) -> Iterator[Rows]:
    """Yield the rows of every task in order; a part that is damaged or gone is priced again."""
    for index, task in enumerate(tasks):
        arrays = parts.read(index) or _pack(price_task(task))
        drafters: dict[int, Rows] = {}
        for key, values in arrays.items():
            place, _, name = key.partition(".")
            drafters.setdefault(int(place), {})[name] = str(values) if name in _NAMES else values
        yield from (drafters[place] for place in sorted(drafters))


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
    blocks : rows, drafter by drafter.
    path : ends on one of `ENDINGS`. In an npz, texts are codes into the array ``<column>_names``.
    size : how many rows there will be, `Sweep.size`.
    scratch : folder on the same disk for the unfinished file; that of `path` when absent.

    Raises
    ------
    SpecError
        When the ending is unknown, the file cannot be written, or parquet is asked for without pyarrow.
    """
    check_ending(path)
    write = _writer(Path(path).name.lower())
    assert write is not None
    with replacing(path, scratch) as unfinished:
        write(blocks, unfinished, size)


def write_csv(blocks: Iterable[Rows], stream: IO[str]) -> None:
    """Write every configuration as a CSV row; an empty kv_budget means the whole cache."""
    for index, block in enumerate(blocks):
        _frame(block).to_csv(stream, index=False, header=index == 0, lineterminator="\n")


def _writer(name: str) -> Callable[[Iterable[Rows], Path, int], None] | None:
    if name.endswith((".csv", ".csv.gz")):
        return _to_csv
    return {".npz": _to_npz, ".parquet": _to_parquet}.get(Path(name).suffix)


def _frame(block: Rows) -> pd.DataFrame:
    import pandas as pd

    block = {name: printable(value) if isinstance(value, str) else value for name, value in block.items()}
    frame = pd.DataFrame(block)
    budgets = frame["kv_budget"]
    whole: pd.DataFrame = frame.assign(kv_budget=budgets.where(np.isfinite(budgets)).astype("Int64"))
    return whole


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
    # No file name and no time inside, so that equal sweeps give equal files.
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as stream,
    ):
        yield stream


def _to_npz(blocks: Iterable[Rows], path: Path, size: int) -> None:
    names: dict[str, dict[str, int]] = {name: {} for name in _NAMES}
    with contextlib.ExitStack() as opened:
        columns: dict[str, IO[bytes]] = {}
        kinds: dict[str, np.dtype[Any]] = {}
        for block in blocks:
            count = block["fits"].size
            for name, values in block.items():
                if name in names:
                    code = names[name].setdefault(str(values), len(names[name]))
                    values = np.full(count, code, dtype=np.int16)
                if name not in columns:
                    columns[name] = opened.enter_context(path.with_name(f"{name}.npy").open("wb"))
                    kinds[name] = values.dtype
                    _begin_npy(columns[name], values.dtype, size)
                columns[name].write(np.ascontiguousarray(values, kinds[name]).data)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in columns:
            file = path.with_name(f"{name}.npy")
            with file.open("rb") as source, archive.open(_entry(name), "w", force_zip64=True) as entry:
                shutil.copyfileobj(source, entry, 1 << 20)
            file.unlink()
        for name, codes in names.items():
            with archive.open(_entry(f"{name}_names"), "w") as entry:
                np.lib.format.write_array(entry, np.asarray(list(codes), dtype=np.str_), allow_pickle=False)


def _begin_npy(stream: IO[bytes], dtype: np.dtype[Any], size: int) -> None:
    """Write what stands before the rows, which are not mapped: on a full disk that would end the process."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(stream, header)


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
