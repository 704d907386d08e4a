"""`draftplan size`: how many of which accelerators some traffic needs, and whether they should speculate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from perfmodel.cli.ask.flag import command, flag, takes
from perfmodel.cli.ask.flags import CONTEXT, HARDWARE, OUTPUT_TOKENS, TP, TrafficFlags
from perfmodel.cli.tell.output import note, remark, tell
from perfmodel.cli.tell.progress import progress_bar

if TYPE_CHECKING:

    from perfmodel.cli.ask.question import Question
    from perfmodel.hardware import HardwareProfile
    from perfmodel.planning.price import SearchSpace

__all__ = ["size"]

USUAL_TP = "1,2,4,8"
"""Numbers of GPUs that are tried where none are named, as far as the model allows them."""


@dataclass(frozen=True, kw_only=True)
class SizeFlags(TrafficFlags):
    """What `size` takes."""

    target_qps: float = flag("--target-qps", "--qps", "--request-rate", "N", required=True, panel="Traffic",
        help="Requests per second to serve.")
    output_tokens: str = flag(*OUTPUT_TOKENS, "TOKENS", required=True, panel="Traffic",
        help="Tokens that a request puts out, mean.")
    context: str = flag(*CONTEXT, "TOKENS", required=True, panel="Traffic",
        help="Prompt tokens of a request, mean.")
    hardware: str = flag(*HARDWARE, "NAME|PATH,...|all", default="all", panel="Deployment",
        help="Accelerators to choose from.")
    tp: str = flag(*TP, "N,...", default=USUAL_TP,
        panel="Deployment", help="Numbers of GPUs that may share every layer.")
    batch_size: str = flag("--batch-size", default="1", hidden=True)
    price: str | None = flag("--price", "NAME=USD,...", panel="Deployment",
        help="Your rent of one GPU, in USD an hour.")
    percentile: float = flag("--percentile", default=90.0, min=50.0, max=99.9, panel="Traffic",
        help="Share of the requests that must meet both targets, in percent.")
    spread: float = flag("--spread", default=0.5, min=0.0, max=3.0, panel="Traffic",
        help="Standard deviation of the logarithm of prompt and output lengths; 0 makes all equal.")
    burst: float = flag("--burst", default=1.0, min=0.0, max=1e4, panel="Traffic",
        help="Burstiness of arrivals: 1 is Poisson, 0 evenly spaced.")
    prefill_apart: bool = flag("--prefill-apart", default=False, panel="Serving",
        help="Replicas of the same kind prefill and send the caches over the network: steps that decode are "
        "free of prompts. Rent and GPUs count both.")
    runners_up: int = flag("--runners-up", default=5, min=0, max=100, panel="Answer",
        help="How many to show.")


@command("size", 7)
@takes(SizeFlags)
def size(ctx: typer.Context, flags: SizeFlags) -> None:
    """Find the cheapest accelerators, GPUs per replica, replicas and strategy for a load within targets.

    A steady state ranks every choice; the cheapest are simulated, replica by replica, until the targets are
    met. The margin is how much more traffic they stand. Exits with 3 and the nearest miss where nothing does.

    Example: draftplan size --model llama-3.1-8b --target-qps 20 --context 32k --output-tokens 500 --ttft 5s
    --tpot 30 --hardware h100-sxm-80gb,l40s-48gb
    """
    from perfmodel.planning.executors import begin_workers

    begin_workers(flags.executor)
    from perfmodel.cli.ask.executor import opened_executor
    from perfmodel.cli.ask.reading import read_flag
    from perfmodel.cli.ask.traffic import seconds
    from perfmodel.cli.tell.size import draw_sizing
    from perfmodel.errors import SpecError
    from perfmodel.files.units import parse_count
    from perfmodel.traffic.sizing import size
    from perfmodel.traffic.steady_state import Load, Targets

    ttft = read_flag(ctx, "ttft", seconds, flags.ttft)
    output_tokens = read_flag(ctx, "output_tokens", parse_count, flags.output_tokens)
    prompt_tokens = read_flag(ctx, "context", parse_count, flags.context)
    question = _question(ctx, flags)
    if ttft is None or question.tpot is None or output_tokens is None or prompt_tokens is None:
        raise SpecError.single(
            "", "--ttft, --tpot", "are not both given", "Give both: without targets one accelerator is enough"
        )
    load = Load(flags.target_qps, prompt_tokens, output_tokens, flags.spread, flags.burst)
    targets = Targets(ttft, question.tpot, flags.percentile / 100.0)
    note(question.remarks)
    with (
        opened_executor(flags.executor, remark, allow_code=flags.allow_code) as executor,
        progress_bar("offers") as progress,
    ):
        sizing = size(
            question.deployments, _space(flags, question), load, targets, max_batch=flags.max_batch,
            max_step_tokens=flags.max_step_tokens, scheduler=flags.scheduler,
            prefill_apart=flags.prefill_apart, seed=flags.seed, executor=executor, progress=progress,
        )  # fmt: skip
    most = flags.runners_up

    tell(
        lambda: sizing.to_dict(most), flags, table=lambda console: draw_sizing(console, sizing, most),
        rows=lambda: [confirmed.row(load) for confirmed in sizing.confirmed(most)],
    )  # fmt: skip
    note(sizing.assumed)


def _question(ctx: typer.Context, flags: SizeFlags) -> Question:
    """The question of the flags; of the default numbers of GPUs only those that the model allows."""
    from perfmodel.cli.ask.question import read_question
    from perfmodel.cli.ask.reading import read_flag
    from perfmodel.cli.ask.traffic import read_prices
    from perfmodel.hardware import HardwareProfile

    changes: dict[str, Any] = {}
    if flags.hardware.strip().lower() == "all":
        changes["hardware"] = ",".join(HardwareProfile.available(flags.profiles_path))
    if flags.tp == USUAL_TP:
        changes["tp"] = ",".join(_allowed_gpus(flags.model)) or "1"
    question = read_question(ctx, replace(flags, **changes))
    prices = read_flag(ctx, "price", read_prices, flags.price) or {}
    return replace(question, hardware=_with_prices(question.hardware, prices))


def _allowed_gpus(model: str) -> list[str]:
    """Return those of `USUAL_TP` that can share the layers of a model."""
    from perfmodel.errors import SpecError
    from perfmodel.model import ModelSpec
    from perfmodel.planning.parallelism import check_tensor_parallel

    allowed = []
    for gpus in USUAL_TP.split(","):
        try:
            check_tensor_parallel(ModelSpec.load(model), int(gpus))
        except SpecError:
            continue
        allowed.append(gpus)
    return allowed


def _with_prices(hardware: list[HardwareProfile], prices: dict[str, float]) -> list[HardwareProfile]:
    """Return the accelerators at people's own rents [USD/h]. Raises SpecError for an unknown one."""
    from perfmodel.errors import SpecError, nearest_name

    names = [str(profile.name) for profile in hardware]
    if unknown := sorted(set(prices) - set(names)):
        raise SpecError.single(
            "", "--price", f"names {unknown[0]!r}, which is not among the accelerators",
            f"They are {', '.join(names)}"[:300], nearest_name(unknown[0], names),
        )  # fmt: skip
    return [
        profile.with_values({"price": prices[name]}, source="--price") if name in prices else profile
        for name, profile in zip(names, hardware, strict=True)
    ]


def _space(flags: SizeFlags, question: Question) -> SearchSpace:
    from perfmodel.planning.price import SearchSpace
    from perfmodel.traffic.steady_state import DEFAULT_GAMMAS

    gammas = question.gammas if flags.gamma is not None else DEFAULT_GAMMAS
    return SearchSpace(question.drafters, gammas, question.kv_budgets, question.alpha)
