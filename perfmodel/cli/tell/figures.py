"""A question as one figure: what is priced for each kind, and which function draws it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes

from perfmodel.cli.ask.question import Question
from perfmodel.errors import InfeasibleError, SpecError
from perfmodel.planning import planner
from perfmodel.planning.bottleneck import price_bottleneck
from perfmodel.planning.breakdown import break_down
from perfmodel.planning.choose import Choice
from perfmodel.planning.engine_maps import compare_engines
from perfmodel.planning.explain import nearest_miss
from perfmodel.planning.needed import price_needed
from perfmodel.planning.operations import operations
from perfmodel.planning.pareto import price_fronts
from perfmodel.planning.plan import Plan
from perfmodel.planning.price import SearchSpace, price_drafters
from perfmodel.planning.sensitivity import influences
from perfmodel.planning.speedup_map import Surface, price_surface, surface_of
from perfmodel.planning.uncertainty import DRAWS
from perfmodel.plots.bottleneck import plot_kv_bottleneck
from perfmodel.plots.causes import plot_time_by_cause
from perfmodel.plots.curves import (
    plot_ratios_against_batch,
    plot_speedup_against_batch,
    plot_speedup_against_context,
)  # fmt: skip
from perfmodel.plots.engines import plot_engine_maps
from perfmodel.plots.maps import plot_strategy_map
from perfmodel.plots.needed import MOST_PANELS, plot_acceptance_needed
from perfmodel.plots.pareto import plot_throughput_against_tpot
from perfmodel.plots.roofline import plot_roofline
from perfmodel.plots.sensitivity import plot_sensitivity
from perfmodel.plots.style import MOST_SERIES, short_tokens
from perfmodel.speculation import Drafter

__all__ = [
    "break_even", "causes", "engines", "kv_bottleneck", "pareto", "ratios", "roofline",
    "sensitivity", "speedup_against_batch", "speedup_against_context", "strategy_map",
]  # fmt: skip

USUAL_GAMMA = 3
"""Speculation length of the ratios T_V/T_T and T_D/T_T where none is named. [tokens]"""


def speedup_against_batch(question: Question) -> Axes:
    """Draw the recommendation's speedup, or that of the one drafter named."""
    return plot_speedup_against_batch(_surface(question))


def speedup_against_context(question: Question) -> Axes:
    """Draw the recommendation's speedup, or that of the one drafter named."""
    return plot_speedup_against_context(_surface(question))


def ratios(question: Question, *, fixed: bool) -> Axes:
    """Draw T_V/T_T and T_D/T_T of one drafter, at `USUAL_GAMMA` unless the question's lengths are `fixed`."""
    if len(question.drafters) != 1:
        names = ", ".join(dict.fromkeys(drafter.strategy.name for drafter in question.drafters)) or "nobody"
        problem = f"ratios are drawn for one drafter, and {names[:80]} may draft"
        raise SpecError.single("", "--strategy, --draft-model", problem, "Name one: --strategy snapkv")
    return plot_ratios_against_batch(_surface(question if fixed else replace(question, gammas=[USUAL_GAMMA])))


def strategy_map(question: Question) -> Axes:
    """Draw what is recommended over batch size and context length."""
    return plot_strategy_map(_plan(question))


def engines(questions: Sequence[Question]) -> list[Axes]:
    """Draw what is recommended on each engine of the same question, and what each loses."""
    first = questions[0]
    maps = compare_engines(
        [_plan(question, draws=0) for question in questions],
        [question.only_deployment() for question in questions],
        [question.drafters for question in questions],
        first.workload,
        SearchSpace([], planner.read_gammas(first.gammas), first.kv_budgets, first.alpha),
        planner.Constraints(tpot=first.tpot),
    )
    return plot_engine_maps(maps)


def break_even(question: Question) -> list[Axes]:
    """Draw the acceptance that every drafter needs beside the one that is believed."""
    for count, most, flag in (
        (len(question.workload.context_lens), MOST_PANELS, "--context"),
        (len(question.drafters), MOST_SERIES, "--strategy"),
    ):
        if count > most:
            raise SpecError.single("", flag, f"asks for {count} panels", f"Name at most {most}")
    if not question.drafters:
        raise SpecError.single("", "--strategy", "names no drafter", "Name one: nothing would be drafted")
    deployment = question.only_deployment()
    limits = planner.Constraints(tpot=question.tpot)
    every = price_needed(deployment, question.workload, _space(question, question.drafters), limits)
    return plot_acceptance_needed(every, deployment.label)


def sensitivity(question: Question) -> list[Axes]:
    """Draw the figures that could change the answer of the one cell of a question."""
    for values, flag in (
        (question.workload.batch_sizes, "--batch-size"), (question.workload.context_lens, "--context")
    ):
        _only_value(values, flag)
    deployment = question.only_deployment()
    [cell] = _plan(question, draws=0).cells
    space = SearchSpace(
        [None, *question.drafters], planner.read_gammas(question.gammas), question.kv_budgets, question.alpha
    )
    every = influences(deployment, question.workload, space, planner.Constraints(tpot=question.tpot), cell)
    if not every:
        raise SpecError.single("", "", "no figure in doubt moves this answer", "There is nothing to draw")
    return plot_sensitivity(cell, every, deployment.label)


def kv_bottleneck(questions: Sequence[Question]) -> list[Axes]:
    """Draw what reading the cache takes of a plain step of several models, over context."""
    first = questions[0]
    batch_size = _only_value(first.workload.batch_sizes, "--batch-size")
    contexts = first.workload.context_lens
    if len(contexts) < 2:
        raise SpecError.single("", "--context", "names one length", "Name several: 1k:128k:x2")
    models = [
        price_bottleneck(question.only_deployment(), batch_size, contexts, first.workload.output_tokens)
        for question in questions
    ]
    profile, engine = first.hardware[0], first.engine.name
    gpus = first.only_deployment().gpus
    return plot_kv_bottleneck(models, batch_size, f"{gpus} x {profile.name}, engine {engine}")


def causes(question: Question) -> Axes:
    """Draw the time by cause of the one cell of a question."""
    batch_size = _only_value(question.workload.batch_sizes, "--batch-size")
    context_len = _only_value(question.workload.context_lens, "--context")
    return plot_time_by_cause(
        break_down(
            *question.deployed, batch_size=batch_size, context_len=context_len,
            output_tokens=question.workload.output_tokens, **question.planned,
        )
    )


def roofline(question: Question) -> Axes:
    """Draw the operations of the drafter that is best at the largest batch, at every batch."""
    context = _only_value(question.workload.context_lens, "--context")
    batches = question.workload.batch_sizes
    deployment, space = question.deployments[0], _space(question, question.drafters)
    every = price_drafters(deployment, question.workload, space)
    choices = [Choice.among(priced, planner.NO_CONSTRAINTS, Counter()) for priced in every]
    if not any(np.isfinite(choice.tpot).any() for choice in choices):
        raise InfeasibleError({}, nearest_miss([deployment], question.workload, None))
    choice = min(choices, key=lambda choice: choice.tpot[-1])
    if not np.isfinite(choice.tpot[-1]):
        raise SpecError.single(
            "", "--batch-size", f"batch {batches[-1]} does not fit in memory", "Name smaller ones"
        )
    drafter, chosen = choice.drafter, choice.at(slice(-1, None))
    assert drafter is not None
    gamma, budget = float(chosen.gamma[0]), float(chosen.kv_budget[0])
    place = (slice(None), 0, *(index[-1] for index in choice.place[2:]))
    title = f"{deployment.label}, context {short_tokens(context)}, batch {', '.join(map(str, batches))}"
    kept = f", KV {short_tokens(budget)}" if np.isfinite(budget) else ""
    return plot_roofline(
        question.hardware[0],
        operations(choice.priced.at(place)),
        dtype=next(layer.dtype for layer in question.target.linears),
        subtitle=f"{title}\n{drafter.label}{kept}, speculation length {gamma:g}",
    )


def pareto(question: Question) -> Axes:
    """Draw the fronts of plain decoding and of every drafter, over all deployments of the question."""
    context = _only_value(question.workload.context_lens, "--context")
    space = _space(question, [None, *question.drafters])
    each = question.pipeline_parallel * question.data_parallel
    gpus = " or ".join(str(count * each) for count in question.tensor_parallel)
    hardware = " or ".join(str(profile.name) for profile in question.hardware)
    title = f"{question.target.name} on {gpus} x {hardware}, engine {question.engine.name}"
    fronts = price_fronts(question.deployments, question.workload, space)
    return plot_throughput_against_tpot(
        fronts, f"{title}, context {short_tokens(context)}", tpot=question.tpot
    )


def _surface(question: Question) -> Surface:
    """The recommendation in every cell; the one drafter's best where one is named, whether it pays or not."""
    if len(question.drafters) == 1:
        return price_surface(
            question.only_deployment(), question.workload, question.drafters[0],
            _space(question, question.drafters), constraints=planner.Constraints(tpot=question.tpot),
        )  # fmt: skip
    return surface_of(_plan(question))


def _space(question: Question, drafters: Sequence[Drafter | None]) -> SearchSpace:
    """Return what is searched where drafters draft, whether it pays or not."""
    if not question.speculative_gammas:
        raise SpecError.single("", "--gamma", "names no length above 0", "Name one: nothing would be drafted")
    return SearchSpace(drafters, question.speculative_gammas, question.kv_budgets, question.alpha)


def _plan(question: Question, draws: int = DRAWS) -> Plan:
    return planner.plan(*question.deployed, question.workload, **question.planned, draws=draws)


def _only_value(values: Sequence[int], flag: str) -> int:
    """Return the one value of an axis. Raises SpecError where it has several."""
    if len(values) != 1:
        raise SpecError.single("", flag, f"names {len(values)} values", "This figure is drawn for one")
    return values[0]
