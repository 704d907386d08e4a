"""`draftplan calibrate` on the points of `draftplan measure`: a hardware profile of this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfmodel.cli.ask.calibrate_flags import CalibrateFlags
from perfmodel.cli.ask.format import read_format
from perfmodel.cli.tell.output import emit, remark, tell, working

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.evidence.calibration.calibrate import Calibration
    from perfmodel.evidence.machine.fit import FittedMachine

__all__ = ["calibrate_machine", "is_of_machine"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def is_of_machine(points: str) -> bool:
    """Whether a file holds what `draftplan measure` writes."""
    from perfmodel.evidence.machine.points import is_machine_file

    try:
        with open(points, "rb") as stream:
            return is_machine_file(stream.read(4096))
    except OSError:
        return False


def calibrate_machine(flags: CalibrateFlags) -> None:
    """Fit a hardware profile, and the engine that ran, to the points; write the profile."""
    from perfmodel.evidence.machine.points import read_points
    from perfmodel.evidence.machine.steps import fit_machine_and_engine
    from perfmodel.hardware import HardwareProfile

    wanted = read_format(flags.format, csv=False)
    file = flags.output or flags.profile_output
    name, engine_name = _name(file, "my-machine"), _name(flags.engine_output, "reference-decoder")
    like = None if flags.hardware is None else HardwareProfile.load(flags.hardware, flags.profiles_path)
    points = read_points(flags.points)
    with working("fitting"):
        machine, engine = fit_machine_and_engine(points, name, engine_name, like)
    if file is not None:
        emit(machine.text, file)
    if flags.engine_output is not None:
        emit(engine.text, flags.engine_output)
    tell(
        wanted, lambda: _body(machine, engine), table=lambda console: _draw(console, machine, engine, file),
        no_color=flags.no_color,
    )  # fmt: skip
    for path in machine.kept:
        remark(f"note: {path} stays at its generic default: the points do not determine it")


def _name(file: str | None, otherwise: str) -> str:
    """Return the name of what a file will hold: its own name."""
    from perfmodel.errors import SpecError

    if file is None:
        return otherwise
    name = Path(file).stem
    if not _NAME.fullmatch(name) or not file.endswith((".yaml", ".yml")):
        remedy = "Use lower-case letters, digits, '-', '_' and '.', and the ending .yaml"
        raise SpecError.single(file, "name", f"found {Path(file).name!r}", remedy)
    return name


def _body(machine: FittedMachine, engine: Calibration) -> dict[str, Any]:
    return {
        "hardware": str(machine.profile.name),
        "device": machine.profile.description,
        "kernel_errors": dict(machine.errors),
        "held_out_errors": {one.kind: one.held_out for one in engine.errors},
        "kept": list(machine.kept),
        "figures": {
            path: {
                "value": float(one.value),
                "low": float(one.low),
                "high": float(one.high),
                "kind": one.kind,
            }
            for path, one in machine.profile.quantities.items()
            if path.startswith(("gemm.", "attention.", "peak.", "memory.")) and one.kind == "measured"
        },
    }


def _draw(console: Console, machine: FittedMachine, engine: Calibration, file: str | None) -> None:
    from perfmodel.cli.tell.tables import draw, grid, heading, line

    heading(console, f"{machine.profile.name}: {machine.profile.description}")
    columns = {"figure": "left", "value": "right", "80 % low": "right", "80 % high": "right"}
    rows = [
        [path, *(f"{float(end):.4g}" for end in (one.value, one.low, one.high))]
        for path, one in machine.profile.quantities.items()
        if one.kind == "measured" and path.startswith(("gemm.", "attention.", "peak.", "memory.b"))
    ]
    draw(console, grid(columns, rows))
    kernels = ", ".join(f"{kind} {error:.1%}" for kind, error in machine.errors.items())
    passes = ", ".join(f"{one.kind} {one.held_out:.1%}" for one in engine.errors)
    line(console, f"Mean error of the fitted kernels: {kernels}")
    line(console, f"Mean error on passes and rounds that the fit did not see: {passes}")
    if file is None:
        console.print()
        heading(console, "Hardware profile (write it with -o)")
        for text in machine.text.splitlines():
            line(console, f"  {text}")
