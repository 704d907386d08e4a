"""The answer: one recommended drafting configuration per (batch, context) cell, with what it rests on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from perfmodel.errors import SpecError, shown
from perfmodel.files.json_text import load_json, uncollected
from perfmodel.files.opening import PLAN, read_file, text_of
from perfmodel.planning.columns import NO_DRAFT, Cell

if TYPE_CHECKING:
    from perfmodel.files.numbers import FloatArray
    from perfmodel.planning.cells import Cells
    from perfmodel.planning.plan_cells import Columns

__all__ = [
    "NO_DRAFT", "OBJECTIVES", "SCHEMA", "Cell", "Elsewhere", "Objective", "Plan", "read_plan",
]  # fmt: skip

SCHEMA = "draftplan/plan/1"
BLOCK = 512
"""Cells that are written at once: as YAML each takes 30 kB until it is a text. [1]"""


@dataclass(frozen=True)
class Objective:
    """What decides among machines: a column, whether less of it is better, whether its GPUs share it."""

    column: str
    least: bool = False
    per_gpu: bool = False

    def cost(self, cells: Cells[Cell]) -> FloatArray:
        """Return what is to be least, one a cell; infinite where the column is not known."""
        import numpy as np  # here and below, so that help begins sooner

        value = cells.numbers(self.column)
        layout = ("tensor_parallel", "pipeline_parallel", "data_parallel")
        shared = value / math.prod(cells.numbers(name) for name in layout) if self.per_gpu else value
        return np.where(np.isnan(value), np.inf, shared if self.least else -shared)


OBJECTIVES = {
    "speedup": Objective("speedup"),
    "throughput": Objective("throughput_tokens_per_s", per_gpu=True),
    "tpot": Objective("tpot_s", least=True),
    "cost": Objective("cost_per_million_tokens_usd", least=True),
}
"""What may decide among machines; on one machine they agree, and `speedup` orders drafters on one only."""


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """What a software that is not planned for would gain, in the cell where it gains most.

    drafter : whose weights draft: self, draft, head or none.
    speedup, planned_speedup : over plain decoding, there and in the plan. [1]
    gain : share of speed above the plan's. [1]
    runs_in : software that can run it, as people call it.
    needs : what must exist before it can draft; empty where it is there.
    """

    strategy: str
    drafter: str
    draft_model: str | None
    kv_budget: int | None
    gamma: int
    batch_size: int
    context_len: int
    speedup: float
    planned_speedup: float
    gain: float
    runs_in: tuple[str, ...]
    needs: str = ""

    def sentence(self, software: str) -> str:
        """Say it in one sentence. `software` is what is planned for."""
        by = {"self": " self-drafting", "draft": f" with {self.draft_model}"}.get(self.drafter, "")
        budget = "" if self.kv_budget is None else f", budget {self.kv_budget:,}"
        runs = f"; {' and '.join(self.runs_in)} can run it" if self.runs_in else ""
        runs += f"; it needs {self.needs}" if self.needs else ""
        return (
            f"Not in {software}: {self.strategy}{by}{budget}, gamma {self.gamma} would give "
            f"{self.speedup:.2f}x in place of {self.planned_speedup:.2f}x at batch {self.batch_size}, "
            f"context {self.context_len:,} (priced with this engine's own overheads{runs})"
        )


@dataclass(frozen=True)
class Plan:
    """All cells of one question, and the header that says what they rest on.

    cells : any sequence of `Cell`, which is kept as columns; a cell is made when it is asked for.
    software : what serves, as people call it; empty where any may.
    elsewhere : what another software would gain, where that is material.
    runs_in : the software that can run each drafter of the cells, where any may serve.
    """

    model: str
    hardware: str
    engine: str
    tensor_parallel: int
    objective: str
    cells: Sequence[Cell]
    gammas: tuple[int, ...] = (0,)
    assumed: tuple[str, ...] = ()
    inflection_context_len: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    infeasible: Mapping[str, int] = field(default_factory=dict)
    expert_parallel: bool = False
    pipeline_parallel: int = 1
    data_parallel: int = 1
    software: str = ""
    elsewhere: Elsewhere | None = None
    runs_in: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from perfmodel.planning.cells import Cells

        object.__setattr__(self, "cells", Cells.of(self.cells, Cell))

    @property
    def columns(self) -> Cells[Cell]:
        """The cells, by their columns."""
        return self.cells  # type: ignore[return-value]

    @property
    def layout(self) -> str:
        """How the GPUs share the work, for people; nothing where all of them share every layer."""
        stages = f", {self.pipeline_parallel} stages" if self.pipeline_parallel > 1 else ""
        groups = f", {self.data_parallel} data-parallel groups" if self.data_parallel > 1 else ""
        return stages + groups + (", experts dealt out whole" if self.expert_parallel else "")

    @property
    def gpus(self) -> int:
        """All GPUs that it runs on; of several numbers that were asked about, the first chosen one."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def output_tokens(self) -> float:
        """Tokens that follow every context of the plan. [tokens]"""
        return float(self.request.get("output_tokens") or 0.0)

    @property
    def half_way(self) -> float:
        """Tokens that the mean step of a generation has beyond its prompt: where the cells are priced."""
        return self.output_tokens / 2.0

    def cell(self, batch_size: int, context_len: int) -> Cell:
        """The cell of exactly this batch size and context length; KeyError when it was not planned."""
        return self.columns.find(batch_size=batch_size, context_len=context_len)

    @property
    def header(self) -> dict[str, Any]:
        """All but its cells, as plain numbers, strings, lists and dicts."""
        body = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "cells"}
        body["elsewhere"] = None if self.elsewhere is None else asdict(self.elsewhere)
        plain: dict[str, Any] = _plain(body)
        return plain

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, ready for JSON or YAML."""
        rows = self.columns.fields()
        cells = [{**row, "round_by_gamma_s": list(row["round_by_gamma_s"])} for row in rows]
        return {"schema": SCHEMA, **self.header, "cells": cells}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per cell: every field of it that is one number or word."""
        return [*self.each_row()]

    def each_row(self) -> Iterator[dict[str, Any]]:
        """Yield the `rows`, of which no more than a block is in memory."""
        for row in self.columns.fields():
            yield {name: value for name, value in row.items() if not isinstance(value, (list, tuple))}

    def mappings(self, more: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Yield parts of `to_dict`: the header, some ``cells`` at a time, and `more` behind them."""
        yield {"schema": SCHEMA, **self.header}
        rows = self.columns.fields()
        while block := [*islice(rows, BLOCK)]:
            yield {"cells": [{**row, "round_by_gamma_s": list(row["round_by_gamma_s"])} for row in block]}
        if more:
            yield dict(more)

    def json_texts(
        self, encode: Callable[[Any], str] | None = None, more: Mapping[str, Any] | None = None
    ) -> Iterator[str]:
        """Yield the parts of the plan's JSON, in which memory is bounded however many cells there are.

        Parameters
        ----------
        encode : writes any plain value, indented by one space a level; as `to_json` does when absent.
        more : plain values that stand behind the cells.

        Raises
        ------
        ValueError
            Where a number is not finite, unless `encode` writes it.
        """
        from perfmodel.planning.plan_json import json_texts

        written = encode or partial(json.dumps, indent=1, allow_nan=False)
        yield from json_texts({"schema": SCHEMA, **self.header}, self.columns, more or {}, written)
        yield "\n"

    def to_json(self) -> str:
        """The plan as indented JSON with a trailing newline."""
        return "".join(self.json_texts())

    @classmethod
    def from_dict(cls, body: Mapping[str, Any], file: str = "plan") -> Plan:
        """Read back what `to_dict` wrote.

        Raises
        ------
        SpecError
            When it is not a plan, is of a schema this version does not know, or its figures cannot be an
            answer: up to 20 lines, each with the key, the value and what others allow (see `believe`).
        """
        from perfmodel.planning.cells import Cells  # here and below, so that help begins sooner
        from perfmodel.planning.plan_cells import columns_in

        if not isinstance(body, Mapping) or body.get("schema") != SCHEMA:
            schema = body.get("schema") if isinstance(body, Mapping) else type(body).__name__
            raise SpecError.single(
                file, "schema", f"found {shown(schema)}, expected {SCHEMA!r}", "make it with draftplan plan"
            )
        columns = columns_in(body.get("cells"), file)
        header = {key: value for key, value in body.items() if key not in ("schema", "cells")}
        _check(header, columns, file)
        given: dict[str, Any] = {key: tuple(header[key]) for key in ("gammas", "assumed")}
        if header.get("elsewhere") is not None:
            outside = header["elsewhere"]
            given["elsewhere"] = Elsewhere(**{**outside, "runs_in": tuple(outside["runs_in"])})
        if "runs_in" in header:
            given["runs_in"] = {name: tuple(names) for name, names in header["runs_in"].items()}
        return cls(**{**header, **given}, cells=Cells(Cell, columns.packed))

    def check(self, file: str = "plan") -> None:
        """Refuse a plan whose figures cannot be an answer: SpecError names cell, key and value."""
        from perfmodel.planning.plan_cells import Columns

        if not self.cells:
            raise SpecError.single(file, "cells", "there are none", "Plan at least one cell")
        columns = {each.name: self.columns.packed(each.name) for each in fields(Cell)}
        _check(self.header, Columns(columns), file)


def _check(header: Mapping[str, Any], columns: Columns, file: str) -> None:
    from perfmodel.planning.believed import believe
    from perfmodel.planning.plan_cells import REMEDY

    believe(header, columns, file)
    if header["objective"] not in OBJECTIVES:
        problem = f"found {shown(header['objective'])}, but there are {', '.join(OBJECTIVES)}"
        raise SpecError.single(file, "objective", problem, REMEDY)


def _plain(value: Any) -> Any:
    """Return a value with lists in place of tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Return the plan in a file.

    Raises
    ------
    SpecError
        When the file cannot be read, is not JSON, is no plan or holds figures that cannot be an answer.
    """
    name = os.fspath(path)
    with uncollected():
        return Plan.from_dict(load_json(text_of(read_file(path, PLAN), name), name), name)
