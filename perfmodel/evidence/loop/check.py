"""A plan beside what its server was benchmarked at: predicted, measured, and what explains the difference."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from perfmodel.acceptance import Acceptance, expected_tokens
from perfmodel.benchmarks import Benchmark
from perfmodel.deployment import Deployment, Drafter
from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.evidence.loop.points import traffic_of
from perfmodel.evidence.loop.run import ServedRun, served_run
from perfmodel.files.quoting import shell, shell_path
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec
from perfmodel.planning.columns import Cell
from perfmodel.planning.drafters import find_drafter, read_spelling
from perfmodel.planning.plan import Plan
from perfmodel.speculation import Round, price
from strategies.base import Tree

__all__ = ["CAUSES", "Advice", "Checked", "Planned", "check_run", "deployed", "speedups"]

CAUSES = {
    "figures": "figures of the files have changed since the plan",
    "batch": "other sequences at a time than planned",
    "context": "another context than planned",
    "length": "other drafted tokens per round than planned",
    "acceptance": "other acceptance than planned at these lengths",
    "prefill": "prompts of others inside TPOT, not in a plan",
    "step": "the step itself: what is left",
}
"""What may explain a difference, in the order in which each is put in the place of what was planned."""
NEXT = {
    "figures": "plan again: the plan is of older figures",
    "batch": "plan for the batch that runs",
    "context": "plan for the contexts that run",
    "length": "write the plan into the engine again: it drafts other lengths",
    "acceptance": "measure acceptance, and plan with --acceptance acceptance.json",
    "prefill": "simulate the traffic, which mixes prompts in; a plan is of decode steps",
    "step": "calibrate on at least 4 such benchmarks, and plan with --engine ours.yaml",
}
"""What to do about each cause."""
AS_PLANNED = 0.1
"""Difference of TPOT, relative to the plan, up to which there is nothing to do. [1]"""


@dataclass(frozen=True)
class Advice:
    """What to do next, and the command that does it; empty where there is none."""

    what: str
    command: str


@dataclass(frozen=True)
class Planned:
    """What the plan in a file deploys, loaded again so that it can be priced elsewhere.

    `hardware`, `model` and `engine` are the names or paths by which each was loaded, `form` the flags of
    dtypes that are not the model's own.
    """

    plan: Plan
    deployment: Deployment
    file: str = "plan.json"
    hardware: str = ""
    model: str = ""
    engine: str = ""
    form: str = ""

    def price(self, cell: Cell, *, batch: float, context_len: float, gamma: float, tokens: float) -> Round:
        """Price a cell's drafter and budget at another place; plain decoding where `gamma` is 0."""
        drafter = None if gamma == 0.0 else self.drafter(cell)
        budget = math.inf if cell.kv_budget is None else float(cell.kv_budget)
        return price(
            self.deployment, drafter, batch=batch, context_len=context_len, kv_budget=budget, gamma=gamma,
            tokens_per_round=tokens,
        )  # fmt: skip

    def drafter(self, cell: Cell) -> Drafter | None:
        """Return who drafts in a cell."""
        draft = None if cell.draft_model is None else ModelSpec.load(cell.draft_model)
        drafter = find_drafter(read_spelling(cell.strategy), draft)
        if drafter is None or cell.topk is None or cell.nodes is None:
            return drafter
        return replace(drafter, tree=Tree(cell.gamma, cell.topk, cell.nodes))

    def other_model(self, benchmark: Benchmark) -> str:
        """Say that a benchmark names another model than the plan; empty where the names agree or none is."""
        if not benchmark.names_another(self.plan.model):
            return ""
        return (
            f"{benchmark.source}: the benchmark calls its model {benchmark.model}, the plan is for "
            f"{self.plan.model}: the difference means nothing unless they are the same"
        )

    def nearest(self, run: ServedRun) -> Cell:
        """Return the cell nearest to a run, by the logarithms of batch size and context."""

        return min(
            self.plan.cells,
            key=lambda cell: _apart(run, cell.batch_size, cell.context_len + self.plan.half_way),
        )


@dataclass(frozen=True)
class Checked:
    """One benchmark beside the nearest cell of a plan.

    Attributes
    ----------
    cell : of the plan. plain : whether the run drafted nothing: it is held against plain decoding.
    predicted_tpot, measured_tpot : of the cell as planned, and of the run. [s]
    there_tpot : re-priced at the run's own place, prompts inside. [s]
    shares : seconds of TPOT that each of `CAUSES` adds; their sum is measured less predicted. [s]
    predicted_tokens, measured_tokens : per round.
    predicted_throughput, measured_throughput : output tokens per second; the prediction at the run's own
        place. [tokens/s]
    low, high : the plan's 80 % interval of TPOT; NaN where it has none. [s]
    """

    run: ServedRun
    cell: Cell
    plain: bool
    predicted_tpot: float
    there_tpot: float
    shares: dict[str, float]
    predicted_tokens: float
    predicted_throughput: float
    measured_throughput: float | None
    low: float
    high: float
    advice: tuple[Advice, ...]
    predicted_speedup: float | None = None
    measured_speedup: float | None = None

    @property
    def measured_tpot(self) -> float:
        """Time per output token of the run. [s]"""
        return self.run.tpot

    @property
    def difference(self) -> float:
        """How much longer a token took than planned, relative. [1]"""
        return self.measured_tpot / self.predicted_tpot - 1.0

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        run = self.run
        return {
            "benchmark": run.benchmark.source,
            "cell": {"batch_size": self.cell.batch_size, "context_len": self.cell.context_len},
            "run": {
                "batch_size": run.batch,
                "context_len": run.context_len,
                "gamma": run.gamma,
                "tokens_per_round": run.tokens_per_round,
            },
            "plain": self.plain,
            "predicted": {
                "tpot_s": self.predicted_tpot,
                "tpot_low_s": self.low if math.isfinite(self.low) else None,
                "tpot_high_s": self.high if math.isfinite(self.high) else None,
                "tokens_per_round": self.predicted_tokens,
                "speedup": self.predicted_speedup,
            },
            "at_the_run": {"tpot_s": self.there_tpot, "throughput_tokens_per_s": self.predicted_throughput},
            "measured": {
                "tpot_s": self.measured_tpot,
                "tokens_per_round": run.tokens_per_round,
                "throughput_tokens_per_s": self.measured_throughput,
                "speedup": self.measured_speedup,
            },
            "difference": self.difference,
            "shares_s": self.shares,
            "advice": [vars(each) for each in self.advice],
        }


def deployed(
    plan: Plan,
    file: str = "plan.json",
    *,
    hardware: str | None = None,
    model: str | None = None,
    engine: str | None = None,
    profiles_path: str | os.PathLike[str] | None = None,
) -> Planned:
    """Load what a plan deploys, so that its cells can be priced at other places.

    Parameters
    ----------
    hardware, model, engine : names or paths in place of those in the plan, which keeps names only.

    Raises
    ------
    SpecError
        Where a name of the plan means nothing here, naming the flag that says what it is.
    """
    names = list(dict.fromkeys(plan.hardware.split(", ")))
    if hardware is None and len(names) > 1:
        raise SpecError.single(
            "plan", "hardware", f"is for {', '.join(names)}", "Name the one that ran with --hardware"
        )

    def load(flag: str, loader: Any, text: str, *more: Any) -> Any:
        try:
            return loader(text, *more)
        except SpecError as fault:
            raise SpecError.single(
                "plan", flag, f"{text!r} cannot be priced here: {fault.faults[0].problem}",
                f"Give its name or file with --{flag}",
            ) from None  # fmt: skip

    target = load("model", ModelSpec.load, model or plan.model)
    stored = [plan.request.get(name) for name in ("weight_dtype", "kv_dtype")]
    own = (target.weight_dtype, target.kv_dtype)
    dtypes = zip(("--weight-dtype", "--kv-cache-dtype"), stored, own, strict=True)
    others = [(flag, str(dtype)) for flag, dtype, usual in dtypes if dtype not in (None, usual)]
    form = "".join(f" {flag} {shell(dtype)}" for flag, dtype in others)
    return Planned(
        plan,
        Deployment(
            load("hardware", HardwareProfile.load, hardware or names[0], profiles_path),
            target.with_dtypes(*stored) if any(stored) else target,
            load("engine", EngineOverhead.load, engine or plan.engine, profiles_path),
            plan.tensor_parallel,
            plan.expert_parallel,
            plan.pipeline_parallel,
            plan.data_parallel,
        ),
        file, hardware or names[0], model or plan.model, engine or plan.engine, form,
    )  # fmt: skip


def check_run(planned: Planned, benchmark: Benchmark) -> Checked:
    r"""Hold one benchmark against the nearest cell of a plan, priced again at the benchmark's own place.

    The planned batch, context, drafted tokens (with what the planned acceptance yields of so many) and tokens
    per round are replaced by those of the run one after another, then prompts are added; what is left is the
    step's. So the shares add up to the whole difference

    .. math::
        TPOT_{measured} - TPOT_{planned} = \sum_c \left(T_c - T_{c-1}\right)

    A run that drafted nothing is held against the cell's plain decoding.

    Raises
    ------
    SpecError
        Where the benchmark tells no time per token, or drafted where the cell does not.
    """
    run = served_run(benchmark)
    cell = planned.nearest(run)
    plain = run.gamma == 0.0
    if not plain and cell.gamma == 0:
        raise SpecError.single(
            benchmark.source, "drafts",
            f"the server drafted, the plan decodes plainly at batch {cell.batch_size}, context "
            f"{cell.context_len:,}",
            "Check the plan that ran, or plan with --one-deployment so that every cell has the drafter",
        )  # fmt: skip
    predicted = cell.baseline_s if plain else cell.tpot_s
    place = {
        "batch": float(cell.batch_size),
        "context_len": cell.context_len + planned.plan.half_way,
        "gamma": 0.0 if plain else float(cell.gamma),
        "tokens": 1.0 if plain else cell.tokens_per_round,
    }
    own = {
        "batch": ("batch", run.batch),
        "context": ("context_len", run.context_len),
        "length": ("gamma", run.gamma),
        "acceptance": ("tokens", run.tokens_per_round),
    }

    def tpot() -> float:
        return float(np.asarray(planned.price(cell, **place).tpot))

    before = predicted
    shares = {}
    now = tpot()
    shares["figures"], before = now - before, now
    for cause, (name, value) in own.items():
        if cause == "length" and not plain:
            place["tokens"] = _tokens_at(cell, run.gamma)
        place[name] = value
        now = tpot()
        shares[cause], before = now - before, now
    there = float(run.with_prefill(before * run.tokens_per_round, planned.deployment))
    shares["prefill"] = there - before
    shares["step"] = run.tpot - there
    interval = (cell.tpot_low_s, cell.tpot_high_s) if not plain else (None, None)
    low, high = (math.nan if end is None else float(end) for end in interval)
    checked = Checked(
        run, cell, plain, predicted, there, shares,
        predicted_tokens=1.0 if plain else cell.tokens_per_round,
        predicted_throughput=run.batch / there,
        measured_throughput=benchmark.output_throughput,
        low=low, high=high, advice=(),
    )  # fmt: skip
    return replace(checked, advice=_advice(planned, checked))


def _tokens_at(cell: Cell, gamma: float) -> float:
    """Return the tokens per round that the plan's own acceptance gives at another length. [tokens]"""
    first, rest = cell.alpha_first, cell.alpha_rest
    if cell.alpha is None or cell.topk is not None:
        return min(cell.tokens_per_round, gamma + 1.0)
    rates = Acceptance(
        first=cell.alpha if first is None else first, rest=cell.alpha if rest is None else rest
    )
    planned, there = (float(np.asarray(expected_tokens(rates, each))) for each in (cell.gamma, gamma))
    return float(np.clip(cell.tokens_per_round * there / planned, 1.0, gamma + 1.0))


def speedups(runs: Sequence[Checked]) -> tuple[Checked, ...]:
    """Return the runs with their speedups over the nearest plain run among them, where there is one."""
    plain = [each for each in runs if each.plain]

    return tuple(
        each
        if each.plain or not plain
        else replace(
            each,
            predicted_speedup=each.cell.speedup,
            measured_speedup=_nearest(plain, each.run).measured_tpot / each.measured_tpot,
        )
        for each in runs
    )


def _nearest(runs: Sequence[Checked], run: ServedRun) -> Checked:
    return min(runs, key=lambda other: _apart(run, other.run.batch, other.run.context_len))


def _apart(run: ServedRun, batch: float, context_len: float) -> float:
    """Return how far a place is from a run, by the logarithms of batch size and context. [1]"""
    return math.hypot(math.log(batch / run.batch), math.log(context_len / run.context_len))


def _advice(planned: Planned, checked: Checked) -> tuple[Advice, ...]:
    """Return what to do about each of the largest causes, those of `AS_PLANNED` or more."""
    large = [
        cause
        for cause, seconds in sorted(checked.shares.items(), key=lambda item: -abs(item[1]))
        if abs(seconds) >= AS_PLANNED * checked.predicted_tpot
    ]
    as_planned = abs(checked.difference) <= AS_PLANNED
    if as_planned and not large:
        return (Advice(f"TPOT is within {AS_PLANNED:.0%} of the plan: nothing to do", ""),)
    run, cell, plan = checked.run, checked.cell, planned.plan
    file = shell_path(run.benchmark.source.rsplit(":", 1)[0])
    drafts = "" if checked.plain else f" --strategy {shell(cell.strategy)}"
    if cell.draft_model and not checked.plain:
        drafts += f" --draft-model {shell(cell.draft_model)}"
    what = f"--model {shell(planned.model)} --hardware {shell(planned.hardware)}{drafts}"
    what += f" --tp {plan.tensor_parallel}" if plan.tensor_parallel > 1 else ""
    on = f"{what} --engine {shell(planned.engine)}"
    again = f"draftplan plan {on}{planned.form} {traffic_of(run.benchmark)['plan']}"
    software = shell(plan.software.lower()) if plan.software else "NAME"
    commands = {
        "figures": again,
        "batch": again,
        "context": again,
        "length": f"draftplan export {shell_path(planned.file)} --engine {software}",
        "acceptance": f"draftplan calibrate {file} {what} --acceptance-output acceptance.json",
        "prefill": f"draftplan simulate {file} {on}{planned.form}",
        "step": f"draftplan calibrate {file} {on} -o ours.yaml",
    }
    advice = [Advice(NEXT[cause], commands[cause]) for cause in large]
    if as_planned:
        cancel = f"TPOT is within {AS_PLANNED:.0%} of the plan only because causes cancel each other"
        advice.insert(0, Advice(cancel, ""))
    return tuple(advice) or (Advice("no one cause is large: they add up", ""),)
