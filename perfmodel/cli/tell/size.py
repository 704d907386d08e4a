"""What serves some traffic at the least rent, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfmodel.cli.tell.tables import (
    Column,
    draw,
    heading,
    left,
    line,
    milliseconds,
    number,
    tokens,
)  # fmt: skip

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.traffic.sizing import Confirmed, Sizing

__all__ = ["draw_sizing"]


def draw_sizing(console: Console, sizing: Sizing, most: int) -> None:
    """Draw what was asked, the best and so many runners-up, and how much more traffic the best stands."""
    load, targets = sizing.load, sizing.targets
    model = sizing.best.candidate.replica.deployment.model
    heading(
        console,
        f"{model.name}, {load.qps:g} requests/s of {tokens(load.prompt_tokens)} "
        f"prompt and {tokens(load.output_tokens)} output tokens, {targets.share:.1%} of them within "
        f"{targets.ttft:g} s to the first token and {targets.tpot * 1e3:g} ms per token",
    )
    quantile = f"p{targets.share * 100:g}"
    apart = (Column("prefill\nreplicas", lambda row: row["prefill_replicas"]),) if sizing.apart else ()
    columns = (
        left("hardware", lambda row: row["hardware"]),
        Column("tp", lambda row: row["tensor_parallel"]),
        Column("replicas", lambda row: row["replicas"]),
        *apart,
        Column("GPUs", lambda row: row["gpus"]),
        left("strategy", lambda row: row["label"]),
        Column("KV\nbudget", lambda row: row["budget"]),
        Column("gamma", lambda row: row["gamma"]),
        Column("batch", lambda row: row["batch_size"]),
        Column("USD/h", lambda row: f"{row['usd_per_hour']:.2f}"),
        Column("USD/M\ntokens", lambda row: number(row["usd_per_million_tokens"])),
        Column(f"TTFT s\n{quantile}", lambda row: number(row["ttft_s"])),
        Column(f"TPOT ms\n{quantile}", lambda row: milliseconds(row["tpot_s"])),
        Column("within\ntargets", lambda row: f"{row['share_meeting_targets']:.1%}"),
        Column("steady\nreplicas", lambda row: row["steady_state_replicas"]),
    )
    draw(
        console, columns,
        (confirmed.row(load) | _name_drafter(confirmed) for confirmed in sizing.confirmed(most)),
    )  # fmt: skip
    console.print()
    line(console, _margin(sizing.best))
    for candidate in sizing.refuted:
        line(console, f"Refuted by simulation: {candidate.replica.machine}, {candidate.label}")
    shown = {confirmed.hardware for confirmed in sizing.confirmed(most)}
    for confirmed in sizing.runners_up[most:]:
        if (name := confirmed.hardware) not in shown:
            line(console, f"Not shown: {name}, {confirmed.cost:.2f} USD/h; --runners-up shows more")
            shown.add(name)
    for name, why in sizing.without.items():
        line(console, f"Without {name}: {why}")


def _name_drafter(confirmed: Confirmed) -> dict[str, str]:
    replica = confirmed.candidate.replica
    if replica.drafter is None:
        return {"label": "do not speculate", "budget": "-"}
    return {"label": confirmed.candidate.label, "budget": tokens(replica.kv_budget)}


def _margin(best: Confirmed) -> str:
    replicas = f"{best.replicas} x {best.candidate.replica.machine}"
    if best.margin > 0.0:
        return f"Margin: {replicas} still meets the targets with {best.margin:.0%} more traffic."
    return f"Margin: {replicas} misses the targets with 5% more traffic; one replica less does not do."
