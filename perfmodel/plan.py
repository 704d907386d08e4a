"""The answer: one recommended drafting configuration per (batch, context) cell, with what it rests on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from perfmodel.errors import SpecError

SCHEMA = "draftplan/plan/1"
NO_DRAFT = "none"


@dataclass(frozen=True)
class Cell:
    """The recommendation for one batch size and context length; seconds and tokens, never milliseconds."""

    batch_size: int
    context_len: int
    strategy: str
    draft_model: str | None
    kv_budget: int | None
    gamma: int
    tokens_per_round: float
    tpot_s: float
    baseline_s: float
    speedup: float
    bound_by: str
    alpha: float | None = None
    alpha_kind: str | None = None
    draft_s: float = 0.0
    verify_s: float = 0.0
    round_s: float = 0.0
    draft_ratio: float = 0.0
    verify_ratio: float = 1.0
    break_even_alpha: float | None = None
    throughput_tokens_per_s: float = 0.0
    cost_per_million_tokens_usd: float | None = None
    memory_bytes_per_gpu: float = 0.0
    runner_up: str = ""
    runner_up_behind: float = 0.0
    hardware: str = ""
    tensor_parallel: int = 1
    tpot_by_gamma_s: tuple[float, ...] = ()
    why: str = ""

    @property
    def speculates(self) -> bool:
        """Whether the recommendation drafts at all."""
        return self.gamma > 0


@dataclass(frozen=True)
class Plan:
    """All cells of one question, and the header that says what they rest on."""

    model: str
    hardware: str
    engine: str
    tensor_parallel: int
    objective: str
    cells: tuple[Cell, ...]
    assumed: tuple[str, ...] = ()
    inflection_context_len: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    infeasible: Mapping[str, int] = field(default_factory=dict)

    def cell(self, batch_size: int, context_len: int) -> Cell:
        """The cell of exactly this batch size and context length; KeyError when it was not planned."""
        for cell in self.cells:
            if (cell.batch_size, cell.context_len) == (batch_size, context_len):
                return cell
        raise KeyError((batch_size, context_len))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, ready for JSON or YAML."""
        body = {name: value for name, value in asdict(self).items() if name != "cells"}
        body["assumed"] = list(self.assumed)
        cells = [{**asdict(cell), "tpot_by_gamma_s": list(cell.tpot_by_gamma_s)} for cell in self.cells]
        return {"schema": SCHEMA, **body, "cells": cells}

    def to_json(self) -> str:
        """The plan as indented JSON with a trailing newline."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, body: Mapping[str, Any], file: str = "plan") -> Plan:
        """Read back what `to_dict` wrote.

        Raises
        ------
        SpecError
            When it is not a plan, or of a schema this version does not know.
        """
        if not isinstance(body, Mapping) or body.get("schema") != SCHEMA:
            found = body.get("schema") if isinstance(body, Mapping) else type(body).__name__
            raise SpecError.single(
                file, "schema", f"found {found!r}, expected {SCHEMA!r}", "make it with draftplan plan"
            )
        try:
            cells = tuple(
                Cell(
                    **{
                        **{k: v for k, v in cell.items() if k in _CELL},
                        "tpot_by_gamma_s": tuple(cell["tpot_by_gamma_s"]),
                    }
                )
                for cell in body["cells"]
            )
            header = {key: value for key, value in body.items() if key in _PLAN}
            return cls(**{**header, "cells": cells, "assumed": tuple(body.get("assumed", ()))})
        except (KeyError, TypeError, AttributeError, ValueError) as fault:
            raise SpecError.single(
                file, "cells", f"is damaged ({fault})", "make it anew with draftplan plan"
            ) from None


_CELL = {item.name for item in fields(Cell)}
_PLAN = {item.name for item in fields(Plan)}
