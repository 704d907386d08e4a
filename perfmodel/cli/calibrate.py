"""`draftplan calibrate`: an engine file from measured steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from perfmodel.cli.ask.calibrate_flags import CalibrateFlags
from perfmodel.cli.ask.flag import command, takes
from perfmodel.cli.ask.format import read_format
from perfmodel.cli.calibrate_machine import calibrate_machine, is_of_machine
from perfmodel.cli.tell.output import emit, remark, tell, working

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.engine import EngineOverhead
    from perfmodel.evidence.calibration.calibrate import Calibration
    from perfmodel.evidence.published.measurements import Measurement

__all__ = ["calibrate"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_KERNELS = ("all_reduce", "attention_kernel")


@command("calibrate", 9)
@takes(CalibrateFlags)
def calibrate(ctx: typer.Context, flags: CalibrateFlags) -> None:  # noqa: ARG001
    """Fit an engine's seconds per pass, layer, row and round to measured steps.

    One measured cell a row, in the columns of `price` with any of t_target_ms, t_draft_ms, t_verify_ms and
    round_ms; or an engine's log with step_ms, batch_size, context_len and gamma (0: a plain step, else a
    whole round). Figures that the points cannot determine keep their start, and the cells that would
    determine them are named.

    Points that `draftplan measure` took make a hardware profile of this machine in place of an engine;
    --hardware names a profile whose data-sheet peaks it keeps.

    Example: draftplan calibrate log.csv --hardware h100 --model llama-3.1-8b --tp 8 -o ours.yaml
    """
    from perfmodel.evidence.calibration.calibrate import calibrate
    from perfmodel.evidence.machine.profile_text import profile_text

    if is_of_machine(flags.points):
        calibrate_machine(flags)
        return
    wanted = read_format(flags.format, csv=False)
    name, profile_name = _name(flags.output, flags.engine), _name(flags.profile_output, "")
    rows = _points(flags)
    start = _start(flags)
    achieved = _listed(flags.achieved)
    if flags.profile_output is not None and not achieved:
        achieved = _usual_shares(rows[0], start)
    with working("fitting"):
        found = calibrate(
            rows,
            start=start,
            name=name,
            achieved=achieved,
            keep=_listed(flags.keep),
            calibrated_on=profile_name,
            source="" if rows[0].table else f"own measurements, {Path(flags.points).name}",
        )
    if flags.profile_output is not None:
        origin = flags.hardware or str(rows[0].group.hardware.name)
        emit(profile_text(origin, profile_name, found.achieved, flags.profiles_path), flags.profile_output)
    if flags.output is not None:
        emit(found.text, flags.output)
    tell(
        wanted, lambda: _body(found), table=lambda console: _draw(console, found, flags),
        no_color=flags.no_color,
    )  # fmt: skip
    for one in found.figures:
        if not one.determined:
            remark(f"note: {one.path} keeps its start: the points do not determine it")


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _name(file: str | None, otherwise: str) -> str:
    """Return the name of what a file will hold: its own name, as names and files must agree."""
    from perfmodel.errors import SpecError

    name = Path(file).stem if file not in (None, "-") else otherwise
    if name and not _NAME.fullmatch(name):
        remedy = "Use lower-case letters, digits, '-', '_' and '.'; the file's name is the name"
        raise SpecError.single(file or "", "name", f"found {name!r}", remedy)
    if file not in (None, "-") and not str(file).endswith((".yaml", ".yml")):
        raise SpecError.single(str(file), "", "the ending is not .yaml", "Name a file that ends on .yaml")
    return name


def _points(flags: CalibrateFlags) -> Sequence[Measurement]:
    """Read the points of a file, or of published tables of one accelerator."""
    from perfmodel.evidence.published import measurements

    names = _listed(flags.points)
    if not Path(flags.points).exists() and set(names) & set(measurements.available()):
        return measurements.load(names)
    given = {
        "hardware": flags.hardware,
        "tensor_parallel": flags.tp,
        "target_model": flags.model,
        "strategy": flags.strategy,
        "draft_model": flags.draft_model,
        "kv_budget": flags.draft_budget,
    }
    said = {column: text for column, text in given.items() if text}
    return measurements.read_file(flags.points, given=said, profiles_path=flags.profiles_path)


def _start(flags: CalibrateFlags) -> EngineOverhead:
    """Return the engine that the fit starts from: figures as asked, words and kernels those of --engine."""
    from perfmodel.engine import EngineOverhead

    figures = flags.start or "generic"
    if flags.engine in EngineOverhead.available(flags.profiles_path):
        known = EngineOverhead.load(flags.engine, flags.profiles_path)
        start = known if flags.start is None else EngineOverhead.load(figures, flags.profiles_path)
        words = {name: getattr(known, name) for name in ("description", "aliases", *_KERNELS)}
    else:
        start = EngineOverhead.load(figures, flags.profiles_path)
        words = {"description": "", "aliases": ()}
    words |= {name: asked for name in _KERNELS if (asked := getattr(flags, name)) is not None}
    return replace(start, **words)


def _usual_shares(row: Measurement, engine: EngineOverhead) -> list[str]:
    """Return the dotted paths of the shares that decode steps can tell something about."""
    profile = row.group.hardware
    kernel = (
        engine.attention_kernel
        if engine.attention_kernel in profile.attention
        else next(iter(profile.attention))
    )
    usual = (
        f"attention.{kernel}.memory_fraction", f"attention.{kernel}.compute_fraction", "gemm.memory_fraction",
        "gemm.compute_fraction", f"all_reduce.{engine.all_reduce}.scale",
    )  # fmt: skip
    return [path for path in usual if path in profile.quantities]


def _body(found: Calibration) -> dict[str, Any]:
    return {
        "engine": found.engine.name,
        "hardware": found.hardware,
        "rows": found.rows,
        "figures": [
            {
                "path": one.path,
                "value": float(one.after.value),
                "low": float(one.after.low),
                "high": float(one.after.high),
                "unit": one.after.unit,
                "kind": one.after.kind,
                "determined": one.determined,
                "learned": one.learned,
                "start": float(one.before.value),
            }
            for one in found.figures
        ],
        "correlation": {
            one.path: dict(zip((other.path for other in found.determined), row, strict=True))
            for one, row in zip(found.determined, found.correlation.tolist(), strict=True)
        },
        "errors": [vars(one) for one in found.errors],
        "residuals": [
            {"cell": place, "kind": kind, "measured_s": seconds, "log_error": error}
            for place, kind, seconds, error in found.residuals
        ],
        "next_cells": [vars(one) for one in found.next_cells],
    }


def _draw(console: Console, found: Calibration, flags: CalibrateFlags) -> None:
    from perfmodel.cli.tell.report_calibration import draw_calibration
    from perfmodel.cli.tell.tables import heading, line

    draw_calibration(console, found)
    if flags.output is None:
        console.print()
        heading(console, "Engine file (write it with -o)")
        for text in found.text.splitlines():
            line(console, f"  {text}")
