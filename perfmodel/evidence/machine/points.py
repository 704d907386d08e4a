"""Times of kernels, passes and rounds on one machine: the rows that `draftplan measure` writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from perfmodel.errors import SpecError
from perfmodel.files.csv_rows import csv_text, each_row, read_csv
from perfmodel.files.opening import TABLE, read_file
from perfmodel.files.writing import write_whole
from perfmodel.model import ModelSpec
from perfmodel.model.dtypes import BYTES

__all__ = ["COLUMNS", "KINDS", "MachinePoint", "is_machine_file", "read_points", "write_points"]

KINDS: Mapping[str, str] = {
    "stream": "read `n` values of `dtype` once",
    "linear": "[tokens, k] x [k, n], the weights not in any cache",
    "attention": "one layer, `query_tokens` queries of each of `batch` sequences over `kv_tokens` entries",
    "forward": "one whole pass of a model; a plain decode step where query_tokens is 1, else a verification",
    "draft": "one draft pass of `strategy` over `kv_budget` of `kv_tokens` entries",
    "round": "one draft-verify round: `gamma` draft passes, the verification, acceptance and roll-back",
}
"""What each kind of row times."""


@dataclass(frozen=True, kw_only=True)
class MachinePoint:
    """One timed shape; what does not apply to its kind is None.

    Attributes
    ----------
    kind : a key of `KINDS`. dtype : key of `perfmodel.model.BYTES`; of weights, entries and activations.
    tokens, n, k : of a linear layer; rows, outputs and inputs.
    batch, query_tokens, kv_tokens : sequences, tokens of each that enter, entries that each may read, the new
        ones included.
    heads, kv_heads, head_dim, layers, hidden_size, mlp_width, vocab_size : of the attention layer or model.
    strategy, kv_budget, gamma : of a draft pass or a round.
    kernel : the attention kernel that ran; a name that `draftplan measure --help` explains.
    seconds : median; low, high : 10th and 90th percentile of the samples. [s]
    samples : how many times it was timed.
    clock : ``thread`` (processor time of one thread), ``wall``, ``cuda-graph`` or ``cuda``.
    device, sms, memory_bytes, l2_bytes, torch, date : the machine and its software.
    """

    kind: str
    dtype: str
    tokens: int | None = None
    n: int | None = None
    k: int | None = None
    batch: int | None = None
    query_tokens: int | None = None
    kv_tokens: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    layers: int | None = None
    hidden_size: int | None = None
    mlp_width: int | None = None
    vocab_size: int | None = None
    strategy: str | None = None
    kv_budget: int | None = None
    gamma: int | None = None
    kernel: str | None = None
    seconds: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    samples: int = 0
    clock: str = ""
    device: str = ""
    sms: int = 1
    memory_bytes: float = 0.0
    l2_bytes: float = 0.0
    torch: str = ""
    date: str = ""

    @property
    def shape(self) -> MachinePoint:
        """The same point without its times, kernel and circumstances: what two runs have in common."""
        blank = {f.name: f.default for f in fields(self) if f.name in _CIRCUMSTANCES}
        return replace(self, **blank)  # type: ignore[arg-type]

    @property
    def shape_of_model(self) -> tuple[int | None, ...]:
        """Its sizes: what tells models apart."""
        return tuple(getattr(self, name) for name in _MODEL)

    @property
    def model(self) -> ModelSpec:
        """The model of a pass or round, as it is priced."""
        config = {
            "model_type": "llama",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.mlp_width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": 1 << 20,
            "tie_word_embeddings": False,
        }
        return ModelSpec.from_config(config, f"measured, {self.layers} layers").with_dtypes(
            weights=self.dtype, kv=self.dtype
        )


COLUMNS = tuple(f.name for f in fields(MachinePoint))
"""Columns of the file, in their order."""
_TIMES = ("seconds", "low", "high", "samples", "clock")
_CIRCUMSTANCES = (*_TIMES, "kernel", "device", "sms", "memory_bytes", "l2_bytes", "torch", "date")
_TEXTS = ("kind", "dtype", "strategy", "kernel", "clock", "device", "torch", "date")
_REALS = ("seconds", "low", "high", "memory_bytes", "l2_bytes")
_MODEL = ("heads", "kv_heads", "head_dim", "layers", "hidden_size", "mlp_width", "vocab_size")
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "stream": ("n",),
    "linear": ("tokens", "n", "k"),
    "attention": ("batch", "query_tokens", "kv_tokens", "heads", "kv_heads", "head_dim"),
    "forward": ("batch", "query_tokens", "kv_tokens", *_MODEL),
    "draft": ("batch", "kv_tokens", "strategy", "kv_budget", *_MODEL),
    "round": ("batch", "kv_tokens", "strategy", "kv_budget", "gamma", *_MODEL),
}


def write_points(path: str | os.PathLike[str], points: Iterable[MachinePoint]) -> None:
    """Write points as CSV, whole or not at all. Raises SpecError where the file cannot be written."""
    write_whole(path, points_text(points))


def points_text(points: Iterable[MachinePoint]) -> str:
    """Return points as the text of a CSV file."""
    return csv_text(COLUMNS, ([_cell(name, getattr(point, name)) for name in COLUMNS] for point in points))


def _cell(name: str, value: Any) -> str:
    if value is None or value != value:  # not a number: nothing was measured
        return ""
    return f"{value:.6g}" if name in _REALS else str(value)


def is_machine_file(content: bytes) -> bool:
    """Whether a CSV file holds points of `draftplan measure`: a column `kind` and a column `seconds`."""
    header = content.partition(b"\n")[0].decode("utf-8", "replace").strip().lstrip("\ufeff").split(",")
    return {"kind", "seconds", "dtype"} <= set(header)


def read_points(path: str | os.PathLike[str]) -> tuple[MachinePoint, ...]:
    """Return the points of a file.

    Raises
    ------
    SpecError
        Naming the line and column of everything that cannot be read; columns that are not known are one too.
    """
    required = ("kind", "dtype", "seconds")
    table = read_csv(read_file(path, TABLE), os.fspath(path), required=required, known=COLUMNS, exact=True)
    return each_row(table, table.columns, lambda _, cells: _point(cells))


def _point(cells: Mapping[str, str]) -> MachinePoint:
    given = {name: cell for name, cell in cells.items() if cell}
    values: dict[str, Any] = {
        name: cell if name in _TEXTS else _number(name, cell) for name, cell in given.items()
    }
    for name, known in (("kind", KINDS), ("dtype", BYTES)):
        if values.get(name) not in known:
            problem = f"found {values.get(name, '')!r}"
            raise SpecError.single("", name, problem, f"There are {', '.join(known)}")
    if missing := [name for name in _NEEDED[values["kind"]] if name not in values]:
        raise SpecError.single("", "", f"a {values['kind']} row needs {', '.join(missing)}")
    point = MachinePoint(**values)
    if not point.seconds > 0.0:
        raise SpecError.single("", "seconds", f"found {cells['seconds']!r}, which is no time")
    return point


def _number(name: str, cell: str) -> float | int:
    try:
        value = float(cell) if name in _REALS else int(cell)
    except ValueError:
        raise SpecError.single("", name, f"found {cell[:40]!r}, which is no number") from None
    if not 0 <= value < 1e18:
        raise SpecError.single("", name, f"found {cell[:40]!r}, which is out of range")
    return value


def merged(known: Sequence[MachinePoint], new: Iterable[MachinePoint]) -> list[MachinePoint]:
    """Return all points, a new one in the place of a known one of the same shape."""
    return list({point.shape: point for point in (*known, *new)}.values())
