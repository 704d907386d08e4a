"""What a log says about acceptance, and what an acceptance file holds, drawn for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from perfmodel.cli.tell.tables import draw, grid, heading, line, tokens

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from perfmodel.acceptance.estimate import AcceptanceFit
    from perfmodel.acceptance.file import MeasuredAcceptance
    from perfmodel.acceptance.intervals import Rate

__all__ = ["described", "draw_entries", "draw_fit"]

SURE = 1.96
"""Standard deviations on either side that hold 95 %."""


def draw_fit(
    console: Console, log: str, found: AcceptanceFit, output: str | None, place: Mapping[str, Any]
) -> None:
    """Draw the rates with their intervals, every position, findings, and what to do next."""
    behind = f" of {found.requests:,.0f} requests" if found.requests is not None else ""
    heading(
        console,
        f"Acceptance in {'stdin' if log == '-' else log}: {found.rounds:,.0f} rounds{behind}, "
        f"up to {found.gamma} drafted",
    )
    draw(console, _rates(found))
    line(console, f"Method: {found.method}. Intervals hold 95 %.")
    console.print()
    heading(console, "Every position")
    draw(console, _positions(found))
    console.print()
    heading(console, "Findings")
    for sentence in _findings(found):
        line(console, f"  {sentence}")
    console.print()
    heading(console, "Next")
    for sentence in _next(log, output, place):
        line(console, f"  {sentence}")


def _rates(found: AcceptanceFit) -> Table:
    def row(name: str, rate: Rate | None, meaning: str) -> list[str]:
        if rate is None:
            return [name, "-", "-", f"{meaning}: the log has no positions"]
        return [name, f"{rate.value:.3f}", f"{rate.low:.3f}-{rate.high:.3f}", meaning]

    engine = (found.tokens - 1.0) / found.gamma
    return grid(
        {"": "left", "value": "right", "interval": "left", "meaning": "left"},
        [
            row("alpha", found.alpha, "a drafted token is accepted, given all before it were"),
            row("alpha1", found.first, "the first one"),
            *([row("alpha2", found.rest, "each later one")] if found.gamma > 1 else []),
            ["tokens per round", f"{found.tokens:.2f}", "", "accepted and the bonus token"],
            ["engine's rate", f"{engine:.2f}", "", f"accepted over {found.gamma} drafted; not alpha"],
        ],
    )


def _positions(found: AcceptanceFit) -> Table:
    before = (1.0, *found.survival)
    return grid(
        {"position": "right", "accepted after all before": "right", "reached": "right"},
        (
            [str(place), f"{reached / earlier:.3f}" if earlier > 0.0 else "-", f"{reached:.3f}"]
            for place, (reached, earlier) in enumerate(zip(found.survival, before, strict=False), start=1)
        ),
    )


def _findings(found: AcceptanceFit) -> list[str]:
    """The warnings of the fit, and what was looked for and not found."""
    from perfmodel.acceptance.estimate import NOTABLE

    said = list(found.warnings)
    if found.further_requests == 0:
        reach = (found.alpha.high - found.alpha.low) / 2.0
        said.append(f"the interval is +-{reach:.3f}: narrow enough to plan with")
    if found.decay_p is not None and found.decay_p >= NOTABLE:
        said.append(f"all positions are accepted alike, as far as one can tell ({_chance(found.decay_p)})")
    if found.drift_p is not None and found.drift_p >= NOTABLE:
        said.append(f"no drift along the log ({_chance(found.drift_p)})")
    if found.between_sd is not None:
        unit = "windows" if found.method.endswith("windows") else "requests"
        said.append(f"{unit} differ by {found.between_sd:.2f} (standard deviation beyond chance)")
    return said


def _chance(p: float) -> str:
    return f"p {p:.2f}"


def _next(log: str, output: str | None, place: Mapping[str, Any]) -> list[str]:
    if output is None:
        named = "" if place.get("strategy") else " --strategy NAME --model NAME --draft-budget N --context N"
        return [f"keep it for the planner: draftplan acceptance fit {log}{named} -o acceptance.json"]
    asked = [
        (flag, place.get(field))
        for flag, field in (("--model", "target_model"), ("--draft-model", "draft_model"))
    ]
    flags = "".join(f" {flag} {value}" for flag, value in asked if value)
    return [
        f"plan with it: draftplan plan{flags} ... --acceptance {output}",
        "measure again for other tasks, and for every doubling of the context (--add keeps what is there)",
    ]


def described(entry: MeasuredAcceptance, entries: Sequence[MeasuredAcceptance]) -> dict[str, Any]:
    """Return an entry with its 95 % interval, and law and belief (mean, standard deviation) at its place."""
    low, high = (min(max(entry.alpha + side * SURE * entry.alpha_se, 0.0), 1.0) for side in (-1.0, 1.0))
    return {
        **{key: value for key, value in asdict(entry).items() if key != "survival"},
        "alpha_low": low,
        "alpha_high": high,
        "survival": list(entry.survival),
        "law": _belief(entry, ()),
        "believed": _belief(entry, entries),
    }


def _belief(entry: MeasuredAcceptance, entries: Sequence[MeasuredAcceptance]) -> dict[str, float] | None:
    """Return what is believed where an entry was measured, or None where it does not say where that was."""
    from perfmodel.acceptance.file import posterior_acceptance
    from perfmodel.errors import SpecError
    from perfmodel.planning.drafters import read_spelling

    if not entry.strategy or entry.context_len is None:
        return None
    try:
        strategy = read_spelling(entry.strategy).strategy
    except SpecError:
        return None
    if strategy is None or (strategy.default_budgets and entry.kv_budget is None):
        return None
    found = posterior_acceptance(
        entries,
        strategy,
        drafter=entry.drafter or strategy.drafters[0],
        context_len=entry.context_len,
        kv_budget=float("inf") if entry.kv_budget is None else entry.kv_budget,
        target_name=entry.target_model,
        draft_name=entry.draft_model,
        size_ratio=_size_ratio(entry),
    )
    return {"alpha1": float(found.first), "alpha2": float(found.rest), "sd": float(found.sd)}


def _size_ratio(entry: MeasuredAcceptance) -> float | None:
    """Return parameters of the draft model over those of the target, or None where they are not known."""
    from perfmodel.errors import SpecError
    from perfmodel.model import ModelSpec

    if not (entry.draft_model and entry.target_model):
        return None
    try:
        draft, target = ModelSpec.load(entry.draft_model), ModelSpec.load(entry.target_model)
    except SpecError:
        return None
    return draft.parameters / target.parameters


def draw_entries(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw what an acceptance file holds, one line an entry."""
    columns = {
        "strategy": "left", "target": "left", "draft": "left", "budget": "right", "context": "right",
        "alpha": "right", "95 %\ninterval": "left", "first,\nlater": "left", "requests": "right",
        "rounds": "right", "law": "left", "believed": "left", "from": "left",
    }  # fmt: skip
    table = grid(
        columns,
        (
            [
                row["strategy"] or "any",
                row["target_model"] or "any",
                row["draft_model"] or row["drafter"] or "any",
                tokens(row["kv_budget"]),
                tokens(row["context_len"]),
                f"{row['alpha']:.3f}",
                f"{row['alpha_low']:.2f}-{row['alpha_high']:.2f}",
                f"{row['alpha1']:.2f}, {row['alpha2']:.2f}",
                tokens(row["requests"]),
                tokens(row["rounds"]),
                _spread(row["law"]),
                _spread(row["believed"]),
                row["source"],
            ]
            for row in rows
        ),
    )
    draw(console, table)


def _spread(found: Mapping[str, float] | None) -> str:
    """Mean and standard deviation of a rate; that of later drafts beside it where they differ."""
    if found is None:
        return "-"
    later = f", {found['alpha2']:.2f}" if abs(found["alpha2"] - found["alpha1"]) > 0.005 else ""
    return f"{found['alpha1']:.2f}{later} +-{found['sd']:.2f}"
