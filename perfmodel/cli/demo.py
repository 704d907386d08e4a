"""`draftplan demo`: measure, calibrate, predict, plan, run and compare, on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfmodel.cli.ask.flag import NO_COLOR, OUTPUT, command, flag
from perfmodel.cli.ask.format import Format, read_format
from perfmodel.cli.ask.torch_door import device_asked, need_torch
from perfmodel.cli.tell.output import remark, tell

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.reference.demo.comparison import Comparison
    from perfmodel.reference.demo.demo import Demo

__all__ = ["demo"]


@command("demo", 11)
def demo(
    device: str = flag("--device", "cpu|cuda[:N]", default="cpu",
        help="Where to run: one CPU thread, or a GPU."),
    acceptance_rate: float = flag("--acceptance-rate", "ALPHA", default=0.88, min=0.0, max=0.95,
        help="Acceptance to dial, and to plant: chance that a drafted token is accepted."),
    seconds: float = flag("--seconds", "S", default=75.0, min=20.0, max=3600.0,
        help="Seconds that it may take, about."),
    format: Format | None = flag("--format", help="A table, json or yaml."),
    output: str | None = OUTPUT,
    no_color: bool = NO_COLOR,
) -> None:  # fmt: skip
    """Show on this machine that what is planned is what happens: predicted beside measured.

    A small decoder is timed, and a hardware profile and an engine are fitted to the times. For a shape whose
    steps are nearly all reading of the cache a plan is made, and it and its neighbours are run against plain
    decoding: first with random weights and an acceptance that is dialled, then with weights and texts whose
    acceptance is planted. The outputs are compared token for token.
    """
    need_torch("demo")
    from perfmodel.reference.demo.demo import run_demo

    wanted = read_format(format, output, csv=False)
    found = run_demo(device_asked(device), alpha=acceptance_rate, seconds=seconds, say=remark)
    tell(
        wanted, lambda: _body(found), table=lambda console: _draw(console, found), output=output,
        no_color=no_color,
    )  # fmt: skip


def _body(found: Demo) -> dict[str, Any]:
    return {
        "device": found.machine.profile.description,
        "kernel_errors": dict(found.machine.errors),
        "held_out_errors": {one.kind: one.held_out for one in found.engine.errors},
        "comparisons": [_compared(one) for one in found.comparisons],
        "seconds": dict(found.seconds),
    }


def _compared(one: Comparison) -> dict[str, Any]:
    return {
        "title": one.title,
        "batch_size": one.batch,
        "context_len": one.context_len,
        "acceptance_rate": one.alpha,
        "plain_step_s": one.step_s,
        "predicted_plain_step_s": one.predicted_step_s,
        "chosen": one.chosen.label,
        "mean_error": one.mean_error,
        "regret": one.regret,
        "tokens_differing": one.differing,
        "trials": [
            {
                "strategy": trial.config.strategy,
                "kv_budget": trial.config.kv_budget,
                "gamma": trial.config.gamma,
                "round_s": trial.round_s,
                "predicted_round_s": trial.predicted_round_s,
                "tokens_per_round": trial.tokens,
                "expected_tokens_per_round": trial.expected_tokens,
                "speedup": trial.speedup,
                "predicted_speedup": trial.predicted_speedup,
            }
            for trial in one.trials
        ],
    }


def _draw(console: Console, found: Demo) -> None:
    from perfmodel.cli.tell.tables import draw, grid, heading, line

    heading(console, f"{found.machine.profile.description}")
    kernels = ", ".join(f"{kind} {error:.1%}" for kind, error in found.machine.errors.items())
    passes = ", ".join(f"{_NAMES[one.kind]} {one.held_out:.1%}" for one in found.engine.errors)
    line(console, f"Mean error of the fitted kernels: {kernels}")
    line(console, f"Mean error on passes and rounds that the fit did not see: {passes}")
    for one in found.comparisons:
        console.print()
        heading(console, _title(one))
        columns = {
            "configuration": "left", "round ms": "right", "predicted": "right", "tokens a round": "right",
            "expected": "right", "speedup": "right", "predicted ": "right", "": "left",
        }  # fmt: skip
        draw(console, grid(columns, (_row(one, index) for index in range(len(one.trials)))))
        line(console, _verdict(one))


_NAMES = {
    "target": "plain step",
    "draft": "draft pass",
    "verify": "verification",
    "overhead": "rest of a round",
    "round": "round",
}


def _title(one: Comparison) -> str:
    return (
        f"{one.title}: batch {one.batch}, context {one.context_len}, acceptance {one.alpha:.2f}; "
        f"plain step {one.step_s * 1e3:.1f} ms, predicted {one.predicted_step_s * 1e3:.1f}"
    )


def _row(one: Comparison, index: int) -> list[str]:
    trial = one.trials[index]
    return [
        trial.config.label,
        f"{trial.round_s * 1e3:.1f}",
        f"{trial.predicted_round_s * 1e3:.1f}",
        f"{trial.tokens:.2f}",
        f"{trial.expected_tokens:.2f}",
        f"{trial.speedup:.2f}",
        f"{trial.predicted_speedup:.2f}",
        "the plan's" if trial.config == one.chosen else "",
    ]


def _verdict(one: Comparison) -> str:
    chosen = "plain decoding" if not one.chosen.gamma else one.chosen.label
    same = (
        "all outputs are those of plain decoding" if not one.differing else f"{one.differing} tokens differ"
    )
    return (
        f"The plan says {chosen}; regret {one.regret:.1%} (at the expected tokens), "
        f"mean error of the speedup {one.mean_error:.1%}; {same}."
    )
