"""Peak rates of a measured machine: those of its data sheet, else the highest that its times show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perfmodel.evidence.machine.points import MachinePoint
from perfmodel.files.quantity import Quantity
from perfmodel.hardware import HardwareProfile
from perfmodel.model import BYTES

__all__ = ["peak_rates", "shares_of"]

Values = Mapping[str, float]

_HEADROOM = 1.5


def peak_rates(
    points: Sequence[MachinePoint],
    like: HardwareProfile | None,
    start: HardwareProfile | None = None,
    known: Mapping[str, Quantity] | None = None,
) -> dict[str, float]:
    """Return peaks by dotted path: of `like`, else the highest measured, or fitted where that is more. SI

    Before the fit they are raised by `_HEADROOM`, as a fraction may not exceed 1.2 of them.
    """
    if like is not None:
        peaks = {f"peak.{dtype}": float(np.asarray(rate)) for dtype, rate in like.peak_flops.items()}
        return {"memory.bandwidth": float(np.asarray(like.memory_bandwidth)), **peaks}
    moved = [_bytes_moved(point) / point.seconds for point in points if point.kind in ("stream", "attention")]
    rates = {"memory.bandwidth": max(moved)}
    for dtype in {point.dtype for point in points if point.kind == "linear"}:
        rows = [point for point in points if point.kind == "linear" and point.dtype == dtype]
        rates[f"peak.{dtype}"] = max(2.0 * _size(row, "tokens", "n", "k") / row.seconds for row in rows)
    if start is None or known is None:
        return {path: rate * _HEADROOM for path, rate in rates.items()}
    for path, quantity in known.items():
        last = path.rpartition(".")[2]
        for rate, base in _bases(last, start):
            if rate in rates:
                rates[rate] = max(rates[rate], float(np.asarray(quantity.value)) * base)
    return rates


def _bases(figure: str, start: HardwareProfile) -> list[tuple[str, float]]:
    """The peak rates that a share is relative to, by path."""
    if figure == "memory_fraction":
        return [("memory.bandwidth", float(np.asarray(start.memory_bandwidth)))]
    if figure == "compute_fraction":
        return [(f"peak.{dtype}", float(np.asarray(rate))) for dtype, rate in start.peak_flops.items()]
    return []


def shares_of(rates: Values, start: HardwareProfile, known: Mapping[str, Quantity]) -> dict[str, Quantity]:
    """Return the same achieved rates as shares of other peaks."""
    changed = {}
    for path, quantity in known.items():
        bases = [(rate, base) for rate, base in _bases(path.rpartition(".")[2], start) if rate in rates]
        factor = bases[0][1] / rates[bases[0][0]] if bases else 1.0
        ends: dict[str, Any] = {end: getattr(quantity, end) * factor for end in ("value", "low", "high")}
        changed[path] = Quantity(**ends, unit=quantity.unit, source=quantity.source, kind=quantity.kind)
    return changed


def _bytes_moved(point: MachinePoint) -> float:
    """Bytes that a stream or a single query must read. [B]"""
    if point.kind == "stream":
        return _size(point, "n") * BYTES[point.dtype]
    return 2.0 * _size(point, "batch", "kv_tokens", "kv_heads", "head_dim") * BYTES[point.dtype]


def _size(point: MachinePoint, *names: str) -> float:
    return math.prod(float(getattr(point, name)) for name in names)
