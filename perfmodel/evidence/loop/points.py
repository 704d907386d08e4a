"""Benchmarks as what the next plan takes: measured steps, acceptance, and the traffic."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from perfmodel.acceptance.estimate import fit_acceptance
from perfmodel.acceptance.file import MeasuredAcceptance
from perfmodel.benchmarks import Benchmark
from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.evidence.loop.run import ServedRun, served_run
from perfmodel.evidence.published.measurements import Measurement, read_measurements

__all__ = ["acceptance_of", "points_of_benchmarks", "traffic_of"]


def points_of_benchmarks(
    benchmarks: Sequence[Benchmark],
    *,
    start: EngineOverhead | None = None,
    given: Mapping[str, str] | None = None,
    profiles_path: str | None = None,
) -> tuple[tuple[Measurement, ...], tuple[str, ...]]:
    """Return one measured step or round a benchmark, and what a reader has to know of them.

    Parameters
    ----------
    start : the engine that prompts inside TPOT are priced with; each row's own where None.
    given : what ran where, by the columns of `read_measurements`; batch, context and gamma are the
        benchmark's own.

    Raises
    ------
    SpecError
        Where a benchmark tells no time per token, or the columns given do not go together.
    """
    rows, remarks = [], []
    for benchmark in benchmarks:
        run = served_run(benchmark)
        row = _row(run, given or {}, profiles_path)
        group = row.group
        engine = group.engine if start is None else start
        seconds = run.round_seconds(
            Deployment(group.hardware, group.target, engine, row.tensor_parallel, row.expert_parallel)
        )
        rows.append(
            replace(row, target=seconds) if row.plain else replace(row, round=seconds, gamma=run.gamma)
        )
        remarks.append(_taken(run, seconds))
        remarks += [f"{benchmark.source}: {remark}" for remark in benchmark.remarks]
    return tuple(rows), tuple(remarks)


def _row(run: ServedRun, given: Mapping[str, str], profiles_path: str | None) -> Measurement:
    """Return the row of a run at its mean batch and context, rounded, and its drafted tokens, rounded up."""
    cells = {
        **given,
        "cell": run.benchmark.source,
        "batch_size": f"{max(round(run.batch), 1)}",
        "context_len": f"{max(round(run.context_len), 1)}",
        "gamma": f"{math.ceil(run.gamma)}",
        "step_ms": f"{run.tpot * run.tokens_per_round * 1e3:.9g}",
        "tokens_per_round": f"{run.tokens_per_round:.9g}",
        "source": f"{run.benchmark.tool}, {run.benchmark.source}",
    }
    if run.gamma == 0.0:
        cells = {name: text for name, text in cells.items() if name not in ("strategy", "draft_model")}
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(cells), lineterminator="\n")
    writer.writeheader()
    writer.writerow(cells)
    (row,) = read_measurements(
        stream.getvalue().encode(), run.benchmark.source, profiles_path=profiles_path
    )
    return row


def _taken(run: ServedRun, seconds: float) -> str:
    """Say how a step was made of what was printed."""
    what = "round" if run.gamma > 0.0 else "step"
    if run.plain_step is not None:
        how = "the median time between tokens"
    else:
        out = 1.0 - seconds / (run.tpot * run.tokens_per_round)
        how = f"TPOT less {out:.0%} for prompts of others, as they are priced"
    return (
        f"{run.benchmark.source}: a {what} of {seconds * 1e3:.3g} ms at batch {run.batch:.3g}, context "
        f"{run.context_len:,.0f}: {how}"
    )


def acceptance_of(
    benchmarks: Sequence[Benchmark], rows: Sequence[Measurement]
) -> tuple[MeasuredAcceptance, ...]:
    """Return the acceptance of every benchmark that drafted, at the place of its row.

    Raises
    ------
    SpecError
        Where no benchmark says what was drafted.
    """
    entries = []
    for benchmark, row in zip(benchmarks, rows, strict=True):
        drafter = row.group.drafter
        if benchmark.drafts is None or drafter is None:
            continue
        entries.append(
            MeasuredAcceptance.of_fit(
                fit_acceptance(benchmark.drafts),
                f"{benchmark.tool}, {benchmark.source}",
                strategy=drafter.strategy.name,
                drafter=drafter.kind,
                target_model=row.group.target.name,
                draft_model=drafter.draft_model.name if drafter.draft_model else "",
                kv_budget=row.kv_budget if math.isfinite(row.kv_budget) else None,
                context_len=float(row.context_len),
            )
        )
    return tuple(entries)


def traffic_of(benchmark: Benchmark) -> dict[str, Any]:
    """Return the traffic of a benchmark: lengths, rate, concurrency, and the flags that ask for the same.

    `simulate` is the text of ``simulate --synthetic``, `plan` the flags of ``plan``. A closed loop has no
    rate of its own: `qps` is then what it reached. [1/s]
    """
    run = served_run(benchmark)
    closed = math.isinf(benchmark.request_rate)
    reached = benchmark.requests / benchmark.duration if benchmark.duration else None
    qps = reached if closed else benchmark.request_rate
    prompt, output = round(benchmark.prompt_tokens), round(benchmark.output_tokens)
    spread = _spread(benchmark)
    words = {
        "qps": "inf" if qps is None else f"{qps:.4g}",
        "prompt": f"{prompt}",
        "output": f"{output}",
        "requests": f"{benchmark.requests}",
        "burst": f"{0.0 if closed else benchmark.burstiness:g}",
        **({} if spread is None else {"spread": f"{spread:.3g}"}),
    }
    return {
        "source": benchmark.source,
        "tool": benchmark.tool,
        "requests": benchmark.requests,
        "prompt_tokens": prompt,
        "output_tokens": output,
        "spread": spread,
        "qps": qps,
        "closed_loop": closed,
        "concurrency": benchmark.concurrency,
        "batch_size": round(run.batch, 2),
        "simulate": ",".join(f"{key}={value}" for key, value in words.items()),
        "plan": f"--context {prompt} --output-tokens {output} --batch-size {max(round(run.batch), 1)}",
    }


def _spread(benchmark: Benchmark) -> float | None:
    """Return the standard deviation of the logarithm of lengths, mean of prompts and outputs. [1]"""
    lengths = [each for each in (benchmark.prompt_lengths, benchmark.output_lengths) if each is not None]
    if not lengths:
        return None
    return float(np.mean([np.log(np.maximum(each, 1)).std() for each in lengths]))
