"""Published beside computed: errors, choices, trends and limits, for people and for programs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from perfmodel._version import __version__
from perfmodel.cli.tell.tables import Column, draw, heading, left, line, lines, number, section
from perfmodel.evidence.published.comparison import MEASURES, ZERO_SHOT
from perfmodel.evidence.published.trends import CANNOT_TELL, check_trends
from perfmodel.planning.near_tie import NEAR_TIE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console

    from perfmodel.evidence.published.comparison import Compared, ErrorSummary
    from perfmodel.evidence.published.validate import Validation

__all__ = ["draw_figure", "draw_trends", "draw_validation", "to_dict", "to_rows"]

_DRAWN = ("speedup_by_law", "speedup", "target")
"""Measures that a figure is drawn of, best first."""


def _unit(measure: str) -> tuple[float, str]:
    """Return the factor to people's unit of a measure, and that unit."""
    if measure in ("target", "draft", "verify", "tpot", "tpot_by_law"):
        return 1e3, "ms"
    return 1.0, "tokens" if measure == "tokens" else ""


def _share(value: float, *, sign: bool = False) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{100 * value:+.1f} %" if sign else f"{100 * value:.1f} %"


def _scale_number(name: str, row: Compared) -> str:
    return number(getattr(row, name) * _unit(row.measure)[0], 4)


def _show_zero_shot(index: int, row: tuple[str, ErrorSummary]) -> str:
    return _share(row[1].zero_shot[index])


_ERRORS = (
    left("table", lambda row: row[0]),
    left("measure", lambda row: MEASURES[row[1].measure]),
    Column("numbers", lambda row: row[1].count),
    Column("mean error", lambda row: _share(row[1].mean_absolute_error)),
    Column("bias", lambda row: _share(row[1].bias, sign=True)),
    Column("worst", lambda row: _share(row[1].worst, sign=True)),
    *(
        Column(f"zero-shot, {name}", partial(_show_zero_shot, index))
        for index, name in enumerate(ZERO_SHOT)
    ),
    left("worst cell", lambda row: row[1].worst_cell),
)
_GAMMAS = (
    left("table", lambda row: row.scope),
    Column("cells", lambda row: row.count),
    Column("within 1*", lambda row: _share(row.share_within_one)),
    Column("untuned", lambda row: _share(row.untuned_within_one)),
    Column("mean regret*", lambda row: _share(row.mean_regret)),
    Column("untuned", lambda row: _share(row.untuned_regret)),
    Column("worst regret", lambda row: _share(row.worst_regret)),
    left("worst cell", lambda row: row.worst_cell),
)
_TUNED = (
    f"* chosen on these cells: that lengths within {NEAR_TIE:.1%} count as equal, and tile_overhead and "
    "compute_fraction of FlashInfer. Untuned: the least TPOT, both figures as prefill chunks have them.",
)
_CELLS = (
    left("table", lambda row: row.table),
    left("cell", lambda row: row.cell),
    left("measure", lambda row: MEASURES[row.measure]),
    Column("published", partial(_scale_number, "published")),
    Column("computed", partial(_scale_number, "computed")),
    Column("error", lambda row: _share(row.error, sign=True)),
)
_TRENDS = (
    left("series", lambda trend: trend.series),
    left("asked", lambda trend: trend.question),
    left("published", lambda trend: trend.published),
    left("computed (combinations)", lambda trend: trend.computed),
    left("verdict", lambda trend: trend.verdict),
    left("varied", lambda trend: trend.left_out),
)


def draw_validation(console: Console, validation: Validation, cells: bool) -> None:
    """Draw the errors of every table and scope, the speculation lengths, all cells if asked, the limits."""
    heading(console, "Published beside computed; an error is computed over published, less 1")
    console.print()
    _draw_errors(console, validation.tables)
    if len({summary.scope for summary in validation.tables}) != 1:
        for title, summaries in (("Over all tables", validation.scopes), ("In total", validation.total)):
            if summaries:
                section(console, title)
                _draw_errors(console, summaries)
    if validation.gammas:
        section(console, "Speculation length, where the best one is published")
        draw(console, _GAMMAS, validation.gammas)
        lines(console, _TUNED)
    if cells:
        section(console, "Cells (times in ms)")
        draw(console, _CELLS, validation.compared)
    console.print()
    passed = validation.passed_limits
    line(console, f"Limits: {len(validation.limits) - len(passed)} kept, {len(passed)} passed")
    lines(console, map(str, passed))


def _draw_errors(console: Console, summaries: Sequence[ErrorSummary]) -> None:
    """Draw errors, the name of a scope on its first line only."""
    scopes = ["", *(summary.scope for summary in summaries)]
    draw(
        console, _ERRORS,
        [
            (summary.scope if summary.scope != before else "", summary)
            for before, summary in zip(scopes, summaries, strict=False)
        ],
    )  # fmt: skip


def draw_trends(console: Console) -> None:
    """Draw one line a trend that can be told, and one that says what the sources of the others leave out."""
    trends = check_trends()
    left_out = Counter(trend.left_out for trend in trends if trend.verdict == CANNOT_TELL)
    section(console, "Trends that users measured; what a source leaves open is varied, acceptance always")
    draw(console, _TRENDS, [trend for trend in trends if trend.verdict != CANNOT_TELL])
    reasons = "; ".join(f"{words} ({count})" for words, count in left_out.most_common())
    line(console, f"{left_out.total()} more cannot be told, as their sources leave out: {reasons}")


def to_rows(validation: Validation) -> list[dict[str, str]]:
    """Return one published number a row."""
    rows = []
    for row in validation.compared:
        factor, unit = _unit(row.measure)
        zero_shot = {f"zero_shot_{name}": value for name, value in zip(ZERO_SHOT, row.zero_shot, strict=True)}
        numbers = {"published": row.published * factor, "computed": row.computed * factor, "error": row.error}
        numbers |= {name: value * factor for name, value in zero_shot.items()}
        words = {"table": row.table, "cell": row.cell, "accelerators": row.scope, "measure": row.measure}
        rows.append(
            words
            | {"unit": unit}
            | {name: f"{value:.6g}" if math.isfinite(value) else "" for name, value in numbers.items()}
            | {"unknown": row.unknown, "source": row.source}
        )
    return rows


def to_dict(validation: Validation, cells: bool, trends: bool) -> dict[str, Any]:
    """Return what was compared as plain values; every cell and the trends of other people if asked."""
    body: dict[str, Any] = {
        "draftplan": __version__,
        "measures": dict(MEASURES),
        "zero_shot_engines": list(ZERO_SHOT),
        "tables": [asdict(summary) for summary in validation.tables],
        "accelerators": [asdict(summary) for summary in validation.scopes],
        "total": [asdict(summary) for summary in validation.total],
        "speculation_length": [asdict(summary) for summary in validation.gammas],
        "choices": [{**asdict(choice), "within_one": choice.within_one} for choice in validation.choices],
        "limits": [{**asdict(limit), "passed": limit.passed} for limit in validation.limits],
    }
    if cells:
        body["cells"] = [{**asdict(row), "error": row.error} for row in validation.compared]
    if trends:
        body["trends"] = [{**asdict(trend), "verdict": trend.verdict} for trend in check_trends()]
    return body


@dataclass(frozen=True)
class _Point:
    series: str
    published: float
    computed: float


def draw_figure(validation: Validation, measure: str = "", quantity: str = "") -> Axes:
    """Draw computed against published, one point a cell, of a measure, by default the one that says most.

    Parameters
    ----------
    quantity : what the axes are called; the measure's name where empty.
    """
    from perfmodel.plots.published import plot_predicted_against_published

    measures = dict.fromkeys(row.measure for row in validation.compared)
    measure = measure or next(name for name in (*_DRAWN, *measures) if name in measures)
    factor, unit = _unit(measure)
    points = [
        _Point(row.table, row.published * factor, row.computed * factor)
        for row in validation.compared
        if row.measure == measure
    ]
    return plot_predicted_against_published(points, quantity=quantity or f"{MEASURES[measure]} [{unit or 1}]")
