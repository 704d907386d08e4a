"""What the software that serves can run of what may draft, and how it runs there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import strategies
from perfmodel import software
from perfmodel.engine import EngineOverhead
from perfmodel.errors import Fault, SpecError
from perfmodel.model import ModelSpec
from perfmodel.planning.drafters import comes_with_a_model, ships
from perfmodel.software import Software
from perfmodel.speculation import Drafter
from strategies.base import needs_budget

__all__ = ["can_run", "check_served", "runs_in", "serve", "served_drafters", "why_not_served"]


def why_not_served(
    drafter: Drafter, served_by: Software | None, kv_budgets: Sequence[float] | None = None
) -> str:
    """Return why a software cannot run a drafter, in its own words; empty where it can.

    Parameters
    ----------
    served_by : the software; None runs everything.
    kv_budgets : draft KV budgets that are asked for, infinite for the whole cache; None for any. [tokens]
    """
    if served_by is None:
        return ""
    strategy, name, kind = drafter.strategy, drafter.strategy.name, drafter.kind
    asked = math.inf
    if strategy.default_budgets and kv_budgets is not None and math.inf not in kv_budgets:
        asked = max(kv_budgets)
    if needs_budget(strategy):
        asked = min(asked, strategy.default_budgets[0])
    branches = drafter.tree is not None and drafter.tree.topk > 1
    return served_by.why_not(name, kind, asked, branches=branches)


def serve(
    drafters: Iterable[Drafter], engine: EngineOverhead, kv_budgets: Sequence[float] | None = None
) -> tuple[list[Drafter], list[str]]:
    """Return the drafters as an engine's software runs them, and a remark for each reason to leave some out.

    One whose cache the software cannot bound reads all of it.

    Parameters
    ----------
    kv_budgets : as for `why_not_served`. [tokens]
    """
    served_by, runs = engine.served_by, []
    left_out: dict[str, list[str]] = {}
    for drafter in drafters:
        if reason := why_not_served(drafter, served_by, kv_budgets):
            left_out.setdefault(reason, []).append(drafter.label)
            continue
        method = served_by.method(drafter.strategy.name, drafter.kind) if served_by else None
        runs.append(replace(drafter, whole_cache=method is not None and not method.window))
    label = served_by.label if served_by else ""
    return runs, [f"left out: {', '.join(names)}: {label}: {reason}" for reason, names in left_out.items()]


def check_served(
    drafters: Iterable[Drafter],
    engine: EngineOverhead,
    kv_budgets: Sequence[float] | None = None,
    tensor_parallel: Sequence[int] = (),
) -> list[Drafter]:
    """Return the drafters as an engine's software runs them; refuse those that it cannot.

    Parameters
    ----------
    kv_budgets : as for `why_not_served`. [tokens]
    tensor_parallel : GPUs of the target, each number that is asked about. [GPUs]

    Raises
    ------
    SpecError
        Naming each with the software's reason, and engines that can.
    """
    served_by, faults, named = engine.served_by, [], list(drafters)
    if served_by is None:
        return named
    for drafter in named:
        if reason := why_not_served(drafter, served_by, kv_budgets):
            budget = not why_not_served(drafter, served_by)
            what = f"a draft KV budget of {drafter.label}" if budget else drafter.label
            remedy = _name_engines(drafter, kv_budgets) + (", or --draft-budget all" if budget else "")
            field = "draft_budget" if budget else "draft_model" if drafter.draft_model else "strategy"
            faults.append(Fault("", None, field, f"{served_by.label} cannot run {what}: {reason}", remedy))
        elif fault := _unshared(drafter, served_by, tensor_parallel):
            faults.append(fault)
    if faults:
        raise SpecError(faults)
    return serve(named, engine, kv_budgets)[0]


def _unshared(drafter: Drafter, served_by: Software, tensor_parallel: Sequence[int]) -> Fault | None:
    """Return what is wrong with the number of GPUs that a draft model is asked to run on, if anything."""
    method = served_by.method(drafter.strategy.name, drafter.kind)
    gpus = drafter.draft_tensor_parallel
    if method is None or gpus is None or drafter.kind != "draft":
        return None
    allowed = [1] if method.draft_gpus == "one or all" else []
    wrong = [count for count in tensor_parallel if min(gpus, count) not in (*allowed, count)]
    if not wrong:
        return None
    shares = "one GPU or on all" if allowed else "all"
    problem = f"{served_by.label} runs a draft model on {shares} of the target's, not on {gpus} of {wrong[0]}"
    remedy = "Give --draft-tp 1, or leave it out" if allowed else "Leave --draft-tp out"
    return Fault("", None, "draft_tp", problem, remedy)


def _name_engines(drafter: Drafter, kv_budgets: Sequence[float] | None) -> str:
    """Name the engines that run a drafter, for a remedy; one of no software always does."""
    able, anything = [], []
    for name in EngineOverhead.available():
        engine = EngineOverhead.load(name)
        if engine.served_by is None:
            anything.append(name)
        elif not why_not_served(drafter, engine.served_by, kv_budgets):
            able.append(name)
    first = f"Plan for an engine that can: --engine {' or '.join(able)}; or" if able else "Plan"
    return f"{first} with --engine {anything[0]}, which names no software and runs everything"


def served_drafters(
    target: ModelSpec, draft_models: Sequence[ModelSpec], heads: Sequence[Drafter], served_by: Software
) -> list[Drafter]:
    """Return all that a software can run for a target, at some budget: `needs` says what of it must be made.

    Parameters
    ----------
    draft_models : small models that may draft; nothing else drafts as one.
    heads : those that are named, in place of the general ones of their strategies.
    """
    known = [strategies.load(name) for name in strategies.available()]
    named = {drafter.strategy.name for drafter in heads}
    own = [
        Drafter(strategy)
        for strategy in known
        if not strategy.needs_draft_model
        and strategy.name not in named
        and (ships(target, strategy) or not comes_with_a_model(strategy))
    ]
    drafting = [strategy for strategy in known if "draft" in strategy.drafters]
    small = [Drafter(strategy, model) for model in draft_models for strategy in drafting]
    return [drafter for drafter in own + small if not why_not_served(drafter, served_by)]


def can_run(
    strategy: str, kind: str, kv_budget: float | None, *, branches: bool = False
) -> tuple[list[str], list[str]]:
    """Return the labels of the software that runs a strategy, and of the software that does not.

    Parameters
    ----------
    strategy, kind : its name, and whose weights draft: self, draft, head or none.
    kv_budget : what the drafter may read; None for the whole cache. [tokens]
    branches : whether it drafts a tree.
    """
    able: list[str] = []
    unable: list[str] = []
    for name in software.available():
        each = software.load(name)
        budget = math.inf if kv_budget is None else kv_budget
        reason = each.why_not(strategy, kind, budget, branches=branches)  # type: ignore[arg-type]
        (unable if reason else able).append(each.label)
    return able, unable


def runs_in(drafter: Drafter, kv_budgets: Iterable[float | None]) -> tuple[str, ...]:
    """Return the labels of the software that runs a drafter at all of some draft KV budgets. [tokens]"""
    branches = drafter.tree is not None and drafter.tree.topk > 1
    each = [
        set(can_run(drafter.strategy.name, drafter.kind, budget, branches=branches)[0])
        for budget in kv_budgets
    ]
    return tuple(sorted(set.intersection(*each), key=str.lower)) if each else ()
