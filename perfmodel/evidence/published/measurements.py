"""Measured decoding steps, published ones and a user's own: one row a cell, NaN where not measured."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import numpy as np

from perfmodel.accelerators import MEMORY_BANDWIDTH
from perfmodel.errors import Fault, SpecError, nearest_name
from perfmodel.files import opening
from perfmodel.files.csv_rows import CsvRow, each_row, read_csv
from perfmodel.files.scalars import number_in
from perfmodel.files.units import plural
from perfmodel.planning.case_rows import CaseGroup, CaseReader

__all__ = ["Measurement", "available", "beyond_its_memory", "load", "read_file", "read_measurements"]

TIMES = ("t_target_ms", "t_draft_ms", "draft_phase_ms", "t_verify_ms", "round_ms", "step_ms", "tpot_ms")
QUESTION = (
    "hardware", "engine", "tensor_parallel", "target_model", "draft_model", "draft_tensor_parallel",
    "strategy", "kv_budget", "context_len", "batch_size", "gamma", "expert_parallel",
)  # fmt: skip
OTHERS = (
    "tokens_per_round", "speedup", "table", "cell", "gamma_is_best", "unknown", "source", "acceptance_rate",
)  # fmt: skip
REQUIRED = ("batch_size", "context_len")
_STEPS = ("magicdec.csv", "magicdec_blog.csv", "plain_decode.csv")
_LONGEST_STEP = 1000.0
_SHORTEST_STEP = 1e-6
"""No step is shorter than the launch of one kernel, 1.5 to 3 us in the profiles here. Assumed. [s]"""
_MISREAD = 1.1
"""How far above its data sheet a memory is taken to be misread for no remark. Assumed. [1]"""


@dataclass(frozen=True)
class Measurement:
    """What was measured in one cell, and what the cell was.

    Attributes
    ----------
    target, draft, verify : one plain step, one draft pass, one verification of ``gamma + 1`` tokens. [s]
    round : one round; where it is printed per token, that times the tokens. [s]
    tokens_per_round, tpot, speedup : bonus token included; seconds per token; against plain decoding.
    gamma : speculation length, 0 for plain decoding, NaN where the best one, not printed. [tokens]
    gamma_is_best : whether this length was found to be the best of this cell.
    unknown : what the source does not say, and what is taken instead.
    """

    table: str
    cell: str
    row: int
    group: CaseGroup
    key: tuple[str, ...]
    tensor_parallel: int
    batch: int
    context_len: int
    kv_budget: float
    gamma: float
    gamma_is_best: bool
    target: float
    draft: float
    verify: float
    round: float
    tokens_per_round: float
    tpot: float
    speedup: float
    source: str
    unknown: str
    expert_parallel: bool = False

    @property
    def plain(self) -> bool:
        """Whether the cell decodes without drafting."""
        return self.gamma == 0.0

    @property
    def overhead(self) -> float:
        """What a round takes beside draft passes and verification; NaN unless all are measured. [s]"""
        return self.round - self.gamma * self.draft - self.verify

    @property
    def implied_bandwidth(self) -> float:
        """Weights that one token needs, by the shortest pass of the target, per GPU; 0 unmeasured. [B/s]"""
        times = [time for time in (self.target, self.verify, self.round) if not math.isnan(time)]
        weights = float(self.group.target.weight_bytes_read(1.0)) / self.tensor_parallel
        return weights / min(times) if times else 0.0

    @property
    def scope(self) -> str:
        """Number and kind of accelerators, such as ``8xH100``."""
        return f"{self.tensor_parallel}x{self.group.hardware.name.split('-')[0].upper()}"

    @property
    def place(self) -> str:
        """Table and cell."""
        return f"{self.table}: {self.cell}" if self.table else self.cell


def available() -> tuple[str, ...]:
    """Return the names of the published tables, in the order of their sources."""
    return tuple(dict.fromkeys(row.table for row in _published()))


def load(tables: Iterable[str] | None = None) -> tuple[Measurement, ...]:
    """Return the rows of published tables, of all where none is named. Raises SpecError on unknown names."""
    names = available()
    wanted = names if tables is None else tuple(tables)
    faults = [
        Fault("", None, "table", f"there is no published table {name!r}", f"Known: {', '.join(names)}",
              nearest_name(name, names))
        for name in wanted
        if name not in names
    ]  # fmt: skip
    if faults:
        raise SpecError(faults)
    return tuple(row for row in _published() if row.table in wanted)


def read_file(
    path: str | os.PathLike[str],
    *,
    given: Mapping[str, str] | None = None,
    profiles_path: str | None = None,
) -> tuple[Measurement, ...]:
    """Read the measurements of a CSV file; see `read_measurements`."""
    content = opening.read_file(path, opening.TABLE)
    return read_measurements(content, os.fspath(path), given=given, profiles_path=profiles_path)


def read_measurements(
    content: bytes, file: str, *, given: Mapping[str, str] | None = None, profiles_path: str | None = None
) -> tuple[Measurement, ...]:
    """Read one measured cell a row.

    Columns say what the cell is, as for pricing: hardware, tensor_parallel, target_model, draft_model,
    strategy, kv_budget, context_len, batch_size, gamma, expert_parallel. Measured, in milliseconds and any of
    them: t_target_ms, t_draft_ms (or draft_phase_ms, all draft passes of a round), t_verify_ms, round_ms,
    tpot_ms beside tokens_per_round, and step_ms, an engine's own step: a plain one at gamma 0, else a whole
    round.

    Parameters
    ----------
    given : what holds for every row whose own cell of that column is empty or absent.

    Raises
    ------
    SpecError
        Naming every row that is damaged, not a number, not positive, or without anything measured.
    """
    columns = (*QUESTION, *TIMES, *OTHERS)
    table = read_csv(content, file, required=REQUIRED, known=columns)
    if not set(TIMES) & set(table.columns):
        remedy = f"Give at least one of {', '.join(TIMES)}"
        raise SpecError.single(file, "", "no column of measured times", remedy, line=1)
    reader, usual = CaseReader(profiles_path), given or {}
    rows = each_row(table, columns, lambda row, cells: _measurement(
        reader, row, {name: cell or usual.get(name, "") for name, cell in cells.items()}))  # fmt: skip
    if not rows:
        raise SpecError.single(file, "", "no rows", "Give one measured cell a row")
    return rows


def _measurement(reader: CaseReader, row: CsvRow, cells: dict[str, str]) -> Measurement:
    numbers = dict(_numbers(cells))
    unprinted = not cells["gamma"] and cells["gamma_is_best"] == "yes"
    if not unprinted and not cells["gamma"] and not math.isnan(numbers["t_target_ms"]):
        cells = {**cells, "gamma": "0"}
    if cells["gamma"] == "0" and not cells["strategy"]:
        cells = {**cells, "strategy": "none"}
    asked = {**cells, "gamma": "1"} if unprinted else cells
    key, group, case, _ = reader.case(row, {**asked, "engine": cells["engine"] or "ideal"})
    if group.drafter is not None and case.gamma == 0:
        group = replace(group, drafter=None)
        key = (*key, "plain")
    gamma = math.nan if unprinted else float(case.gamma)
    passes = gamma if gamma else math.nan
    times = {name: numbers[name] / 1e3 for name in TIMES}
    tokens = numbers["tokens_per_round"]
    whole = _first(times["round_ms"], times["step_ms"] if passes > 0 else math.nan, times["tpot_ms"] * tokens)
    if not math.isnan(gamma) and not (math.isnan(tokens) or 1.0 <= tokens <= gamma + 1.0):
        remedy = f"Give tokens per round, bonus token included: from 1 to gamma + 1 = {gamma + 1.0:g}"
        raise SpecError.single("", "tokens_per_round", f"found {tokens:g}", remedy)
    measured = Measurement(
        table=cells["table"],
        cell=cells["cell"] or f"row {row.number}",
        row=row.number,
        group=group,
        key=key,
        tensor_parallel=case.tensor_parallel,
        batch=case.batch,
        context_len=case.context_len,
        kv_budget=case.kv_budget,
        gamma=gamma,
        gamma_is_best=cells["gamma_is_best"] == "yes",
        target=_first(times["t_target_ms"], times["step_ms"] if gamma == 0.0 else math.nan),
        draft=_first(times["t_draft_ms"], times["draft_phase_ms"] / passes) if passes > 0 else math.nan,
        verify=times["t_verify_ms"],
        round=whole,
        tokens_per_round=tokens,
        tpot=times["tpot_ms"],
        speedup=numbers["speedup"],
        source=cells["source"],
        unknown=cells["unknown"],
        expert_parallel=case.expert_parallel,
    )
    if problem := MEMORY_BANDWIDTH.beyond_physical(measured.implied_bandwidth):
        problem = f"the weights of {group.target.name} in this time make {problem}"
        remedy = "Check the time, its unit, the model and its GPUs"
        raise SpecError.single("", _first_time(cells), problem, remedy)
    return measured


def _first_time(cells: Mapping[str, str]) -> str:
    """Return the column of the first time of a row, which a refusal of its times names."""
    return next((name for name in TIMES if cells[name]), TIMES[0])


def beyond_its_memory(rows: Iterable[Measurement]) -> tuple[str, ...]:
    """Return a sentence for rows whose times make a memory bandwidth above that of their accelerator."""
    faster = [
        row for row in rows
        if row.implied_bandwidth > _MISREAD * float(np.max(row.group.hardware.memory_bandwidth))
    ]  # fmt: skip
    if not faster:
        return ()
    row = max(faster, key=lambda row: row.implied_bandwidth)
    hardware = row.group.hardware
    return (
        f"{plural(len(faster), 'point')} read the weights faster than the memory can, {row.place} at "
        f"{MEMORY_BANDWIDTH.shown(row.implied_bandwidth)} where {hardware.name} has "
        f"{MEMORY_BANDWIDTH.shown(float(np.max(hardware.memory_bandwidth)))}: check the unit of the times, "
        "the model, the dtype of its weights and its GPUs",
    )


def _numbers(cells: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    """Yield every measured number of a row, NaN where its cell is empty; refuse all but positive numbers."""
    measured = 0
    for name in (*TIMES, "tokens_per_round", "speedup"):
        text = cells[name]
        measured += bool(text) and name in TIMES
        number, problem = number_in(text) if text else (math.nan, None)
        value = -math.inf if problem or isinstance(number, str) else float(number)
        least, highest = (_SHORTEST_STEP * 1e3, _LONGEST_STEP * 1e3) if name in TIMES else (0.0, 1e6)
        if text and not (least <= value <= highest and value > 0.0):
            unit = "milliseconds" if name in TIMES else "a plain number"
            remedy = f"Give {unit} above {least:g}, at most {highest:g}"
            raise SpecError.single("", name, f"found {text[:40]}", remedy)
        yield name, value
    if not measured and not cells["speedup"]:
        raise SpecError.single("", "", "nothing is measured in this row", f"Fill one of {', '.join(TIMES)}")


def _first(*values: float) -> float:
    return next((value for value in values if not math.isnan(value)), math.nan)


@cache
def _published() -> tuple[Measurement, ...]:
    folder = files("perfmodel") / "data" / "measurements"
    return tuple(row for name in _STEPS for row in read_measurements((folder / name).read_bytes(), name))
