"""What could change a decision: every doubtful figure at the ends of its range, one at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.deployment import Deployment, Drafter
from perfmodel.engine import DEFAULT_ENGINE
from perfmodel.files.numbers import FloatArray
from perfmodel.files.quantity import Z90
from perfmodel.files.units import format_quantity
from perfmodel.planning.choose import Constraints, allowed_seconds, choose, describe
from perfmodel.planning.plan import NO_DRAFT, Cell
from perfmodel.planning.price import Priced, SearchSpace, price_drafters
from perfmodel.planning.uncertainty import doubted_kinds
from perfmodel.speculation import price
from perfmodel.workload import Workload

__all__ = ["Influence", "influences", "telling"]

WORTH_A_CHANGE = 0.02
"""Share of speed that another drafter must gain before a figure is said to change the decision. [1]"""
LEAST_MOVE = 0.005
"""Share of speed below which a figure is said to move nothing. [1]"""


@dataclass(frozen=True, kw_only=True)
class Influence:
    """One doubtful figure, and what a cell's answer is where it lies at an end of its range.

    name : what the figure is.
    noun : whose it is: hardware, engine or acceptance.
    measured_with : what one measurement settles together: a noun, or all drafters of one model.
    low, high : its ends, for people: the 10th and 90th percentile, with unit.
    kind : measured, published or assumed.
    speedup_low, speedup_high : of the recommended configuration while all other figures keep their values; of
        the best draft where plain decoding is recommended. [1]
    instead_low, instead_high : what would be recommended in its place; empty where the decision stays.
    gain_low, gain_high : what that gains over the recommendation, as a share of speed. [1]
    command : settles the figure.
    """

    name: str
    noun: str
    measured_with: str
    low: str
    high: str
    kind: str
    speedup_low: float
    speedup_high: float
    instead_low: str
    instead_high: str
    gain_low: float
    gain_high: float
    command: str

    @property
    def decides(self) -> bool:
        """Whether it changes the decision at either end."""
        return bool(self.instead_low or self.instead_high)

    @property
    def moves(self) -> float:
        """By how much it moves speed: of the recommendation from end to end, or by what would change. [1]"""
        end_to_end = abs(float(np.log(self.speedup_high / self.speedup_low)))
        return max(end_to_end, *(float(np.log1p(gain)) for gain in (self.gain_low, self.gain_high)))


def influences(
    deployment: Deployment,
    workload: Workload,
    space: SearchSpace,
    constraints: Constraints,
    cell: Cell,
) -> list[Influence]:
    """Return the figures that move a cell's answer, those that change the decision first, then by how much.

    Of hardware and engine those figures are moved whose doubt `uncertainty.draw` draws, and the acceptance of
    every drafter; a range that decides nothing and moves less than half a percent goes without mention.

    Parameters
    ----------
    deployment : what serves; of a plan with several the one of the cell.
    workload : the generation that follows the cell's context counts. [tokens]
    space, constraints : what the plan chose among, and what it kept to.
    cell : the recommendation. Others of its plan do not count.
    """
    place = Workload([cell.batch_size], [cell.context_len], output_tokens=workload.output_tokens)
    central = price_drafters(deployment, place, space)
    drafting = [priced for priced in central if priced.drafter is not None]
    doubts = [*_figures(deployment), *(_acceptance(priced) for priced in drafting)]
    size = 2 * len(doubts)
    moved = deployment
    for noun in ("hardware", "engine"):
        own = [doubt for doubt in doubts if doubt.noun == noun]
        if own:
            first = 2 * doubts.index(own[0])
            changed = getattr(deployment, noun).at_ends([doubt.path for doubt in own], first, size)
            moved = replace(moved, **{noun: changed})
    every = [_Ends.of(priced, moved, doubts, space, constraints) for priced in central]
    return _ranked(every, doubts, cell, constraints)


def telling(every: Sequence[Influence], most: int) -> list[Influence]:
    """Return the first influences, one of those that one measurement settles together."""
    first = {influence.measured_with: influence for influence in reversed(every)}
    return [influence for influence in every if first[influence.measured_with] is influence][:most]


@dataclass(frozen=True)
class _Doubt:
    """A figure that may be other than it is: of hardware or engine by its path, or a drafter's acceptance."""

    name: str
    noun: str
    low: str
    high: str
    kind: str
    command: str
    path: str = ""
    drafter: Drafter | None = None

    @property
    def measured_with(self) -> str:
        """What one measurement settles together."""
        if self.drafter is None:
            return self.noun
        model = self.drafter.draft_model
        return model.name if model is not None else self.drafter.label


def _figures(deployment: Deployment) -> list[_Doubt]:
    """Return the doubtful figures of hardware and engine."""
    hardware, engine = deployment.hardware, deployment.engine
    of_hardware, of_engine = doubted_kinds(deployment)
    calibrate = f"draftplan calibrate points.csv --hardware {hardware.name} --engine {engine.name}"
    commands = {
        "hardware": "draftplan measure --device cuda -o points.csv",
        "engine": "--engine NAME, of what serves" if engine.name == DEFAULT_ENGINE else calibrate,
    }
    return [
        _Doubt(
            f"{path} of {spec.name} ({declared.meaning})", noun,
            format_quantity(float(np.asarray(figure.low)), declared.dimension),
            format_quantity(float(np.asarray(figure.high)), declared.dimension),
            figure.kind, commands[noun], path=path,
        )
        for noun, spec, kinds in (("hardware", hardware, of_hardware), ("engine", engine, of_engine))
        for path, (declared, figure) in spec.doubts(kinds).items()
        if all(np.ndim(end) == 0 for end in (figure.low, figure.high, figure.value))
    ]  # fmt: skip


def _acceptance(priced: Priced) -> _Doubt:
    """Return what is not known of a drafter's acceptance."""
    drafter, known = priced.drafter, priced.round.acceptance
    assert drafter is not None
    learned = "draftplan acceptance fit server.log -o acceptance.json"
    if drafter.kind == "head" and known is not None and known.kind == "assumed" and not drafter.measured:
        learned = f"--trained-length, or {learned}"
    return _Doubt(
        f"acceptance of {drafter.label}", "acceptance", "", "",
        known.kind if known is not None else "assumed", learned, drafter=drafter,
    )  # fmt: skip


@dataclass(frozen=True)
class _Ends:
    """One drafter's configurations of the cell where each doubtful figure is at an end.

    seconds : per token, infinite where it is not allowed, axes (case, kv_budget, gamma). [s]
    speedup, tokens : over plain decoding, and a round's yield; same axes. [1], [tokens]
    """

    priced: Priced
    seconds: FloatArray
    speedup: FloatArray
    tokens: FloatArray

    @classmethod
    def of(
        cls,
        priced: Priced,
        moved: Deployment,
        doubts: Sequence[_Doubt],
        space: SearchSpace,
        constraints: Constraints,
    ) -> _Ends:
        """Price a drafter's configurations in every case. `moved` has its figures on a last axis of cases."""
        size, drafter = 2 * len(doubts), priced.drafter
        deviations = np.full(size, float(space.deviations))
        for place, doubt in enumerate(doubts):
            if drafter is not None and doubt.drafter is drafter:
                deviations[2 * place : 2 * place + 2] += -Z90, Z90
        layout = ("tensor_parallel", "expert_parallel", "pipeline_parallel", "data_parallel")
        widened_layout: Any = {name: np.asarray(getattr(moved, name))[..., None] for name in layout}
        wide = replace(moved, **widened_layout)
        asked: Any = {name: np.asarray(value)[..., None] for name, value in priced.configuration.items()}
        round_ = price(wide, drafter, deviations=deviations, alpha=space.alpha, **asked)
        widened = replace(
            priced, round=round_, **{name: asked[name] for name in ("batch", "context_len", "kv_budget")},
            gamma=np.broadcast_to(asked["gamma"], (*np.shape(asked["gamma"])[:-1], size)),
        )  # fmt: skip
        lengths = True if drafter is None else drafter.may_draft(widened.gamma)
        seconds = allowed_seconds(widened, constraints, Counter(), lengths)

        def by_case(term: Any) -> FloatArray:
            return np.moveaxis(widened.expand(term)[0, 0], -1, 0)

        return cls(
            priced, by_case(seconds), by_case(round_.speedup), by_case(round_.tokens_per_round)
        )

    def best(self, near_tie: float) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray]:
        """Return budget, length and seconds of the choice in every case."""
        _, budget, gamma = choose(self.seconds, near_tie)
        return budget, gamma, self.seconds[np.arange(budget.size), budget, gamma]

    def where(self, cell: Cell) -> tuple[int, int] | None:
        """Return the place of a cell's configuration among its own; None where another drafter has it."""
        drafter = self.priced.drafter
        if (drafter is None) == cell.speculates:
            return None
        if drafter is None:
            return 0, 0
        if not drafter.plays(cell.strategy, cell.draft_model, cell.tree):
            return None
        wanted = np.inf if cell.kv_budget is None else float(cell.kv_budget)
        budgets = np.flatnonzero(self.priced.kv_budget[:, 0] == wanted)
        gammas = np.flatnonzero(self.priced.gamma == cell.gamma)
        return (int(budgets[0]), int(gammas[0])) if budgets.size and gammas.size else None


def _ranked(
    every: Sequence[_Ends], doubts: Sequence[_Doubt], cell: Cell, constraints: Constraints
) -> list[Influence]:
    """Return what each doubt does to the cell, those that decide first."""
    own = [(ends, where) for ends in every if (where := ends.where(cell)) is not None]
    if not own or not doubts:
        return []
    recommended, (budget, gamma) = own[0]
    planned = recommended.seconds[:, budget, gamma]
    bests = [ends.best(constraints.near_tie) for ends in every]
    least = np.stack([seconds for _, _, seconds in bests])
    winner = np.argmin(least, axis=0)
    drafts = [place for place, ends in enumerate(every) if ends.priced.drafter is not None]
    if cell.speculates:
        speedup = recommended.speedup[:, budget, gamma]
    elif drafts:
        speedup = planned / least[drafts].min(axis=0)
    else:
        return []
    with np.errstate(invalid="ignore"):
        gains = np.where(np.isfinite(planned), planned / least.min(axis=0) - 1.0, np.inf)
    changes = (winner != every.index(recommended)) & (gains >= WORTH_A_CHANGE)

    def instead(case: int) -> str:
        if not changes[case]:
            return ""
        ends, (budgets, gammas, _) = every[winner[case]], bests[winner[case]]
        drafter = ends.priced.drafter
        return describe(
            drafter.label if drafter else NO_DRAFT, float(ends.priced.kv_budget[budgets[case], 0]),
            float(ends.priced.gamma[gammas[case]]),
        )  # fmt: skip

    ranked = []
    for place, doubt in enumerate(doubts):
        low, high = 2 * place, 2 * place + 1
        ends = {"low": doubt.low, "high": doubt.high}
        if doubt.drafter is not None:
            drafting = next(each for each in every if each.priced.drafter is doubt.drafter)
            at = (budget, gamma) if drafting is recommended else _central(drafting, constraints)
            ends = {
                end: f"{drafting.tokens[case, at[0], at[1]]:.2f} tokens a round"
                for end, case in (("low", low), ("high", high))
            }
        influence = Influence(
            name=doubt.name,
            noun=doubt.noun,
            measured_with=doubt.measured_with,
            **ends,
            kind=doubt.kind,
            speedup_low=float(speedup[low]),
            speedup_high=float(speedup[high]),
            instead_low=instead(low),
            instead_high=instead(high),
            gain_low=float(gains[low]) if changes[low] else 0.0,
            gain_high=float(gains[high]) if changes[high] else 0.0,
            command=doubt.command,
        )
        if influence.decides or influence.moves >= LEAST_MOVE:
            ranked.append(influence)
    return sorted(ranked, key=lambda each: (not each.decides, -each.moves))


def _central(ends: _Ends, constraints: Constraints) -> tuple[int, int]:
    """Return the place of a drafter's choice where nothing is moved."""
    lengths = True if ends.priced.drafter is None else ends.priced.drafter.may_draft(ends.priced.gamma)
    seconds = allowed_seconds(ends.priced, constraints, Counter(), lengths)[0, 0]
    budget, gamma = choose(seconds[None], constraints.near_tie)[1:]
    return int(budget[0]), int(gamma[0])
