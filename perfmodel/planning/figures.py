"""The figures of a plan as arrays, and what follows from some of them about others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from perfmodel.acceptance.tokens import tokens_from_first_rest
from perfmodel.acceptance.tree import tokens_from_tree
from perfmodel.files.numbers import FloatArray, Numeric
from perfmodel.planning.columns import Cell
from perfmodel.planning.packed import Rows, codes_of, pack
from perfmodel.planning.plan_cells import FIRST, Columns, types_of
from strategies.base import Tree

__all__ = ["Figures"]


class Figures:
    """The cells of a plan as arrays, one element a cell: a column by its name, nan where nothing is said.

    rounds : `round_by_gamma_s`, axes (cell, gamma); nan at lengths that are not told. [s]
    drafts : where something is drafted.
    machine : an index of each cell's accelerator.
    place : where the chosen length stands among those of the plan.
    is_told : whether draftplan says that it wrote the plan; one made by hand leaves out what nobody reads.
    """

    def __init__(self, header: Mapping[str, Any], columns: Columns) -> None:
        self.header, self.columns = header, columns
        self.request: Mapping[str, Any] = header.get("request") or {}
        self.is_told = bool((header.get("versions") or {}).get("draftplan"))
        self.numbers: dict[str, FloatArray] = {}
        for field in fields(Cell):
            if types_of(field.type) <= {int, float, type(None)}:
                numbers = columns.packed[field.name].floats()
                may_lack = field.default not in (MISSING, None) and not (self.is_told and field.name in FIRST)
                if may_lack and np.all(numbers == field.default):  # of a plan by hand, or of an older file
                    numbers = np.full(numbers.size, np.nan)
                self.numbers[field.name] = numbers
        self.gammas = np.array(header["gammas"], dtype=float)
        self.drafts = self.gamma > 0.0
        rounds = columns.packed["round_by_gamma_s"]
        in_time = rounds.floats() if isinstance(rounds, Rows) else _table(columns["round_by_gamma_s"])
        self.rounds = np.full((len(in_time), self.gammas.size), np.nan)
        self.rounds[:, : in_time.shape[1]] = in_time
        self.place = np.searchsorted(self.gammas, self.gamma)
        names = [name or str(header["hardware"]) for name in columns["hardware"]]
        self.machine = codes_of(pack(names, len(names)))

    def __getattr__(self, name: str) -> FloatArray:
        try:
            return self.__dict__["numbers"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def size(self) -> int:
        """How many cells there are."""
        return int(self.gamma.size)

    def tokens_at(self, first: FloatArray, rest: FloatArray, gamma: FloatArray) -> FloatArray:
        """Tokens per round of every cell's drafter at these rates, trees included. [tokens]"""
        tokens = np.asarray(tokens_from_first_rest(first, rest, gamma), dtype=float)
        for topk, nodes in {pair for pair in zip(self.topk, self.nodes, strict=True) if pair[0] > 1}:
            here = (self.topk == topk) & (self.nodes == nodes)
            for steps in np.unique(gamma[here]):
                like = here & (gamma == steps)
                tree = Tree(int(steps), int(topk), int(nodes))
                tokens[like] = tokens_from_tree(first[like], rest[like], tree, gamma[like])
        return tokens

    @property
    def memory(self) -> FloatArray:
        """What engines may fill of a GPU: what is taken and what is left, where that is said. [B]"""
        return self.memory_bytes_per_gpu + np.nan_to_num(self.memory_left_bytes)

    @property
    def rent(self) -> FloatArray:
        """What one GPU costs, as the cost per token has it. [USD/s]"""
        gpus = self.tensor_parallel * _or(self.pipeline_parallel, 1.0) * _or(self.data_parallel, 1.0)
        return self.cost_per_million_tokens_usd * 1e-6 * self.batch_size / self.tpot_s / gpus

    def common(self, values: FloatArray) -> FloatArray:
        """Return the median over the cells of each accelerator, which should be the value of all."""
        common = np.full(values.shape, np.nan)
        for machine in range(int(self.machine.max()) + 1):
            here = values[self.machine == machine]
            if not np.all(np.isnan(here)):
                common[self.machine == machine] = np.nanquantile(here, 0.5, method="lower")
        return common

    @property
    def tokens_believed(self) -> FloatArray:
        """Tokens per round by `alpha`, one rate for all drafts. [tokens]

        Files of the first release hold the rate of later drafts as `alpha`, beside that of the first: there
        what is nearer counts.
        """
        alike, apart = self.tokens_at(self.alpha, self.alpha, self.gamma), self.tokens_half_way
        nearer = np.abs(apart - self.tokens_per_round) < np.abs(alike - self.tokens_per_round)
        return np.where(nearer & np.isnan(self.alpha_rest), apart, alike)

    @property
    def tokens_half_way(self) -> FloatArray:
        """Tokens per round by the rates of the first and of later drafts, half-way through. [tokens]"""
        first = _or(self.match_share, 1.0) * _or(self.alpha_first, self.alpha)
        drafted = np.fmin(self.gamma, self.most_gamma)
        return self.tokens_at(first, _or(self.alpha_rest, self.alpha), drafted)

    @property
    def draft_passes(self) -> FloatArray:
        """Draft passes of a round, to the next whole number from 1 to gamma; 0 where nothing drafts. [1]"""
        passes = np.round(self.draft_s / (self.draft_ratio * self.baseline_s))
        return np.where(self.drafts, np.clip(np.nan_to_num(passes, nan=1.0), 1.0, self.gamma), 0.0)


def _table(rows: list[Sequence[float]]) -> FloatArray:
    """Return rows of numbers as an array, nan beyond the end of each."""
    table = np.full((len(rows), max(map(len, rows))), np.nan)
    for at, row in enumerate(rows):
        table[at, : len(row)] = row
    return table


def _or(values: FloatArray, instead: Numeric) -> FloatArray:
    return np.where(np.isnan(values), instead, values)
