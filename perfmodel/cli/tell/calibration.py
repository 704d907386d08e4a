"""What measured steps say of an engine, and measured kernels of a machine, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmodel.cli.tell.tables import Column, draw, heading, left, line, lines, section, tokens
from perfmodel.evidence.calibration.response import NAMES

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.evidence.calibration.calibrate import Calibration, FittedFigure
    from perfmodel.evidence.machine.fit import FittedMachine
    from perfmodel.files.quantity import Quantity

__all__ = ["draw_calibration", "draw_errors", "draw_machine", "machine_to_dict"]

_CORRELATED = 0.8
_WORST = 5


def _show_quantity(quantity: Quantity, end: str = "value") -> str:
    value = float(np.asarray(getattr(quantity, end)))
    if quantity.unit != "s":
        return f"{value:.3f}"
    if value == 0.0:
        return "0"
    unit, factor = ("ms", 1e3) if value >= 1e-3 else ("us", 1e6)
    return f"{value * factor:.3g} {unit}"


def _show_fitted(end: str, figure: FittedFigure) -> str:
    return _show_quantity(figure.after, end)


_FIGURES = (
    left("figure", lambda figure: figure.path),
    Column("value", partial(_show_fitted, "value")),
    Column("80 % low", partial(_show_fitted, "low")),
    Column("80 % high", partial(_show_fitted, "high")),
    Column("start", lambda figure: _show_quantity(figure.before)),
    Column("learned", lambda figure: f"{figure.learned:.0%}"),
    left("", lambda figure: "fitted" if figure.determined else "kept: not determined"),
)
_KERNELS = (
    left("attention", lambda pair: pair.attention_kernel),
    left("all-reduce", lambda pair: pair.all_reduce),
    Column("from other cells", lambda pair: f"{pair.error:.1%}" if pair.error == pair.error else "-"),
)
_ERRORS = (
    left("what", lambda error: NAMES[error.kind]),
    Column("measured", lambda error: error.count),
    Column("mean error", lambda error: f"{error.mean_absolute:.1%}"),
    Column("bias", lambda error: f"{error.bias:+.1%}"),
    Column("worst", lambda error: f"{error.worst:+.1%}"),
    Column(
        "from other cells", lambda error: f"{error.held_out:.1%}" if error.held_out == error.held_out else "-"
    ),
    left("worst cell", lambda error: error.worst_place),
)
_RESIDUALS = (
    left("cell", lambda residual: residual[0]),
    left("what", lambda residual: NAMES[residual[1]]),
    Column("measured ms", lambda residual: f"{residual[2] * 1e3:.3f}"),
    Column("computed", lambda residual: f"{residual[3]:+.1%}"),
)
_NEXT = (
    left("time the", lambda cell: cell.meaning),
    left("target", lambda cell: cell.target_model),
    left("drafter", lambda cell: cell.draft_model or "-"),
    Column("tp", lambda cell: cell.tensor_parallel),
    Column("batch", lambda cell: cell.batch),
    Column("context", lambda cell: tokens(cell.context_len)),
    Column("gamma", lambda cell: cell.gamma),
    left("narrows", lambda cell: cell.learns),
    Column("to", lambda cell: f"{cell.to:.0%} of its spread"),
)
_MACHINE = (
    left("figure", lambda item: item[0]),
    Column("value", lambda item: f"{float(item[1].value):.4g}"),
    Column("80 % low", lambda item: f"{float(item[1].low):.4g}"),
    Column("80 % high", lambda item: f"{float(item[1].high):.4g}"),
)


def draw_calibration(console: Console, calibration: Calibration, text: str) -> None:
    """Draw figures with intervals, kernels, errors, the worst residuals, what to measure next, the file."""
    heading(console, f"{calibration.engine.name} on {calibration.hardware}, from {calibration.rows} rows")
    draw(console, _FIGURES, calibration.figures)
    lines(console, _name_entangled(calibration))
    tried = len(calibration.kernels)
    section(console, "Kernels" + (f", of {tried} pairs of the profile, the first taken" if tried > 1 else ""))
    draw(console, _KERNELS, calibration.kernels[:_WORST])
    section(console, "Errors of log seconds")
    draw(console, _ERRORS, calibration.errors)
    section(console, "Largest residuals")
    draw(console, _RESIDUALS, sorted(calibration.residuals, key=lambda residual: -abs(residual[3]))[:_WORST])
    if calibration.next_cells:
        section(console, "Measure next")
        draw(console, _NEXT, calibration.next_cells)
    _draw_file(console, "Engine file", text)


def _name_entangled(calibration: Calibration) -> Iterator[str]:
    """Yield a sentence on every pair of figures that depend on each other much."""
    names = [figure.path for figure in calibration.determined]
    for first, second in zip(*np.triu_indices(len(names), k=1), strict=True):
        value = float(calibration.correlation[first, second])
        if abs(value) >= _CORRELATED:
            yield f"{names[first]} and {names[second]} are told apart badly: correlation {value:+.2f}"


def _draw_file(console: Console, title: str, text: str) -> None:
    """Draw a file that was not written, if there is one."""
    if text:
        section(console, f"{title} (write it with -o)")
        lines(console, text.splitlines())


def draw_machine(console: Console, machine: FittedMachine, engine: Calibration, text: str) -> None:
    """Draw what was fitted of a machine, how well its kernels and passes are told, and a file not written."""
    heading(console, f"{machine.profile.name}: {machine.profile.description}")
    draw(console, _MACHINE, _pick_measured(machine, ("gemm.", "attention.", "peak.", "memory.b")).items())
    draw_errors(console, machine, engine, {error.kind: error.kind for error in engine.errors})
    _draw_file(console, "Hardware profile", text)


def draw_errors(console: Console, machine: FittedMachine, engine: Calibration, names: dict[str, str]) -> None:
    """Draw the errors of the fitted kernels, and of passes that the fit did not see, called as in `names`."""
    kernels = ", ".join(f"{kind} {error:.1%}" for kind, error in machine.errors.items())
    passes = ", ".join(f"{names[error.kind]} {error.held_out:.1%}" for error in engine.errors)
    line(console, f"Mean error of the fitted kernels: {kernels}")
    line(console, f"Mean error on passes and rounds that the fit did not see: {passes}")


def _pick_measured(machine: FittedMachine, places: tuple[str, ...]) -> dict[str, Quantity]:
    return {
        path: quantity
        for path, quantity in machine.profile.quantities.items()
        if quantity.kind == "measured" and path.startswith(places)
    }


def machine_to_dict(machine: FittedMachine, engine: Calibration) -> dict[str, Any]:
    """Return what was fitted of a machine as plain values."""
    return {
        "hardware": str(machine.profile.name),
        "device": machine.profile.description,
        "kernel_errors": dict(machine.errors),
        "held_out_errors": {error.kind: error.held_out for error in engine.errors},
        "kept": list(machine.kept),
        "figures": {
            path: {
                "value": float(quantity.value),
                "low": float(quantity.low),
                "high": float(quantity.high),
                "kind": quantity.kind,
            }
            for path, quantity in _pick_measured(machine, ("gemm.", "attention.", "peak.", "memory.")).items()
        },
    }
