"""Requests to answers by the functions that the command line calls, and what was answered lately."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perfmodel.errors import SpecError
from perfmodel.explore.asked import Asked, Front
from perfmodel.explore.catalogue import NAMED, POSTED, check_name, with_config
from perfmodel.explore.forms import CONFIG
from perfmodel.explore.remembered import Remembered
from perfmodel.files.quoting import shell_line
from perfmodel.planning.answers import answer_cells
from perfmodel.planning.breakdown import Breakdown, break_down
from perfmodel.planning.cases import INPUTS, OUTPUTS, price_cases
from perfmodel.planning.plan import Cell, Plan
from perfmodel.planning.planner import plan, search_space
from perfmodel.planning.price import SearchSpace, count_configurations
from perfmodel.policy import SpeculationPolicy
from perfmodel.workload import Workload

__all__ = ["Desk", "Limits", "Values"]

Values = Mapping[str, Any]
_NAMING = ("hardware", "engine", "target_model", "draft_model", "strategy")
"""Columns of a case that hold names."""


@dataclass(frozen=True)
class Limits:
    """How much one service takes on.

    cells, configurations : of one question. [1]
    workers, waiting : computations at once, and requests that wait for them. [1]
    seconds : until an answer is given up. [s]
    body : bytes of a request. [B]
    kept : answers that are remembered, of each sort. [1]
    """

    cells: int = 4096
    configurations: int = 2_000_000
    workers: int = max(1, min(4, os.cpu_count() or 1))
    waiting: int = 32
    seconds: float = 20.0
    body: int = 1 << 20
    kept: int = 128


class Desk:
    """Answers questions; any thread may ask."""

    def __init__(self, front: Front, limits: Limits) -> None:
        self.front, self.limits = front, limits
        self._asked = Remembered[Asked](limits.kept)
        self._plans = Remembered[Plan](limits.kept)
        self._grids = Remembered[Sequence[Cell]](limits.kept)
        self._cells = Remembered[Breakdown](limits.kept)
        self._policies = Remembered[SpeculationPolicy](limits.kept)

    def ask(self, values: Values) -> Asked:
        """Return what was asked.

        Raises
        ------
        SpecError
            Naming every key that is wrong, or where it asks for more than this service takes on.
        """
        return self._asked.get(_key(values), lambda: self._ask(values))

    def _ask(self, values: Values) -> Asked:
        names = NAMED
        if isinstance(config := values.get(CONFIG), Mapping):
            names, values = with_config(config), {**values, CONFIG: POSTED}
        for key in ("strategy", "draft_model"):
            for name in str(values.get(key) or "").split(","):
                _checked(key, name.strip())
        asked = self.front.read(values, names)
        self._bound(asked)
        return asked

    def plan(self, values: Values, *, draws: int | None = None) -> Plan:
        """Return the plan of a question.

        Parameters
        ----------
        draws : possible worlds for the intervals; as `perfmodel.plan` where absent.
        """
        return self._plans.get(f"{_key(values)} {draws}", lambda: self._plan(self.ask(values), draws=draws))

    def grid(self, values: Values, batches: tuple[int, ...], contexts: tuple[int, ...]) -> Sequence[Cell]:
        """Return the cells that a question's plan has over other batches and contexts, without intervals.

        Parameters
        ----------
        batches, contexts : the axes. [sequences], [tokens]

        Raises
        ------
        SpecError
            Where the question is wrong, of several deployments, or asks for too much.
        """
        rest = {key: value for key, value in values.items() if key not in ("batch_size", "context")}
        return self._grids.get(
            f"{_key(rest)} {batches} {contexts}", lambda: self._grid(self.ask(values), batches, contexts)
        )

    def break_down(self, values: Values) -> Breakdown:
        """Return one cell in depth."""
        return self._cells.get(_key(values), lambda: self._break_down(self.ask(values)))

    def decide(self, values: Values | None, body: Mapping[str, Any] | None) -> SpeculationPolicy:
        """Return the policy of a question, or of a plan's JSON, that decided nothing yet."""
        if (values is None) == (body is None):
            raise SpecError.single("", "plan, question", "found both or none", "Give one of the two")
        if body is not None:
            return SpeculationPolicy.from_plan(Plan.from_dict(body))
        deployed = {**(values or {}), "one_deployment": True}
        policy = self._policies.get(
            _key(deployed), lambda: SpeculationPolicy.from_plan(self.plan(deployed))
        )
        return copy.copy(policy)

    def price(self, cases: list[dict[str, Any]]) -> dict[str, Any]:
        """Return named configurations with their answers, as `draftplan price` does."""
        for place, case in enumerate(cases):
            for column in _NAMING:
                for name in str(case.get(column) or "").split(","):
                    _checked(f"cases.{place}.{column}", name.strip())
        stream = io.StringIO()
        writer = csv.DictWriter(stream, INPUTS, restval="")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in case.items()} for case in cases)
        priced = price_cases(stream.getvalue().encode(), "cases")
        rows = [dict(zip(priced.columns, row, strict=True)) for row in priced.rows]
        given = (dict.fromkeys(OUTPUTS) | case | _read(row) for case, row in zip(cases, rows, strict=True))
        return {"remarks": list(priced.remarks), "cases": list(given)}

    def command(self, name: str, values: Values, *more: str) -> str:
        """Return the command line that asks the same."""
        words = ["draftplan", name]
        for flag in self.front.flags:
            value = values.get(flag.name)
            if value is None or value == flag.default:
                continue
            spelled = "--" + flag.name.replace("_", "-")
            if flag.name == CONFIG and isinstance(value, Mapping):
                value = "config.json"
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words += [spelled] if flag.kind is bool else [spelled, text]
        return shell_line([*words, *more])

    @property
    def hits(self) -> dict[str, tuple[str, float]]:
        """How often an answer was remembered, and how often it was computed, as figures of a scrape."""
        every = (self._plans, self._grids, self._cells, self._policies)
        return {
            "answers_remembered": ("Answers that were remembered", sum(each.hits for each in every)),
            "answers_computed": ("Answers that were computed", sum(each.misses for each in every)),
        }

    def _plan(self, asked: Asked, *, draws: int | None) -> Plan:
        hardware, target, engine = asked.question.deployed
        drawn: dict[str, Any] = {} if draws is None else {"draws": draws}
        return plan(
            hardware, target, engine, asked.question.workload, objective=asked.objective, risk=asked.risk,
            one_deployment=asked.one_deployment, **drawn, **asked.question.planned,
        )  # fmt: skip

    def _grid(self, asked: Asked, batches: tuple[int, ...], contexts: tuple[int, ...]) -> tuple[Cell, ...]:
        question, planned = asked.question, asked.question.planned
        if len(question.deployments) > 1:
            raise SpecError.single("", "hardware, tp", "name several deployments", "Name one of each")
        workload = Workload(batches, contexts, output_tokens=question.workload.output_tokens)
        self._bound(asked, workload)
        searched = search_space(
            planned["drafters"], planned["gammas"], planned["kv_budgets"], planned["alpha"], asked.risk
        )
        constraints = planned["constraints"]
        answered = answer_cells(question.deployments[0], workload, searched, constraints, draws=0, seed=0)
        return tuple(answered.cells)

    def _break_down(self, asked: Asked) -> Breakdown:
        workload = asked.question.workload
        return break_down(
            *asked.question.deployed, batch_size=workload.batch_sizes[0],
            context_len=workload.context_lens[0], output_tokens=workload.output_tokens,
            objective=asked.objective, risk=asked.risk, **asked.question.planned,
        )  # fmt: skip

    def _bound(self, asked: Asked, workload: Workload | None = None) -> None:
        """Refuse more than one service takes on. Raises SpecError."""
        question = asked.question
        workload = workload or question.workload
        cells = len(workload.batch_sizes) * len(workload.context_lens)
        planned = question.planned
        space = SearchSpace([None, *planned["drafters"]], planned["gammas"], planned["kv_budgets"])
        size = count_configurations(question.deployments, workload, space)
        for count, most, noun in (
            (cells, self.limits.cells, "cells"), (size, self.limits.configurations, "configurations")
        ):  # fmt: skip
            if count > most:
                raise SpecError.single(
                    "", "batch_size, context", f"asks for {count:,} {noun}",
                    f"This service prices {most:,} at once: use wider steps, name fewer strategies, or run "
                    "draftplan plan",
                )  # fmt: skip


def _key(values: Values | None) -> str:
    """Return a question as the text that stands for it."""
    return json.dumps(values, sort_keys=True)


def _checked(key: str, name: str) -> None:
    """Refuse what is no name, under its key."""
    try:
        check_name(name)
    except SpecError as refusal:
        raise refusal.located("", None, key) from None


def _cell(value: Any) -> str:
    return "" if value is None else ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _read(row: Mapping[str, str]) -> dict[str, Any]:
    """Return the answers of a row as numbers, or why it has none."""
    if row.get("error"):
        return {"error": row["error"]}
    answers: dict[str, Any] = {}
    for name in OUTPUTS:
        text = row[name]
        answers[name] = text == "true" if text in ("true", "false") else float(text) if text else None
    return answers
