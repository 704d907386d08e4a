"""`draftplan simulate`: a traffic trace through continuous batching, under one policy or another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import typer

from perfmodel.cli.ask.flag import argument, command, flag, takes
from perfmodel.cli.ask.flags import BATCH, CONTEXT, OUTPUT_TOKENS, TrafficFlags
from perfmodel.cli.ask.format import Format, read_format
from perfmodel.cli.tell.output import note, remark, tell
from perfmodel.cli.tell.progress import progress_bar, reading, resuming, working

if TYPE_CHECKING:
    from perfmodel.benchmarks import Benchmark
    from perfmodel.cli.ask.question import Question
    from perfmodel.cli.tell.reproduction import Reproduced
    from perfmodel.traffic.metrics import Metrics
    from perfmodel.traffic.replica import Replica
    from perfmodel.traffic.runs import Case, Comparison
    from perfmodel.traffic.trace import Trace
    from perfmodel.traffic.workload import PlannedTraffic
    from perfmodel.workload import Workload

__all__ = ["simulate"]

_MOST_CURVES = 8


@dataclass(frozen=True, kw_only=True)
class SimulateFlags(TrafficFlags):
    """What `simulate` takes."""

    trace: str | None = argument("TRACE", default=None,
        help="CSV or JSONL in the form of any public trace: arrival time, prompt and output tokens; or the "
        "JSON result of a benchmark (vllm bench serve and others), which is reproduced and laid beside what "
        "is simulated.")
    synthetic: str | None = flag("--synthetic", "KEY=VALUE,...", panel="Traffic",
        help="Draw the requests: 'qps=2,prompt=32k,output=500,requests=400,burst=4'. burst 1 is Poisson, 0 "
        "evenly spaced; spread 0 makes lengths equal; qps=inf puts all at once.")
    concurrency: int | None = flag("--concurrency", "--max-concurrency", "N", min=1, panel="Traffic",
        help="A closed loop: at most so many requests in flight, the next one is sent when one is answered. "
        "--synthetic then needs no qps, a trace no times; one that has times keeps them.")
    requests: int | None = flag("--requests", "--num-prompts", "N", min=1, panel="Traffic",
        help="Requests to draw, or the first of a trace.")
    warm_up: str | None = flag("--warm-up", "N|SECONDS", panel="Traffic",
        help="Leave the first requests (50), or those sent in the first seconds (30s), out of the figures.")
    time_unit: str | None = flag("--time-unit", "s|ms|us|ns", panel="Traffic",
        help="Unit of the trace's arrival times; as its form or its numbers tell where absent.")
    no_prefix_cache: bool = flag("--no-prefix-cache", default=False, panel="Serving",
        help="Prefill prompts whole where the trace's hash_ids say that they share a prefix; engines keep "
        "prefixes by default.")
    speed: str = flag("--speed", "FACTOR,...", default="1", panel="Traffic",
        help="Let requests arrive this many times as fast.")
    policy: str = flag("--policy", "none|fixed:N|schedule|adaptive,...", default="none,fixed:3,schedule",
        panel="Serving",
        help="Policies to compare: plain batching, one length, a length for every batch and context, or "
        "that and learning acceptance.")
    plan: str | None = flag("--plan", "FILE", panel="Serving",
        help="Schedule to follow, from `draftplan plan --one-deployment -o FILE`; made for the trace where "
        "absent.")
    spread: float | None = flag("--acceptance-spread", min=0.0, max=0.49, panel="Acceptance",
        help="Standard deviation of acceptance between requests; that of published task mixes where absent.")
    output_tokens: str = flag(*OUTPUT_TOKENS, "TOKENS", default="", panel="Serving",
        help="Output length that the schedule is made for, with --context; from the trace where absent.")
    context: str = flag(*CONTEXT, "TOKENS,...", default="", panel="Serving",
        help="Context lengths of the schedule; from the trace where absent.")
    batch_size: str = flag(*BATCH, "N,...", default="", panel="Serving",
        help="Batch sizes of the schedule; up to --max-batch where absent.")
    plot: str | None = flag("--plot", "FILE", panel="Answer",
        help="Draw goodput against the time per token asked for, to a .svg or .png file.")


@command("simulate", 6)
@takes(SimulateFlags)
def simulate(ctx: typer.Context, flags: SimulateFlags) -> None:
    """Serve a trace of requests and compare policies: plain batching, one speculation length, a schedule.

    One replica with chunked prefill, a KV cache that fills up and preempts, and acceptance that differs
    between requests. They come at a rate, or in a closed loop of --concurrency. All policies meet the same
    requests and the same luck. The schedule has a length for every batch size and context, in steps with and
    without prefill; the drafter and draft KV budget are those that serve the trace best.

    Example: draftplan simulate --synthetic qps=2,prompt=32k,output=500 --model llama-3.1-8b --hardware
    h100-sxm-80gb --tp 8 --policy none,fixed:3,schedule --ttft 5s --tpot 20

    draftplan simulate result.json --model qwen3-8b --hardware h100-sxm-80gb --engine vllm
    """
    from perfmodel.planning.executors import begin_workers

    begin_workers(flags.executor)
    from perfmodel.acceptance.intervals import BETWEEN_REQUESTS
    from perfmodel.cli.ask.reading import read_flag
    from perfmodel.cli.ask.traffic import read_factors, read_policies, read_warm_up, seconds
    from perfmodel.errors import SpecError
    from perfmodel.plots.style import file_kind
    from perfmodel.traffic.metrics import WarmUp
    from perfmodel.traffic.prefix_cache import sharing_remarks
    from perfmodel.traffic.replica import Replica
    from perfmodel.traffic.reproduction import is_benchmark
    from perfmodel.traffic.runs import Comparison, case_for, known_of

    if flags.trace is not None and flags.synthetic is None and is_benchmark(flags.trace):
        _reproduce(ctx, flags)
        return
    if flags.plot is not None:
        file_kind(flags.plot)
    warm_up = read_flag(ctx, "warm_up", read_warm_up, flags.warm_up)
    policies = read_flag(ctx, "policy", read_policies, flags.policy) or []
    speeds = read_flag(ctx, "speed", read_factors, flags.speed) or [1.0]
    if flags.plot is not None and len(policies) * len(speeds) > _MOST_CURVES:
        raise SpecError.single(
            "", "--plot", f"asks for {len(policies) * len(speeds)} curves", f"Compare at most {_MOST_CURVES}"
        )
    ttft = read_flag(ctx, "ttft", seconds, flags.ttft)
    trace = _trace(ctx, flags)
    question = _question(ctx, flags, trace)
    note(question.remarks)
    with working("planning the schedule"):
        replica = Replica.of(
            question.deployments[0], flags.scheduler, flags.max_batch, flags.max_step_tokens
        )
        deployed = _deployed(flags, question, trace, policies, replica)
        cases = [
            case_for(
                policy, replica, trace.faster(speed), deployed, alpha=question.alpha,
                spread=BETWEEN_REQUESTS if flags.spread is None else flags.spread, seed=flags.seed,
                concurrency=flags.concurrency, ttft=ttft, tpot=question.tpot,
                beside=[gamma for name, gamma in policies if name.startswith("fixed")],
            )
            for speed in speeds
            for policy in policies
        ]  # fmt: skip
    note(list(dict.fromkeys(filter(None, (_one_length(case) for case in cases)))))
    note(list(dict.fromkeys(text for case in cases for text in sharing_remarks(case.replica, trace))))
    comparison = partial(
        Comparison, speeds=[speed for speed in speeds for _ in policies], ttft=ttft, tpot=question.tpot,
        deployed=deployed, concurrency=flags.concurrency, warm_up=warm_up or WarmUp(),
    )  # fmt: skip
    _answer(flags, cases, comparison, known_of(cases, deployed.plain if deployed else None))


def _trace(ctx: typer.Context, flags: SimulateFlags) -> Trace:
    from perfmodel.cli.ask.reading import read_flag
    from perfmodel.errors import SpecError
    from perfmodel.traffic.prefix_cache import PREFILLED_AGAIN
    from perfmodel.traffic.synthetic import parse_synthetic
    from perfmodel.traffic.trace import read_trace
    from perfmodel.traffic.trace_forms import read_unit

    unit = read_flag(ctx, "time_unit", read_unit, flags.time_unit)
    parse = partial(parse_synthetic, closed=flags.concurrency is not None, requests=flags.requests)
    drawn = read_flag(ctx, "synthetic", parse, flags.synthetic)
    if (flags.trace is None) == (drawn is None):
        raise SpecError.single(
            "", "TRACE, --synthetic", "name no requests" if drawn is None else "are both given",
            "Give a trace file, or --synthetic qps=2,prompt=32k,output=500",
        )  # fmt: skip
    if drawn is not None:
        return drawn
    assert flags.trace is not None
    with reading(flags.trace) as progress:
        trace = read_trace(
            flags.trace, unit=unit, timeless=flags.concurrency is not None, first=flags.requests,
            progress=progress,
        )  # fmt: skip
    note(trace.remarks)
    if flags.concurrency is not None and trace.arrival[-1] > 0.0:
        note([f"requests arrive as in the trace, of which at most {flags.concurrency} are in flight"])
    if trace.prefixes is not None and flags.no_prefix_cache:
        note([f"{PREFILLED_AGAIN}: --no-prefix-cache"])
        return trace.without_prefixes()
    return trace


def _question(ctx: typer.Context, flags: SimulateFlags, trace: Trace) -> Question:
    """The question of the flags; where they name no cells, one at the longest context stands in."""
    from perfmodel.cli.ask.question import read_question

    question = read_question(
        ctx,
        replace(
            flags,
            context=flags.context or str(trace.longest),
            batch_size=flags.batch_size or "1",
            output_tokens=flags.output_tokens or str(round(float(trace.output_tokens.mean()))),
        ),
    )
    question.only_deployment("Name one of each; `draftplan size` compares several")
    return question


def _deployed(
    flags: SimulateFlags, question: Question, trace: Trace, policies: list[tuple[str, int]], replica: Replica
) -> PlannedTraffic | None:
    """Who drafts in all policies that draft, and the plan that a schedule follows."""
    from perfmodel.cli.ask.plan import read_given_plan
    from perfmodel.errors import SpecError
    from perfmodel.traffic.runs import FOLLOWING
    from perfmodel.traffic.workload import deployed_by, plan_for_traffic

    if all(name == "none" for name, _ in policies):
        return None
    if flags.plan is not None:
        plan, remarks = read_given_plan(flags.plan)
        note(remarks)
        return deployed_by(plan, question.drafters)
    if not question.drafters:
        raise SpecError.single("", "--policy", "drafts, but nobody may draft", "Name a --strategy")
    gammas = {*question.speculative_gammas, *(gamma for _, gamma in policies if gamma)}
    deployed = plan_for_traffic(
        question.hardware[0],
        question.target,
        question.engine,
        trace,
        drafters=question.drafters,
        kv_budgets=question.kv_budgets,
        gammas=sorted(gammas),
        tensor_parallel=question.tensor_parallel[0],
        **question.layout,
        alpha=question.alpha,
        max_batch=replica.max_batch,
        max_step_tokens=replica.max_step_tokens,
        scheduler=replica.scheduler,
        concurrency=flags.concurrency,
        workload=_cells(flags, question, replica),
    )
    follows = any(name in FOLLOWING for name, _ in policies)
    if follows and not any(cell.speculates for cell in deployed.plan.cells):
        note(["the schedule never drafts: plain decoding is best wherever this traffic goes"])
    return deployed


def _one_length(case: Case) -> str:
    """Say where a schedule came down to one length, which serves its trace better than several."""
    from perfmodel.traffic.policies import FollowPlan

    if not isinstance(case.policy, FollowPlan) or case.policy.only is None:
        return ""
    lengths = f"one length everywhere, {case.policy.only}" if case.policy.only else "to draft nowhere"
    return f"the schedule is {lengths}: that serves this trace better than a length for every batch"


def _cells(flags: SimulateFlags, question: Question, replica: Replica) -> Workload | None:
    """The cells of a schedule that the flags name; None where they come from the trace."""
    from perfmodel.traffic.workload import ladder

    if not flags.context:
        return None
    batches = question.workload.batch_sizes if flags.batch_size else ladder(1, replica.max_batch)
    return replace(question.workload, batch_sizes=batches)


def _answer(
    flags: SimulateFlags,
    cases: list[Case],
    compare: Callable[[list[Metrics]], Comparison],
    known: dict[int, Metrics],
) -> None:
    """Simulate, write the comparison and the figure, and keep what is done until both are there."""
    from perfmodel.cli.ask.executor import opened_executor
    from perfmodel.cli.tell.simulate import draw_comparison
    from perfmodel.files.writing import target_of
    from perfmodel.traffic.runs import outcomes_of, parts_of

    output = flags.output if flags.output not in (None, "-") else None
    if output is not None and target_of(output).is_stream:
        output = None  # beside which nothing can lie
    parts = parts_of(cases, output) if output is not None else None
    with parts.held() if parts is not None else nullcontext():
        with (
            resuming(parts, "simulations"),
            opened_executor(flags.executor, remark, allow_code=flags.allow_code) as executor,
            progress_bar("requests") as progress,
        ):
            outcomes = outcomes_of(cases, known=known, executor=executor, output=output, progress=progress)
        comparison = compare(outcomes)
        if flags.plot is not None:
            from perfmodel.plots import save
            from perfmodel.plots.traffic import plot_simulation

            names, ttft, tpot = comparison.names, comparison.ttft, comparison.tpot
            save(plot_simulation(outcomes, ttft=ttft, tpot=tpot, names=names), flags.plot)
            remark(f"wrote {flags.plot}")
        tell(
            comparison.to_dict, flags, rows=lambda: comparison.rows,
            table=lambda console: draw_comparison(console, comparison),
        )  # fmt: skip
        if parts is not None:
            parts.remove()
    no_targets = comparison.ttft is None and comparison.tpot is None
    if read_format(flags) is Format.TABLE and not flags.output and no_targets:
        note(["without --ttft and --tpot every token counts as goodput"])


def _reproduce(ctx: typer.Context, flags: SimulateFlags) -> None:
    """Simulate what benchmarks ran, and lay it beside what they measured."""
    from perfmodel.benchmarks.reading import read_benchmarks
    from perfmodel.cli.tell.reproduction import draw_reproduced, reproduced_to_dict, reproduced_to_rows
    from perfmodel.errors import SpecError

    asked = {
        "--speed": flags.speed != "1", "--plan": flags.plan is not None, "--plot": flags.plot is not None,
        "--warm-up": flags.warm_up is not None, "--time-unit": flags.time_unit is not None,
        "--ttft": flags.ttft is not None, "--tpot": flags.tpot is not None,
    }  # fmt: skip
    if named := [name for name, given in asked.items() if given]:
        raise SpecError.single(
            "", named[0], "has no meaning where a benchmark is reproduced", f"Leave {named[0]} out"
        )
    assert flags.trace is not None
    runs = [_reproduced(ctx, flags, benchmark) for benchmark in read_benchmarks(flags.trace)]
    tell(
        lambda: reproduced_to_dict(runs), flags, rows=lambda: reproduced_to_rows(runs),
        table=lambda console: draw_reproduced(console, runs),
    )  # fmt: skip


def _reproduced(ctx: typer.Context, flags: SimulateFlags, benchmark: Benchmark) -> Reproduced:
    """One benchmark, and the simulation of its requests under its acceptance and its engine's scheduler."""
    from perfmodel.acceptance.intervals import BETWEEN_REQUESTS
    from perfmodel.cli.ask.reading import read_flag
    from perfmodel.cli.ask.traffic import read_policies
    from perfmodel.cli.tell.reproduction import Reproduced
    from perfmodel.errors import SpecError
    from perfmodel.traffic.replica import Replica
    from perfmodel.traffic.reproduction import drafted_by, in_flight_of, remarks_on, trace_of
    from perfmodel.traffic.runs import case_for, outcomes_of

    gamma, tokens = drafted_by(benchmark)
    source = ctx.get_parameter_source("policy")
    policies = read_flag(ctx, "policy", read_policies, flags.policy) or []
    if source is None or source.name == "DEFAULT":
        policies = [(f"fixed:{gamma}" if gamma else "none", gamma)]
    if len(policies) != 1 or policies[0][0] in ("schedule", "adaptive"):
        raise SpecError.single(
            "", "--policy", f"found {flags.policy[:40]}, for one benchmark",
            "Give none or fixed:N, as was benchmarked, or leave it out",
        )  # fmt: skip
    known = flags.acceptance, flags.acceptance_rate, flags.acceptance_length
    if gamma and not any(known):
        flags = replace(flags, acceptance_length=f"{tokens:.6g}@{gamma}")
    trace = trace_of(benchmark, seed=flags.seed)
    if flags.requests is not None:
        trace = trace.first(flags.requests)
    question = _question(ctx, flags, trace)
    note([*question.remarks, *remarks_on(benchmark, question.target.name)])
    concurrency = in_flight_of(benchmark) if flags.concurrency is None else flags.concurrency
    served_by = question.deployments[0].engine.served_by
    own = served_by.name if served_by is not None and served_by.limits else ""
    with working("simulating the benchmark"):
        replica = Replica.of(
            question.deployments[0], flags.scheduler or own, flags.max_batch, flags.max_step_tokens
        )
        flags = replace(flags, concurrency=concurrency)
        deployed = _deployed(flags, question, trace, policies, replica)
        case = case_for(
            policies[0], replica, trace, deployed, alpha=question.alpha, seed=flags.seed,
            spread=BETWEEN_REQUESTS if flags.spread is None else flags.spread, concurrency=concurrency,
        )  # fmt: skip
        (outcome,) = outcomes_of([case])
    return Reproduced(benchmark, outcome, concurrency)
