"""Simulated policies side by side: for people, and as JSON, YAML or CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich.text import Text

from perfmodel.cli.tell.tables import draw, grid, heading, line, number, tokens
from perfmodel.traffic.runs import ahead_of_fixed
from perfmodel.traffic.step_times import CAUSES

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.traffic.metrics import Metrics
    from perfmodel.traffic.workload import PlannedTraffic

__all__ = ["Comparison"]

SCHEMA = "draftplan/simulation/1"
_COMPARED = {"throughput_tokens_per_s": "throughput", "goodput_tokens_per_s": "goodput"}


@dataclass(frozen=True)
class Comparison:
    """The outcomes of several policies, each at a speed of arrivals, under the same targets. [s]"""

    outcomes: Sequence[Metrics]
    speeds: Sequence[float]
    ttft: float | None
    tpot: float | None
    deployed: PlannedTraffic | None

    @property
    def names(self) -> list[str]:
        """The policies, with the speed where there are several."""
        several = len(set(self.speeds)) > 1
        pairs = zip(self.outcomes, self.speeds, strict=True)
        return [f"{outcome.name} x{speed:g}" if several else outcome.name for outcome, speed in pairs]

    @cached_property
    def summaries(self) -> list[dict[str, float]]:
        """Every figure of every outcome."""
        return [outcome.summary(ttft=self.ttft, tpot=self.tpot) for outcome in self.outcomes]

    def ahead(self) -> list[dict[str, Any]]:
        """How far every schedule is ahead of the best single length at the same speed."""
        found = []
        for speed in dict.fromkeys(self.speeds):
            here = {
                outcome.name: summary
                for outcome, summary, at in zip(self.outcomes, self.summaries, self.speeds, strict=True)
                if at == speed
            }
            for name in here:
                for figure, called in _COMPARED.items():
                    against = ahead_of_fixed(here, name, figure)
                    if against is not None:
                        place = {"policy": name, "speed": speed, "figure": called}
                        found.append(place | {"best_single_length": against[0], "ahead": against[1]})
        return found

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row a policy and speed."""
        return [
            {"policy": outcome.name, "speed": speed, **summary}
            for outcome, speed, summary in zip(self.outcomes, self.speeds, self.summaries, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain numbers, strings, lists and dicts."""
        trace, replica = self.outcomes[0].trace, self.outcomes[0].replica
        return {
            "schema": SCHEMA,
            "model": replica.deployment.model.name,
            "hardware": str(replica.deployment.hardware.name),
            "tensor_parallel": replica.gpus,
            "engine": replica.deployment.engine.name,
            "max_batch": replica.max_batch,
            "max_step_tokens": replica.max_step_tokens,
            "drafter": self.deployed.drafter.label if self.deployed else None,
            "kv_budget": self._budget(),
            "trace": {
                "name": trace.name, "requests": len(trace), "prompt_tokens": int(trace.prompt_tokens.sum()),
                "output_tokens": int(trace.output_tokens.sum()), "requests_per_s": self.outcomes[0].trace.qps,
            },
            "ttft_target_s": self.ttft,
            "tpot_target_s": self.tpot,
            "policies": self.rows,
            "ahead_of_best_single_length": self.ahead(),
        }  # fmt: skip

    def _budget(self) -> float | None:
        budget = self.deployed.kv_budget if self.deployed else math.inf
        return budget if math.isfinite(budget) else None

    def draw(self, console: Console) -> None:
        first = self.outcomes[0]
        replica, trace = first.replica, first.trace
        heading(
            console,
            f"{replica.deployment.label}: {trace.name}, {len(trace)} requests, on average "
            f"{tokens(float(trace.prompt_tokens.mean()))} prompt and "
            f"{tokens(float(trace.output_tokens.mean()))} output tokens",
        )
        if self.deployed is not None:
            budget = self._budget()
            said = f", draft KV budget {tokens(budget)}" if budget is not None else ""
            line(console, f"Drafts: {self.deployed.drafter.label}{said}")
        draw(console, grid(*self._figures()))
        console.print()
        heading(console, "Time by cause, % of the time to the last token")
        draw(console, grid(*self._causes()))
        ahead = self.ahead()
        if ahead:
            console.print()
            for one in ahead:
                at = f" at speed {one['speed']:g}" if len(set(self.speeds)) > 1 else ""
                line(
                    console,
                    f"{one['policy']}{at}: {one['figure']} {one['ahead']:+.1%} against the best single "
                    f"length ({one['best_single_length']})",
                )

    def _figures(self) -> tuple[dict[str, str], list[list[str | Text]]]:
        titles = (
            "throughput\ntokens/s", "goodput\ntokens/s", "TTFT s\np50 / p99", "TPOT ms\np50 / p99",
            "ITL ms\np50 / p99", "USD/M\ntokens", "kWh/M\ntokens", "KV full %\nmean / peak", "batch\nmean",
            "tokens/\nround", "preempted",
        )  # fmt: skip
        columns = {"policy": "left"} | dict.fromkeys(titles, "right")
        best = max(summary["goodput_tokens_per_s"] for summary in self.summaries)
        rows: list[list[str | Text]] = []
        for name, one in zip(self.names, self.summaries, strict=True):
            good = one["goodput_tokens_per_s"]
            rows.append(
                [
                    name,
                    number(one["throughput_tokens_per_s"], 4),
                    Text(number(good, 4), style="green" if good == best > 0 else ""),
                    _pair(one["ttft_p50_s"], one["ttft_p99_s"]),
                    _pair(one["tpot_p50_s"] * 1e3, one["tpot_p99_s"] * 1e3),
                    _pair(one["itl_p50_s"] * 1e3, one["itl_p99_s"] * 1e3),
                    number(one["cost_per_million_tokens_usd"]),
                    number(one["energy_per_million_tokens_kwh"]),
                    _pair(one["kv_occupancy_mean"] * 1e2, one["kv_occupancy_peak"] * 1e2),
                    number(one["mean_batch"]),
                    f"{one['tokens_per_round']:.2f}",
                    f"{one['preemptions']:.0f}",
                ]
            )
        return columns, rows

    def _causes(self) -> tuple[dict[str, str], list[list[str | Text]]]:
        columns = {"policy": "left"} | dict.fromkeys((*CAUSES, "idle"), "right")
        rows: list[list[str | Text]] = [
            [name, *(f"{100.0 * one[f'{cause}_s'] / one['makespan_s']:.1f}" for cause in (*CAUSES, "idle"))]
            for name, one in zip(self.names, self.summaries, strict=True)
        ]
        return columns, rows


def _pair(low: float, high: float) -> str:
    return f"{number(low)} / {number(high)}"
