"""What a calibration says: figures before and after, how they stand on the points, what to measure next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from perfmodel.engine import EngineOverhead
from perfmodel.evidence.calibration.design import NextCell
from perfmodel.evidence.calibration.guard import Standing
from perfmodel.evidence.calibration.kernels import KernelPair
from perfmodel.evidence.calibration.residuals import KindError
from perfmodel.files.numbers import FloatArray
from perfmodel.files.quantity import Quantity
from perfmodel.files.spec import to_yaml

__all__ = ["Calibration", "FittedFigure"]


@dataclass(frozen=True)
class FittedFigure:
    """One figure before and after; one that the points do not determine keeps its start.

    `learned` is the share of the prior variance that the points remove. [0..1] `overruled`: the points
    contradict the range that it had before. `by`: what would determine it, None where it is or nothing would.
    """

    path: str
    before: Quantity
    after: Quantity
    determined: bool
    learned: float
    relative: bool
    overruled: bool = False
    by: NextCell | None = None

    @property
    def remark(self) -> str:
        """What a reader has to know of it, a sentence; empty where it is fitted within what was believed."""
        if self.overruled:
            low, high = (f"{float(np.asarray(end)):.4g}" for end in (self.before.low, self.before.high))
            unit = f" {self.before.unit}" if self.before.unit else ""
            value = f"{float(np.asarray(self.after.value)):.4g}{unit}"
            return f"{self.path}: the points say {value}, against the range {low} to {high}{unit} it had"
        if self.determined:
            return ""
        start = f"{self.path} keeps its start: the points do not determine it"
        return f"{start}; {self.by.request if self.by else 'no one cell would tell it from the others'}"


@dataclass(frozen=True)
class Calibration:
    """What measured steps say about an engine.

    Attributes
    ----------
    engine : with the fitted figures and the kernels that explain the points best.
    kernels : every pair of kernels that was tried, the one of the engine first.
    figures : what the points could tell: none of experts, say, where no model has some.
    correlation : of the determined figures, in the order of `determined`.
    residuals : (place, kind, measured seconds, log of computed over measured) of every observation.
    next_cells : what to measure next.
    before, after : how the start and the result stand on the points; the result is never worse.
    least_squares : how the figures of least squares stand; others are taken where these err more than the
        start, or choose worse.
    """

    engine: EngineOverhead
    hardware: str
    rows: int
    kernels: tuple[KernelPair, ...]
    figures: tuple[FittedFigure, ...]
    correlation: FloatArray
    errors: tuple[KindError, ...]
    residuals: tuple[tuple[str, str, float, float], ...]
    next_cells: tuple[NextCell, ...]
    before: Standing
    after: Standing
    least_squares: Standing

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader has to know of the fit, sentences."""
        least, after = self.least_squares, self.after
        held_back = (
            f"least squares would choose worse on these very points (regret {least.regret:.2%}, error "
            f"{least.error:.1%}) than the start (regret {self.before.regret:.2%}): taken are figures nearby "
            f"that do not (regret {after.regret:.2%}, error {after.error:.1%})"
        )
        of_figures = (figure.remark for figure in self.figures if figure.remark)
        return (*((held_back,) if after != least else ()), *of_figures)

    @property
    def determined(self) -> tuple[FittedFigure, ...]:
        """The figures that the points determine."""
        return tuple(figure for figure in self.figures if figure.determined)

    @property
    def text(self) -> str:
        """The engine's file."""
        return to_yaml(self.engine)

    @property
    def achieved(self) -> dict[str, Quantity]:
        """Fitted figures of the hardware, by dotted path."""
        return {figure.path: figure.after for figure in self.figures if figure.relative and figure.determined}

    def to_dict(self) -> dict[str, Any]:
        """What was fitted, how well, and what to measure next, as plain values."""
        names = [figure.path for figure in self.determined]
        return {
            "engine": self.engine.name,
            "hardware": self.hardware,
            "rows": self.rows,
            "kernels": [vars(pair) for pair in self.kernels],
            "figures": [
                {
                    "path": figure.path,
                    "value": float(figure.after.value),
                    "low": float(figure.after.low),
                    "high": float(figure.after.high),
                    "unit": figure.after.unit,
                    "kind": figure.after.kind,
                    "determined": figure.determined,
                    "learned": figure.learned,
                    "overruled": figure.overruled,
                    "start": float(figure.before.value),
                }
                for figure in self.figures
            ],
            "correlation": {
                name: dict(zip(names, row, strict=True))
                for name, row in zip(names, self.correlation.tolist(), strict=True)
            },
            "errors": [vars(error) for error in self.errors],
            "residuals": [
                {"cell": place, "kind": kind, "measured_s": seconds, "log_error": error}
                for place, kind, seconds, error in self.residuals
            ],
            "next_cells": [vars(cell) for cell in self.next_cells],
            "before": vars(self.before),
            "after": vars(self.after),
            "least_squares": vars(self.least_squares),
            "remarks": list(self.remarks),
        }
