"""The cells of a workload answered piece by piece, as columns: the best of what may be chosen in each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.deployment import Deployment
from perfmodel.files.numbers import FloatArray, distinct_values
from perfmodel.planning.cells import Cells
from perfmodel.planning.choose import Choice, Constraints, rank
from perfmodel.planning.columns import Cell, fill
from perfmodel.planning.executors import Mapper, in_order
from perfmodel.planning.explain import reason
from perfmodel.planning.packed import Coded, Packed, chosen, coded, distinct, join, pack
from perfmodel.planning.plan import OBJECTIVES
from perfmodel.planning.price import Part, Priced, Prices, SearchSpace, split
from perfmodel.planning.uncertainty import MOST_DRAWN, Draws, draw, judge
from perfmodel.speculation import price
from perfmodel.workload import Workload

__all__ = ["Answer", "Answered", "Question", "answer_cells", "answer_piece", "best_answers"]

WORLDS = 131_072
"""Possible worlds of cells that are priced at once: arrays stay in a core's cache. [1]"""


@dataclass(frozen=True)
class Question:
    """What all pieces of a deployment's cells have in common.

    worlds : possible worlds for the intervals; none where None.
    left_out : why no drafter is loaded, where that was decided for the whole workload.
    kinds : what acceptance rests on, by drafter, context and budget, as far as it was looked up.
    """

    deployment: Deployment
    workload: Workload
    space: SearchSpace
    constraints: Constraints
    worlds: Draws | None = None
    left_out: str = ""
    kinds: dict[Any, str] = field(default_factory=dict, compare=False)

    @cached_property
    def prices(self) -> Prices:
        """The prices of its pieces, which keeps what they share."""
        return Prices(self.deployment, self.workload, self.space)


@dataclass(frozen=True)
class Answered:
    """The cells that have an answer.

    place : where each stands among all that were asked about, in (batch, context) order, rising.
    fallen : configurations that fell to each limit.
    """

    cells: Cells[Cell]
    place: NDArray[np.intp]
    fallen: Counter[str]


@dataclass(frozen=True)
class Answer(Priced):
    """The cells that one drafter answers, as arrays of one element a cell: what the columns of `Cell` read.

    round_by_gamma_s : seconds of a round at every length of the plan, axes (cell, gamma). [s]
    runner_up, runner_up_behind : what came second, and by what share of the winner's time per token; 0
        where nothing did. [1]
    alpha_kind : the weakest of what each cell's acceptance rests on, given where stated; None where nothing
        drafts.
    hindrance : why nothing drafts in a cell where it is not the price; else empty.
    judged : how sure it is, by the names of `Cell`.
    """

    round_by_gamma_s: FloatArray
    runner_up: Packed
    runner_up_behind: FloatArray
    alpha_kind: Packed
    hindrance: Packed
    judged: Mapping[str, FloatArray]


def answer_cells(
    deployment: Deployment,
    workload: Workload,
    space: SearchSpace,
    constraints: Constraints,
    left_out: str = "",
    *,
    draws: int,
    seed: int,
    executor: Mapper | None = None,
) -> Answered:
    """Answer every cell of a workload on one deployment, piece by piece.

    Parameters
    ----------
    deployment, workload, space, constraints : what serves, the cells, and what may be chosen for each.
    left_out : why no drafter is loaded, where that was decided for the whole workload.
    draws, seed : possible worlds for the intervals, none for 0, and what they are drawn with.
    executor : where pieces are answered; here when absent.
    """
    count = len(workload.batch_sizes) * len(workload.context_lens)
    drawn = int(np.clip(MOST_DRAWN // count, 16, draws))
    worlds = draw(deployment, count=drawn, seed=seed) if draws else None
    question = Question(deployment, workload, space, constraints, worlds, left_out)
    parts = [*in_order(executor, answer_piece, split(workload, space), common=question)]
    cells, places, fallen = zip(*((part.cells, part.place, part.fallen) for part in parts), strict=True)
    return _together(cells, places, fallen)


def answer_piece(question: Question, piece: Part) -> Answered:
    """Answer the cells of one piece: a function of the question alone, which a worker may be sent."""
    fallen: Counter[str] = Counter()
    constraints, every = question.constraints, question.prices.of(piece)
    choices = [Choice.among(priced, constraints, fallen) for priced in every]
    if all(choice.drafts for choice in choices):  # one deployed drafter: plain decoding is its length 0
        choices.insert(0, Choice.among(every[0], constraints, fallen, idle=True))
    rows, columns = (np.arange(len(axis))[part] for axis, part in zip(
        (question.workload.batch_sizes, question.workload.context_lens), piece, strict=True
    ))
    place = (rows[:, None] * len(question.workload.context_lens) + columns).ravel()
    cells, where = _best_of(choices, question)
    answered = _together(cells, where, [fallen])
    return replace(answered, place=place[answered.place])


def best_answers(answers: Sequence[Answered], objective: str) -> Cells[Cell]:
    """Return the best of the answers of several machines in each cell; cells without any are left out.

    An answer that is both slower and dearer than another is none; of equals the first is taken.

    Parameters
    ----------
    answers : one a machine; they are used up.
    objective : one of `OBJECTIVES`.
    """
    if len(answers) == 1:
        return answers[0].cells
    size = max((int(each.place[-1]) + 1 for each in answers if each.place.size), default=0)

    def cost(name: str) -> FloatArray:
        costs = np.full((len(answers), size), np.nan)
        for row, each in zip(costs, answers, strict=True):
            row[each.place] = OBJECTIVES[name].cost(each.cells)
        return costs

    time, money, wanted = cost("tpot"), cost("cost"), cost(objective)
    best, least = np.full(size, -1), np.full(size, np.nan)
    for machine in range(len(answers)):
        worse = np.any((time < time[machine]) & (money < money[machine]), axis=0)
        here = ~np.isnan(wanted[machine]) & ~worse
        better = here & ((best < 0) | (wanted[machine] < least))
        best[better], least[better] = machine, wanted[machine][better]
    places = np.flatnonzero(best >= 0)
    parts, where = [], []
    for machine, each in enumerate(answers):
        won = best[each.place] == machine
        parts.append(each.cells.take(won))
        where.append(np.searchsorted(places, each.place[won]))
    return _together(parts, where, []).cells


def _together(
    cells: Sequence[Cells[Cell]], places: Sequence[NDArray[np.intp]], fallen: Sequence[Counter[str]]
) -> Answered:
    """Return parts as one, its cells in the order of their places."""
    place = np.concatenate([*places, np.empty(0, dtype=np.intp)])
    order = np.sort(place)
    where = [np.searchsorted(order, each) for each in places]
    parts = [(part, at) for part, at in zip(cells, where, strict=True) if len(part)]
    if not parts:
        return Answered(Cells.of((), Cell), order, sum(fallen, Counter()))
    joined = Cells.joined([part for part, _ in parts], [at for _, at in parts])
    return Answered(joined, order, sum(fallen, Counter()))


def _best_of(
    choices: Sequence[Choice], question: Question
) -> tuple[list[Cells[Cell]], list[NDArray[np.intp]]]:
    """Answer cells by the best of the choices, plain decoding the first of them; and where they stand."""
    space, constraints, worlds = question.space, question.constraints, question.worlds
    if space.deviations:
        choices = [_at_expectation(choice, constraints, space) for choice in choices]
    tpots = np.stack([choice.tpot for choice in choices])
    order = rank(choices, constraints.near_tie)
    first, second = order[0], order[min(1, len(choices) - 1)]
    best, rival = (np.take_along_axis(tpots, index[None], axis=0)[0] for index in (first, second))
    rivalled = np.isfinite(rival) & (second != first)
    behind = np.where(rivalled, rival, np.nan) / np.where(np.isfinite(best), best, 1.0) - 1.0
    hindrances = _name_hindrances(choices, question.left_out)
    runners_up = _name_runners_up(choices, second, np.isfinite(behind))
    answers, places = [], []
    for index, choice in enumerate(choices):
        cells = np.flatnonzero((first == index) & np.isfinite(choice.tpot))
        if not cells.size:
            continue
        runs, by_gamma = choice.at(cells), choice.by_gamma(cells)
        judged: Mapping[str, FloatArray] = {}
        if worlds is not None:
            known = {"runs": runs, "lengths": by_gamma}
            judged = _judge(worlds, choice, choices, cells, second, behind, space, known)
        if space.deviations:  # chosen at a quantile of acceptance, told at its expectation
            runs, by_gamma = _expected(runs, space), _expected(by_gamma, space)
        answer = Answer(
            runs.deployment, runs.drafter, *runs.axes, runs.round, runs.output_tokens,
            round_by_gamma_s=by_gamma.expand(by_gamma.round.round_s),
            runner_up=runners_up.take(cells),
            runner_up_behind=np.nan_to_num(behind[cells]),
            alpha_kind=_name_kinds(runs, question),
            hindrance=hindrances.take(cells),
            judged=judged,
        )  # fmt: skip
        answers.append(fill(answer, reason))
        places.append(cells)
    return answers, places


def _judge(
    worlds: Draws,
    chosen: Choice,
    choices: Sequence[Choice],
    cells: NDArray[np.intp],
    second: NDArray[np.intp],
    behind: FloatArray,
    space: SearchSpace,
    known: Mapping[str, Priced],
) -> dict[str, FloatArray]:
    """Judge a choice in some cells, so many at once that the arrays of their worlds stay small."""
    size = max(1, WORLDS // worlds.size)
    blocks = [
        judge(
            worlds, chosen, choices, block, second[block], behind[block], space.alpha,
            expected=not space.deviations, **known if block.size == cells.size else {},
        )
        for block in np.split(cells, range(size, cells.size, size))
    ]  # fmt: skip
    if len(blocks) == 1:
        return blocks[0]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _name_kinds(runs: Priced, question: Question) -> Packed:
    """Return the weakest of what the acceptance of each cell rests on; None where nothing drafts."""
    drafter, believed, size = runs.drafter, runs.round.acceptance, runs.shape[0]
    if drafter is None or believed is None or question.space.alpha is not None:
        return pack(None if believed is None else believed.kind, size)
    target, kinds = runs.deployment.model, []
    contexts, budgets = distinct(runs.context_len), distinct(runs.kv_budget)
    codes, pairs = distinct(contexts[0] * budgets[1].size + budgets[0])
    for pair in pairs.tolist():
        at, kept = divmod(pair, budgets[1].size)
        place = (id(drafter), context := float(contexts[1][at]), budget := float(budgets[1][kept]))
        if place not in question.kinds:
            believed = drafter.acceptance(target, context_len=context, kv_budget=budget)
            question.kinds[place] = believed.kind
        kinds.append(question.kinds[place])
    return pack(np.array(kinds), len(kinds)).take(codes)


def _name_runners_up(
    choices: Sequence[Choice], second: NDArray[np.intp], rivalled: NDArray[np.bool_]
) -> Packed:
    """Return what came second in each cell; empty where nothing did."""
    alone = np.flatnonzero(~rivalled)
    parts: list[Packed] = [pack("", alone.size)] if alone.size else []
    places = [alone] if alone.size else []
    for index in distinct_values(second[rivalled]).tolist():
        places.append(np.flatnonzero(rivalled & (second == index)))
        parts.append(choices[index].describe(places[-1]))
    return join(parts, places, second.size)


def _name_hindrances(choices: Sequence[Choice], left_out: str) -> Coded:
    """Return why nothing drafts in each cell where it is not the price; empty where it is, or one drafts."""
    drafting = [choice for choice in choices if choice.drafts]
    if not drafting:
        return chosen(np.ones(choices[0].tpot.size, dtype=bool), left_out)
    allowed = np.any([np.isfinite(choice.tpot) for choice in drafting], axis=0)
    fits = np.any([choice.fits for choice in drafting], axis=0)
    names = ["", "no draft that fits keeps the TPOT limit", "no draft fits in memory"]
    return coded(np.where(allowed, 0, np.where(fits, 1, 2)), names)


def _expected(runs: Priced, space: SearchSpace) -> Priced:
    """Return configurations, chosen at a quantile of acceptance, priced at its expectation."""
    return replace(runs, round=price(runs.deployment, runs.drafter, **runs.configuration, alpha=space.alpha))


def _at_expectation(choice: Choice, constraints: Constraints, space: SearchSpace) -> Choice:
    """Return a choice ranked at its quantile and told at its expectation, which keeps the limit at both."""
    runs = _expected(choice.at(), space)
    tpot = np.where(np.isfinite(choice.tpot), runs.expand(runs.round.tpot), np.inf)
    late = tpot > (np.inf if constraints.tpot is None else constraints.tpot)
    return replace(choice, tpot=np.where(late, np.inf, tpot), least=np.where(late, np.inf, choice.least))
