"""What the demo measured beside what was predicted, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfmodel.cli.tell.calibration import draw_errors
from perfmodel.cli.tell.tables import Column, draw, heading, left, line, section
from perfmodel.evidence.calibration.response import NAMES

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.reference.demo.comparison import Comparison
    from perfmodel.reference.demo.demo import Demo

__all__ = ["draw_demo", "to_dict"]


def to_dict(demo: Demo) -> dict[str, Any]:
    """Return what was measured and predicted as plain values."""
    return {
        "device": demo.machine.profile.description,
        "kernel_errors": dict(demo.machine.errors),
        "held_out_errors": {error.kind: error.held_out for error in demo.engine.errors},
        "comparisons": [_comparison_to_dict(comparison) for comparison in demo.comparisons],
        "seconds": dict(demo.seconds),
    }


def _comparison_to_dict(comparison: Comparison) -> dict[str, Any]:
    return {
        "title": comparison.title,
        "batch_size": comparison.batch,
        "context_len": comparison.context_len,
        "acceptance_rate": comparison.alpha,
        "plain_step_s": comparison.step_s,
        "predicted_plain_step_s": comparison.predicted_step_s,
        "chosen": comparison.chosen.label,
        "mean_error": comparison.mean_error,
        "regret": comparison.regret,
        "tokens_differing": comparison.differing,
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
            for trial in comparison.trials
        ],
    }


_TRIALS = (
    left("configuration", lambda trial: trial.config.label),
    Column("round ms", lambda trial: f"{trial.round_s * 1e3:.1f}"),
    Column("predicted", lambda trial: f"{trial.predicted_round_s * 1e3:.1f}"),
    Column("tokens a round", lambda trial: f"{trial.tokens:.2f}"),
    Column("expected", lambda trial: f"{trial.expected_tokens:.2f}"),
    Column("speedup", lambda trial: f"{trial.speedup:.2f}"),
    Column("predicted ", lambda trial: f"{trial.predicted_speedup:.2f}"),
)


def draw_demo(console: Console, demo: Demo) -> None:
    """Draw how well the machine is told, then every comparison and its verdict."""
    heading(console, demo.machine.profile.description)
    draw_errors(console, demo.machine, demo.engine, NAMES | {"round": "round"})
    for comparison in demo.comparisons:
        section(
            console,
            f"{comparison.title}: batch {comparison.batch}, context {comparison.context_len}, acceptance "
            f"{comparison.alpha:.2f}; plain step {comparison.step_s * 1e3:.1f} ms, predicted "
            f"{comparison.predicted_step_s * 1e3:.1f}",
        )
        chosen = comparison.chosen
        mark = left("", lambda trial, chosen=chosen: "the plan's" if trial.config == chosen else "")  # type: ignore[misc]
        draw(console, (*_TRIALS, mark), comparison.trials)
        line(console, _verdict(comparison))


def _verdict(comparison: Comparison) -> str:
    chosen = comparison.chosen.label if comparison.chosen.gamma else "plain decoding"
    outputs = (
        f"{comparison.differing} tokens differ"
        if comparison.differing
        else "all outputs are those of plain decoding"
    )
    return (
        f"The plan says {chosen}; regret {comparison.regret:.1%} (at the expected tokens), "
        f"mean error of the speedup {comparison.mean_error:.1%}; {outputs}."
    )
