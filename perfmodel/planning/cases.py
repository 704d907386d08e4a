"""Named configurations from a CSV, priced in groups, one row of answers each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmodel.deployment import Deployment
from perfmodel.errors import Fault, SpecError
from perfmodel.files.csv_rows import CsvFile, CsvRow, csv_text, read_csv
from perfmodel.files.numbers import FloatArray
from perfmodel.files.opening import TABLE, read_file
from perfmodel.planning.case_rows import DEFAULT_ENGINE, Case, CaseGroup, CaseReader
from perfmodel.planning.columns import Column
from perfmodel.planning.drafters import passed_over
from perfmodel.planning.uncertainty import DRAWS, MOST_DRAWN, draw, interval, price_draws
from perfmodel.speculation import Configuration, price

if TYPE_CHECKING:
    from perfmodel.acceptance.file import MeasuredAcceptance

__all__ = ["DEFAULT_ENGINE", "INPUTS", "OUTPUTS", "PricedCases", "price_cases", "price_file"]

REQUIRED = ("hardware", "target_model", "strategy", "context_len", "batch_size", "gamma")
INPUTS = (
    "hardware", "engine", "tensor_parallel", "target_model", "draft_model", "strategy", "kv_budget",
    "context_len", "output_tokens", "batch_size", "gamma", "acceptance_rate", "tokens_per_round",
    "draft_tensor_parallel", "expert_parallel", "pipeline_parallel", "data_parallel", "topk", "nodes",
    "weight_dtype", "kv_dtype", "draft_vocabulary",
)  # fmt: skip
ERROR = "error"
_DIGITS = 10
_HOPELESS = 2_000
"""Rows that cannot be priced after which a file in which most cannot be is not read on."""
_MOST_FAULTS = 50


@dataclass(frozen=True)
class PricedCases:
    """The table with the answers beside the questions, as texts; faults and remarks name the row."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    faults: tuple[Fault, ...]
    remarks: tuple[str, ...]

    def to_csv(self) -> str:
        """The table as CSV text."""
        return csv_text(self.columns, self.rows)


def price_file(
    path: str | os.PathLike[str],
    profiles_path: str | None = None,
    measured: Sequence[MeasuredAcceptance] = (),
) -> PricedCases:
    """Price the cases of a CSV file, with arguments as in `price_cases`.

    Raises
    ------
    SpecError : the file cannot be read, or `price_cases` refuses it.
    """
    return price_cases(read_file(path, TABLE), os.fspath(path), profiles_path, measured)


def _hopeless(file: str, faults: Mapping[int, Fault]) -> SpecError:
    first = [replace(fault, file=file) for fault in list(faults.values())[:_MOST_FAULTS]]
    problem = f"more than {_HOPELESS:,} rows, and most of them, cannot be priced"
    return SpecError([*first, Fault(file, None, "", problem, "Mend these first")])


def price_cases(
    content: bytes,
    file: str = "cases",
    profiles_path: str | None = None,
    measured: Sequence[MeasuredAcceptance] = (),
) -> PricedCases:
    """Price every row of a CSV text with the columns `INPUTS`; unknown columns pass through.

    Empty cells mean: engine ``generic``, one GPU, the model's own dtypes of weights and cache, the target
    itself as draft model, a draft model on all GPUs, a head of its strategy's usual vocabulary, a chain of
    drafts (`topk` 1), a step at that very context (`output_tokens` 0), no acceptance given (the strategy's
    own law, moved by what was `measured`). A row that cannot be priced keeps its place with empty answers and
    its reason in a column ``error``, which is there only when it is needed.

    Parameters
    ----------
    content : the text of the file, UTF-8.
    file : what messages call it.
    profiles_path : a folder of profiles and engines beside the bundled ones.
    measured : acceptance that was measured, moves the laws where a row gives none.

    Returns
    -------
    PricedCases
        Milliseconds for people, in the order of the input. A column of the input that is called like an
        answer is replaced, and a remark says so.

    Raises
    ------
    SpecError
        When the file as a whole cannot be used, such as without one of the columns `REQUIRED`.
    """
    table = read_csv(content, file, required=REQUIRED, known=(*INPUTS, *OUTPUTS))
    faults: dict[int, Fault] = {row.number: row.fault for row in table.rows if row.fault}
    remarks: list[str] = []
    groups: dict[tuple[str, ...], tuple[CaseGroup, list[Case]]] = {}
    understand = CaseReader(profiles_path, measured)
    for row, cells in _named_cells(table):
        try:
            key, group, case, remark = understand.case(row, cells)
        except SpecError as fault:
            faults[row.number] = fault.located("", row.line, "").faults[0]
            if len(faults) > _HOPELESS and 2 * len(faults) > row.number:
                raise _hopeless(file, faults) from fault
            continue
        groups.setdefault(key, (group, []))[1].append(case)
        remarks += [f"row {row.number}: {remark}"] if remark else []
    remarks += passed_over(measured, [(group.drafter, group.target) for group, _ in groups.values()])
    answers: dict[int, list[str]] = {}
    for group, cases in groups.values():
        try:
            answers.update(_answer_group(group, cases))
        except SpecError as fault:
            faults.update((case.row, fault.faults[0]) for case in cases)
    for number in set(answers) - {number for number, texts in answers.items() if "nan" not in texts}:
        del answers[number]
        faults[number] = Fault("", None, "", "its price is not a finite number", "Check the row's figures")
    return _table(table, answers, faults, remarks)


ANSWERS = (
    Column("t_target_ms", "ms", lambda priced: np.multiply(priced.baseline.total, 1e3)),
    Column("t_draft_ms", "ms", lambda priced: np.multiply(priced.draft.total, 1e3)),
    Column("t_verify_ms", "ms", lambda priced: np.multiply(priced.verify.total, 1e3)),
    Column("round_ms", "ms", lambda priced: np.multiply(priced.round_s, 1e3)),
    Column("tokens_per_round", "tokens", lambda priced: priced.tokens_per_round),
    Column("tpot_ms", "ms", lambda priced: np.multiply(priced.tpot, 1e3)),
    Column("baseline_ms", "ms", lambda priced: np.multiply(priced.baseline.total, 1e3)),
    Column("throughput_tokens_per_s", "tokens/s", lambda priced: priced.throughput),
    Column("speedup", "1", lambda priced: priced.speedup),
)
"""What a row is answered with: columns of a `Round`."""
RANGED = ("t_target_ms", "t_verify_ms", "t_draft_ms", "tpot_ms", "speedup")
"""Those that also say between which ends 80 % of cases lie."""


def _ends(name: str) -> tuple[str, str]:
    """Return what the low and the high end of a column are called: the unit stays last."""
    stem, unit = (name[:-3], "_ms") if name.endswith("_ms") else (name, "")
    return f"{stem}_low{unit}", f"{stem}_high{unit}"


OUTPUTS = (
    *(column.name for column in ANSWERS), *(end for name in RANGED for end in _ends(name)), "fits",
)  # fmt: skip


def _answer_group(group: CaseGroup, cases: Sequence[Case]) -> Iterator[tuple[int, list[str]]]:
    """Price the cases of one group in one call and yield each row's answers in the order of `OUTPUTS`."""

    def column(name: str) -> FloatArray:
        return np.asarray([getattr(case, name) for case in cases], dtype=float)

    deployment = Deployment(
        group.hardware, group.target, group.engine,
        *map(column, ("tensor_parallel", "expert_parallel", "pipeline_parallel", "data_parallel")),
    )  # fmt: skip
    configuration = Configuration(
        batch=column("batch"),
        context_len=column("context_len"),
        kv_budget=column("kv_budget"),
        gamma=column("gamma"),
        output_tokens=column("output_tokens"),
    )
    known: dict[str, Any] = {
        "alpha": column("acceptance") if group.acceptance == "alpha" else None,
        "tokens_per_round": column("acceptance") if group.acceptance == "tokens" else None,
    }
    priced = price(deployment, group.drafter, **configuration, **known)
    worlds = draw(deployment, count=int(np.clip(MOST_DRAWN // len(cases), 16, DRAWS)))
    drawn = price_draws(worlds, group.drafter, configuration, **known)
    values = [np.broadcast_to(column.value(priced), len(cases)) for column in ANSWERS]
    by_name = {column.name: column.value for column in ANSWERS}
    for name in RANGED:
        values += interval(np.broadcast_to(by_name[name](drawn), (len(cases), worlds.size)))
    fits = np.broadcast_to(priced.memory.fits, len(cases))
    for case, row, fit in zip(cases, np.stack(values, axis=1), fits, strict=True):
        texts = [f"{value:.{_DIGITS}g}" if np.isfinite(value) else "nan" for value in row]
        yield case.row, [*texts, "true" if fit else "false"]


def _table(
    table: CsvFile, answers: dict[int, list[str]], faults: dict[int, Fault], remarks: list[str]
) -> PricedCases:
    """Put the answers beside the questions."""
    taken = [name for name in OUTPUTS if name in table.columns and name not in INPUTS]
    if taken:
        remarks = [f"these columns of the input are replaced: {', '.join(taken)}", *remarks]
    columns = list(dict.fromkeys([name for name in table.columns if name != ERROR] + list(OUTPUTS)))
    rows = []
    for row in table.rows:
        cells = dict(zip(table.columns, row.cells, strict=True))
        texts = answers.get(row.number)
        given = cells.get("tokens_per_round", "")
        cells.update(zip(OUTPUTS, texts or [""] * len(OUTPUTS), strict=True))
        if texts is None:
            cells["tokens_per_round"] = given
        cells[ERROR] = str(replace(faults[row.number], line=None)) if row.number in faults else ""
        rows.append(tuple(cells[name] for name in [*columns, *([ERROR] if faults else [])]))
    return PricedCases(
        tuple(columns) + ((ERROR,) if faults else ()),
        tuple(rows),
        tuple(replace(faults[number], file=f"row {number}", line=None) for number in sorted(faults)),
        tuple(remarks),
    )


def _named_cells(table: CsvFile) -> Iterator[tuple[CsvRow, dict[str, str]]]:
    columns = [table.column(name) for name in INPUTS]
    for row, *cells in zip(table.rows, *columns, strict=True):
        if row.fault is None:
            yield row, dict(zip(INPUTS, cells, strict=True))
