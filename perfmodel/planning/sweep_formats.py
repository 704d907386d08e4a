"""The files that a sweep becomes: a piece of rows as bytes of each, made anywhere, and pieces as one file."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from perfmodel.deployment import Deployment, Drafter
from perfmodel.errors import SpecError, printable
from perfmodel.files.checkpoint import Arrays
from perfmodel.files.csv_text import csv_header, csv_text
from perfmodel.files.npz import pack, write_columns
from perfmodel.planning.columns import NO_DRAFT, SWEPT, Cell, columns_of
from perfmodel.planning.price import Priced

__all__ = ["ENDINGS", "Format", "Rows", "check_ending", "csv_of", "format_of", "rows_of", "texts_of"]

Rows = dict[str, Any]
"""One drafter's configurations, a row each: column name -> one text for all rows, or an array."""
Texts = Mapping[str, Sequence[str]]
"""The texts that a sweep has, by column, in the order of its rows."""

_VALUE_OF = {column.name: column.value for column in columns_of(Cell)}
_MEASURED = ("round_s", "tpot_s", "speedup", "throughput_tokens_per_s")
"""Columns whose digits differ from row to row: no coding makes them much shorter."""
_GZIP = 1
"""Level: a higher one takes up to four times as long for a file that is 7 % shorter. [1]"""
_HEAD, _PIECE = "head", "piece"
_BLOCK = 8 << 20
"""Of an array of text, about. [bytes]"""


def rows_of(priced: Priced) -> Rows:
    """Return one row per configuration, lower-case columns with the unit in the name."""
    return {
        name: value if isinstance(value, str) else priced.expand(value).ravel()
        for name, value in _columns(priced).items()
    }


def _columns(priced: Priced) -> Rows:
    """The columns along the axes that they depend on, which broadcast to the configurations."""
    deployment, (batch, context_len, kv_budget, gamma) = priced.deployment, priced.axes
    return {
        **_texts(deployment, priced.drafter),
        "batch_size": batch.astype(int),
        "context_len": context_len.astype(int),
        "output_tokens": np.array([round(priced.output_tokens)]),
        "kv_budget": kv_budget,
        "gamma": gamma.astype(int),
        **{name: np.asarray(_VALUE_OF[name](priced)) for name in SWEPT},
        "fits": np.asarray(priced.round.memory.fits),
        "pipeline_parallel": np.array([int(deployment.pipeline_parallel)]),
        "data_parallel": np.array([int(deployment.data_parallel)]),
    }


def _texts(deployment: Deployment, drafter: Drafter | None) -> Rows:
    """The first columns, which are the same for all rows of a drafter."""
    draft_model = drafter.draft_model if drafter else None
    return {
        "hardware": str(deployment.hardware.name),
        "tensor_parallel": np.array([int(deployment.tensor_parallel)]),
        "strategy": _strategy(drafter) if drafter else NO_DRAFT,
        "draft_model": draft_model.name if draft_model else "",
    }


def _strategy(drafter: Drafter) -> str:
    """The strategy's name; of a tree with what its steps, the column gamma, leave open."""
    tree = drafter.tree
    return drafter.strategy.name + (f" topk {tree.topk} nodes {tree.nodes}" if tree else "")


def texts_of(deployments: Sequence[Deployment], drafters: Sequence[Drafter | None]) -> dict[str, list[str]]:
    """Return the texts of every column of texts, in the order in which the rows of a sweep have them."""
    texts: dict[str, dict[str, None]] = {}
    for deployment in deployments:
        for drafter in drafters:
            for name, value in _texts(deployment, drafter).items():
                if isinstance(value, str):
                    texts.setdefault(name, {})[value] = None
    return {name: list(values) for name, values in texts.items()}


@dataclass(frozen=True)
class Format:
    """A form that a sweep is written in.

    Parameters
    ----------
    ending : of its files.
    pack : makes the rows of a piece into arrays that hold its bytes; takes what was priced, drafter by
        drafter, and the texts of the sweep.
    join : writes pieces, as they come, as one file: takes them, the file, the number of rows, the texts.
    library : name and version of what makes the bytes; another one may make others.
    """

    ending: str
    pack: Callable[[Sequence[Priced], Texts], Arrays]
    join: Callable[[Iterator[Arrays], Path, int, Texts], None]
    library: Callable[[], str]


def format_of(path: str | os.PathLike[str]) -> Format:
    """Return the format that the ending of a file names.

    Raises
    ------
    SpecError
        When the ending is not one of `ENDINGS`, or what writes it is not installed.
    """
    name = Path(path).name.lower()
    ending = next((known for known in ENDINGS if name.endswith(known)), "")
    if not ending:
        raise SpecError.single(
            str(path), "", "the ending of the file is not known", f"Known: {', '.join(ENDINGS)}"
        )
    if ending == ".parquet":
        _need_parquet(Path(path).name)
    return _FORMATS[ending]


def check_ending(path: str | os.PathLike[str]) -> None:
    """Refuse a file whose ending is not one of `ENDINGS`, and parquet without what writes it: SpecError."""
    format_of(path)


def _pack_csv(blocks: Sequence[Priced], texts: Texts) -> Arrays:
    del texts
    tables = [(_columns(priced), priced.shape) for priced in blocks]
    texts_of_rows = (text for columns, shape in tables
                     for text in csv_text([_words(name, column) for name, column in columns.items()], shape))
    return {_HEAD: _bytes(csv_header([*tables[0][0]]).encode()), **_in_blocks(texts_of_rows)}  # fmt: skip


def _in_blocks(some: Iterator[str]) -> Arrays:
    """Texts as arrays of some MB, whose memory is used again: one that is larger is asked for each time."""
    blocks: dict[str, Any] = {}
    texts: list[bytes] = []
    size = 0
    for text in some:
        texts.append(text.encode())
        size += len(text)
        if size > _BLOCK * (len(blocks) + 1):
            blocks[f"{_PIECE}{len(blocks)}"] = _bytes(b"".join(texts))
            texts.clear()
    return {**blocks, f"{_PIECE}{len(blocks)}": _bytes(b"".join(texts))}


def csv_of(piece: Arrays, *, head: bool) -> Iterator[str]:
    """Yield a piece of CSV as text, with the names of the columns before it or without."""
    for name, content in piece.items():
        if name != _HEAD or head:
            yield content.tobytes().decode()


def _words(name: str, value: Any) -> Any:
    """A column as it is put into words: an empty kv_budget means the whole cache."""
    if isinstance(value, str):
        return printable(value)
    if name != "kv_budget":
        return value
    words = [str(int(budget)) if np.isfinite(budget) else "" for budget in value.ravel()]
    return np.array(words, dtype=object).reshape(value.shape)


def _pack_gzip(blocks: Sequence[Priced], texts: Texts) -> Arrays:
    """Members without a file name and a time, so that equal sweeps give equal files."""
    plain = _pack_csv(blocks, texts)
    return {name: _bytes(gzip.compress(content.data, _GZIP, mtime=0)) for name, content in plain.items()}


def _join_bytes(pieces: Iterator[Arrays], path: Path, size: int, texts: Texts) -> None:
    del size, texts
    with path.open("wb") as stream:
        for place, piece in enumerate(pieces):
            for name, content in piece.items():
                if name != _HEAD or place == 0:
                    stream.write(content.data)


def _pack_npz(blocks: Sequence[Priced], texts: Texts) -> Arrays:
    tables = [rows_of(priced) for priced in blocks]
    columns = {name: _codes(tables, name, texts[name]) if name in texts else _joined(tables, name)
               for name in tables[0]}  # fmt: skip
    return pack(columns, deflated=[name for name in columns if name not in _MEASURED])


def _join_npz(pieces: Iterator[Arrays], path: Path, size: int, texts: Texts) -> None:
    names = {f"{name}_names": np.asarray(values, dtype=np.str_) for name, values in texts.items()}
    write_columns(pieces, path, size, names)


def _joined(tables: Sequence[Rows], name: str) -> Any:
    return np.concatenate([table[name] for table in tables])


def _codes(tables: Sequence[Rows], name: str, texts: Sequence[str]) -> Any:
    """The places of each row's text among the texts."""
    places = {text: place for place, text in enumerate(texts)}
    codes = np.array([places[table[name]] for table in tables], dtype=np.int16)
    return np.repeat(codes, [table["fits"].size for table in tables])


def _pack_parquet(blocks: Sequence[Priced], texts: Texts) -> Arrays:
    """A row group. Measured floats are split into streams of bytes, which are shorter and faster to write."""
    import pyarrow as pa

    from perfmodel.files.parquet import row_group

    tables = [rows_of(priced) for priced in blocks]
    columns = {}
    for name in tables[0]:
        if name in texts:
            words = pa.array([printable(text) for text in texts[name]])
            columns[name] = pa.DictionaryArray.from_arrays(_codes(tables, name, texts[name]), words)
        elif name == "kv_budget":
            budgets = _joined(tables, name)
            whole = ~np.isfinite(budgets)
            columns[name] = pa.array(np.where(whole, 0, budgets).astype(np.int64), mask=whole)
        else:
            columns[name] = pa.chunked_array([table[name] for table in tables])
    shared = [name for name in columns if name not in (*_MEASURED, "fits")]
    content = row_group(
        pa.table(columns), use_dictionary=shared, use_byte_stream_split=list(_MEASURED), store_schema=False,
    )  # fmt: skip
    return {_PIECE: _bytes(content)}


_BUDGET = {"name": "kv_budget", "field_name": "kv_budget", "pandas_type": "int64", "numpy_type": "Int64",
           "metadata": None}  # fmt: skip
_FOR_PANDAS = {"index_columns": [], "column_indexes": [], "columns": [_BUDGET]}
"""What pandas cannot tell by itself: whole numbers, some of which are absent."""


def _join_parquet(pieces: Iterator[Arrays], path: Path, size: int, texts: Texts) -> None:
    from perfmodel.files.parquet import join_row_groups

    del size, texts
    join_row_groups((piece[_PIECE].data for piece in pieces), path, {"pandas": json.dumps(_FOR_PANDAS)})


def _bytes(content: bytes) -> Any:
    return np.frombuffer(content, np.uint8)


def _need_parquet(name: str) -> None:
    """Refuse parquet where a package that writes it is absent."""
    for package in ("pyarrow", "thrift"):
        if find_spec(package) is None:
            from perfmodel.files.extras import missing_extra

            raise missing_extra("parquet", package, file=name, what="parquet")


def _pyarrow() -> str:
    import pyarrow as pa

    return f"pyarrow {pa.__version__}"


def _zlib() -> str:
    return f"zlib {zlib.ZLIB_RUNTIME_VERSION}"


_FORMATS = {
    form.ending: form
    for form in (
        Format(".csv", _pack_csv, _join_bytes, str),
        Format(".csv.gz", _pack_gzip, _join_bytes, _zlib),
        Format(".npz", _pack_npz, _join_npz, _zlib),
        Format(".parquet", _pack_parquet, _join_parquet, _pyarrow),
    )
}
ENDINGS = tuple(_FORMATS)
