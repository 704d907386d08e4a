"""The flags of the commands that serve traffic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from perfmodel.cli.ask.flags import OutputFlags, QuestionFlags
from perfmodel.cli.tell.work import ExecutorFlags

__all__ = ["SimulateFlags", "SizeFlags", "TrafficFlags"]

_TRAFFIC, _SERVING, _ANSWER = "Traffic", "Serving", "Answer"


@dataclass(frozen=True, kw_only=True)
class TrafficFlags(ExecutorFlags, OutputFlags, QuestionFlags):
    """What is served under which targets, within which limits of the scheduler."""

    ttft: Annotated[
        str | None,
        typer.Option(
            "--ttft", metavar="MS", rich_help_panel=_TRAFFIC,
            help="Longest time to first token that counts as good: milliseconds, or with a unit (2s).",
        ),
    ] = None  # fmt: skip
    max_batch: Annotated[
        int,
        typer.Option(
            "--max-batch", "--max-num-seqs", min=1, rich_help_panel=_SERVING,
            help="Sequences in the running batch.",
        ),
    ] = 256  # fmt: skip
    max_step_tokens: Annotated[
        int,
        typer.Option(
            "--max-step-tokens", "--max-num-batched-tokens", min=1, rich_help_panel=_SERVING,
            help="Tokens of one step, prefill chunks included.",
        ),
    ] = 8192  # fmt: skip
    seed: Annotated[
        int, typer.Option("--seed", min=0, rich_help_panel=_TRAFFIC, help="Of everything that is drawn.")
    ] = 0


@dataclass(frozen=True, kw_only=True)
class SimulateFlags(TrafficFlags):
    """What `simulate` takes."""

    trace: Annotated[
        str | None,
        typer.Argument(
            metavar="TRACE", help="CSV or JSONL: arrival time, prompt and output tokens of every request."
        ),
    ] = None
    synthetic: Annotated[
        str | None,
        typer.Option(
            "--synthetic", metavar="KEY=VALUE,...", rich_help_panel=_TRAFFIC,
            help="Draw the requests: 'qps=2,prompt=32k,output=500,requests=400,burst=4'. burst 1 is Poisson, "
            "0 evenly spaced; spread 0 makes lengths equal; qps=inf puts all at once.",
        ),
    ] = None  # fmt: skip
    speed: Annotated[
        str,
        typer.Option(
            "--speed", metavar="FACTOR,...", rich_help_panel=_TRAFFIC,
            help="Let requests arrive this many times as fast.",
        ),
    ] = "1"  # fmt: skip
    policy: Annotated[
        str,
        typer.Option(
            "--policy", metavar="none|fixed:N|schedule|adaptive,...", rich_help_panel=_SERVING,
            help="Policies to compare: plain batching, one length, a length for every batch and context, or "
            "that and learning acceptance.",
        ),
    ] = "none,fixed:3,schedule"  # fmt: skip
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan", metavar="FILE", rich_help_panel=_SERVING,
            help="Schedule to follow, from `draftplan plan --one-deployment -o FILE`; made for the trace "
            "where absent.",
        ),
    ] = None  # fmt: skip
    spread: Annotated[
        float,
        typer.Option(
            "--acceptance-spread", min=0.0, max=0.49, rich_help_panel="Acceptance",
            help="Standard deviation of acceptance between requests.",
        ),
    ] = 0.08  # fmt: skip
    context: Annotated[
        str,
        typer.Option(
            "--context", metavar="TOKENS,...", rich_help_panel=_SERVING,
            help="Context lengths of the schedule; from the trace where absent.",
        ),
    ] = ""  # fmt: skip
    batch_size: Annotated[
        str,
        typer.Option(
            "--batch-size", "-b", metavar="N,...", rich_help_panel=_SERVING,
            help="Batch sizes of the schedule; up to --max-batch where absent.",
        ),
    ] = ""  # fmt: skip
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot", metavar="FILE", rich_help_panel=_ANSWER,
            help="Draw goodput against the time per token asked for, to a .svg or .png file.",
        ),
    ] = None  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SizeFlags(TrafficFlags):
    """What `size` takes."""

    target_qps: Annotated[
        float,
        typer.Option(
            "--target-qps", metavar="N", rich_help_panel=_TRAFFIC, help="Requests per second to serve."
        ),
    ]
    output_tokens: Annotated[
        str,
        typer.Option(
            "--output-tokens", "--osl", metavar="TOKENS", rich_help_panel=_TRAFFIC,
            help="Tokens that a request puts out, mean.",
        ),
    ]  # fmt: skip
    context: Annotated[
        str,
        typer.Option(
            "--context",
            "--isl",
            metavar="TOKENS",
            rich_help_panel=_TRAFFIC,
            help="Prompt tokens of a request, mean.",
        ),
    ]
    hardware: Annotated[
        str,
        typer.Option(
            "--hardware", "--system", metavar="NAME|PATH,...|all", rich_help_panel="Deployment",
            help="Accelerators to choose from.",
        ),
    ] = "all"  # fmt: skip
    tp: Annotated[
        str,
        typer.Option(
            "--tp", "--tp-size", "--tensor-parallel-size", metavar="N,...", rich_help_panel="Deployment",
            help="Numbers of GPUs that may share every layer.",
        ),
    ] = "1,2,4,8"  # fmt: skip
    batch_size: Annotated[str, typer.Option("--batch-size", hidden=True)] = "1"
    price: Annotated[
        str | None,
        typer.Option(
            "--price", metavar="NAME=USD,...", rich_help_panel="Deployment",
            help="Your rent of one GPU, in USD an hour.",
        ),
    ] = None  # fmt: skip
    percentile: Annotated[
        float,
        typer.Option(
            "--percentile", min=50.0, max=99.9, rich_help_panel=_TRAFFIC,
            help="Share of the requests that must meet both targets, in percent.",
        ),
    ] = 90.0  # fmt: skip
    spread: Annotated[
        float,
        typer.Option(
            "--spread", min=0.0, max=3.0, rich_help_panel=_TRAFFIC,
            help="Standard deviation of the logarithm of prompt and output lengths; 0 makes all equal.",
        ),
    ] = 0.5  # fmt: skip
    burst: Annotated[
        float,
        typer.Option(
            "--burst", min=0.0, max=1e4, rich_help_panel=_TRAFFIC,
            help="Burstiness of arrivals: 1 is Poisson, 0 evenly spaced.",
        ),
    ] = 1.0  # fmt: skip
    runners_up: Annotated[
        int, typer.Option("--runners-up", min=0, max=100, rich_help_panel=_ANSWER, help="How many to show.")
    ] = 5
