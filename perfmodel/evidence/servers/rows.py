"""Steps, rounds and closed loops that people measured on their servers: one row a published number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, cast, get_args

from perfmodel.errors import SpecError
from perfmodel.files.csv_rows import CsvRow, each_row, read_csv
from perfmodel.planning.case_rows import CaseGroup, CaseReader

__all__ = ["Measured", "ServerRow", "published_servers", "read_servers"]

Measured = Literal["step", "round", "loop", "burst"]
"""What a row's milliseconds are: one plain step, one round, or the mean TPOT of a closed loop of requests,
with the prefill of the others inside; in a burst they all begin at once."""
QUESTION = (
    "engine", "hardware", "tensor_parallel", "expert_parallel", "target_model", "weight_dtype", "kv_dtype",
    "draft_model", "draft_tensor_parallel", "strategy", "kv_budget", "draft_vocabulary", "context_len",
    "batch_size", "gamma", "topk", "nodes",
)  # fmt: skip
ANSWER = (
    "source", "cell", "engine_version", "tokens_per_round", "measured", "ms", "plain_ms", "prompt_tokens",
    "output_tokens", "acceptance_rate", "unknown",
)  # fmt: skip
REQUIRED = ("source", "engine", "hardware", "target_model", "context_len", "batch_size", "measured", "ms")


@dataclass(frozen=True)
class ServerRow:
    """One published number of a server.

    Attributes
    ----------
    source, cell : where it was published, and which of its numbers it is.
    group, key : hardware, engine, models and strategy, and what rows share that are priced together.
    measured, seconds : what was measured. [s]
    plain : seconds per token without drafting that the source printed beside it; NaN where none. [s]
    tokens_per_round : bonus token included; NaN where nothing is drafted. [tokens]
    prompt_tokens, output_tokens : of the requests of a closed loop; NaN elsewhere. [tokens]
    unknown : what the source does not say, and what is taken instead.
    """

    source: str
    cell: str
    group: CaseGroup
    key: tuple[str, ...]
    measured: Measured
    seconds: float
    plain: float
    tensor_parallel: int
    expert_parallel: bool
    batch: int
    context_len: int
    kv_budget: float
    gamma: int
    tokens_per_round: float
    prompt_tokens: float
    output_tokens: float
    unknown: str

    @property
    def speedup(self) -> float:
        """Plain decoding over seconds per token; NaN where the source printed no plain decoding. [1]"""
        return self.plain * self.tokens_per_round / self.seconds

    @property
    def experts(self) -> bool:
        """Whether the model has experts."""
        return bool(self.group.target.experts)


def read_servers(content: bytes, file: str) -> tuple[ServerRow, ...]:
    """Read one measured number a row.

    Columns say what was served, as for pricing, and what was measured: ``measured`` is ``step``, ``round``,
    ``loop`` or ``burst``, ``ms`` its milliseconds, ``plain_ms`` those of a token without drafting, beside
    them; ``prompt_tokens`` and ``output_tokens`` of a closed loop of ``batch_size`` requests at a time.

    Raises
    ------
    SpecError
        Naming every row that cannot be read.
    """
    columns = (*QUESTION, *ANSWER)
    table = read_csv(content, file, required=REQUIRED, known=columns)
    reader = CaseReader(None)
    return each_row(table, columns, lambda row, cells: _server_row(reader, row, cells))


@cache
def published_servers() -> tuple[ServerRow, ...]:
    """Return the published rows."""
    folder = files("perfmodel") / "data" / "measurements"
    return read_servers((folder / "servers.csv").read_bytes(), "servers.csv")


def _server_row(reader: CaseReader, row: CsvRow, cells: Mapping[str, str]) -> ServerRow:
    kinds = get_args(Measured)
    if cells["measured"] not in kinds:
        problem = f"found {cells['measured'][:40]!r}"
        raise SpecError.single("", "measured", problem, f"Choose one of {', '.join(kinds)}")
    key, group, case, _ = reader.case(row, dict(cells))
    looped = cells["measured"] in ("loop", "burst")
    return ServerRow(
        source=cells["source"],
        cell=cells["cell"] or f"row {row.number}",
        group=group,
        key=(*key, cells["measured"]),
        measured=cast(Measured, cells["measured"]),
        seconds=_number(cells, "ms", needed=True) / 1e3,
        plain=_number(cells, "plain_ms") / 1e3,
        tensor_parallel=case.tensor_parallel,
        expert_parallel=case.expert_parallel,
        batch=case.batch,
        context_len=case.context_len,
        kv_budget=case.kv_budget,
        gamma=case.gamma,
        tokens_per_round=case.acceptance if group.acceptance == "tokens" else math.nan,
        prompt_tokens=_number(cells, "prompt_tokens", needed=looped),
        output_tokens=_number(cells, "output_tokens", needed=looped),
        unknown=cells["unknown"],
    )


def _number(cells: Mapping[str, str], name: str, *, needed: bool = False) -> float:
    """Return a positive number, NaN where a cell may be empty and is."""
    text = cells[name]
    if not text and not needed:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < 1e9:
        raise SpecError.single("", name, f"found {text[:40]!r}", "Give a number above 0")
    return value
