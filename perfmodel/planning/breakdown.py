"""One cell in depth: where its time goes, what its passes read, what is resident, what else was possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from perfmodel.acceptance.inverse import alpha_from_mean_length
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.latency import CAUSES
from perfmodel.model import ModelSpec
from perfmodel.planning.choose import Choice, Constraints, rank
from perfmodel.planning.operations import PassOfRound, count_operations, passes_of
from perfmodel.planning.plan import NO_DRAFT, Cell, Plan
from perfmodel.planning.planner import DEFAULT_GAMMAS, deviations_at, read_gammas, usual_drafters
from perfmodel.planning.planner import plan as recommend
from perfmodel.planning.price import Priced, SearchSpace, price_drafters
from perfmodel.planning.served import check_served
from perfmodel.planning.uncertainty import DRAWS
from perfmodel.speculation import Drafter
from perfmodel.workload import Workload

__all__ = ["Breakdown", "CauseBar", "GammaRow", "Option", "PassTime", "break_down", "cause_bars"]

FITS = Constraints()
ANYTHING = Constraints(fit_memory=False)
_RESIDENT = (
    "weights", "draft_weights", "target_kv", "draft_kv", "lookahead_kv", "states", "kept_states",
    "activations", "fixed", "total", "usable",
)  # fmt: skip


@dataclass(frozen=True)
class PassTime:
    """One forward pass on each GPU: seconds by cause, bytes read from memory, arithmetic. [s], [B], [FLOP]"""

    name: str
    linear_s: float
    attention_s: float
    communication_s: float
    recurrence_s: float
    overhead_s: float
    total_s: float
    weight_bytes: float
    kv_bytes: float
    state_bytes: float
    flops: float


@dataclass(frozen=True)
class GammaRow:
    """The shown drafter at one speculation length."""

    gamma: int
    tokens_per_round: float
    round_s: float
    tpot_s: float
    speedup: float
    break_even_alpha: float | None
    fits: bool


@dataclass(frozen=True)
class Option:
    """The choice of one drafter here; `allowed` says whether it fits and keeps the TPOT limit.

    draft_passes, verified : passes of its draft phase, and tokens that are verified. [1], [tokens]
    """

    drafter: str
    kv_budget: int | None
    gamma: int
    draft_passes: int
    verified: int
    tokens_per_round: float
    tpot_s: float
    speedup: float
    allowed: bool


@dataclass(frozen=True)
class Breakdown:
    """Everything that stands behind one cell of a plan.

    ``shown`` is the recommended drafter, or the best of those that were not recommended where none was.
    """

    plan: Plan
    shown: str
    passes: tuple[PassTime, ...]
    round_overhead_s: float
    resident_bytes: dict[str, float]
    by_gamma: tuple[GammaRow, ...]
    options: tuple[Option, ...]

    @property
    def cell(self) -> Cell:
        """The recommendation."""
        return self.plan.cells[0]

    def to_dict(self) -> dict[str, Any]:
        """The plan with everything behind it, as plain numbers, strings, lists and dicts."""
        behind = {key: value for key, value in asdict(self).items() if key != "plan"}
        return {**self.plan.to_dict(), "breakdown": behind}


@dataclass(frozen=True)
class CauseBar:
    """One bar: what it is, and seconds by cause. [s]"""

    name: str
    seconds: dict[str, float]

    @property
    def total(self) -> float:
        """Seconds of the whole bar. [s]"""
        return sum(self.seconds.values())


def break_down(
    hardware: HardwareProfile | Sequence[HardwareProfile],
    target: ModelSpec,
    engine: EngineOverhead,
    *,
    batch_size: int,
    context_len: int,
    drafters: Sequence[Drafter] | None = None,
    kv_budgets: Sequence[float] | None = None,
    gammas: Sequence[int] = DEFAULT_GAMMAS,
    tensor_parallel: int | Sequence[int] = 1,
    alpha: float | None = None,
    objective: str | None = None,
    risk: float | None = None,
    constraints: Constraints = FITS,
    output_tokens: float = 0.0,
    draws: int = DRAWS,
    expert_parallel: bool = False,
    pipeline_parallel: int = 1,
    data_parallel: int = 1,
) -> Breakdown:
    """Plan one (batch, context) cell and lay out what stands behind it; arguments as `perfmodel.plan`.

    Parameters
    ----------
    batch_size, context_len, output_tokens : the cell, as of a `Workload`. [sequences], [tokens], [tokens]

    Raises
    ------
    InfeasibleError
        When nothing is allowed in this cell.
    SpecError
        When the request itself is wrong.
    """
    workload = Workload((batch_size,), (context_len,), output_tokens=output_tokens)
    if drafters is None:
        drafters = usual_drafters(target, engine, pipeline_parallel)
    searched = check_served(drafters, engine, kv_budgets)
    answer = recommend(
        hardware, target, engine, workload, drafters=searched, kv_budgets=kv_budgets, gammas=gammas,
        tensor_parallel=tensor_parallel, alpha=alpha, objective=objective, risk=risk,
        constraints=constraints, draws=draws, expert_parallel=expert_parallel,
        pipeline_parallel=pipeline_parallel, data_parallel=data_parallel,
    )  # fmt: skip
    cell, lengths = answer.cells[0], read_gammas(gammas)
    profiles = [hardware] if isinstance(hardware, HardwareProfile) else list(hardware)
    profile = next(each for each in profiles if str(each.name) == cell.hardware)
    deployment = Deployment(
        profile, target, engine, cell.tensor_parallel, expert_parallel, pipeline_parallel, data_parallel
    )
    space = SearchSpace([None, *searched] if len(lengths) > 1 else [None], lengths, kv_budgets, alpha)
    expected = list(price_drafters(deployment, workload, space))
    ranked = expected
    if risk is not None:  # chosen at a quantile of acceptance, laid out at its expectation
        ranked = list(price_drafters(deployment, workload, replace(space, deviations=deviations_at(risk))))
    choices = [_choose(*pair, constraints) for pair in zip(ranked, expected, strict=True)]
    order = rank([choice for choice, _ in choices], constraints.near_tie)[:, 0]
    choices = sorted((choices[index] for index in order), key=lambda option: not option[1].allowed)
    choice, option = _shown(cell, choices)
    chosen, by_gamma = choice.at(), choice.by_gamma()
    return Breakdown(
        plan=answer,
        shown=option.drafter,
        passes=tuple(_lay_out(of_round) for of_round in passes_of(chosen)),
        round_overhead_s=_number(chosen.round.overhead + _looked_up(chosen)),
        resident_bytes={name: _number(getattr(chosen.round.memory, name)) for name in _RESIDENT},
        by_gamma=_by_gamma(by_gamma) if choice.drafter else (),
        options=tuple(option for _, option in choices),
    )


def cause_bars(explained: Breakdown) -> list[CauseBar]:
    """The bars of a breakdown: target, draft phase, verification, round, round over its tokens. [s]"""
    plain = _bar(explained.passes[0], 1.0, "plain step, 1 token")
    if len(explained.passes) == 1:
        return [plain]
    option = next(best for best in explained.options if best.drafter == explained.shown)
    phases = []
    if len(explained.passes) > 2:
        passes = option.draft_passes
        word = "pass" if passes == 1 else "passes"
        phases.append(_bar(explained.passes[1], float(passes), f"{passes} draft {word}"))
    phases.append(_bar(explained.passes[-1], 1.0, f"verification of {option.verified}"))
    whole = {cause: sum(phase.seconds[cause] for phase in phases) for cause in CAUSES}
    whole["overhead"] += explained.round_overhead_s
    tokens = option.tokens_per_round
    each = {cause: seconds / tokens for cause, seconds in whole.items()}
    return [
        plain,
        *phases,
        CauseBar(f"whole round, {tokens:.2f} tokens", whole),
        CauseBar("round per token", each),
    ]


def _bar(part: PassTime, passes: float, name: str) -> CauseBar:
    return CauseBar(name, {cause: passes * getattr(part, f"{cause}_s") for cause in CAUSES})


def _looked_up(priced: Priced) -> Numeric:
    """Seconds of a round in which the host looks drafts up: all drafting where no model runs. [s]"""
    return priced.round.draft_s if priced.drafter is not None and priced.drafter.kind == "none" else 0.0


def _choose(priced: Priced, expected: Priced, constraints: Constraints) -> tuple[Choice, Option]:
    """Choose as the planner does, and where nothing is allowed as if everything were.

    Parameters
    ----------
    priced, expected : one drafter's configurations as they are ranked, and as they are laid out.
    """
    choice = Choice.among(priced, constraints, Counter())
    allowed = bool(np.isfinite(choice.tpot[0]))
    if not allowed:
        choice = Choice.among(priced, ANYTHING, Counter())
    choice = replace(choice, priced=expected)
    chosen = choice.at()
    budget, gamma = _number(chosen.kv_budget), _number(chosen.gamma)
    verified = gamma if priced.drafter is None else priced.drafter.verified(gamma)
    return choice, Option(
        drafter=priced.drafter.label if priced.drafter else NO_DRAFT,
        kv_budget=int(budget) if np.isfinite(budget) else None,
        gamma=int(gamma),
        draft_passes=int(_number(chosen.round.passes)),
        verified=int(_number(verified)) + 1,
        tokens_per_round=_number(chosen.round.tokens_per_round),
        tpot_s=_number(chosen.round.tpot),
        speedup=_number(chosen.round.speedup),
        allowed=allowed,
    )


def _shown(cell: Cell, choices: Sequence[tuple[Choice, Option]]) -> tuple[Choice, Option]:
    """Return the recommended drafter; where plain decoding is recommended, the best of the others."""
    for choice, option in choices:
        drafter = choice.drafter
        plays = drafter and drafter.plays(cell.strategy, cell.draft_model, cell.tree)
        if drafter is not None and (plays or not cell.speculates):
            return choice, option
    return choices[0]


def _lay_out(of_round: PassOfRound) -> PassTime:
    """Lay out one pass of the chosen round."""
    name = {
        "plain step": "target decode step",
        "draft pass": f"draft pass (1 of {_number(of_round.times):.0f})",
        "verification": f"verification of {_number(of_round.forward.query_tokens):.0f} tokens",
    }[of_round.phase]
    if of_round.phase == "verification" and _number(of_round.times) < 1.0:
        name += f" ({_number(of_round.times):.0%} of rounds)"
    counted = count_operations(of_round.deployment, of_round.forward)
    moved = {cause: _number(moved) for cause, (_, moved) in counted.items()}
    return PassTime(
        name=name,
        **{f"{cause}_s": _number(getattr(of_round.seconds, cause)) for cause in CAUSES},
        total_s=_number(of_round.seconds.total),
        weight_bytes=moved["linear"],
        kv_bytes=moved.get("attention", 0.0),
        state_bytes=moved.get("recurrence", 0.0),
        flops=sum(_number(flops) for flops, _ in counted.values()),
    )


def _by_gamma(priced: Priced) -> tuple[GammaRow, ...]:
    """Lay out every speculation length of the chosen budget."""
    drafter, gamma = priced.drafter, priced.gamma[0]
    most = np.inf if drafter is None else drafter.longest(priced.deployment.model)
    can = (gamma <= most) & (True if drafter is None else (gamma == 0) | drafter.may_draft(gamma))
    needed = priced.expand(priced.round.break_even_tokens)[0]
    pays = can & (gamma > 0) & (needed <= gamma + 1.0)
    tree = drafter.tree if drafter is not None else None
    alphas = np.full(gamma.shape, np.nan)
    if pays.any():
        alphas[pays] = alpha_from_mean_length(np.maximum(needed[pays], 1.0), gamma[pays], tree)
    terms = priced.round
    columns = (
        priced.expand(term)[0].tolist()
        for term in (terms.tokens_per_round, terms.round_s, terms.tpot, terms.speedup, terms.memory.fits)
    )
    return tuple(
        GammaRow(int(length), tokens, round_s, tpot, speedup, alpha if has_alpha else None, fits)
        for length, tokens, round_s, tpot, speedup, fits, alpha, has_alpha, shown in zip(
            gamma.tolist(), *columns, alphas.tolist(), pays.tolist(), can.tolist(), strict=True
        )
        if shown
    )


def _number(value: Numeric) -> float:
    """Return the number of an array of one element."""
    return float(np.asarray(value).item())
