"""A sweep to a file that survives its end: what was priced stays priced, and the same command goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmodel.files.checkpoint import Arrays, Parts
from perfmodel.files.fingerprint import fingerprint
from perfmodel.planning.executors import Mapper, in_order
from perfmodel.planning.price import CHUNK, Block, Grid, Task, price_task, tasks
from perfmodel.planning.sweep_files import check_ending, write_sweep

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["StoredBlock", "sweep_parts", "sweep_to_file"]

_TEXTS = ("hardware", "strategy", "draft_model")


@dataclass(frozen=True)
class StoredBlock:
    """The rows of one block, as they were priced; its frame is that of the `Block` it comes from."""

    columns: dict[str, Any]

    @classmethod
    def of(cls, block: Block) -> StoredBlock:
        """The rows of a block."""
        frame = block.to_frame()
        return cls(
            {
                name: np.array(str(frame[name].iloc[0])) if name in _TEXTS else frame[name].to_numpy()
                for name in frame.columns
            }
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per configuration."""
        import pandas as pd

        return pd.DataFrame(
            {name: str(values) if name in _TEXTS else values for name, values in self.columns.items()}
        )


def sweep_to_file(
    grid: Grid,
    path: str | os.PathLike[str],
    *,
    executor: Mapper | None = None,
    chunk: int = CHUNK,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Price a grid into one file; a run that was cut off at any moment goes on where it stopped.

    The file is the same, bit for bit, whatever computed it and however often that was cut off. Until it is
    whole, finished tasks lie beside it in a folder ``<file>.parts-<key>``.

    Parameters
    ----------
    executor : as in `perfmodel.planning.price.sweep`.
    progress : called with (configurations that are safe, all of them), first with what was found.

    Raises
    ------
    SpecError
        When the file or the folder cannot be written, or the executor is lost.
    """
    check_ending(path)
    work = tasks(grid, chunk=chunk)
    parts = sweep_parts(grid, path, chunk=chunk)
    parts.begin()
    done = parts.done()
    safe = sum(_size(work[index]) for index in done)
    if progress is not None:
        progress(safe, grid.size)
    missing = [index for index in range(len(work)) if index not in done]
    priced = in_order(executor, price_task, [_alone(work[index]) for index in missing])
    for index, blocks in zip(missing, priced, strict=True):
        parts.write(index, _packed(blocks))
        safe += _size(work[index])
        if progress is not None:
            progress(safe, grid.size)
    write_sweep(_stored(parts, work), path, grid.size, scratch=parts.folder)
    parts.remove()


def sweep_parts(grid: Grid, path: str | os.PathLike[str], *, chunk: int = CHUNK) -> Parts:
    """Return where the finished tasks of a grid lie, and which those are."""
    return Parts(path, fingerprint("sweep", grid, chunk), len(tasks(grid, chunk=chunk)))


def _alone(task: Task) -> Task:
    """The same task without the accelerators that it does not price: less to send."""
    return replace(task, grid=replace(task.grid, hardware=(task.grid.hardware[task.hardware],)), hardware=0)


def _size(task: Task) -> int:
    workload = task.grid.workload
    cells = len(workload.batch_sizes[task.rows]) * len(workload.context_lens[task.columns])
    return cells * sum(task.grid.per_cell())


def _packed(blocks: list[Block]) -> Arrays:
    return {
        f"{place}.{name}": values
        for place, block in enumerate(blocks)
        for name, values in StoredBlock.of(block).columns.items()
    }


def _stored(parts: Parts, work: list[Task]) -> Iterator[StoredBlock]:
    """Every block in order; a part that is damaged or gone is priced again."""
    for index, task in enumerate(work):
        arrays = parts.read(index)
        if arrays is None:
            arrays = dict(_packed(price_task(task)))
        blocks: dict[int, dict[str, Any]] = {}
        for key, values in arrays.items():
            place, _, name = key.partition(".")
            blocks.setdefault(int(place), {})[name] = values
        yield from (StoredBlock(blocks[place]) for place in sorted(blocks))
