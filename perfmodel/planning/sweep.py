"""A sweep to one tidy file: what was priced stays priced, and the same command goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from perfmodel.deployment import Deployment
from perfmodel.errors import SpecError
from perfmodel.files.checkpoint import Arrays, Parts, fingerprint
from perfmodel.files.numbers import keep_memory
from perfmodel.files.writing import replacing
from perfmodel.planning.executors import IN_FLIGHT, Mapper, in_order
from perfmodel.planning.price import (
    CHUNK,
    Part,
    Priced,
    Prices,
    SearchSpace,
    count_configurations,
    split,
)  # fmt: skip
from perfmodel.planning.sweep_formats import (
    ENDINGS,
    Rows,
    check_ending,
    csv_of,
    format_of,
    rows_of,
    texts_of,
)  # fmt: skip
from perfmodel.workload import Workload

__all__ = [
    "ENDINGS", "Rows", "Sweep", "check_ending", "rows_of", "sweep_parts", "sweep_text", "sweep_to_file",
]  # fmt: skip

Piece: TypeAlias = list[tuple[int, Part]]
"""What is priced and kept together: places of deployments, and which batch sizes and contexts of each."""


@dataclass(frozen=True)
class Sweep:
    """What a sweep prices: every configuration of a search space on every cell of every deployment.

    Parameters
    ----------
    chunk : rows that are priced at once and kept together as a piece, no more where one cell has no more.
            [configurations]
    """

    deployments: Sequence[Deployment]
    workload: Workload
    space: SearchSpace
    chunk: int = CHUNK

    @property
    def size(self) -> int:
        """How many configurations there are."""
        return count_configurations(self.deployments, self.workload, self.space)

    @property
    def pieces(self) -> list[Piece]:
        """Its pieces, in order."""
        pieces: list[Piece] = []
        a_cell = max(sum(self.space.sizes(deployment.model)) for deployment in self.deployments)
        parts = split(self.workload, self.space, self.chunk * self.space.most // a_cell)
        room = 0
        for place in range(len(self.deployments)):
            for part in parts:
                rows = self._rows(place, part)
                if rows > room:
                    pieces.append([])
                    room = self.chunk
                pieces[-1].append((place, part))
                room -= rows
        return pieces

    def rows(self, piece: Piece) -> int:
        """How many configurations a piece has."""
        return sum(self._rows(place, part) for place, part in piece)

    def prices(self, place: int) -> Prices:
        """Return the prices of the deployment in a place, which keeps what its parts share."""
        return Prices(self.deployments[place], self.workload, self.space, self.chunk)

    def price(self, piece: Piece, prices: dict[int, Prices] | None = None) -> list[Priced]:
        """Price a piece, drafter by drafter of each of its parts.

        Parameters
        ----------
        prices : of the deployment that was priced last, by its place: kept for the next piece.
        """
        prices = {} if prices is None else prices
        priced = []
        for place, part in piece:
            of_place = prices.get(place)
            if of_place is None:
                prices.clear()
                of_place = prices[place] = self.prices(place)
            priced += of_place.of(part)
        return priced

    @property
    def texts(self) -> dict[str, list[str]]:
        """The texts of each column that has texts, in the order of the rows."""
        return texts_of(self.deployments, self.space.drafters)

    def _rows(self, place: int, part: Part) -> int:
        batches, contexts = part
        cells = len(self.workload.batch_sizes[batches]) * len(self.workload.context_lens[contexts])
        return cells * sum(self.space.sizes(self.deployments[place].model))


@dataclass(frozen=True)
class Making:
    """What all pieces of a sweep have in common where they are made.

    Parameters
    ----------
    name : of the file; its ending decides what the bytes of a piece are.
    library : what makes the bytes where the sweep was asked.
    parts : where whoever makes a piece keeps it if it sees them; None where it hands it over.
    """

    sweep: Sweep
    name: str
    library: str
    parts: Parts | None
    prices: dict[int, Prices] = field(default_factory=dict, init=False, compare=False, repr=False)


def make_piece(making: Making, numbered: tuple[int, Piece]) -> Arrays | None:
    """Price a piece and turn its rows into bytes of the file; what a worker does.

    Raises
    ------
    SpecError
        When another library would make the bytes here.
    """
    keep_memory()
    index, piece = numbered
    form = format_of(making.name)
    if (library := form.library()) != making.library:
        raise SpecError.single(
            "", "--executor", f"a worker has {library}, which may write other bytes; here {making.library}",
            "Install the same on every worker, or write .csv",
        )  # fmt: skip
    arrays = form.pack(making.sweep.price(piece, making.prices), making.sweep.texts)
    if making.parts is not None and making.parts.are_seen():
        with suppress(SpecError):  # whoever asked says so, or can write where this process cannot
            making.parts.add(index, arrays)
            return None
    return arrays


def sweep_to_file(
    sweep: Sweep,
    path: str | os.PathLike[str],
    *,
    executor: Mapper | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Price a sweep into one file; a run that was cut off at any moment goes on where it stopped.

    The file is the same, bit for bit, whatever computed it and however often that was cut off. Until it is
    whole, finished pieces lie beside it in a folder ``<file>.parts-<key>``. Workers that see this folder keep
    them there themselves, others hand them over.

    Parameters
    ----------
    executor : as in `perfmodel.planning.price.sweep`.
    progress : called with (configurations that are safe, all of them), first with what was there already.

    Raises
    ------
    SpecError
        When the file or the folder cannot be written, another process is writing it, or the executor is lost.
    """
    form, parts = format_of(path), sweep_parts(sweep, path)
    with parts.held():
        pieces = _pieces(sweep, Path(path).name, parts, executor, progress)
        with replacing(path, parts.folder) as unfinished:
            form.join(pieces, unfinished, sweep.size, sweep.texts)
        parts.remove()


def sweep_parts(sweep: Sweep, path: str | os.PathLike[str]) -> Parts:
    """Return where the finished pieces of a sweep lie, and which those are."""
    form = format_of(path)
    return Parts(path, fingerprint("sweep", sweep, form.ending, form.library()), len(sweep.pieces))


def sweep_text(
    sweep: Sweep,
    *,
    executor: Mapper | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[str]:
    """Yield a sweep as CSV, names first, then piece by piece; parameters as of `sweep_to_file`."""
    pieces, safe = sweep.pieces, 0
    ahead = 2 * getattr(executor, "workers", IN_FLIGHT // 2)
    made = in_order(
        executor, make_piece, list(enumerate(pieces)), common=Making(sweep, ".csv", "", None), in_flight=ahead
    )
    for piece, arrays in zip(pieces, made, strict=True):
        assert arrays is not None
        yield from csv_of(arrays, head=safe == 0)
        safe += sweep.rows(piece)
        if progress is not None:
            progress(safe, sweep.size)


def _pieces(
    sweep: Sweep,
    name: str,
    parts: Parts,
    executor: Mapper | None,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Arrays]:
    """Yield all pieces in order once they are safe; one that is damaged or gone is made again."""
    keep_memory()
    pieces, done, size = sweep.pieces, parts.done(), sweep.size
    library = format_of(name).library()
    there = None if executor is None else parts
    missing = [(index, piece) for index, piece in enumerate(pieces) if index not in done]
    made = in_order(executor, make_piece, missing, common=Making(sweep, name, library, there))
    safe = sum(sweep.rows(pieces[index]) for index in done)
    if progress is not None:
        progress(safe, size)
    for index, piece in enumerate(pieces):
        arrays = None
        if index not in done:
            arrays = next(made)
            if arrays is not None:
                parts.write(index, arrays)
            safe += sweep.rows(piece)
            if progress is not None:
                progress(safe, size)
        if arrays is None:
            arrays = parts.read(index)
        if arrays is None:
            arrays = make_piece(Making(sweep, name, library, None), (index, piece))
        assert arrays is not None
        yield arrays
