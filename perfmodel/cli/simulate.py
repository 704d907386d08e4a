"""`draftplan simulate`: a traffic trace through continuous batching, under one policy or another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import typer

from perfmodel.cli.ask.flag import argument, command, flag, takes
from perfmodel.cli.ask.flags import TrafficFlags
from perfmodel.cli.ask.format import Format, read_format
from perfmodel.cli.tell.output import note, remark, tell
from perfmodel.cli.tell.progress import progress_bar, resuming, working

if TYPE_CHECKING:

    from perfmodel.cli.ask.question import Question
    from perfmodel.traffic.runs import Case
    from perfmodel.traffic.trace import Trace
    from perfmodel.traffic.workload import PlannedTraffic
    from perfmodel.workload import Workload

__all__ = ["simulate"]

_MOST_CURVES = 8


@dataclass(frozen=True, kw_only=True)
class SimulateFlags(TrafficFlags):
    """What `simulate` takes."""

    trace: str | None = argument("TRACE", default=None,
        help="CSV or JSONL: arrival time, prompt and output tokens of every request.")
    synthetic: str | None = flag("--synthetic", "KEY=VALUE,...", panel="Traffic",
        help="Draw the requests: 'qps=2,prompt=32k,output=500,requests=400,burst=4'. burst 1 is Poisson, 0 "
        "evenly spaced; spread 0 makes lengths equal; qps=inf puts all at once.")
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
    output_tokens: str = flag("--output-tokens", "TOKENS", default="", panel="Serving",
        help="Output length that the schedule is made for, with --context; from the trace where absent.")
    context: str = flag("--context", "TOKENS,...", default="", panel="Serving",
        help="Context lengths of the schedule; from the trace where absent.")
    batch_size: str = flag("--batch-size", "-b", "N,...", default="", panel="Serving",
        help="Batch sizes of the schedule; up to --max-batch where absent.")
    plot: str | None = flag("--plot", "FILE", panel="Answer",
        help="Draw goodput against the time per token asked for, to a .svg or .png file.")


@command("simulate", 6)
@takes(SimulateFlags)
def simulate(ctx: typer.Context, flags: SimulateFlags) -> None:
    """Serve a trace of requests and compare policies: plain batching, one speculation length, a schedule.

    One replica with chunked prefill, a KV cache that fills up and preempts, and acceptance that differs
    between requests. All policies meet the same requests and the same luck. The schedule has a length for
    every batch size and context, in steps with and without prefill; the drafter and draft KV budget are those
    that serve the trace best.

    Example: draftplan simulate --synthetic qps=2,prompt=32k,output=500 --model llama-3.1-8b --hardware
    h100-sxm-80gb --tp 8 --policy none,fixed:3,schedule --ttft 5s --tpot 20
    """
    from perfmodel.acceptance.intervals import BETWEEN_REQUESTS
    from perfmodel.cli.ask.reading import read_flag
    from perfmodel.cli.ask.traffic import read_factors, read_policies, seconds
    from perfmodel.errors import SpecError
    from perfmodel.plots.style import file_kind
    from perfmodel.traffic.prefix_cache import sharing_remarks
    from perfmodel.traffic.replica import Replica
    from perfmodel.traffic.runs import case_for

    if flags.plot is not None:
        file_kind(flags.plot)
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
        deployed = _deployed(flags, question, trace, policies)
        replica = Replica(
            question.deployments[0], max_batch=flags.max_batch, max_step_tokens=flags.max_step_tokens
        )
        cases = [
            case_for(
                policy, replica, trace.faster(speed), deployed, alpha=question.alpha,
                spread=BETWEEN_REQUESTS if flags.spread is None else flags.spread, seed=flags.seed,
                ttft=ttft, tpot=question.tpot,
            )
            for speed in speeds
            for policy in policies
        ]  # fmt: skip
    note(list(dict.fromkeys(text for case in cases for text in sharing_remarks(case.replica, trace))))
    _answer(flags, question, deployed, cases, [speed for speed in speeds for _ in policies], ttft)


def _trace(ctx: typer.Context, flags: SimulateFlags) -> Trace:
    from perfmodel.cli.ask.reading import read_flag
    from perfmodel.errors import SpecError
    from perfmodel.traffic.prefix_cache import PREFILLED_AGAIN
    from perfmodel.traffic.synthetic import parse_synthetic
    from perfmodel.traffic.trace import read_trace
    from perfmodel.traffic.trace_forms import read_unit

    unit = read_flag(ctx, "time_unit", read_unit, flags.time_unit)
    drawn = read_flag(ctx, "synthetic", parse_synthetic, flags.synthetic)
    if (flags.trace is None) == (drawn is None):
        raise SpecError.single(
            "", "TRACE, --synthetic", "name no requests" if drawn is None else "are both given",
            "Give a trace file, or --synthetic qps=2,prompt=32k,output=500",
        )  # fmt: skip
    if drawn is not None:
        return drawn
    assert flags.trace is not None
    with working(f"reading {flags.trace}"):
        trace = read_trace(flags.trace, unit=unit)
    note(trace.remarks)
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
    flags: SimulateFlags, question: Question, trace: Trace, policies: list[tuple[str, int]]
) -> PlannedTraffic | None:
    """Who drafts in all policies that draft, and the plan that a schedule follows."""
    from perfmodel.errors import SpecError
    from perfmodel.planning.plan import read_plan
    from perfmodel.traffic.workload import deployed_by, plan_for_traffic

    if all(name == "none" for name, _ in policies):
        return None
    if flags.plan is not None:
        return deployed_by(read_plan(flags.plan), question.drafters)
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
        max_batch=flags.max_batch,
        max_step_tokens=flags.max_step_tokens,
        workload=_cells(flags, question),
    )
    if not any(cell.speculates for cell in deployed.plan.cells):
        note(["the schedule never drafts: plain decoding is best wherever this traffic goes"])
    return deployed


def _cells(flags: SimulateFlags, question: Question) -> Workload | None:
    """The cells of a schedule that the flags name; None where they come from the trace."""
    from perfmodel.traffic.workload import ladder

    if not flags.context:
        return None
    batches = question.workload.batch_sizes if flags.batch_size else ladder(1, flags.max_batch)
    return replace(question.workload, batch_sizes=batches)


def _answer(
    flags: SimulateFlags,
    question: Question,
    deployed: PlannedTraffic | None,
    cases: list[Case],
    speeds: list[float],
    ttft: float | None,
) -> None:
    """Simulate, write the comparison and the figure, and keep what is done until both are there."""
    from perfmodel.cli.tell.simulate import draw_comparison
    from perfmodel.planning.executors import open_executor
    from perfmodel.traffic.runs import Comparison, outcomes_of, parts_of

    output = flags.output if flags.output not in (None, "-") else None
    parts = parts_of(cases, output) if output is not None else None
    with (
        resuming(parts, "simulations"),
        open_executor(flags.executor) as executor,
        progress_bar("requests") as progress,
    ):
        outcomes = outcomes_of(cases, executor=executor, output=output, progress=progress)
    comparison = Comparison(outcomes, speeds, ttft, question.tpot, deployed)
    if flags.plot is not None:
        from perfmodel.plots import save
        from perfmodel.plots.traffic import plot_simulation

        names = comparison.names
        save(plot_simulation(outcomes, ttft=ttft, tpot=question.tpot, names=names), flags.plot)
        remark(f"wrote {flags.plot}")
    tell(
        comparison.to_dict, flags, rows=lambda: comparison.rows,
        table=lambda console: draw_comparison(console, comparison),
    )  # fmt: skip
    if parts is not None:
        parts.remove()
    if read_format(flags) is Format.TABLE and not flags.output and ttft is None and question.tpot is None:
        note(["without --ttft and --tpot every token counts as goodput"])
