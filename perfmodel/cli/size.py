"""`draftplan size`: how many of which accelerators some traffic needs, and whether they should speculate."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import typer

from perfmodel.cli.ask.flag import command, takes
from perfmodel.cli.ask.format import read_format
from perfmodel.cli.ask.traffic_flags import USUAL_TP, SizeFlags
from perfmodel.cli.ask.work import progress_bar
from perfmodel.cli.tell.output import remark, tell

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.cli.ask.question import Question
    from perfmodel.planning.price import SearchSpace
    from perfmodel.traffic.sizing import Confirmed, Sizing

__all__ = ["size"]

SCHEMA = "draftplan/size/1"


@command("size", 7)
@takes(SizeFlags)
def size(ctx: typer.Context, flags: SizeFlags) -> None:
    """Find the cheapest accelerators, GPUs per replica, replicas and strategy for a load within targets.

    A steady state ranks every choice; the cheapest are simulated, replica by replica, until the targets are
    met. The margin is how much more traffic they stand. Exits with 3 and the nearest miss where nothing does.

    Example: draftplan size --model llama-3.1-8b --target-qps 20 --context 32k --output-tokens 500 --ttft 5s
    --tpot 30 --hardware h100-sxm-80gb,l40s-48gb
    """
    from perfmodel.cli.ask.traffic import read_one, seconds
    from perfmodel.errors import SpecError
    from perfmodel.files.units import parse_count
    from perfmodel.planning.executors import open_executor
    from perfmodel.traffic.sizing import size
    from perfmodel.traffic.steady_state import Load, Targets

    ttft = read_one(ctx, "ttft", seconds, flags.ttft)
    output_tokens = read_one(ctx, "output_tokens", parse_count, flags.output_tokens)
    prompt_tokens = read_one(ctx, "context", parse_count, flags.context)
    question = _question(ctx, flags)
    if ttft is None or question.tpot is None or output_tokens is None or prompt_tokens is None:
        raise SpecError.single(
            "", "--ttft, --tpot", "are not both given", "Give both: without targets one accelerator is enough"
        )
    load = Load(flags.target_qps, prompt_tokens, output_tokens, flags.spread, flags.burst)
    targets = Targets(ttft, question.tpot, flags.percentile / 100.0)
    for line in question.remarks:
        remark(f"note: {line}")
    with open_executor(flags.executor) as executor, progress_bar("offers") as progress:
        found = size(
            question.deployments, _space(flags, question), load, targets, max_batch=flags.max_batch,
            max_step_tokens=flags.max_step_tokens, seed=flags.seed, executor=executor, progress=progress,
        )  # fmt: skip
    most = flags.runners_up
    tell(
        read_format(flags.format, flags.output),
        lambda: _body(found, most, question),
        table=lambda console: _draw(console, found, most),
        rows=lambda: [_row(confirmed, found) for confirmed in (found.best, *found.runners_up[:most])],
        output=flags.output,
        no_color=flags.no_color,
    )
    for sentence in _prices(found):
        remark(f"note: {sentence}")


def _question(ctx: typer.Context, flags: SizeFlags) -> Question:
    """The question of the flags; of the default numbers of GPUs only those that the model allows."""
    from perfmodel.cli.ask.question import read_question
    from perfmodel.cli.ask.traffic import read_one
    from perfmodel.errors import SpecError, nearest_name
    from perfmodel.hardware import HardwareProfile
    from perfmodel.model import ModelSpec
    from perfmodel.planning.drafters import check_tensor_parallel

    changes: dict[str, Any] = {}
    if flags.hardware.strip().lower() == "all":
        changes["hardware"] = ",".join(HardwareProfile.available(flags.profiles_path))
    if flags.tp == USUAL_TP:
        allowed = []
        for gpus in USUAL_TP.split(","):
            try:
                check_tensor_parallel(ModelSpec.load(flags.model), int(gpus))
            except SpecError:
                continue
            allowed.append(gpus)
        changes["tp"] = ",".join(allowed) or "1"
    question = read_question(ctx, replace(flags, **changes))
    prices = read_one(ctx, "price", _read_prices, flags.price) or {}
    unknown = set(prices) - {str(profile.name) for profile in question.hardware}
    if unknown:
        names = [str(profile.name) for profile in question.hardware]
        raise SpecError.single(
            "", "--price", f"names {sorted(unknown)[0]!r}, which is not among the accelerators",
            f"They are {', '.join(names)}"[:300], nearest_name(sorted(unknown)[0], names),
        )  # fmt: skip
    priced = [
        profile.with_values({"price": prices[str(profile.name)]}, source="--price")
        if str(profile.name) in prices
        else profile
        for profile in question.hardware
    ]
    return replace(question, hardware=priced)


def _read_prices(text: str) -> dict[str, float]:
    """Return the rents that a text such as ``h100-sxm-80gb=2.1`` names. [USD/h]"""
    from perfmodel.errors import SpecError
    from perfmodel.files.units import parse_quantity

    found = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, rent = part.partition("=")
        value = parse_quantity(rent.strip(), "count") if rent else 0.0
        if not 0.0 < value < 1e4:
            raise SpecError.single(
                "", "", f"found {part[:60]!r}", "Write NAME=USD, such as h100-sxm-80gb=2.1"
            )
        found[name.strip()] = value
    return found


def _space(flags: SizeFlags, question: Question) -> SearchSpace:
    from perfmodel.planning.price import SearchSpace
    from perfmodel.traffic.steady_state import DEFAULT_GAMMAS

    gammas = question.gammas if flags.gamma is not None else DEFAULT_GAMMAS
    return SearchSpace(question.drafters, gammas, question.kv_budgets, question.alpha)


def _row(one: Confirmed, found: Sizing) -> dict[str, Any]:
    """One confirmed offer in plain numbers."""
    candidate, replica = one.candidate, one.candidate.replica
    drafts = replica.drafter is not None
    tokens_per_hour = found.load.qps * found.load.output_tokens * 3600.0
    return {
        "hardware": str(replica.deployment.hardware.name),
        "tensor_parallel": replica.gpus,
        "replicas": one.replicas,
        "gpus": one.gpus,
        "strategy": replica.drafter.strategy.name if replica.drafter else "none",
        "draft_model": replica.drafter.draft_model.name
        if replica.drafter and replica.drafter.draft_model
        else None,
        "kv_budget": replica.kv_budget if drafts and math.isfinite(replica.kv_budget) else None,
        "gamma": candidate.gamma,
        "batch_size": candidate.batch,
        "usd_per_hour": one.cost,
        "usd_per_million_tokens": one.cost / tokens_per_hour * 1e6,
        "ttft_s": one.ttft,
        "tpot_s": one.tpot,
        "share_meeting_targets": one.met,
        "steady_state_replicas": candidate.replicas(found.load.qps),
    }


def _body(found: Sizing, most: int, question: Question) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "model": question.target.name,
        "engine": question.engine.name,
        "load": asdict(found.load),
        "targets": asdict(found.targets),
        "best": _row(found.best, found) | {"margin": found.best.margin},
        "runners_up": [_row(one, found) for one in found.runners_up[:most]],
        "refuted_by_simulation": [
            f"{candidate.replica.machine} {candidate.label}" for candidate in found.refuted
        ],
        "assumed": _prices(found),
    }


def _prices(found: Sizing) -> list[str]:
    """Which of the rents nobody quoted."""
    said = {}
    for one in (found.best, *found.runners_up):
        hardware = one.candidate.replica.deployment.hardware
        quoted = hardware.quantities.get("price")
        if quoted is None or (quoted.kind == "assumed" and quoted.source != "--price"):
            said[str(hardware.name)] = f"{float(hardware.price_per_hour):g} USD/h for {hardware.name}"
    return [f"assumed: {', '.join(said.values())}; say yours with --price"] if said else []


def _draw(console: Console, found: Sizing, most: int) -> None:
    from perfmodel.cli.tell.tables import draw, grid, heading, line, number, tokens

    load, targets = found.load, found.targets
    model = found.best.candidate.replica.deployment.model
    heading(
        console,
        f"{model.name}, {load.qps:g} requests/s of {tokens(load.prompt_tokens)} "
        f"prompt and {tokens(load.output_tokens)} output tokens, {targets.share:.1%} of them within "
        f"{targets.ttft:g} s to the first token and {targets.tpot * 1e3:g} ms per token",
    )
    quantile = f"p{targets.share * 100:g}"
    columns = {"hardware": "left", "tp": "right", "replicas": "right", "GPUs": "right", "strategy": "left"}
    columns |= dict.fromkeys(
        (
            "KV\nbudget", "gamma", "batch", "USD/h", "USD/M\ntokens", f"TTFT s\n{quantile}",
            f"TPOT ms\n{quantile}", "within\ntargets", "steady\nreplicas",
        ),
        "right",
    )  # fmt: skip
    rows = []
    for one in (found.best, *found.runners_up[:most]):
        row = _row(one, found)
        rows.append(
            [
                row["hardware"],
                str(row["tensor_parallel"]),
                str(row["replicas"]),
                str(row["gpus"]),
                "do not speculate" if row["strategy"] == "none" else one.candidate.label,
                "-" if row["strategy"] == "none" else tokens(one.candidate.replica.kv_budget),
                str(row["gamma"]),
                str(row["batch_size"]),
                f"{row['usd_per_hour']:.2f}",
                number(row["usd_per_million_tokens"]),
                number(row["ttft_s"]),
                number(row["tpot_s"] * 1e3),
                f"{row['share_meeting_targets']:.1%}",
                str(row["steady_state_replicas"]),
            ]
        )
    draw(console, grid(columns, rows))
    console.print()
    line(console, _margin(found))
    for candidate in found.refuted:
        line(console, f"Refuted by simulation: {candidate.replica.machine}, {candidate.label}")


def _margin(found: Sizing) -> str:
    best = found.best
    what = f"{best.replicas} x {best.candidate.replica.machine}"
    if best.margin > 0.0:
        return f"Margin: {what} still meets the targets with {best.margin:.0%} more traffic."
    return f"Margin: {what} misses the targets with 5% more traffic; one replica less does not do."
