"""What a log says about acceptance, and what an acceptance file holds, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perfmodel.acceptance.estimate import NOTABLE
from perfmodel.cli.tell.tables import Column, draw, heading, left, line, lines, section, tokens
from perfmodel.files.quoting import shell, shell_path

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.acceptance.estimate import AcceptanceFit
    from perfmodel.acceptance.intervals import Rate

__all__ = ["draw_entries", "draw_fit"]

_RATES = (
    left("", lambda row: row[0]),
    Column("value", lambda row: row[1]),
    left("interval", lambda row: row[2]),
    left("meaning", lambda row: row[3]),
)
_POSITIONS = (
    Column("position", lambda row: row[0]),
    Column("accepted after all before", lambda row: f"{row[1] / row[2]:.3f}" if row[2] > 0.0 else "-"),
    Column("reached", lambda row: f"{row[1]:.3f}"),
)


def _spread(belief: Mapping[str, float] | None) -> str:
    """Mean and standard deviation of a rate; that of later drafts beside it where they differ."""
    if belief is None:
        return "-"
    later = f", {belief['alpha2']:.2f}" if abs(belief["alpha2"] - belief["alpha1"]) > 0.005 else ""
    return f"{belief['alpha1']:.2f}{later} +-{belief['sd']:.2f}"


_ENTRIES = (
    left("strategy", lambda row: row["strategy"] or "any"),
    left("target", lambda row: row["target_model"] or "any"),
    left("draft", lambda row: row["draft_model"] or row["drafter"] or "any"),
    Column("budget", lambda row: tokens(row["kv_budget"])),
    Column("context", lambda row: tokens(row["context_len"])),
    Column("alpha", lambda row: f"{row['alpha']:.3f}"),
    left("95 %\ninterval", lambda row: f"{row['alpha_low']:.2f}-{row['alpha_high']:.2f}"),
    left("first,\nlater", lambda row: f"{row['alpha1']:.2f}, {row['alpha2']:.2f}"),
    Column("requests", lambda row: tokens(row["requests"])),
    Column("rounds", lambda row: tokens(row["rounds"])),
    left("law", lambda row: _spread(row["law"])),
    left("believed", lambda row: _spread(row["believed"])),
    left("from", lambda row: row["source"]),
)


def draw_entries(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw what an acceptance file holds, one line an entry."""
    draw(console, _ENTRIES, rows)


def draw_fit(
    console: Console, log: str, fit: AcceptanceFit, output: str | None, place: Mapping[str, Any]
) -> None:
    """Draw the rates with their intervals, every position, findings, and what to do next."""
    behind = f" of {fit.requests:,.0f} requests" if fit.requests is not None else ""
    heading(
        console,
        f"Acceptance in {'stdin' if log == '-' else log}: {fit.rounds:,.0f} rounds{behind}, "
        f"up to {fit.gamma} drafted",
    )
    draw(console, _RATES, _rates(fit))
    if fit.lengths:
        shares = ", ".join(f"{length} in {share:.0%}" for length, share in fit.lengths.items())
        line(console, f"Lengths drafted, fitted with the rates: {shares} of rounds.")
    line(console, f"Method: {fit.method}. Intervals hold 95 %.")
    section(console, "Every position")
    draw(
        console, _POSITIONS,
        zip(range(1, len(fit.survival) + 1), fit.survival, (1.0, *fit.survival), strict=False),
    )  # fmt: skip
    section(console, "Findings")
    lines(console, _findings(fit))
    section(console, "Next")
    lines(console, _next(log, output, place))


def _rates(fit: AcceptanceFit) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, value, interval and meaning of every rate that a log tells."""

    def row(name: str, rate: Rate | None, meaning: str) -> tuple[str, str, str, str]:
        if rate is None:
            return name, "-", "-", f"{meaning}: the log has no positions"
        return name, f"{rate.value:.3f}", f"{rate.low:.3f}-{rate.high:.3f}", meaning

    yield row("alpha", fit.alpha, "a drafted token is accepted, given all before it were")
    yield row("alpha1", fit.first, "the first one")
    if fit.gamma > 1:
        yield row("alpha2", fit.rest, "each later one")
    yield "tokens per round", f"{fit.tokens:.2f}", "", "accepted and the bonus token"
    yield "kept of drafted", f"{fit.engine_rate:.2f}", "", "accepted over drafted; not alpha"
    if fit.draft_share is not None:
        yield row("draft share", fit.draft_share, "rounds that drafted at all; the others yield one token")


def _findings(fit: AcceptanceFit) -> list[str]:
    """The warnings of the fit, and what was looked for and not fit."""
    findings = list(fit.warnings)
    if fit.further_requests == 0:
        reach = (fit.alpha.high - fit.alpha.low) / 2.0
        findings.append(f"the interval is +-{reach:.3f}: narrow enough to plan with")
    if fit.decay_p is not None and fit.decay_p >= NOTABLE:
        findings.append(f"all positions are accepted alike, as far as one can tell ({_chance(fit.decay_p)})")
    if fit.drift_p is not None and fit.drift_p >= NOTABLE:
        findings.append(f"no drift along the log ({_chance(fit.drift_p)})")
    if fit.between_sd is not None:
        unit = "windows" if fit.method.endswith("windows") else "requests"
        findings.append(f"{unit} differ by {fit.between_sd:.2f} (standard deviation beyond chance)")
    return findings


def _chance(p: float) -> str:
    return f"p {p:.2f}"


def _next(log: str, output: str | None, place: Mapping[str, Any]) -> list[str]:
    if output is None:
        named = "" if place.get("strategy") else " --strategy NAME --model NAME --draft-budget N --context N"
        fit = f"draftplan acceptance fit {shell_path(log)}"
        return [f"keep it for the planner: {fit}{named} -o acceptance.json"]
    asked = [
        (flag, place.get(field))
        for flag, field in (("--model", "target_model"), ("--draft-model", "draft_model"))
    ]
    flags = "".join(f" {flag} {shell(value)}" for flag, value in asked if value)
    return [
        f"plan with it: draftplan plan{flags} ... --acceptance {shell_path(output)}",
        "measure again for other tasks, and for every doubling of the context (--add keeps what is there)",
    ]
