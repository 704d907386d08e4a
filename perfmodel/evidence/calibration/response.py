"""How measured steps answer to what may be fitted: their seconds, and the slope of each in every figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.engine import EngineOverhead
from perfmodel.evidence.published.measurements import Measurement
from perfmodel.evidence.published.steps import price_measurements
from perfmodel.files.numbers import FloatArray
from perfmodel.files.quantity import Z90, Figure, declared_in, figures_of
from perfmodel.hardware import HardwareProfile

__all__ = [
    "KINDS", "Observations", "Prior", "Response", "bare_seconds", "changed", "observations", "priors",
    "reprice", "respond",
]  # fmt: skip

Indices = NDArray[np.intp]

KINDS = ("target", "draft", "verify", "overhead", "round")
NAMES = {
    "target": "plain step", "draft": "draft pass", "verify": "verification", "overhead": "rest of a round",
    "round": "whole round",
}  # fmt: skip
NOISE = {"target": 0.03, "draft": 0.03, "verify": 0.03, "overhead": 0.1, "round": 0.03}
"""Expected spread of log seconds about the equations, before the points say otherwise. [1]"""
SECONDS = (
    "forward", "layer", "row_layer", "draft_row_layer", "round", "round_row", "row", "expert_layer",
    "expert_parallel_layer", "quantise", "lookup", "lookup_token", "piecewise_layer", "eager_expert_layer",
)  # fmt: skip
"""Figures of an engine in which every step is linear: all its seconds."""
OF_EVERY_ENGINE = SECONDS[:6]
"""Those that any points may tell; the others only points of experts, 8-bit products, lookups and the like."""


@dataclass(frozen=True)
class Observations:
    """Measured seconds, one element each: of which row, of which kind (index into `KINDS`), how long. [s]"""

    row: Indices
    kind: Indices
    seconds: FloatArray

    @property
    def noise(self) -> FloatArray:
        """Expected spread of the log of each. [1]"""
        return np.array([NOISE[kind] for kind in KINDS])[self.kind]

    def of(self, chosen: NDArray[np.bool_]) -> Observations:
        """Return some of them."""
        return Observations(self.row[chosen], self.kind[chosen], self.seconds[chosen])


@dataclass(frozen=True)
class Prior:
    """What is believed of one figure before the points: SI value and standard deviation.

    A `relative` figure is a share that hardware achieves; its deviation is that of its logarithm. No value is
    believed below `least` or above `most`.
    """

    path: str
    value: float
    deviation: float
    most: float
    relative: bool = False
    least: float = 0.0


@dataclass(frozen=True)
class Response:
    """Seconds of observations with none of the engine's, and the slopes of each in every figure.

    Attributes
    ----------
    base : seconds at the shares `at`, with no seconds of the engine, ``[observations]``. [s]
    slopes : of the engine's figures in their value, exact; of relative ones in their logarithm,
        ``[observations, figures]``.
    at : values of the relative figures at which `base` and their slopes were priced, ``[figures]``; those of
        others are not used.
    """

    base: FloatArray
    slopes: FloatArray
    at: FloatArray

    def of(self, chosen: NDArray[np.bool_]) -> Response:
        """Return that of some observations."""
        return Response(self.base[chosen], self.slopes[chosen], self.at)

    def seconds(self, values: FloatArray, figures: Sequence[Prior]) -> FloatArray:
        """Return the seconds of every observation at these figures, at least a nanosecond. [s]

        Seconds go with the inverse of a share, as bytes over a rate do, and with a factor in proportion; both
        are exact where one term is all, and to first order anywhere.
        """
        relative, ratio = self._ratio(values, figures)
        moved = np.where(self.slopes > 0.0, ratio - 1.0, 1.0 - 1.0 / ratio)
        added = self.slopes * np.where(relative, moved, values)
        return np.asarray(np.maximum(self.base + added.sum(axis=-1), 1e-9))

    def slopes_at(self, values: FloatArray, figures: Sequence[Prior]) -> FloatArray:
        """Return the slopes of `seconds` at these figures, ``[observations, figures]``."""
        relative, ratio = self._ratio(values, figures)
        steeper = np.where(self.slopes > 0.0, ratio, 1.0 / ratio)
        return np.asarray(self.slopes * np.where(relative, steeper, 1.0))

    def _ratio(self, values: FloatArray, figures: Sequence[Prior]) -> tuple[NDArray[np.bool_], FloatArray]:
        relative = np.array([figure.relative for figure in figures], dtype=bool)
        return relative, np.divide(values, self.at, out=np.ones_like(values), where=relative)


def observations(rows: Sequence[Measurement]) -> Observations:
    """Return everything that was measured, each once: a plain step printed in two tables is one.

    Of a round whose draft passes and verification are measured too, only the rest is kept: it says most about
    the time per round.
    """
    seen: dict[tuple[object, ...], tuple[int, int, float]] = {}
    for index, row in enumerate(rows):
        rest = row.overhead
        measured = {
            "target": row.target,
            "draft": row.draft,
            "verify": row.verify,
            "overhead": rest if rest > 0.0 else np.nan,
            "round": np.nan if rest > 0.0 else row.round,
        }
        target = (
            row.group.hardware.name,
            row.group.target.name,
            row.tensor_parallel,
            row.expert_parallel,
            row.batch,
            row.context_len,
        )
        for kind, (name, seconds) in enumerate(measured.items()):
            if np.isfinite(seconds):
                cell = target if name == "target" else (*target, row.key, row.kv_budget, row.gamma)
                seen.setdefault((cell, kind, seconds), (index, kind, seconds))
    measured_once = list(seen.values())
    return Observations(
        np.array([index for index, _, _ in measured_once], dtype=np.intp),
        np.array([kind for _, kind, _ in measured_once], dtype=np.intp),
        np.array([seconds for *_, seconds in measured_once], dtype=float),
    )


def priors(
    engine: EngineOverhead, hardware: HardwareProfile, achieved: Sequence[str] = ()
) -> tuple[Prior, ...]:
    """Return the priors of an engine's seconds, and of the achieved figures named by dotted path.

    An engine's figure is centred on its value and twice as wide as the generic range, so that points decide;
    where there is no generic range, as its own. One that is surely 0 has no prior: it adds nothing.
    """
    declared = {figure.path: figure for _, figure in declared_in(type(engine)) if isinstance(figure, Figure)}
    beliefs = []
    for path in SECONDS:
        if path not in declared:
            continue
        low, _, high = declared[path].default or (0.0, 0.0, declared[path].most)
        value = 0.0
        if path in engine.quantities:
            own = engine.quantities[path]
            value = float(np.asarray(own.value))
            if high == low:
                low, high = float(np.asarray(own.low)), float(np.asarray(own.high))
        if high == low:
            low, high = 0.0, 2.0 * value  # as sure as its own size: no range says more
        if high > low:
            beliefs.append(Prior(path, value, (high - low) / Z90, declared[path].most))
    possible = {path: declared for path, declared, _ in figures_of(hardware)} if achieved else {}
    for path in achieved:
        quantity = hardware.quantities[path]
        value, low, high = (float(np.asarray(end)) for end in (quantity.value, quantity.low, quantity.high))
        deviation = max(float(np.log(high / low)) / Z90, 0.05)
        limits = possible[path]
        beliefs.append(Prior(path, value, deviation, limits.most, relative=True, least=limits.least))
    return tuple(beliefs)


def respond(
    rows: Sequence[Measurement],
    seen: Observations,
    engine: EngineOverhead,
    figures: Sequence[Prior],
    values: Mapping[str, float] | None = None,
) -> Response:
    """Price every observation at zero engine seconds, all of `SECONDS`, and in every figure's direction.

    Parameters
    ----------
    values : values of relative figures at which to price; their prior values where absent.
    """
    at = {prior.path: (values or {}).get(prior.path, prior.value) for prior in figures if prior.relative}
    base = bare_seconds(rows, seen, engine, at)
    slopes = []
    for prior in figures:
        if prior.relative:
            step = 1e-3
            moved = {**at, prior.path: at[prior.path] * (1.0 + step)}
            slopes.append((bare_seconds(rows, seen, engine, moved) - base) / np.log1p(step))
        else:
            unit = max(prior.deviation, 1e-9)
            with_it = _seconds(rows, seen, _bare(engine).with_values({prior.path: unit}), at)
            slopes.append((with_it - base) / unit)
    where = np.array([at.get(prior.path, prior.value) for prior in figures])
    return Response(base, np.stack(slopes, axis=-1) if slopes else np.zeros((base.size, 0)), where)


def reprice(
    response: Response,
    rows: Sequence[Measurement],
    seen: Observations,
    engine: EngineOverhead,
    figures: Sequence[Prior],
    values: FloatArray,
) -> Response:
    """Price a response again at other shares of the hardware; slopes in the engine's seconds stay."""
    shares = [index for index, prior in enumerate(figures) if prior.relative]
    moved = respond(
        rows, seen, engine, [figures[index] for index in shares],
        {figures[index].path: float(values[index]) for index in shares},
    )  # fmt: skip
    slopes, at = response.slopes.copy(), response.at.copy()
    slopes[:, shares], at[shares] = moved.slopes, moved.at
    return Response(moved.base, slopes, at)


def bare_seconds(
    rows: Sequence[Measurement],
    seen: Observations,
    engine: EngineOverhead,
    values: Mapping[str, float] | None = None,
) -> FloatArray:
    """Price every observation with the engine's kernels and none of its seconds. [s]

    Parameters
    ----------
    values : figures of the hardware that are not those of its profile, by dotted path.
    """
    return _seconds(rows, seen, _bare(engine), values or {})


def _bare(engine: EngineOverhead) -> EngineOverhead:
    return engine.with_values({path: 0.0 for path in SECONDS if path in engine.paths()})


def _seconds(
    rows: Sequence[Measurement], seen: Observations, engine: EngineOverhead, values: Mapping[str, float]
) -> FloatArray:
    """Return the computed seconds that belong to each observation. [s]"""
    priced = price_measurements(rows, engine=engine, hardware=changed(values) if values else None)
    columns = np.stack([getattr(priced, kind) for kind in KINDS], axis=-1)
    return np.asarray(columns[seen.row, seen.kind])


def changed(values: Mapping[str, float]) -> Callable[[HardwareProfile], HardwareProfile]:
    """Return what gives a profile other figures, by dotted path."""

    def change(profile: HardwareProfile) -> HardwareProfile:
        return profile.with_values(dict(values))

    return change
