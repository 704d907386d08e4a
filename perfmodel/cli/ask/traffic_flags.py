"""The flags of the commands that serve traffic."""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.cli.ask.flag import argument, flag
from perfmodel.cli.ask.flags import OutputFlags, QuestionFlags
from perfmodel.cli.ask.work import ExecutorFlags

__all__ = ["SimulateFlags", "SizeFlags", "TrafficFlags"]

_TRAFFIC, _SERVING, _ANSWER = "Traffic", "Serving", "Answer"
USUAL_TP = "1,2,4,8"
"""Numbers of GPUs that are tried where none are named, as far as the model allows them."""


@dataclass(frozen=True, kw_only=True)
class TrafficFlags(ExecutorFlags, OutputFlags, QuestionFlags):
    """What is served under which targets, within which limits of the scheduler."""

    ttft: str | None = flag("--ttft", "MS", panel=_TRAFFIC,
        help="Longest time to first token that counts as good: milliseconds, or with a unit (2s).")
    max_batch: int = flag("--max-batch", "--max-num-seqs", default=256, min=1, panel=_SERVING,
        help="Sequences in the running batch.")
    max_step_tokens: int = flag("--max-step-tokens", "--max-num-batched-tokens", default=8192, min=1,
        panel=_SERVING,
        help="Tokens of one step, prefill chunks included.")
    seed: int = flag("--seed", default=0, min=0, panel=_TRAFFIC, help="Of everything that is drawn.")


@dataclass(frozen=True, kw_only=True)
class SimulateFlags(TrafficFlags):
    """What `simulate` takes."""

    trace: str | None = argument("TRACE", default=None,
        help="CSV or JSONL: arrival time, prompt and output tokens of every request.")
    synthetic: str | None = flag("--synthetic", "KEY=VALUE,...", panel=_TRAFFIC,
        help="Draw the requests: 'qps=2,prompt=32k,output=500,requests=400,burst=4'. burst 1 is Poisson, 0 "
        "evenly spaced; spread 0 makes lengths equal; qps=inf puts all at once.")
    speed: str = flag("--speed", "FACTOR,...", default="1", panel=_TRAFFIC,
        help="Let requests arrive this many times as fast.")
    policy: str = flag("--policy", "none|fixed:N|schedule|adaptive,...", default="none,fixed:3,schedule",
        panel=_SERVING,
        help="Policies to compare: plain batching, one length, a length for every batch and context, or "
        "that and learning acceptance.")
    plan: str | None = flag("--plan", "FILE", panel=_SERVING,
        help="Schedule to follow, from `draftplan plan --one-deployment -o FILE`; made for the trace where "
        "absent.")
    spread: float = flag("--acceptance-spread", default=0.08, min=0.0, max=0.49, panel="Acceptance",
        help="Standard deviation of acceptance between requests.")
    context: str = flag("--context", "TOKENS,...", default="", panel=_SERVING,
        help="Context lengths of the schedule; from the trace where absent.")
    batch_size: str = flag("--batch-size", "-b", "N,...", default="", panel=_SERVING,
        help="Batch sizes of the schedule; up to --max-batch where absent.")
    plot: str | None = flag("--plot", "FILE", panel=_ANSWER,
        help="Draw goodput against the time per token asked for, to a .svg or .png file.")


@dataclass(frozen=True, kw_only=True)
class SizeFlags(TrafficFlags):
    """What `size` takes."""

    target_qps: float = flag("--target-qps", "N", required=True, panel=_TRAFFIC,
        help="Requests per second to serve.")
    output_tokens: str = flag("--output-tokens", "--osl", "TOKENS", required=True, panel=_TRAFFIC,
        help="Tokens that a request puts out, mean.")
    context: str = flag("--context", "--isl", "TOKENS", required=True, panel=_TRAFFIC,
        help="Prompt tokens of a request, mean.")
    hardware: str = flag("--hardware", "--system", "NAME|PATH,...|all", default="all", panel="Deployment",
        help="Accelerators to choose from.")
    tp: str = flag("--tp", "--tp-size", "--tensor-parallel-size", "N,...", default=USUAL_TP,
        panel="Deployment", help="Numbers of GPUs that may share every layer.")
    batch_size: str = flag("--batch-size", default="1", hidden=True)
    price: str | None = flag("--price", "NAME=USD,...", panel="Deployment",
        help="Your rent of one GPU, in USD an hour.")
    percentile: float = flag("--percentile", default=90.0, min=50.0, max=99.9, panel=_TRAFFIC,
        help="Share of the requests that must meet both targets, in percent.")
    spread: float = flag("--spread", default=0.5, min=0.0, max=3.0, panel=_TRAFFIC,
        help="Standard deviation of the logarithm of prompt and output lengths; 0 makes all equal.")
    burst: float = flag("--burst", default=1.0, min=0.0, max=1e4, panel=_TRAFFIC,
        help="Burstiness of arrivals: 1 is Poisson, 0 evenly spaced.")
    runners_up: int = flag("--runners-up", default=5, min=0, max=100, panel=_ANSWER, help="How many to show.")
