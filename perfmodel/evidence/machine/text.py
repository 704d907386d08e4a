"""A measured machine as the text of a hardware profile, and as the profile that the text says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from perfmodel.evidence.machine.points import MachinePoint
from perfmodel.files.document import Quantity
from perfmodel.files.figures import Figure, declared_in
from perfmodel.files.schema import noun_from
from perfmodel.files.yaml_text import parse_yaml
from perfmodel.hardware import AttentionKernel, Gemm, HardwareProfile

__all__ = ["profile_from_text", "profile_text_of", "with_figures"]

Values = Mapping[str, float]


def profile_text_of(
    name: str,
    machine: MachinePoint,
    rates: Values,
    fitted: Mapping[str, Quantity],
    *,
    on_core: bool,
    kernel: str,
    like: HardwareProfile | None = None,
    source: str = "",
) -> str:
    """Return the YAML text of a profile.

    Parameters
    ----------
    machine : a point that says what the machine is. rates : peaks by dotted path. SI
    fitted : achieved figures by dotted path; those of a profile that are left out take generic defaults.
    on_core : the machine is a CPU core, which loads and computes in turn.
    """
    origin = f"torch {machine.torch} on this machine, {machine.date}" if machine.date else "this machine"
    document: dict[str, Any] = {"name": name, "description": f"{machine.device}, measured"}
    document["memory"] = {
        "capacity": _known(max(machine.memory_bytes, 1e9), "bytes", origin),
        "bandwidth": _rate(rates["memory.bandwidth"], "bytes_per_s", like, "memory.bandwidth", source),
        "l2": _known(min(max(machine.l2_bytes, 1e5), 4e9), "bytes", origin),
    }
    document["sms"] = _known(float(machine.sms), "count", origin)
    peaks = {path.partition(".")[2]: rate for path, rate in rates.items() if path.startswith("peak.")}
    document["peak"] = {
        dtype: _rate(rate, "flops", like, f"peak.{dtype}", source) for dtype, rate in sorted(peaks.items())
    }
    if "bf16" not in peaks:
        rate = max(peaks.values())
        guessed = Quantity(rate, rate, rate, "", "not measured: as the others", "assumed")
        document["peak"]["bf16"] = _entry(guessed, "flops")
    document["gemm"], document["attention"] = {}, {kernel: {}}
    if on_core:
        turns = Quantity(0.0, 0.0, 0.0, "", "the times of a CPU core are sums of the two", "assumed")
        document["overlap"] = _entry(turns, "count")
        document["gemm"] = _idle(Gemm, _USED)
        document["attention"] = {kernel: _idle(AttentionKernel, _USED)}
    _put(document, fitted)
    return _dumped(document)


def profile_from_text(text: str, name: str) -> HardwareProfile:
    """Return the profile that a text describes, read as strictly as its file will be. Raises SpecError."""
    profile = noun_from(HardwareProfile, parse_yaml(text.encode(), f"{name}.yaml"))
    return profile.with_assumed("all_reduce", ("nccl",))


def with_figures(text: str, fitted: Mapping[str, Quantity]) -> str:
    """Return the text of a profile with other figures at the dotted paths."""
    import yaml

    document: dict[str, Any] = yaml.safe_load(text)
    _put(document, fitted)
    return _dumped(document)


def _put(document: dict[str, Any], fitted: Mapping[str, Quantity]) -> None:
    for path, quantity in fitted.items():
        *groups, last = path.split(".")
        place = document
        for group in groups:
            place = place.setdefault(group, {})
        least, most = _range(Gemm if groups == ["gemm"] else AttentionKernel, last)
        ends: dict[str, Any] = {
            end: float(np.clip(getattr(quantity, end), least, most)) for end in ("value", "low", "high")
        }
        inside = Quantity(**ends, unit=quantity.unit, source=quantity.source, kind=quantity.kind)
        place[last] = _entry(inside, "seconds" if last in _SECONDS else "ratio")


def _range(section: type[Any], name: str) -> tuple[float, float]:
    """What a profile may say of a figure; the 80 % of a loose one may reach beyond. SI"""
    declared = dict(declared_in(section))[name]
    return (declared.least, declared.most) if isinstance(declared, Figure) else (-np.inf, np.inf)


def _dumped(document: Mapping[str, Any]) -> str:
    import yaml

    text = yaml.safe_dump(
        document, sort_keys=False, allow_unicode=True, width=10_000, default_flow_style=None
    )
    return str(text)


def _idle(section: type[Any], used: Iterable[str]) -> dict[str, Any]:
    """Figures that have no part in the equations of hardware that loads and computes in turn."""
    reason = "no part in the equations of hardware that loads and computes in turn"
    entries = {}
    for name, declared in declared_in(section):
        if isinstance(declared, Figure) and declared.default is not None and name not in used:
            value = declared.default[1]
            quantity = Quantity(value, value, value, "", reason, "assumed")
            entries[declared.path] = _entry(quantity, "seconds" if name in _SECONDS else "ratio")
    return entries


_SECONDS = ("t0", "cta", "k_latency")
_USED = (
    "t0",
    "memory_fraction",
    "compute_fraction",
    "narrow_memory_fraction",
    "narrow_compute_fraction",
    "tile_large",
)


def _rate(
    rate: float, dimension: str, like: HardwareProfile | None, path: str, source: str
) -> dict[str, Any]:
    if like is not None and path in like.quantities:
        known = like.quantities[path]
        return _entry(Quantity(rate, rate, rate, "", f"{like.name}: {known.source}", "published"), dimension)
    return _entry(Quantity(rate, rate, rate, "", source, "measured"), dimension)


def _known(value: float, dimension: str, source: str) -> dict[str, Any]:
    return _entry(Quantity(value, value, value, "", source, "measured"), dimension)


def _entry(quantity: Quantity, dimension: str) -> dict[str, Any]:
    ends = {
        name: _written(float(np.asarray(getattr(quantity, name))), dimension)
        for name in ("value", "low", "high")
    }
    return {**ends, "source": quantity.source, "kind": quantity.kind}


def _written(value: float, dimension: str) -> float | str:
    """A number with its unit, as a profile writes it."""
    units = {
        "seconds": (1e-6, "us"),
        "bytes": (1e9, "GB"),
        "bytes_per_s": (1e9, "GB/s"),
        "flops": (1e9, "GFLOPS"),
    }
    if dimension not in units:
        return float(f"{value:.5g}")
    size, unit = units[dimension]
    return f"{value / size:.5g} {unit}"
