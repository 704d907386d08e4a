"""Published benchmarks of servers beside their simulation, for people and programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perfmodel._version import __version__
from perfmodel.cli.tell.tables import Column, draw, heading, left, line, lines, number, section
from perfmodel.traffic.published_runs import ASKED, LIMITS, Beside
from perfmodel.traffic.reproduction import Figure

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["draw_serving", "serving_to_dict", "serving_to_rows"]

_NOTES = (
    "Engines are those that were fitted without the publisher's numbers, of the release that was served,",
    "schedulers have their own limits, and the front end is that of other servers. None was tuned on these.",
)


def _figure(run: Beside, name: str) -> Figure | None:
    return next((figure for figure in run.figures if figure.name == name), None)


def _error(name: str) -> Column:
    """Return the column of a figure: how far off, ! where that is too much, ~ where it is not judged."""

    def show(run: Beside) -> str:
        figure = _figure(run, name)
        if figure is None:
            return "-"
        judged = "" if name in run.run.limits else " ~"
        missed = " !" if figure in run.missed() else judged
        return f"{100 * figure.error:+.1f} %{missed}"

    return Column(name.replace(" ", "\n"), show)


def _pair(name: str) -> Column:
    """Return the column of one figure, measured and simulated."""

    def show(run: Beside) -> str:
        figure = _figure(run, name)
        if figure is None:
            return "-"
        return " / ".join(number(value * figure.scale) for value in (figure.measured, figure.simulated))

    return Column(f"{name} ms\nmeasured / simulated", show)


_COLUMNS = (
    left("run", lambda run: run.run.benchmark.source),
    left("sent", lambda run: run.run.load),
    *(_error(name) for name in ASKED),
    _pair("TTFT p99"),
    _pair("TPOT p99"),
)


def draw_serving(console: Console, runs: Sequence[Beside]) -> None:
    """Draw how far every run is off, how many figures keep their limits, and what is not concluded from."""
    heading(console, "Published benchmarks, simulated again; an error is simulated over measured, less 1")
    draw(console, _COLUMNS, [run for run in runs if not run.run.doubt])
    section(console, "Within their limits")
    for load, limits in LIMITS.items():
        some = [run for run in runs if run.run.load == load and not run.run.doubt]
        judged = {name: [run for run in some if name in run.run.limits] for name in limits}
        kept = {
            name: sum(name not in {figure.name for figure in run.missed()} for run in of)
            for name, of in judged.items()
        }
        counts = ", ".join(
            f"{name} {kept[name]} of {len(of)} ({limits[name]:.0%})" for name, of in judged.items() if of
        )
        line(console, f"{load}: {counts}")
    certain = [run for run in runs if not run.run.doubt]
    _reasons(console, "TTFT is not judged (~)", [(run, run.run.front_end) for run in certain])
    _reasons(console, "Nothing is concluded from", [(run, run.run.doubt) for run in runs])
    lines(console, _NOTES)


def _reasons(console: Console, title: str, reasons: Sequence[tuple[Beside, str]]) -> None:
    """Draw the runs that have a reason, by reason."""
    by_reason: dict[str, list[str]] = {}
    for run, reason in reasons:
        if reason:
            by_reason.setdefault(reason, []).append(run.run.benchmark.source)
    if by_reason:
        section(console, title)
        for reason, names in by_reason.items():
            line(console, f"{', '.join(names)}: {reason}")


def serving_to_rows(runs: Sequence[Beside]) -> list[dict[str, Any]]:
    """Return one row a figure of every run."""
    return [
        {
            "run": run.run.benchmark.source, "source": run.run.publisher, "url": run.run.url,
            "load": run.run.load, **figure.row(), "limit": run.run.limits.get(figure.name),
            "within_limit": figure not in run.missed(), "front_end": run.run.front_end,
            "doubt": run.run.doubt, "unknown": run.run.unknown,
        }
        for run in runs
        for figure in run.figures
    ]  # fmt: skip


def serving_to_dict(runs: Sequence[Beside]) -> dict[str, Any]:
    """Return the limits and every figure as plain values."""
    return {
        "draftplan": __version__,
        "limits": {load: dict(limits) for load, limits in LIMITS.items()},
        "figures": serving_to_rows(runs),
    }
