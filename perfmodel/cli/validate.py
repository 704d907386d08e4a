"""`draftplan validate`: published measurements beside what is computed for them."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from perfmodel.cli.ask.completion import table_names
from perfmodel.cli.ask.flag import NO_COLOR, OUTPUT, command, flag
from perfmodel.cli.ask.format import Format, OutputFlags, read_format
from perfmodel.cli.tell.output import emit, remark, render, tell
from perfmodel.cli.tell.progress import working

__all__ = ["validate"]

LIMIT_PASSED = 3


@command("validate", 8)
def validate(
    table: str | None = flag("--table", "NAME,...", complete=table_names,
        help="Published tables to compare; all where absent."),
    servers: bool = flag("--servers", default=False,
        help="Servers that people measured, by source, in place of the published tables."),
    serving: bool = flag("--serving", default=False,
        help="Benchmarks that people ran against their servers, simulated again."),
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
    tables was fitted to. With --servers or --serving errors are those of engines that were fitted without the
    source. Exits with 3 when an error of a table passes its limit.
    """
    from perfmodel.cli.tell.validate import draw_figure, draw_trends, draw_validation, to_dict, to_rows
    from perfmodel.evidence.published.validate import validate

    flags = OutputFlags(format=format, output=output, no_color=no_color)
    if serving:
        others = {"--table": table, "--plot": plot, "--limits": limits, "--servers": servers or None}
        _validate_serving(flags, others)
        return
    if servers:
        _validate_servers(cells, flags, {"--table": table, "--plot": plot, "--limits": limits})
        return
    with working("comparing published tables"):
        validation = validate(None if table is None else [name.strip() for name in table.split(",")], limits)
    tell(
        lambda: to_dict(validation, cells, trends=table is None),
        flags,
        table=lambda console: draw_validation(console, validation, cells),
        rows=lambda: to_rows(validation),
    )
    if plot is not None:
        from perfmodel.plots.style import save

        save(draw_figure(validation), plot)
        remark(f"wrote {plot}")
    if table is None and output is None and read_format(flags) is Format.TABLE:
        emit(render(draw_trends, flags), coloured=True)
    for limit in validation.passed_limits:
        remark(f"limit passed: {limit}")
    if validation.passed_limits:
        raise typer.Exit(LIMIT_PASSED)


def _validate_serving(flags: OutputFlags, others: Mapping[str, object]) -> None:
    """Tell how far simulated benchmarks are off."""
    from perfmodel.cli.tell.serving import draw_serving, serving_to_dict, serving_to_rows
    from perfmodel.traffic.published_runs import beside, published_runs

    _refuse_beside("--serving", others)
    with working("simulating published benchmarks"):
        runs = [beside(run) for run in published_runs()]
    tell(
        lambda: serving_to_dict(runs),
        flags,
        table=lambda console: draw_serving(console, runs),
        rows=lambda: serving_to_rows(runs),
    )


def _refuse_beside(name: str, others: Mapping[str, object]) -> None:
    """Refuse what has no meaning beside a flag."""
    from perfmodel.errors import SpecError

    if named := [other for other, value in others.items() if value is not None]:
        raise SpecError.single(
            "request", named[0], f"has no meaning beside {name}", "Leave one of the two out"
        )


def _validate_servers(cells: bool, flags: OutputFlags, others: dict[str, str | None]) -> None:
    """Tell how far prices of servers are off."""
    from perfmodel.cli.tell.servers import draw_servers, servers_to_dict, servers_to_rows
    from perfmodel.evidence.servers.summary import compare_servers

    _refuse_beside("--servers", others)
    with working("comparing servers"):
        errors = compare_servers()
    tell(
        lambda: servers_to_dict(errors, cells),
        flags,
        table=lambda console: draw_servers(console, errors, cells),
        rows=lambda: servers_to_rows(errors),
    )
