"""A calibration drawn for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmodel.cli.tell.tables import grid, heading, line, tokens

if TYPE_CHECKING:
    from rich.console import Console

    from perfmodel.evidence.calibration.calibrate import Calibration
    from perfmodel.files.document import Quantity

__all__ = ["draw_calibration"]

_CORRELATED = 0.8
_WORST = 5


def draw_calibration(console: Console, found: Calibration) -> None:
    """Draw the figures with their intervals, the errors, the worst residuals and what to measure next."""
    heading(console, f"{found.engine.name} on {found.hardware}, from {found.rows} rows")
    console.print(_figures(found))
    for one, other, value in _strong(found):
        line(console, f"  {one} and {other} are told apart badly: correlation {value:+.2f}")
    console.print()
    heading(console, "Errors of log seconds")
    console.print(_errors(found))
    console.print()
    heading(console, "Largest residuals")
    console.print(_residuals(found))
    if found.next_cells:
        console.print()
        heading(console, "Measure next")
        console.print(_next(found))


def _figures(found: Calibration) -> Any:
    columns = {
        "figure": "left", "value": "right", "80 % low": "right", "80 % high": "right", "start": "right",
        "learned": "right", "": "left",
    }  # fmt: skip
    return grid(
        columns,
        (
            [one.path, *(_shown(one.after, end) for end in ("value", "low", "high")),
             _shown(one.before, "value"), f"{one.learned:.0%}",
             "fitted" if one.determined else "kept: not determined"]
            for one in found.figures
        ),
    )  # fmt: skip


def _shown(quantity: Quantity, end: str) -> str:
    value = float(np.asarray(getattr(quantity, end)))
    if quantity.unit != "s":
        return f"{value:.3f}"
    if value == 0.0:
        return "0"
    unit, factor = ("ms", 1e3) if value >= 1e-3 else ("us", 1e6)
    return f"{value * factor:.3g} {unit}"


def _strong(found: Calibration) -> Iterator[tuple[str, str, float]]:
    """Yield the pairs of figures that depend on each other most."""
    names = [one.path for one in found.determined]
    for first in range(len(names)):
        for second in range(first + 1, len(names)):
            value = float(found.correlation[first, second])
            if abs(value) >= _CORRELATED:
                yield names[first], names[second], value


def _errors(found: Calibration) -> Any:
    from perfmodel.evidence.calibration.response import NAMES

    columns = {
        "what": "left", "measured": "right", "mean error": "right", "bias": "right", "worst": "right",
        "from other cells": "right", "worst cell": "left",
    }  # fmt: skip
    return grid(
        columns,
        (
            [NAMES[one.kind], str(one.count), f"{one.mean_absolute:.1%}", f"{one.bias:+.1%}",
             f"{one.worst:+.1%}", f"{one.held_out:.1%}" if one.held_out == one.held_out else "-",
             one.worst_place]
            for one in found.errors
        ),
    )  # fmt: skip


def _residuals(found: Calibration) -> Any:
    from perfmodel.evidence.calibration.response import NAMES

    worst = sorted(found.residuals, key=lambda one: -abs(one[3]))[:_WORST]
    columns = {"cell": "left", "what": "left", "measured ms": "right", "computed": "right"}
    return grid(
        columns,
        (
            [place, NAMES[kind], f"{seconds * 1e3:.3f}", f"{error:+.1%}"]
            for place, kind, seconds, error in worst
        ),
    )


def _next(found: Calibration) -> Any:
    columns = {
        "time the": "left", "target": "left", "drafter": "left", "tp": "right", "batch": "right",
        "context": "right", "gamma": "right", "narrows": "left", "to": "right",
    }  # fmt: skip
    return grid(
        columns,
        (
            [one.meaning, one.target_model, one.draft_model or "-", str(one.tensor_parallel), str(one.batch),
             tokens(one.context_len), str(one.gamma), one.learns, f"{one.to:.0%} of its spread"]
            for one in found.next_cells
        ),
    )  # fmt: skip
