"""Everything that a report shows, priced and chosen before any page exists."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance, expected_tokens, tokens_per_round
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.latency import CAUSES
from perfmodel.model import ModelSpec
from perfmodel.planning.captions import chosen_in_words, sensitivity_in_words
from perfmodel.planning.needed import Needed, price_needed
from perfmodel.planning.plan import Cell, Plan
from perfmodel.planning.planner import DEFAULT_GAMMAS, Constraints, usual_drafters
from perfmodel.planning.planner import plan as recommend
from perfmodel.planning.price import Priced, SearchSpace, count_configurations, price_drafters
from perfmodel.planning.sensitivity import influences
from perfmodel.planning.served import check_served
from perfmodel.report.deployments import RankedDrafter, rank_drafters
from perfmodel.speculation import Drafter
from perfmodel.workload import Workload

__all__ = ["MOST_CONFIGURATIONS", "RATES", "Content", "report_content"]

FITS = Constraints()
MOST_CONFIGURATIONS = 80_000
"""Configurations that one page can hold within 6 MB. [1]"""
RATES = tuple(round(0.01 * percent, 2) for percent in range(40, 100))
"""Acceptance rates that a reader may try. [1]"""
TAILS = {"low": 0.1, "expected": None, "high": 0.9}
"""Quantiles of a drafter's acceptance that a reader may choose; None is its expectation."""


@dataclass(frozen=True)
class Content:
    """What a page holds.

    plan : the recommendation of every cell. deployments : each drafter at the budget that serves all cells
    best, the fastest first. priced : all that a reader can look up, as plain JSON. command : what was asked.
    """

    plan: Plan
    deployments: tuple[RankedDrafter, ...]
    priced: Mapping[str, Any]
    command: str = ""

    @property
    def doubts(self) -> str:
        """What could change the decision where drafting gains most; empty where nothing moves it."""
        return str(self.priced["doubts"]["words"])


def report_content(
    hardware: HardwareProfile,
    target: ModelSpec,
    engine: EngineOverhead,
    workload: Workload,
    *,
    drafters: Sequence[Drafter] | None = None,
    kv_budgets: Sequence[float] | None = None,
    gammas: Sequence[int] = DEFAULT_GAMMAS,
    tensor_parallel: int = 1,
    alpha: float | Acceptance | None = None,
    constraints: Constraints = FITS,
    command: str = "",
    expert_parallel: bool = False,
    pipeline_parallel: int = 1,
    data_parallel: int = 1,
) -> Content:
    """Price a question for one page; arguments as `perfmodel.plan`.

    Parameters
    ----------
    command : the command line that makes this page again.

    Raises
    ------
    InfeasibleError
        When no configuration of any cell is allowed.
    SpecError
        When the request is wrong, or asks for more configurations than a page can hold.
    """
    if drafters is None:
        drafters = usual_drafters(target, engine, pipeline_parallel)
    searched = check_served(drafters, engine, kv_budgets)
    if any(drafter.tree for drafter in searched):
        raise SpecError.single(
            "request", "tree", "a page counts tokens of chains only, as its reader moves acceptance",
            "Leave --tree out, or use plan",
        )  # fmt: skip
    asked: dict[str, Any] = {
        "drafters": searched,
        "kv_budgets": kv_budgets,
        "gammas": gammas,
        "tensor_parallel": tensor_parallel,
        "alpha": alpha,
        "constraints": constraints,
        "expert_parallel": expert_parallel,
        "pipeline_parallel": pipeline_parallel,
        "data_parallel": data_parallel,
    }
    lengths = sorted({gamma for gamma in gammas if gamma > 0}) or [1]
    space = SearchSpace([None, *searched], lengths, kv_budgets, alpha)
    deployment = Deployment(
        hardware, target, engine, tensor_parallel, expert_parallel, pipeline_parallel, data_parallel
    )
    size = count_configurations([deployment], workload, space)
    if size > MOST_CONFIGURATIONS:
        raise SpecError.single(
            "request", "workload", f"asks for {size} configurations",
            f"A page holds at most {MOST_CONFIGURATIONS}: use wider steps, or name fewer strategies",
        )  # fmt: skip
    answer = recommend(hardware, target, engine, workload, **asked)
    deployed = [
        recommend(hardware, target, engine, workload, one_deployment=True, **{**asked, "drafters": [drafter]})
        for drafter in searched
    ]
    return Content(
        plan=answer,
        deployments=rank_drafters(answer, deployed),
        priced={
            **_priced(answer, price_drafters(deployment, workload, space), constraints.near_tie),
            "needed": _needed(deployment, workload, space, constraints),
            "doubts": _doubts(answer, deployment, workload, space, constraints),
        },
        command=command,
    )


def _priced(plan: Plan, every: Sequence[Priced], near_tie: float) -> dict[str, Any]:
    """Every number of a page; arrays keep the axes (batch, context, kv_budget, gamma) that they depend on.

    The first is plain decoding, which has neither budget nor speculation length.
    """
    plain, *drafting = every
    causes = [cause for cause in CAUSES if cause != "recurrence" or plain.deployment.model.state_bytes]
    gammas = np.asarray([gamma for gamma in plan.gammas if gamma > 0] or [1], dtype=float)
    return {
        "batch_sizes": plain.batch.ravel().astype(int).tolist(),
        "context_lens": plain.context_len.ravel().astype(int).tolist(),
        "gammas": gammas.astype(int).tolist(),
        "near_tie": near_tie,
        "tensor_parallel": plan.tensor_parallel,
        "gpus": plan.gpus,
        "plain_s": _array(plain.round.baseline.total),
        "plain": {cause: _array(getattr(plain.round.baseline, cause)) for cause in causes},
        "plain_fits": _bits(plain.expand(plain.round.memory.fits)),
        "verify": {
            cause: _array(getattr(first.round.verify, cause)) for first in drafting[:1] for cause in causes
        },
        "drafters": [_drafter(priced) for priced in drafting],
        "rates": list(RATES),
        "tokens_by_rate": [
            np.broadcast_to(tokens_per_round(rate, gammas), gammas.shape).round(6).tolist() for rate in RATES
        ],
        "cells": [_cell(cell, plain, drafting) for cell in plan.cells],
    }


def _needed(
    deployment: Deployment, workload: Workload, space: SearchSpace, constraints: Constraints
) -> list[dict[str, Any]]:
    """What every drafter needs of acceptance and has, axes (batch, context); none where none is allowed."""
    try:
        every: list[Needed] = price_needed(deployment, workload, space, constraints)
    except InfeasibleError:
        return []
    names = ("needed", "known", "low", "high")
    return [
        {"label": each.label, **{name: _array(getattr(each, name)[..., None, None]) for name in names}}
        for each in every
    ]


def _doubts(
    plan: Plan, deployment: Deployment, workload: Workload, space: SearchSpace, constraints: Constraints
) -> dict[str, Any]:
    """What could change the decision in the cell in which drafting gains most."""
    cell = max(plan.cells, key=lambda each: each.speedup)
    lengths = sorted({0, *space.gammas})
    every = influences(deployment, workload, replace(space, gammas=lengths), constraints, cell)
    return {
        "words": sensitivity_in_words(cell, every) if every else "",
        "batch": cell.batch_size,
        "context": cell.context_len,
        "middle": cell.speedup if cell.speculates else None,
        "of": chosen_in_words(cell),
        "figures": [
            {
                "name": each.name, "kind": each.kind, "low": each.low, "high": each.high,
                "speedup_low": _finite(each.speedup_low), "speedup_high": _finite(each.speedup_high),
                "instead": _instead(each.instead_low, each.instead_high), "command": each.command,
            }
            for each in every
        ],
    }  # fmt: skip


def _instead(low: str, high: str) -> str:
    ends = (("low", low), ("high", high))
    return "; ".join(f"{end}: {choice}" for end, choice in ends if choice)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _drafter(priced: Priced) -> dict[str, Any]:
    """One drafter: seconds of its rounds and draft phases, tokens of its rounds, what fits."""
    drafter, terms = priced.drafter, priced.round
    assert drafter is not None
    acceptance = terms.acceptance
    return {
        "label": drafter.label,
        "kv_budgets": [int(budget) if np.isfinite(budget) else None for budget in priced.kv_budget.ravel()],
        "acceptance": acceptance.kind if acceptance else "measured",
        "source": acceptance.source if acceptance else "",
        "round_s": _array(priced.expand(terms.round_s)),
        "draft": {cause: _array(np.multiply(terms.passes, getattr(terms.draft, cause))) for cause in CAUSES},
        "overhead_s": _array(terms.overhead),
        "fits": _bits(priced.expand(terms.memory.fits)),
        "tokens": {
            name: _array(
                terms.tokens_per_round
                if acceptance is None or tail is None
                else expected_tokens(acceptance.quantile(tail), priced.gamma)
            )
            for name, tail in TAILS.items()
        },
    }


def _cell(cell: Cell, plain: Priced, drafting: Sequence[Priced]) -> dict[str, Any]:
    """One recommendation, pointing into the arrays."""
    shown: dict[str, Any] = {
        "batch": plain.batch.ravel().tolist().index(cell.batch_size),
        "context": plain.context_len.ravel().tolist().index(cell.context_len),
        "drafter": -1,
        "kv_budget": 0,
        "gamma": cell.gamma,
        "tokens": cell.tokens_per_round,
        "tpot_s": cell.tpot_s,
        "speedup": cell.speedup,
        "low": cell.speedup_low,
        "high": cell.speedup_high,
        "pays": cell.probability_beats_plain,
        "why": cell.why,
        "next": f"{cell.runner_up}, {cell.runner_up_behind:.1%} slower" if cell.runner_up else "",
    }
    if cell.speculates:
        for place, priced in enumerate(drafting):
            if priced.drafter and priced.drafter.plays(cell.strategy, cell.draft_model):
                wanted = np.inf if cell.kv_budget is None else float(cell.kv_budget)
                shown["drafter"] = place
                shown["kv_budget"] = priced.kv_budget.ravel().tolist().index(wanted)
    return shown


def _array(values: Numeric) -> dict[str, Any]:
    """An array with four axes, only as long as they matter: 32-bit floats, low byte first, in base 64."""
    array = np.asarray(values, dtype="<f4")
    shape = (1,) * (4 - array.ndim) + array.shape
    return {"shape": list(shape), "floats": b64encode(array.tobytes()).decode("ascii")}


def _bits(values: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask as a text of 0 and 1."""
    return {"shape": list(values.shape), "bits": "".join("01"[int(value)] for value in values.ravel())}
