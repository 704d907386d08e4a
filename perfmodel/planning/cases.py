"""Named configurations from a CSV, priced in groups, one row of answers each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.deployment import Deployment
from perfmodel.errors import Fault, SpecError
from perfmodel.files.csv_columns import CsvColumns, Texts, read_columns
from perfmodel.files.numbers import FloatArray, Numeric, keep_memory
from perfmodel.files.opening import TABLE, read_file
from perfmodel.files.text_table import TableColumn, TextTable
from perfmodel.planning.case_columns import Cases, understand
from perfmodel.planning.case_rows import DEFAULT_ENGINE, CaseGroup, CaseReader
from perfmodel.planning.columns import Column
from perfmodel.planning.drafters import passed_over
from perfmodel.planning.uncertainty import DRAWS, MOST_DRAWN, Draws, draw, interval, price_draws
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
AT_ONCE = MOST_DRAWN
"""Rows times draws that are priced in one call: more take memory and are no faster. [1]"""


@dataclass(frozen=True)
class PricedCases:
    """The table with the answers beside the questions; faults and remarks name the row.

    rows : a sequence of tuples of texts, which are made when they are asked for.
    """

    columns: tuple[str, ...]
    rows: TextTable
    faults: tuple[Fault, ...]
    remarks: tuple[str, ...]

    def to_csv(self) -> str:
        """The table as CSV text."""
        return b"".join(self.csv_blocks()).decode()

    def csv_blocks(self) -> Iterator[bytes]:
        """The same piece by piece, in UTF-8."""
        return self.rows.csv_blocks()


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
    keep_memory()
    table = read_columns(content, file, required=REQUIRED, known=(*INPUTS, *OUTPUTS))
    del content  # as large as what is made of it
    faults: dict[int, Fault] = dict(table.faults)

    def refuse(place: int, fault: Fault) -> None:
        faults[place] = fault
        if len(faults) > _HOPELESS and 2 * len(faults) > place + 1:
            raise _hopeless(file, faults)

    groups, remarked = understand(table, INPUTS, CaseReader(profiles_path, measured), refuse)
    remarks = [f"row {place + 1}: {remark}" for place, remark in remarked.items()]
    remarks += passed_over(measured, [(cases.group.drafter, cases.group.target) for cases in groups])
    answers = Answers(len(table))
    for cases in groups:
        try:
            for places, values, fits in _answer_group(cases):
                answers.put(places, values, fits)
        except SpecError as fault:
            faults.update((place, fault.faults[0]) for place in cases.places.tolist())
            answers.drop(cases.places)
    for place in answers.drop_infinite():
        faults[place] = Fault("", None, "", "its price is not a finite number", "Check the row's figures")
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


class Answers:
    """What rows are answered with, nan and False where one is not.

    values : in the order of `OUTPUTS` but for the last; shape (columns, rows).
    fits : whether it fits; shape (rows,).
    is_priced : whether there is an answer; shape (rows,).
    """

    def __init__(self, rows: int) -> None:
        self.values = np.full((len(OUTPUTS) - 1, rows), np.nan)
        self.fits = np.zeros(rows, dtype=bool)
        self.is_priced = np.zeros(rows, dtype=bool)

    def put(self, places: NDArray[np.uint32], values: Sequence[FloatArray], fits: NDArray[np.bool_]) -> None:
        """Take the answers of some rows."""
        for row, value in zip(self.values, values, strict=True):
            row[places] = value
        self.fits[places], self.is_priced[places] = fits, True

    def drop(self, places: NDArray[Any]) -> None:
        """Take back the answers of some rows."""
        self.values[:, places], self.is_priced[places] = np.nan, False

    def drop_infinite(self) -> list[int]:
        """Take back the answers in which a number is not finite; returns their places."""
        is_finite = np.ones(self.is_priced.size, dtype=bool)
        for row in self.values:
            is_finite &= np.isfinite(row)
        places = np.flatnonzero(self.is_priced & ~is_finite)
        self.drop(places)
        return [int(place) for place in places]


def _answer_group(
    cases: Cases,
) -> Iterator[tuple[NDArray[np.uint32], list[FloatArray], NDArray[np.bool_]]]:
    """Price the cases of a group, and yield places, answers in the order of `OUTPUTS`, and what fits.

    They are priced as many at once as are drawn for at once; the number of draws is that of the whole group.
    """
    group, rows = cases.group, cases.places.size
    count = int(np.clip(MOST_DRAWN // rows, 16, DRAWS))
    worlds = draw(Deployment(group.hardware, group.target, group.engine), count=count)
    at_once = max(AT_ONCE // count, 1)
    for start in range(0, rows, at_once):
        some = slice(start, start + at_once)
        places = cases.places[some]
        numbers = {name: _as_one(column[some]) for name, column in cases.numbers.items()}
        values, fits = _answer(group, worlds, numbers, places.size)
        yield places, values, fits


def _as_one(column: NDArray[np.floating[Any]]) -> Numeric:
    """Return a column of equal numbers as that number: what hangs on it alone is worked out once."""
    return float(column[0]) if np.all(column == column[0]) else column.astype(float)


def _answer(
    group: CaseGroup, worlds: Draws, numbers: Mapping[str, Numeric], rows: int
) -> tuple[list[FloatArray], NDArray[np.bool_]]:
    """Price some cases of one group in one call."""
    layout: dict[str, Any] = {
        name: numbers[name]
        for name in ("tensor_parallel", "expert_parallel", "pipeline_parallel", "data_parallel")
    }
    worlds = replace(
        worlds,
        central=replace(worlds.central, **layout),
        deployment=replace(worlds.deployment, **layout),
    )
    configuration = Configuration(
        batch=numbers["batch"],
        context_len=numbers["context_len"],
        kv_budget=numbers["kv_budget"],
        gamma=numbers["gamma"],
        output_tokens=numbers["output_tokens"],
    )
    known: dict[str, Any] = {
        "alpha": numbers["acceptance"] if group.acceptance == "alpha" else None,
        "tokens_per_round": numbers["acceptance"] if group.acceptance == "tokens" else None,
    }
    priced = price(worlds.central, group.drafter, **configuration, **known)
    drawn = price_draws(worlds, group.drafter, configuration, value=priced, **known)
    values = [np.broadcast_to(column.value(priced), rows) for column in ANSWERS]
    by_name = {column.name: column.value for column in ANSWERS}
    for name in RANGED:
        values += interval(np.broadcast_to(by_name[name](drawn), (rows, worlds.size)))
    return values, np.broadcast_to(priced.memory.fits, rows)


def _table(
    table: CsvColumns, answers: Answers, faults: Mapping[int, Fault], remarks: list[str]
) -> PricedCases:
    """Put the answers beside the questions."""
    taken = [name for name in OUTPUTS if name in table.columns and name not in INPUTS]
    if taken:
        remarks = [f"these columns of the input are replaced: {', '.join(taken)}", *remarks]
    columns = {name: TableColumn(texts) for name, texts in table.texts.items() if name != ERROR}
    blank = Texts(np.broadcast_to(np.zeros((), np.uint8), len(table)), ("",))
    for name, numbers in zip(OUTPUTS, answers.values, strict=False):
        given = table.texts.get(name, blank) if name in INPUTS else blank
        columns[name] = TableColumn(given, numbers)
    fits = np.where(answers.is_priced, np.where(answers.fits, 1, 2), 0).astype(np.uint8)
    columns[OUTPUTS[-1]] = TableColumn(Texts(fits, ("", "true", "false")))
    if faults:
        reasons = np.zeros(len(table), dtype=np.uint32)
        reasons[list(faults)] = np.arange(1, len(faults) + 1)
        sentences = ["", *(str(replace(fault, line=None)) for fault in faults.values())]
        columns[ERROR] = TableColumn(Texts(reasons, sentences))
    return PricedCases(
        tuple(columns),
        TextTable(columns, len(table)),
        tuple(replace(faults[place], file=f"row {place + 1}", line=None) for place in sorted(faults)),
        tuple(remarks),
    )
