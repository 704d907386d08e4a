"""A table of cases understood as columns: every distinct text and combination once, bad rows one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import Fault, SpecError
from perfmodel.files.csv_columns import CsvColumns, Texts
from perfmodel.files.csv_rows import CsvRow
from perfmodel.files.numbers import FloatArray
from perfmodel.planning.case_rows import (
    SIZES,
    CaseGroup,
    CaseReader,
    Setting,
    are_possible,
    budget_of,
    group_of,
    rate_in,
    size_of,
    tokens_in,
)  # fmt: skip

__all__ = ["Cases", "understand"]

Places = NDArray[np.int64]
ReadT = TypeVar("ReadT")

_OWN = (*SIZES, "kv_budget", "tokens_per_round", "acceptance_rate")
"""Columns that are read by themselves; what the others say together is a setting."""
_LAYOUT = ("tensor_parallel", "expert_parallel", "pipeline_parallel", "data_parallel")
_GIVEN = ("", "alpha", "tokens")
_MOST_CODES = 1 << 62


@dataclass(frozen=True)
class Cases:
    """Rows that are priced in one call.

    group : what they share.
    places : of the rows, from 0 on.
    numbers : one a row, by the names of `Case`, in the fewest bytes. [sequences], [tokens], [GPUs]
    """

    group: CaseGroup
    places: NDArray[np.uint32]
    numbers: Mapping[str, NDArray[np.floating[Any]]]


def understand(
    table: CsvColumns, columns: Sequence[str], reader: CaseReader, refuse: Callable[[int, Fault], None]
) -> tuple[list[Cases], dict[int, str]]:
    """Return the cases of all rows without a fault, by group, and what is remarked on which row.

    Which rows are well-formed is known of the texts that occur. All others go through `CaseReader.case`,
    which alone says what is wrong with a row.

    Parameters
    ----------
    columns : that a case is read from.
    refuse : takes the place of each row that is refused, from 0 on and in order, and why; it may raise.
    """
    texts = {name: table.bare(name) for name in columns}
    is_whole = np.ones(len(table), dtype=bool)
    is_whole[list(table.faults)] = False
    rows = np.flatnonzero(is_whole)
    codes = {name: column.codes[rows] for name, column in texts.items()}

    at, examples = _distinct(codes[name] for name in columns if name not in _OWN)
    settings = [_read(reader.setting, _cells(texts, rows[index])) for index in examples]
    gamma = _floats(None if setting is None else setting.gamma for setting in settings)[at]
    sizes = {name: _floats(_each(texts[name], partial(_size, name)))[codes[name]] for name in SIZES}
    given, acceptance = _acceptance(texts, codes, gamma)
    budgets, remarks = _budgets(texts["kv_budget"], codes["kv_budget"], at, settings)

    is_sure = ~(np.isnan(gamma) | np.isnan(budgets) | ((given > 0) & np.isnan(acceptance)))
    for column in sizes.values():
        is_sure &= ~np.isnan(column)
    for place in rows[~is_sure].tolist():
        line = int(table.lines[place])
        try:
            reader.case(CsvRow(place + 1, line, ()), _cells(texts, place))
        except SpecError as refusal:
            refuse(place, refusal.located("", line, "").faults[0])
    numbers = {
        "batch": sizes["batch_size"], "context_len": sizes["context_len"], "kv_budget": budgets,
        "gamma": gamma, "output_tokens": sizes["output_tokens"], "acceptance": acceptance,
    }  # fmt: skip
    groups = list(_groups(rows, np.flatnonzero(is_sure), at, given, settings, numbers))
    return groups, {int(rows[index]): text for index, text in remarks if is_sure[index]}


def _acceptance(
    texts: Mapping[str, Texts], codes: Mapping[str, NDArray[Any]], gamma: FloatArray
) -> tuple[NDArray[np.int8], FloatArray]:
    """Return which of `_GIVEN` every row gives, and its value, nan where refused or not given."""

    def column(name: str, read: Callable[[str], float]) -> tuple[NDArray[np.bool_], FloatArray]:
        is_given = np.array([bool(text) for text in texts[name].distinct])
        return is_given[codes[name]], _floats(_each(texts[name], read))[codes[name]]

    says_tokens, tokens = column("tokens_per_round", tokens_in)
    says_rate, rate = column("acceptance_rate", rate_in)
    tokens = np.where(are_possible(tokens, gamma), tokens, np.nan)
    given = np.where(says_tokens, 2, np.where(says_rate, 1, 0)).astype(np.int8)
    return given, np.where(says_tokens, tokens, rate)


def _budgets(
    texts: Texts, codes: NDArray[Any], at: Places, settings: Sequence[Setting | None]
) -> tuple[FloatArray, list[tuple[int, str]]]:
    """Return draft KV budgets, nan where one is refused, and what is remarked on which row."""
    which, examples = _distinct([at, codes])
    read = [
        setting and _read(partial(_budget, setting), texts.distinct[codes[index]])
        for index in examples
        for setting in (settings[at[index]],)
    ]
    sentences = [each[1] if each else "" for each in read]
    remarked = np.flatnonzero(np.array([bool(sentence) for sentence in sentences], dtype=bool)[which])
    remarks = [(int(index), sentences[which[index]]) for index in remarked]
    return _floats(each and each[0] for each in read)[which], remarks


def _groups(
    rows: Places,
    sure: Places,
    at: Places,
    given: NDArray[np.int8],
    settings: Sequence[Setting | None],
    numbers: Mapping[str, FloatArray],
) -> Iterator[Cases]:
    """Yield the rows `sure` that share a key and what is given of acceptance."""
    keys: dict[tuple[str, ...], int] = {}
    key = np.array([keys.setdefault(each.key, len(keys)) if each else -1 for each in settings])
    layouts = {
        name: _floats(None if setting is None else getattr(setting.runs, name) for setting in settings)
        for name in _LAYOUT
    }
    group = (key[at] * len(_GIVEN) + given)[sure]
    order = np.argsort(group, kind="stable")
    for members in np.split(sure[order], np.flatnonzero(np.diff(group[order])) + 1):
        if members.size and (first := settings[at[members[0]]]) is not None:
            own = {name: _short(column[members]) for name, column in numbers.items()}
            own |= {name: _short(column[at[members]]) for name, column in layouts.items()}
            places = rows[members].astype(np.uint32)
            yield Cases(group_of(first, _GIVEN[given[members[0]]]), places, own)


def _short(column: FloatArray) -> NDArray[np.floating[Any]]:
    """Return the same numbers in the fewest bytes: one for all where they are alike."""
    if np.array_equal(column, np.broadcast_to(column[0], column.size), equal_nan=True):
        return np.broadcast_to(column[0], column.size)
    with np.errstate(over="ignore"):
        short = column.astype(np.float32)
    return short if np.array_equal(short, column, equal_nan=True) else column


def _distinct(columns: Iterable[NDArray[Any]]) -> tuple[Places, list[int]]:
    """Return, for columns of codes, the number of each row's combination and a row of every one of them."""
    codes, count = np.zeros((), dtype=np.int64), 1
    for column in columns:
        most = int(column.max(initial=0)) + 1
        if count * most > _MOST_CODES:
            _, codes = np.unique(codes, return_inverse=True)
            count = int(codes.max(initial=0)) + 1
        codes, count = codes * most + column, count * most
    _, examples, places = np.unique(codes, return_index=True, return_inverse=True)
    return places.astype(np.min_scalar_type(max(examples.size, 1))), examples.tolist()


def _read(read: Callable[[Any], ReadT], what: Any) -> ReadT | None:
    """Return what is read; None where it is refused."""
    try:
        return read(what)
    except SpecError:
        return None


def _each(texts: Texts, read: Callable[[str], float]) -> Iterator[float | None]:
    return (_read(read, text) for text in texts.distinct)


def _floats(values: Iterable[float | None]) -> FloatArray:
    """Return numbers as an array, nan where there is none."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _cells(texts: Mapping[str, Texts], place: int) -> dict[str, str]:
    return {name: column.distinct[column.codes[place]] for name, column in texts.items()}


def _size(name: str, text: str) -> float:
    return size_of({name: text}, name)


def _budget(setting: Setting, text: str) -> tuple[float, str]:
    return budget_of({"kv_budget": text}, setting)
