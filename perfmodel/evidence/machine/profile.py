"""A measured machine as a hardware profile: its sizes, peak rates and the figures fitted to its times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from perfmodel.evidence.machine.points import MachinePoint
from perfmodel.files.quantity import Figure, Kind, Quantity, figures_of
from perfmodel.hardware import DTYPES, AttentionKernel, HardwareProfile

__all__ = ["measured_profile", "with_fitted"]

_DIGITS = 5
_USED = (
    "t0", "memory_fraction", "compute_fraction", "narrow_memory_fraction", "narrow_compute_fraction",
    "tile_large",
)  # fmt: skip
"""Figures of kernels in the equations of hardware that loads and computes in turn."""
_SUSTAINED = "whole passes on this machine correct the share of the peak"


def measured_profile(
    name: str,
    machine: MachinePoint,
    rates: Mapping[str, float],
    fitted: Mapping[str, Quantity],
    *,
    on_core: bool,
    kernel: str,
    like: HardwareProfile | None = None,
    source: str = "",
) -> HardwareProfile:
    """Return a profile of what was measured; the figures that were not have no quantity.

    Parameters
    ----------
    machine : a point that says what the machine is. rates : peaks by dotted path. SI
    fitted : achieved figures by dotted path.
    on_core : the machine is a CPU core, which loads and computes in turn.
    like : profile of the same accelerator, whose peaks the rates are; else they come from `source`.
    """
    here = f"torch {machine.torch} on this machine, {machine.date}" if machine.date else "this machine"
    store = {
        "memory.capacity": _exactly(max(machine.memory_bytes, 1e9), here),
        "memory.l2": _exactly(min(max(machine.l2_bytes, 1e5), 4e9), here),
        "sms": _exactly(float(machine.sms), here),
        "peak.bf16": _exactly(max(rates[path] for path in rates if path != "memory.bandwidth"),
                              "not measured: as the others", "assumed"),
        "gemm.sustained": _exactly(1.0, _SUSTAINED, "assumed"),
        "gemm.narrow_sustained": _exactly(1.0, _SUSTAINED, "assumed"),
    }  # fmt: skip
    for path, rate in rates.items():
        store[path] = _exactly(rate, source)
        if like is not None and path in like.quantities:
            store[path] = _exactly(rate, f"{like.name}: {like.quantities[path].source}", "published")
    profile = HardwareProfile(
        name=name,
        description=f"{machine.device}, measured",
        memory_capacity=0.0,
        memory_bandwidth=0.0,
        peak_flops={dtype: 0.0 for dtype in DTYPES if f"peak.{dtype}" in store},
        attention={kernel: AttentionKernel()},
    )
    store |= dict(_idle(profile)) if on_core else {}
    return with_fitted(profile.with_quantities(store, _DIGITS), fitted)


def with_fitted(profile: HardwareProfile, fitted: Mapping[str, Quantity]) -> HardwareProfile:
    """Return a profile with fitted figures; the 80 % of a loose one end where a profile ends."""
    inside = {}
    for path, declared, _ in figures_of(profile):
        if path in fitted and isinstance(declared, Figure):
            low, value, high = (
                float(np.clip(end, declared.least, declared.most))
                for end in (fitted[path].low, fitted[path].value, fitted[path].high)
            )
            inside[path] = replace(fitted[path], low=low, value=value, high=high)
    return profile.with_quantities(inside, _DIGITS)


def _idle(profile: HardwareProfile) -> Iterator[tuple[str, Quantity]]:
    """Yield the figures that have no part in the equations of hardware that loads and computes in turn."""
    yield "overlap", _exactly(0.0, "the times of a CPU core are sums of the two", "assumed")
    reason = "no part in the equations of hardware that loads and computes in turn"
    for path, _, value in figures_of(profile):
        if path.startswith(("gemm.", "attention.")) and path.rpartition(".")[2] not in _USED:
            yield path, _exactly(value, reason, "assumed")


def _exactly(value: float, source: str, kind: Kind = "measured") -> Quantity:
    return Quantity(value, value, value, "", source, kind)
