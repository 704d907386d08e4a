"""One cell in depth: where its time goes, what its passes read, what is resident, what else was possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from perfmodel.acceptance.inverse import alpha_from_mean_length
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.latency import CAUSES, StepLatency
from perfmodel.memory import ResidentMemory, kv_bytes_per_gpu
from perfmodel.model import ModelSpec
from perfmodel.planning.plan import NO_DRAFT, Cell, Plan
from perfmodel.planning.planner import DEFAULT_GAMMAS, Constraints, default_drafters
from perfmodel.planning.planner import plan as recommend
from perfmodel.planning.price import Block, Grid, sweep
from perfmodel.speculation import Drafter, Round, copied_fraction, price_round
from perfmodel.workload import Workload

__all__ = ["Breakdown", "ForwardPass", "GammaRow", "Option", "break_down"]

FITS = Constraints()
_RESIDENT = (
    "weights",
    "draft_weights",
    "target_kv",
    "draft_kv",
    "lookahead_kv",
    "activations",
    "total",
    "usable",
)


@dataclass(frozen=True)
class ForwardPass:
    """One forward pass on each GPU: seconds by cause, bytes read from memory, arithmetic. [s], [B], [FLOP]"""

    name: str
    linear_s: float
    attention_s: float
    communication_s: float
    overhead_s: float
    total_s: float
    weight_bytes: float
    kv_bytes: float
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
    """The best that one drafter can do here; `allowed` says whether it fits and keeps the TPOT limit."""

    drafter: str
    kv_budget: int | None
    gamma: int
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
    passes: tuple[ForwardPass, ...]
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


def break_down(
    hardware: HardwareProfile | Sequence[HardwareProfile],
    target: ModelSpec,
    engine: EngineOverhead,
    *,
    batch_size: int,
    context_len: int,
    drafters: Sequence[Drafter] | None = None,
    kv_budgets: Sequence[int] | None = None,
    gammas: Sequence[int] = DEFAULT_GAMMAS,
    tensor_parallel: int | Sequence[int] = 1,
    alpha: float | None = None,
    objective: str = "speedup",
    constraints: Constraints = FITS,
) -> Breakdown:
    """Plan one (batch, context) cell and lay out what stands behind it; arguments as `perfmodel.plan`.

    Raises
    ------
    InfeasibleError
        When nothing is allowed in this cell.
    SpecError
        When the request itself is wrong.
    """
    workload = Workload((batch_size,), (context_len,))
    searched = list(default_drafters(target) if drafters is None else drafters)
    answer = recommend(
        hardware, target, engine, workload, drafters=searched, kv_budgets=kv_budgets, gammas=gammas,
        tensor_parallel=tensor_parallel, alpha=alpha, objective=objective, constraints=constraints,
    )  # fmt: skip
    cell = answer.cells[0]
    profiles = [hardware] if isinstance(hardware, HardwareProfile) else list(hardware)
    profile = next(each for each in profiles if str(each.name) == cell.hardware)
    lengths = sorted({int(gamma) for gamma in gammas if gamma > 0})
    drafting = [None, *searched] if lengths else [None]
    grid = Grid(
        [profile], target, engine, workload, drafting, lengths, kv_budgets, (cell.tensor_parallel,), alpha
    )
    options = [(block.drafter, _best(block, constraints)) for block in sweep(grid)]
    options.sort(key=lambda option: (not option[1].allowed, option[1].tpot_s))
    shown, best = _shown(cell, options)
    price = partial(
        price_round, profile, target, engine, shown, batch=float(batch_size), context_len=float(context_len),
        kv_budget=float(best.kv_budget or np.inf), tensor_parallel=float(cell.tensor_parallel), alpha=alpha,
    )  # fmt: skip
    chosen = price(gamma=float(best.gamma))
    return Breakdown(
        plan=answer,
        shown=best.drafter,
        passes=_passes(chosen, shown, best, target, cell),
        round_overhead_s=_number(chosen.overhead),
        resident_bytes={name: _number(getattr(chosen.memory, name)) for name in _RESIDENT},
        by_gamma=_by_gamma(price(gamma=np.asarray([0, *lengths], dtype=float)), [0, *lengths])
        if shown
        else (),
        options=tuple(option for _, option in options),
    )


def _best(block: Block, constraints: Constraints) -> Option:
    """The fastest allowed configuration of one drafter, or its fastest one where none is allowed."""
    tpot, fits = block.column("tpot_s").ravel(), block.column("fits").ravel()
    allowed = fits if constraints.fit_memory else np.ones_like(fits)
    if constraints.tpot is not None:
        allowed = allowed & (tpot <= constraints.tpot)
    best = int(np.argmin(np.where(allowed, tpot, np.inf) if np.any(allowed) else tpot))
    budget = float(block.kv_budgets[best // block.gammas.size])
    return Option(
        drafter=block.drafter.label if block.drafter else NO_DRAFT,
        kv_budget=int(budget) if np.isfinite(budget) else None,
        gamma=int(block.gammas[best % block.gammas.size]),
        tokens_per_round=float(block.column("tokens_per_round").ravel()[best]),
        tpot_s=float(tpot[best]),
        speedup=float(block.column("speedup").ravel()[best]),
        allowed=bool(allowed[best]),
    )


def _shown(cell: Cell, options: Sequence[tuple[Drafter | None, Option]]) -> tuple[Drafter | None, Option]:
    """The recommended drafter; where plain decoding is recommended, the best of the others."""
    for drafter, option in options:
        name = None if drafter is None or drafter.draft_model is None else drafter.draft_model.name
        recommended = drafter is not None and (drafter.strategy.name, name) == (
            cell.strategy,
            cell.draft_model,
        )
        if recommended or (drafter is not None and not cell.speculates):
            return drafter, option
    return options[0]


def _passes(
    chosen: Round, drafter: Drafter | None, best: Option, target: ModelSpec, cell: Cell
) -> tuple[ForwardPass, ...]:
    """The target's decode step, one draft pass and the verification."""
    of_target = partial(_pass, target, cell, kv_tokens=float(cell.context_len))
    found = [of_target("target decode step", chosen.baseline, query_tokens=1.0)]
    if drafter is not None:
        counts = drafter.strategy.draft_pass(
            context_len=float(cell.context_len),
            kv_budget=float(best.kv_budget or np.inf),
            gamma=float(best.gamma),
            drafter=drafter.kind,
        )
        weights = drafter.weights(target, counts)
        if weights is not None:
            found.append(
                _pass(
                    weights, cell, f"draft pass (1 of {_number(counts.passes):.0f})", chosen.draft,
                    query_tokens=_number(counts.query_tokens),
                    kv_tokens=_number(counts.kv_tokens) + _number(counts.selection_kv_tokens),
                    weight_fraction=_number(copied_fraction(counts.weight_fraction, weights.weight_dtype)),
                    kv_fraction=_number(copied_fraction(counts.kv_fraction, weights.kv_dtype)),
                )
            )  # fmt: skip
        found.append(
            of_target(
                f"verification of {best.gamma + 1} tokens", chosen.verify, query_tokens=best.gamma + 1.0
            )
        )
    return tuple(found)


def _pass(
    model: ModelSpec,
    cell: Cell,
    name: str,
    seconds: StepLatency,
    *,
    query_tokens: float,
    kv_tokens: float,
    weight_fraction: float = 1.0,
    kv_fraction: float = 1.0,
) -> ForwardPass:
    """What one pass reads and computes on each GPU, beside the seconds it was priced at.

    FLOPs count a multiplication and an addition each: ``2 rows n k`` per matrix that a token visits, and
    ``2 rows heads kv_tokens (score_dim + value_dim)`` per attention layer.
    """
    gpus, rows = float(cell.tensor_parallel), cell.batch_size * query_tokens
    linear = sum(
        layer.count
        * (layer.experts_per_token or 1)
        * _number(layer.n_per_gpu(gpus))
        * _number(layer.k_per_gpu(gpus))
        for layer in model.linears
    )
    attention = sum(
        layers.count
        * max(layers.heads / gpus, 1.0)
        * (kv_tokens if layers.window is None else min(kv_tokens, layers.window))
        * (layers.score_dim + layers.value_dim)
        for layers in model.attentions
    )
    by_cause = {f"{cause}_s": _number(getattr(seconds, cause)) for cause in CAUSES}
    return ForwardPass(
        name=name,
        **by_cause,
        total_s=_number(seconds.total),
        weight_bytes=_number(model.weight_bytes_read(rows)) * weight_fraction / gpus,
        kv_bytes=cell.batch_size * _number(kv_bytes_per_gpu(model, kv_tokens, gpus)) * kv_fraction,
        flops=2.0 * rows * (linear + attention),
    )


def _by_gamma(priced: Round, gammas: Sequence[int]) -> tuple[GammaRow, ...]:
    def column(value: Numeric) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.broadcast_to(np.asarray(value, dtype=float), len(gammas))

    memory: ResidentMemory = priced.memory
    fits, needed = np.broadcast_to(memory.fits, len(gammas)), column(priced.break_even_tokens)
    columns = [
        column(value) for value in (priced.tokens_per_round, priced.round_s, priced.tpot, priced.speedup)
    ]
    rows = []
    for index, gamma in enumerate(gammas):
        tokens, seconds, tpot, speedup = (float(values[index]) for values in columns)
        pays = gamma > 0 and needed[index] <= gamma + 1.0
        least = float(alpha_from_mean_length(max(float(needed[index]), 1.0), float(gamma))) if pays else None
        rows.append(GammaRow(gamma, tokens, seconds, tpot, speedup, least, bool(fits[index])))
    return tuple(rows)


def _number(value: Numeric) -> float:
    return float(np.asarray(value))
