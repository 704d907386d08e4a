"""Why a configuration was recommended: what bounds it, when it breaks even, what was assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.acceptance import Acceptance, alpha_from_mean_length
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.latency import CAUSES, StepLatency, step_latency
from perfmodel.memory import largest_batch
from perfmodel.model import ModelSpec
from perfmodel.planning.plan import NO_DRAFT, Cell
from perfmodel.planning.price import Grid
from perfmodel.speculation import Configuration, Drafter, Round, price_round
from perfmodel.workload import Workload

FloatArray = NDArray[np.float64]

CAUSE_WORDS = {
    "linear": "the linear layers",
    "attention": "reading the KV cache",
    "communication": "tensor-parallel communication",
    "overhead": "the engine's own overhead",
}
EMPTY: Mapping[str, Sequence[Any]] = MappingProxyType({})
SATURATING_BATCH = 1024.0
"""Batch at which linear layers are compute-bound on every profile: stands for "a large batch". [sequences]"""


@dataclass(frozen=True)
class Choice:
    """One drafter's chosen configurations, one element per cell, and what came second in each cell.

    `runner_up_behind` is by what share of the winner's time per token the runner-up is slower, nan where
    there is none.
    """

    drafter: Drafter | None
    batch: FloatArray
    context_len: FloatArray
    kv_budget: FloatArray
    gamma: FloatArray
    runner_up: Sequence[str]
    runner_up_behind: FloatArray

    def configuration(self, grid: Grid) -> Configuration:
        """What is priced, one element per cell."""
        return {
            "batch": self.batch,
            "context_len": self.context_len,
            "kv_budget": self.kv_budget,
            "gamma": self.gamma,
            "tensor_parallel": float(grid.tensor_parallel[0]),
        }

    def only(self, some: NDArray[np.intp]) -> Choice:
        """The same for some of the cells."""
        return replace(
            self,
            batch=self.batch[some],
            context_len=self.context_len[some],
            kv_budget=self.kv_budget[some],
            gamma=self.gamma[some],
            runner_up=[self.runner_up[cell] for cell in some],
            runner_up_behind=self.runner_up_behind[some],
        )


def explained_cells(
    grid: Grid, choice: Choice, ladder_of: Drafter | None, beside: Mapping[str, Sequence[Any]] = EMPTY
) -> list[Cell]:
    """Price the chosen configurations once more, element by element, with every cause kept apart.

    Parameters
    ----------
    ladder_of : the drafter whose round is priced at every gamma of the grid, so that an engine in which it is
        loaded can be told what else it may do; the chosen one where absent.
    beside : further fields of the cells, one value per cell each.
    """
    hardware, target, engine = grid.hardware[0], grid.target, grid.engine
    size, drafter = choice.batch.size, choice.drafter
    gammas = np.asarray([0, *grid.gammas], dtype=float)
    on_ladder = ladder_of or drafter
    configuration = choice.configuration(grid)
    if drafter is None and ladder_of is not None:  # plain decoding, with a drafter loaded
        configuration["kv_budget"] = float(grid.budgets_of(ladder_of)[0])
    chosen = price_round(hardware, target, engine, on_ladder, alpha=grid.alpha, **configuration)
    ladder = price_round(
        hardware,
        target,
        engine,
        on_ladder,
        batch=choice.batch[:, None],
        context_len=choice.context_len[:, None],
        kv_budget=grid.budgets_of(ladder_of)[:1] if ladder_of else choice.kv_budget[:, None],
        gamma=gammas,
        tensor_parallel=float(grid.tensor_parallel[0]),
        alpha=grid.alpha,
    )
    rounds = np.broadcast_to(ladder.round_s, (size, gammas.size if on_ladder else 1))
    acceptance = ladder.acceptance

    def column(value: Numeric) -> list[float]:
        spread: list[float] = np.broadcast_to(np.asarray(value, dtype=float), size).tolist()
        return spread

    per_cell = [None] * size
    columns: dict[str, Sequence[Any]] = {
        "batch_size": choice.batch.astype(int).tolist(),
        "context_len": choice.context_len.astype(int).tolist(),
        "gamma": choice.gamma.astype(int).tolist(),
        "tokens_per_round": column(chosen.tokens_per_round),
        "tpot_s": column(chosen.tpot),
        "baseline_s": column(chosen.baseline.total),
        "speedup": column(chosen.speedup),
        "draft_s": column(chosen.draft_s),
        "verify_s": column(chosen.verify.total),
        "round_s": column(chosen.round_s),
        "draft_ratio": column(chosen.draft_ratio),
        "verify_ratio": column(chosen.verify_ratio),
        "throughput_tokens_per_s": column(chosen.throughput),
        "memory_bytes_per_gpu": column(chosen.memory.total),
        "cost_per_million_tokens_usd": column(_cost_per_million_tokens(grid, chosen)),
        "alpha": column(np.ravel(acceptance.rest)) if acceptance else per_cell,
        "alpha_first": column(np.ravel(acceptance.first)) if acceptance else per_cell,
        "alpha_sd": column(np.ravel(acceptance.sd)) if acceptance else per_cell,
        "alpha_kind": [acceptance.kind if acceptance else None] * size,
        "bound_by": np.broadcast_to(round_bound_by(chosen), size).tolist(),
        "runner_up": choice.runner_up,
        "runner_up_behind": column(np.nan_to_num(choice.runner_up_behind)),
        "round_by_gamma_s": [tuple(row) for row in rounds.tolist()],
        "break_even_alpha": _break_even_alpha(chosen, choice.gamma),
        "kv_budget": [
            int(budget) if gamma > 0 and np.isfinite(budget) else None
            for budget, gamma in zip(choice.kv_budget, choice.gamma, strict=True)
        ],
    }
    model = drafter.draft_model.name if drafter and drafter.draft_model else None
    columns["why"] = [_why(*values) for values in zip(*map(columns.__getitem__, _WHY), strict=True)]
    columns.update(beside)
    return [
        Cell(
            strategy=drafter.strategy.name if drafter else NO_DRAFT,
            draft_model=model,
            hardware=str(hardware.name),
            tensor_parallel=grid.tensor_parallel[0],
            **dict(zip(columns, row, strict=True)),
        )
        for row in zip(*columns.values(), strict=True)
    ]


def _break_even_alpha(chosen: Round, gamma: FloatArray) -> list[float | None]:
    """Acceptance rate at which each chosen round costs what plain decoding does; None where none drafts."""
    if not np.any(gamma > 0):
        return [None] * gamma.size
    needed = np.clip(np.broadcast_to(chosen.break_even_tokens, gamma.shape), 1.0, gamma + 1.0)
    return [float(alpha) for alpha in np.atleast_1d(alpha_from_mean_length(needed, gamma))]


def _cost_per_million_tokens(grid: Grid, chosen: Round) -> Numeric:
    """Rent of the GPUs over what they put out. [USD per million tokens]"""
    return grid.hardware[0].price_per_hour * grid.tensor_parallel[0] / 3600.0 / chosen.throughput * 1e6


def reason(cell: Cell) -> str:
    """One sentence that a user can check against the cell's own numbers."""
    return _why(*(getattr(cell, name) for name in _WHY))


_WHY = ("gamma", "bound_by", "draft_ratio", "verify_ratio", "tokens_per_round", "break_even_alpha", "speedup")


def _why(
    gamma: int, bound_by: str, draft: float, verify: float, tokens: float, alpha: float | None, speedup: float
) -> str:
    bound = f"mostly {CAUSE_WORDS[bound_by]}"
    if not gamma or alpha is None:
        loaded = f", {1.0 / speedup - 1.0:.1%} longer with the drafter loaded" if speedup < 0.9995 else ""
        return f"a decode step is {bound}{loaded}; no draft pays for itself"
    return (
        f"{bound}; T_D/T_T {draft:.2f}, T_V/T_T {verify:.2f}; "
        f"{tokens:.2f} tokens per round, pays above alpha {alpha:.2f}"
    )


def round_bound_by(priced: Round) -> np.ndarray:
    """Cause that takes most of a round, drafts and verification together, per element."""
    passes = np.asarray(priced.passes, dtype=float)
    causes = {
        cause: passes * getattr(priced.draft, cause) + getattr(priced.verify, cause) for cause in CAUSES
    }
    causes["overhead"] = causes["overhead"] + priced.overhead
    return StepLatency(**causes).bound_by


def inflection_context(
    hardware: HardwareProfile,
    target: ModelSpec,
    engine: EngineOverhead,
    *,
    gamma: int = 3,
    tensor_parallel: int = 1,
) -> float:
    """Context length beyond which a larger batch makes speculation pay more, not less. [tokens]

    Below it a large batch's verification is bound by the linear layers' compute, which grows with gamma + 1;
    above it by the KV cache, which is read once. It is where both take equally long at a large batch:
    MagicDec (arXiv 2408.11049) section 3.2 calls it the inflection point and gives no closed form. Infinite
    where no context does.
    """
    contexts = np.geomspace(64, 4_194_304, 2048)
    step = step_latency(
        hardware,
        target,
        engine,
        batch=SATURATING_BATCH,
        query_tokens=gamma + 1.0,
        kv_tokens=contexts,
        tensor_parallel=tensor_parallel,
    )
    above = np.flatnonzero(np.broadcast_to(step.attention >= step.linear, contexts.shape))
    return float(contexts[above[0]]) if above.size else float("inf")


def assumptions(
    profiles: Sequence[HardwareProfile],
    target: ModelSpec,
    engine: EngineOverhead,
    workload: Workload,
    drafters: Sequence[Drafter],
    alpha: float | Acceptance | None,
) -> tuple[str, ...]:
    """One sentence per thing that is neither measured nor published and changes the answer."""
    sentences = [
        sentence
        for profile in profiles
        for sentence in profile.assumed
        if not sentence.startswith(("attention.", "all_reduce."))
        or sentence.startswith(
            (f"attention.{_kernel_used(profile, engine)}.", f"all_reduce.{engine.all_reduce}")
        )
    ]
    sentences += [
        f"engine {engine.name}: {path} is assumed ({quantity.source})"
        for path, quantity in engine.quantities.items()
        if quantity.kind == "assumed" and np.any(quantity.high > 0.0)
    ]
    if alpha is None:
        for drafter in drafters:
            budget = drafter.strategy.default_budgets[0] if drafter.strategy.default_budgets else np.inf
            acceptance = drafter.acceptance(
                target, context_len=float(max(workload.context_lens)), kv_budget=budget
            )
            if acceptance.kind == "assumed":
                sentences.append(f"{drafter.label}: acceptance is assumed ({acceptance.source})")
    return tuple(dict.fromkeys(sentences))


def _kernel_used(profile: HardwareProfile, engine: EngineOverhead) -> str:
    """Name of the attention kernel that a profile prices this engine with."""
    return (
        engine.attention_kernel
        if engine.attention_kernel in profile.attention
        else next(iter(profile.attention))
    )


def nearest_miss(
    profiles: Sequence[HardwareProfile],
    target: ModelSpec,
    engine: EngineOverhead,
    workload: Workload,
    widths: Sequence[int],
    tpot_limit: float | None,
) -> str:
    """What comes closest when nothing is allowed: the largest batch that fits, and the fastest TPOT."""
    context_len = min(workload.context_lens)
    said = []
    for profile in profiles:
        for width in widths:
            most = int(
                largest_batch(profile, target, engine, context_len=float(context_len), tensor_parallel=width)
            )
            step = step_latency(
                profile, target, engine, batch=1.0, kv_tokens=float(context_len), tensor_parallel=width
            ).total
            said.append(
                f"{width} x {profile.name} holds at most batch {most} at context {context_len}; "
                f"plain decoding takes {float(np.asarray(step)) * 1e3:.2f} ms a token at batch 1"
            )
    if tpot_limit is not None:
        said.append(f"the limit asked for is {tpot_limit * 1e3:.2f} ms")
    return "; ".join(said)
