"""Why a configuration was recommended: what bounds it, when it breaks even, what was assumed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perfmodel.acceptance import alpha_from_mean_length
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile, Numeric
from perfmodel.latency import CAUSES, StepLatency, step_latency
from perfmodel.memory import largest_batch
from perfmodel.model import ModelSpec
from perfmodel.plan import NO_DRAFT, Cell
from perfmodel.speculation import Drafter, Round
from perfmodel.workload import Workload

CAUSE_WORDS = {
    "linear": "the linear layers",
    "attention": "reading the KV cache",
    "communication": "tensor-parallel communication",
    "overhead": "the engine's own overhead",
}
SATURATING_BATCH = 1024.0
"""Batch at which linear layers are compute-bound on every profile: stands for "a large batch". [sequences]"""


def explained_cells(
    hardware: HardwareProfile,
    tensor_parallel: int,
    drafter: Drafter | None,
    chosen: Round,
    ladder: Round,
    batches: np.ndarray,
    contexts: np.ndarray,
    kv_budget: np.ndarray,
    gamma: np.ndarray,
    runners_up: Sequence[tuple[str, float] | None],
) -> list[Cell]:
    """One `Cell` per chosen configuration; all arrays have one element per cell, `ladder` one more axis over gamma."""
    size = batches.size

    def column(value: Numeric) -> list[float]:
        return np.broadcast_to(np.asarray(value, dtype=float), size).tolist()

    speculating = gamma > 0
    break_even = np.full(size, np.nan)
    if np.any(speculating):
        at_least = np.clip(np.broadcast_to(chosen.break_even_tokens, size), 1.0, gamma + 1.0)
        break_even[speculating] = alpha_from_mean_length(at_least[speculating], gamma[speculating])
    acceptance = chosen.acceptance
    price = None if hardware.price_per_hour is None else float(np.asarray(hardware.price_per_hour))
    tpot_by_gamma = np.broadcast_to(
        np.asarray(ladder.tpot, dtype=float), (size, np.shape(ladder.tpot)[-1] if np.ndim(ladder.tpot) else 1)
    )
    columns = {
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
        "alpha": column(acceptance.rest) if acceptance is not None else [None] * size,
        "bound_by": np.broadcast_to(round_bound_by(chosen), size).tolist(),
    }
    cells = []
    for index in range(size):
        drafts = drafter is not None and bool(speculating[index])
        values = {name: values[index] for name, values in columns.items()}
        runner_up, behind = runners_up[index] or ("", values["tpot_s"])
        cell = Cell(
            batch_size=int(batches[index]),
            context_len=int(contexts[index]),
            strategy=drafter.strategy.name if drafter is not None and drafts else NO_DRAFT,
            draft_model=drafter.draft_model.name
            if drafter is not None and drafts and drafter.draft_model
            else None,
            kv_budget=int(kv_budget[index]) if drafts and np.isfinite(kv_budget[index]) else None,
            gamma=int(gamma[index]),
            alpha_kind=acceptance.kind if acceptance is not None else None,
            break_even_alpha=float(break_even[index]) if drafts else None,
            cost_per_million_tokens_usd=None
            if price is None
            else price * tensor_parallel / 3600.0 / values["throughput_tokens_per_s"] * 1e6,
            runner_up=runner_up,
            runner_up_behind=behind / values["tpot_s"] - 1.0,
            hardware=str(hardware.name),
            tensor_parallel=tensor_parallel,
            tpot_by_gamma_s=tuple(tpot_by_gamma[index].tolist()),
            **values,
        )
        cells.append(cell)
    return [_with_reason(cell) for cell in cells]


def _with_reason(cell: Cell) -> Cell:
    from dataclasses import replace

    return replace(cell, why=reason(cell))


def reason(cell: Cell) -> str:
    """One sentence that a user can check against the cell's own numbers."""
    bound = f"mostly {CAUSE_WORDS[cell.bound_by]}"
    if not cell.speculates:
        return f"a decode step is {bound}; no draft pays for itself"
    return (
        f"{bound}; T_D/T_T {cell.draft_ratio:.2f}, T_V/T_T {cell.verify_ratio:.2f}; "
        f"{cell.tokens_per_round:.2f} tokens per round, pays above alpha {cell.break_even_alpha:.2f}"
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

    Below it a large batch's verification is bound by the linear layers' compute, which grows with gamma + 1; above
    it by the KV cache, which is read once. It is where both take equally long at a large batch: MagicDec (arXiv
    2408.11049) section 3.2 calls it the inflection point and gives no closed form. Infinite where no context does.
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
    alpha: float | None,
) -> tuple[str, ...]:
    """One sentence per thing that is neither measured nor published and changes the answer."""
    sentences = [sentence for profile in profiles for sentence in profile.assumed]
    sentences += [
        f"engine {engine.name}: {path} is assumed ({quantity.source})"
        for path, quantity in engine.quantities.items()
        if quantity.kind == "assumed"
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
