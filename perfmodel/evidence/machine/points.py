"""Times of kernels, passes and rounds on one machine: the rows that `draftplan measure` writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from perfmodel.accelerators import MEMORY_BANDWIDTH, PEAK_FLOPS
from perfmodel.errors import SpecError
from perfmodel.files.csv_rows import CsvRow, csv_text, each_row, read_csv
from perfmodel.files.opening import TABLE, read_file
from perfmodel.files.scalars import number_in
from perfmodel.files.writing import write_whole
from perfmodel.model import ModelSpec
from perfmodel.model.dtypes import BYTES

__all__ = [
    "COLUMNS", "KINDS", "MachinePoint", "beyond_known", "is_machine_file", "read_points", "write_points",
]  # fmt: skip

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
_MAY_BE_0 = ("gamma", "samples")
_LONGEST = 1e5
"""Longest time that is believed: a day. Assumed. [s]"""
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
        Naming the line and column of everything that cannot be read or be: columns that are not known, sizes
        below 1, a row that is there twice, rows of several machines, a time too short for what it moves.
    """
    required = ("kind", "dtype", "seconds")
    table = read_csv(read_file(path, TABLE), os.fspath(path), required=required, known=COLUMNS, exact=True)
    lines: dict[MachinePoint, int] = {}
    machines: dict[str, int] = {}

    def point_of(row: CsvRow, cells: Mapping[str, str]) -> MachinePoint:
        point = _point(cells)
        if lines.setdefault(point.shape, row.line) != row.line:
            problem = f"is the {point.kind} row of line {lines[point.shape]} again"
            raise SpecError.single("", "", problem, "Keep one of them")
        machines.setdefault(point.device, row.line)
        first, line = next(iter(machines.items()))
        if point.device != first:
            problem = f"found {point.device!r}, where line {line} has {first!r}"
            raise SpecError.single("", "device", problem, "Give the points of one machine at a time")
        return point

    return each_row(table, table.columns, point_of)


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
    if not 0.0 < point.seconds <= _LONGEST:
        problem = f"found {cells['seconds']!r}, which is no time"
        raise SpecError.single("", "seconds", problem, f"Give seconds above 0, at most {_LONGEST:g}")
    if point.low > point.seconds or point.high < point.seconds:
        problem = f"found {point.low:g} to {point.high:g} s around {point.seconds:g}"
        raise SpecError.single("", "low", problem, "Give low <= seconds <= high")
    if point.heads and point.kv_heads and point.heads % point.kv_heads:
        problem = f"found {point.kv_heads} beside {point.heads} heads"
        raise SpecError.single("", "kv_heads", problem, "Each serves a whole number of heads")
    for bound, amount in ((MEMORY_BANDWIDTH, bytes_read(point)), (PEAK_FLOPS, flops(point))):
        if problem := bound.beyond_physical(amount / point.seconds):
            problem = f"found {cells['seconds']!r}, which makes {problem}"
            raise SpecError.single("", "seconds", problem, "Check the time, its unit, and the sizes")
    return point


def bytes_read(point: MachinePoint) -> float:
    """Bytes that a row reads at least: the values of a stream, a layer's or model's weights, a cache. [B]"""
    sizes = {name: float(getattr(point, name) or 0) for name in COLUMNS if name not in (*_TEXTS, *_REALS)}
    cache = 2.0 * sizes["batch"] * sizes["kv_heads"] * sizes["head_dim"]
    width = sizes["head_dim"] * (2.0 * sizes["heads"] + 2.0 * sizes["kv_heads"])
    layer = sizes["hidden_size"] * (width + 3.0 * sizes["mlp_width"])
    values = {
        "stream": sizes["n"],
        "linear": sizes["n"] * sizes["k"],
        "attention": cache * sizes["kv_tokens"],
    }
    model = sizes["layers"] * layer + sizes["hidden_size"] * sizes["vocab_size"]
    return values.get(point.kind, model) * BYTES[point.dtype]


def flops(point: MachinePoint) -> float:
    """Floating-point operations of a linear layer, 0 for other kinds. [FLOP]"""
    if point.kind != "linear":
        return 0.0
    return 2.0 * float(point.tokens or 0) * float(point.n or 0) * float(point.k or 0)


def beyond_known(points: Sequence[MachinePoint]) -> tuple[str, ...]:
    """Return a sentence where the fastest of the points is above what any known accelerator does."""
    fastest = (
        (MEMORY_BANDWIDTH, max((bytes_read(point) / point.seconds for point in points), default=0.0)),
        (PEAK_FLOPS, max((flops(point) / point.seconds for point in points), default=0.0)),
    )
    sentences = (bound.beyond_known(rate) for bound, rate in fastest)
    return tuple(f"the fastest point makes {sentence}: check its time" for sentence in sentences if sentence)


def _number(name: str, cell: str) -> float | int:
    value, problem = number_in(cell)
    whole = name not in _REALS
    if problem or not isinstance(value, int if whole else (int, float)):
        kind = "whole number" if whole else "number"
        raise SpecError.single("", name, f"found {cell[:40]!r}, which is no {kind}")
    least = 0 if name in _MAY_BE_0 else 1 if whole else 0.0
    if not least <= value < 1e18:
        remedy = f"Give {least:g} or more"
        raise SpecError.single("", name, f"found {cell[:40]!r}, which is out of range", remedy)
    return value if whole else float(value)


def merged(known: Sequence[MachinePoint], new: Iterable[MachinePoint]) -> list[MachinePoint]:
    """Return all points, a new one in the place of a known one of the same shape."""
    return list({point.shape: point for point in (*known, *new)}.values())
