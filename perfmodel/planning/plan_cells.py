"""The cells of a plan file by columns, and what each value has to be whatever stands beside it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import Fault, SpecError, nearest_name, shown
from perfmodel.files.numbers import distinct_values
from perfmodel.planning.columns import Cell, columns_of
from perfmodel.planning.header import LONGEST_NAME, LONGEST_SENTENCE
from perfmodel.planning.packed import Coded, Numbers, Packed, Rows, pack
from strategies.base import Tree

__all__ = [
    "FIRST", "MOST_FAULTS", "REMEDY", "Columns", "Wrong", "among", "columns_in", "lengths", "refuse", "trees",
    "types_of", "values",
]  # fmt: skip

REMEDY = "Make it anew with draftplan plan"
MOST_FAULTS = 20
NAMES = ("strategy", "draft_model", "hardware", "bound_by", "alpha_kind")
FIRST = frozenset(re.findall(
    r"\w+",
    "batch_size context_len strategy draft_model kv_budget gamma tokens_per_round tpot_s baseline_s speedup "
    "bound_by hardware tensor_parallel draft_s verify_s round_s draft_ratio verify_ratio alpha alpha_first "
    "alpha_sd alpha_kind break_even_alpha throughput_tokens_per_s cost_per_million_tokens_usd "
    "memory_bytes_per_gpu tpot_low_s tpot_high_s speedup_low speedup_high probability_beats_plain runner_up "
    "runner_up_behind probability_runner_up_better regret_if_alpha_wrong value_of_knowing_alpha "
    "round_by_gamma_s why",
))  # fmt: skip
"""What cells of the first release say; all cells of a file may leave out what has come since."""

Wrong: TypeAlias = "tuple[int, str, Any, str]"
"""The cell, the key in it, the value that stands there, and why it cannot be."""


class Columns(Mapping[str, "list[Any]"]):
    """The columns of cells, packed; as the list of its values where one is asked for.

    packed : the values of every field of `Cell`, by its name.
    """

    def __init__(self, packed: Mapping[str, Packed]) -> None:
        self.packed = packed
        self._listed: dict[str, list[Any]] = {}

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self._listed:
            self._listed[name] = self.packed[name].listed()
        return self._listed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.packed)

    def __len__(self) -> int:
        return len(self.packed)

    def distinct(self, name: str) -> set[Any]:
        """Return the values of a column, each once."""
        column = self.packed[name]
        if isinstance(column, Numbers) and column.values.dtype.kind in "iu":
            return set(distinct_values(column.values).tolist())
        return set(column.table) if isinstance(column, Coded) else set(self[name])

    def each(self, name: str, test: Callable[[Any], bool]) -> NDArray[np.bool_]:
        """Return what a test says of each value of a column."""
        column = self.packed[name]
        if isinstance(column, Coded):
            of_table = np.array([test(value) for value in column.table], dtype=bool)
            return np.asarray(of_table[column.codes])
        return np.array([test(value) for value in self[name]], dtype=bool)

    def is_absent(self, name: str) -> NDArray[np.bool_]:
        """Return where a column says nothing."""
        column = self.packed[name]
        if isinstance(column, Numbers) and column.values.dtype.kind in "iuf":
            absent: NDArray[np.bool_] = np.isnan(column.values)
            return absent
        return self.each(name, lambda value: value is None)


def columns_in(cells: Any, file: str) -> Columns:
    """Return the cells of a plan file by columns; SpecError where they are no cells."""
    if not isinstance(cells, list) or not cells:
        raise SpecError.single(file, "cells", f"found {shown(cells)}, not a list of cells", REMEDY)
    known = {field.name: field.default for field in fields(Cell)}
    first = cells[0].keys() if isinstance(cells[0], dict) else known.keys()
    faults: list[Fault] = []
    for index, cell in enumerate(cells):
        if isinstance(cell, dict) and cell.keys() == first and (index or FIRST <= first <= known.keys()):
            continue
        if not isinstance(cell, dict):
            faults.append(Fault(file, None, f"cells.{index}", f"found {shown(cell)}, not a cell", REMEDY))
            continue
        for key in sorted(cell.keys() - known.keys()):
            nearest = nearest_name(key, known)
            faults.append(Fault(file, None, f"cells.{index}.{key}"[:120], "unknown key", REMEDY, nearest))
        lacking = sorted((FIRST | (first & known.keys())) - cell.keys())
        faults += [Fault(file, None, f"cells.{index}.{key}", "missing", REMEDY) for key in lacking]
        more = sorted((cell.keys() & known.keys()) - FIRST - first)
        problem = "stands here, but not in cells.0"
        faults += [Fault(file, None, f"cells.{index}.{key}", problem, REMEDY) for key in more]
        if len(faults) >= MOST_FAULTS:
            break
    if faults:
        raise SpecError(faults[:MOST_FAULTS])
    values = dict(zip(first, zip(*map(itemgetter(*first), cells), strict=True), strict=True))
    return Columns({
        name: _packed([*values[name]]) if name in first else pack(default, len(cells))
        for name, default in known.items()
    })  # fmt: skip


def _packed(values: list[Any]) -> Packed:
    if set(map(type, values)) == {list}:
        values = [*map(tuple, values)]
    return pack(values, len(values))


def refuse(wrong: Sequence[Wrong] | Iterator[Wrong], file: str) -> None:
    """Raise SpecError with a line for each value that cannot be, up to `MOST_FAULTS`, if there is any."""
    faults = [
        Fault(file, None, f"cells.{cell}.{key}", f"found {shown(value)}{why}", REMEDY)
        for cell, key, value, why in sorted(wrong, key=lambda each: each[0])[:MOST_FAULTS]
    ]
    if faults:
        raise SpecError(faults)


def types_of(annotation: Any) -> set[type]:
    """Return the types that a field's annotation names."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    words: dict[str, set[type]] = {
        "int": {int}, "float": {int, float}, "str": {str}, "None": {type(None)}
    }  # fmt: skip
    return set(chain.from_iterable(words.get(word.strip(), {list, tuple}) for word in text.split("|")))


def values(columns: Columns) -> Iterator[Wrong]:
    """What cannot be whatever stands beside it: a value's type, its range, its text."""
    for declared, field in zip(columns_of(Cell), fields(Cell), strict=True):
        name, allowed = field.name, types_of(field.type)
        if _fits(columns.packed[name], allowed, declared.range, name):
            continue
        values = columns[name]
        if not set(map(type, values)) <= allowed:
            expected = {float: "numbers", int: "whole numbers", str: "texts", list: "lists of numbers"}
            what = next(expected[kind] for kind in expected if kind in allowed)
            null = " or null" if type(None) in allowed else ""
            for cell, value in enumerate(values):
                if type(value) not in allowed:
                    yield cell, name, value, f", but {name} holds {what}{null}"
        elif list in allowed:
            flat = list(chain.from_iterable(values))
            if None in flat or not _all_between(flat, *declared.range):
                for cell, row in enumerate(values):
                    for at, value in enumerate(row):
                        yield from _outside(cell, f"{name}.{at}", value, *declared.range)
        elif str in allowed:
            longest = LONGEST_NAME if name in NAMES else LONGEST_SENTENCE
            for text in {text for text in set(values) if text and not _is_text(text, longest)}:
                why = f", but {name} is a printed text of at most {longest} characters"
                yield from ((cell, name, text, why) for cell, value in enumerate(values) if value == text)
        elif not _all_between(values, *declared.range):
            for cell, value in enumerate(values):
                if value is not None:
                    yield from _outside(cell, name, value, *declared.range)


def _fits(column: Packed, allowed: set[type], bounds: tuple[float, float], name: str) -> bool:
    """Whether a column holds what it may, as far as its packed form shows it."""
    if isinstance(column, Coded):
        longest = LONGEST_NAME if name in NAMES else LONGEST_SENTENCE
        return all(
            type(value) in allowed and (
                value is None or (_is_text(value, longest) if type(value) is str else _lies(value, *bounds))
            )
            for value in column.table
        )  # fmt: skip
    numbers = column.floats() if isinstance(column, Rows) else getattr(column, "values", np.array([None]))
    kind = {"i": int, "u": int, "f": float}.get(numbers.dtype.kind)
    if kind is None or (list if isinstance(column, Rows) else kind) not in allowed:
        return False
    inside = np.isfinite(numbers) & (numbers >= bounds[0]) & (numbers <= bounds[1])
    if isinstance(column, Rows):  # nan beyond the end of each
        return bool(np.count_nonzero(inside) == np.sum(column.lengths.floats()))
    return bool(np.all(inside | np.isnan(numbers))) and (type(None) in allowed or bool(np.all(inside)))


def _lies(value: Any, least: float, most: float) -> bool:
    return type(value) in (int, float) and bool(least <= value <= most and abs(value) < math.inf)


def _is_text(text: str, longest: int) -> bool:
    return text.isprintable() and len(text) <= longest


def _all_between(values: Sequence[Any], least: float, most: float) -> bool:
    """Whether all values are numbers in a range; None is none."""
    if not set(map(type, values)) <= {int, float, type(None)}:
        return False
    try:
        numbers = np.array(values, dtype=float)
    except OverflowError:  # an integer beyond every float
        return False
    inside = np.isfinite(numbers) & (numbers >= least) & (numbers <= most)
    return all(values[at] is None for at in np.flatnonzero(~inside).tolist())


def _outside(cell: int, key: str, value: Any, least: float, most: float) -> Iterator[Wrong]:
    if not _lies(value, least, most):
        yield cell, key, value, f", which lies outside {least:g} to {most:g}"


def among(columns: Columns, key: str, allowed: set[Any], why: str) -> Iterator[Wrong]:
    """What is none of the values that a column may hold."""
    if not columns.distinct(key) <= allowed:
        for cell, value in enumerate(columns[key]):
            if value not in allowed:
                yield cell, key, value, f": {why}"


def lengths(columns: Columns, count: int) -> Iterator[Wrong]:
    """Rounds that are not told for each of the lengths of the plan, nor for plain decoding alone."""
    rounds_of = columns.packed["round_by_gamma_s"]
    if isinstance(rounds_of, Rows) and rounds_of.lengths.table == (count,):
        return
    for cell, (rounds, gamma) in enumerate(
        zip(columns["round_by_gamma_s"], columns["gamma"], strict=True)
    ):
        if len(rounds) != count and (gamma or len(rounds) != 1):
            why = f", {len(rounds)} times for {count} lengths of gammas"
            yield cell, "round_by_gamma_s", list(rounds), why


def trees(columns: Columns) -> Iterator[Wrong]:
    """Steps, topk and nodes that make no tree."""
    if columns.distinct("topk") == columns.distinct("nodes") == {None}:
        return
    shapes = list(zip(columns["gamma"], columns["topk"], columns["nodes"], strict=True))
    wrong = {}
    for gamma, topk, nodes in set(shapes):
        try:
            if (topk is None) != (nodes is None):
                raise ValueError("topk and nodes of a tree stand together")
            if topk is not None and Tree(gamma, topk, nodes).nodes != nodes:
                raise ValueError(f"a chain of {gamma} drafts has {gamma + 1} nodes")
        except ValueError as error:
            wrong[gamma, topk, nodes] = str(error)
    if wrong:
        for cell, shape in enumerate(shapes):
            if shape in wrong:
                yield cell, "nodes", shape[2], f": {wrong[shape]}"
