"""`draftplan validate`: published measurements beside what is computed for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer

from perfmodel.cli.ask.completion import table_names
from perfmodel.cli.ask.flag import NO_COLOR, OUTPUT, command, flag
from perfmodel.cli.ask.format import Format, read_format
from perfmodel.cli.tell.output import emit, remark, rendered, tell, working
from perfmodel.cli.tell.trends import draw_trends, trend_rows

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.evidence.published.comparison import Compared, ErrorSummary
    from perfmodel.evidence.published.validate import Validation

__all__ = ["validate"]

LIMIT_PASSED = 3
_DRAWN = ("speedup_by_law", "speedup", "target")


@dataclass(frozen=True)
class _Point:
    series: str
    published: float
    computed: float


@command("validate", 8)
def validate(
    table: str | None = flag("--table", "NAME,...", complete=table_names,
        help="Published tables to compare; all where absent."),
    cells: bool = flag("--cells", default=False,
        help="Show every cell, published beside computed, not only the errors."),
    plot: str | None = flag("--plot", "FILE",
        help="Draw computed against published speedup: a .svg or .png file."),
    limits: str | None = flag("--limits", "LIMITS.csv",
        help="Limits on the errors, in place of the bundled ones."),
    format: Format | None = flag("--format",
        help="A table, json, yaml, or csv with one published number a row."),
    output: str | None = OUTPUT,
    no_color: bool = NO_COLOR,
) -> None:
    """Compare published measurements with what is computed for them, and say how far to believe the rest.

    Errors are computed over published, less 1: mean absolute, bias and worst cell of every table, of every
    number and kind of accelerators, and in total. The zero-shot columns use engines that nothing of the
    tables was fitted to. Exits with 3 when an error passes its limit.
    """
    from perfmodel.evidence.published.validate import validate

    with working("comparing published tables"):
        found = validate(None if table is None else [name.strip() for name in table.split(",")], limits)
    wanted = read_format(format, output)
    tell(
        wanted,
        lambda: _body(found, cells) | ({"trends": trend_rows()} if table is None else {}),
        table=lambda console: _draw(console, found, cells),
        rows=lambda: _rows(found),
        output=output,
        no_color=no_color,
    )
    if plot is not None:
        _plot(found, plot)
    if table is None and wanted is Format.TABLE and output is None:
        emit(rendered(draw_trends, no_color=no_color, output=None))
    for limit in found.passed_limits:
        remark(f"limit passed: {limit}")
    if found.passed_limits:
        raise typer.Exit(LIMIT_PASSED)


def _plot(found: Validation, path: str) -> None:
    from perfmodel.evidence.published.comparison import MEASURES
    from perfmodel.plots.published import plot_predicted_against_published
    from perfmodel.plots.style import save

    measures = dict.fromkeys(one.measure for one in found.compared)
    measure = next(name for name in (*_DRAWN, *measures) if name in measures)
    factor, unit = _unit(measure)
    points = [
        _Point(one.table, one.published * factor, one.computed * factor)
        for one in found.compared
        if one.measure == measure
    ]
    save(plot_predicted_against_published(points, quantity=f"{MEASURES[measure]} [{unit or 1}]"), path)
    remark(f"wrote {path}")


def _rows(found: Validation) -> list[dict[str, str]]:
    """One published number a row."""
    from perfmodel.evidence.published.comparison import ZERO_SHOT

    rows = []
    for row in found.compared:
        factor, unit = _unit(row.measure)
        numbers = {
            "published": row.published * factor,
            "computed": row.computed * factor,
            "error": row.error,
        }
        for name, value in zip(ZERO_SHOT, row.zero_shot, strict=True):
            numbers[f"zero_shot_{name}"] = value * factor
        words = {"table": row.table, "cell": row.cell, "accelerators": row.scope, "measure": row.measure}
        rows.append(
            words
            | {"unit": unit}
            | {name: f"{value:.6g}" if math.isfinite(value) else "" for name, value in numbers.items()}
            | {"unknown": row.unknown, "source": row.source}
        )
    return rows


def _unit(measure: str) -> tuple[float, str]:
    if measure in ("target", "draft", "verify", "tpot", "tpot_by_law"):
        return 1e3, "ms"
    return 1.0, "tokens" if measure == "tokens" else ""


def _body(found: Validation, cells: bool) -> dict[str, Any]:
    from perfmodel._version import __version__
    from perfmodel.evidence.published.comparison import MEASURES, ZERO_SHOT

    body: dict[str, Any] = {
        "draftplan": __version__,
        "measures": dict(MEASURES),
        "zero_shot_engines": list(ZERO_SHOT),
        "tables": [asdict(one) for one in found.tables],
        "accelerators": [asdict(one) for one in found.scopes],
        "total": [asdict(one) for one in found.total],
        "speculation_length": [asdict(one) for one in found.gammas],
        "choices": [{**asdict(one), "within_one": one.within_one} for one in found.choices],
        "limits": [{**asdict(one), "passed": one.passed} for one in found.limits],
    }
    if cells:
        body["cells"] = [{**asdict(one), "error": one.error} for one in found.compared]
    return body


def _draw(console: Console, found: Validation, cells: bool) -> None:
    from perfmodel.cli.tell.tables import heading, line

    heading(console, "Published beside computed; an error is computed over published, less 1")
    for title, summaries in (
        ("", found.tables),
        ("Over all tables", found.scopes),
        ("In total", found.total),
    ):
        if not summaries or (title and len({one.scope for one in found.tables}) == 1):
            continue
        console.print()
        if title:
            heading(console, title)
        console.print(_errors(summaries))
    if found.gammas:
        console.print()
        heading(console, "Speculation length, where the best one is published")
        console.print(_lengths(found))
    if cells:
        console.print()
        heading(console, "Cells (times in ms)")
        console.print(_cells(found.compared))
    console.print()
    kept = sum(not limit.passed for limit in found.limits)
    line(console, f"Limits: {kept} kept, {len(found.passed_limits)} passed")
    for limit in found.passed_limits:
        line(console, f"  {limit}")


def _errors(summaries: Sequence[ErrorSummary]) -> Any:
    from perfmodel.cli.tell.tables import grid
    from perfmodel.evidence.published.comparison import MEASURES, ZERO_SHOT

    columns = {
        "table": "left", "measure": "left", "numbers": "right", "mean error": "right", "bias": "right",
        "worst": "right",
        **{f"zero-shot, {name}": "right" for name in ZERO_SHOT}, "worst cell": "left",
    }  # fmt: skip

    def rows() -> Iterator[list[str]]:
        before = ""
        for one in summaries:
            name = one.scope if one.scope != before else ""
            before = one.scope
            errors = (
                _share(one.mean_absolute_error),
                _share(one.bias, sign=True),
                _share(one.worst, sign=True),
            )
            others = (_share(value) for value in one.zero_shot)
            yield [name, MEASURES[one.measure], str(one.count), *errors, *others, one.worst_cell]

    return grid(columns, rows())


def _lengths(found: Validation) -> Any:
    from perfmodel.cli.tell.tables import grid

    columns = {
        "table": "left", "cells": "right", "within 1": "right", "mean regret": "right",
        "worst regret": "right", "worst cell": "left",
    }  # fmt: skip
    return grid(
        columns,
        (
            [one.scope, str(one.count), _share(one.share_within_one), _share(one.mean_regret),
             _share(one.worst_regret), one.worst_cell]
            for one in found.gammas
        ),
    )


def _cells(compared: Sequence[Compared]) -> Any:
    from perfmodel.cli.tell.tables import grid, number
    from perfmodel.evidence.published.comparison import MEASURES

    columns = {
        "table": "left", "cell": "left", "measure": "left", "published": "right", "computed": "right",
        "error": "right",
    }  # fmt: skip
    return grid(
        columns,
        (
            [one.table, one.cell, MEASURES[one.measure], number(one.published * _unit(one.measure)[0], 4),
             number(one.computed * _unit(one.measure)[0], 4), _share(one.error, sign=True)]
            for one in compared
        ),
    )


def _share(value: float, *, sign: bool = False) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{100 * value:+.1f} %" if sign else f"{100 * value:.1f} %"
