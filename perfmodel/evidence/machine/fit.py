"""A hardware profile of the machine at hand, fitted to kernel times that `draftplan measure` took on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np

from perfmodel.errors import SpecError
from perfmodel.evidence.machine.points import MachinePoint
from perfmodel.evidence.machine.profile import measured_profile, with_fitted
from perfmodel.evidence.machine.rates import peak_rates, shares_of
from perfmodel.files.nouns import read_back
from perfmodel.files.numbers import FloatArray
from perfmodel.files.quantity import Z90, Quantity
from perfmodel.files.spec import to_yaml
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import attention, linear

__all__ = ["KERNEL", "FittedMachine", "fit_hardware", "fit_machine"]

Values = Mapping[str, float]

KERNEL = "torch"
"""Name of the attention kernel in the profile."""
FEWEST = 8
"""Kernel times of each kind that a fit needs."""
SPREAD = 0.1
"""Log error beyond which a point pulls less than in proportion."""
LEAST_SPREAD = 0.01
MOST_SPREAD = 0.7
"""Standard deviation of a logarithm above which a figure keeps its default."""

IN_TURN: Mapping[str, tuple[str, ...]] = dict.fromkeys(
    ("gemm", "attention"), ("t0", "memory_fraction", "compute_fraction")
)
OVERLAPPED: Mapping[str, tuple[str, ...]] = {
    "gemm": ("t0", "memory_fraction", "compute_fraction", "tile_edge", "k_latency", "k_split", "contention"),
    "attention": ("t0", "cta", "memory_fraction", "compute_fraction", "row_passes", "tile_overhead"),
}
"""Figures that are fitted: of hardware that loads and computes in turn, and of hardware that overlaps."""
CPU_TILE = 32.0
"""Rows that torch's flash attention for CPUs takes at a time, below 192 query rows."""
TILES = ((16.0, 64.0, 128.0), (64.0, 64.0, 64.0), (64.0, 64.0, 128.0), (64.0, 128.0, 128.0))
"""Heights of tiles that attention kernels for GPUs have; the set that fits best is taken."""


@dataclass(frozen=True)
class FittedMachine:
    """A profile and how well it tells the times it was fitted to.

    Attributes
    ----------
    profile : as its file says it.
    errors : mean absolute log error by kind of kernel. [1]
    kept : dotted paths of figures that the points do not determine; they stay at generic defaults.
    """

    profile: HardwareProfile
    errors: Mapping[str, float]
    kept: tuple[str, ...]

    def with_shares(self, achieved: Mapping[str, Quantity]) -> FittedMachine:
        """Return the same machine with other shares of its peak rates, by dotted path."""
        return replace(self, profile=read_back(with_fitted(self.profile, achieved)))

    @property
    def text(self) -> str:
        """The profile's file."""
        return to_yaml(self.profile)


def fit_hardware(points: Sequence[MachinePoint], name: str, like: HardwareProfile | None = None) -> str:
    """Return the YAML text of a hardware profile of the machine that the points were taken on.

    Parameters
    ----------
    points : of one device; rows of kinds ``linear`` and ``attention`` are fitted.
    name : of the profile, and of its file.
    like : profile of the same accelerator, whose data-sheet peaks are kept; where None the highest rates that
        were measured stand for them.

    Raises
    ------
    SpecError
        Where the points are of several devices, or too few.
    """
    return fit_machine(points, name, like).text


def fit_machine(
    points: Sequence[MachinePoint], name: str, like: HardwareProfile | None = None
) -> FittedMachine:
    """Fit a profile and say how well it fits; parameters and errors as `fit_hardware`.

    Notes
    -----
    Least squares (soft L1) on log times of `perfmodel.latency.linear` and `attention`, cold. Times by a
    thread's clock are of a CPU core, which loads and computes in turn; those of a GPU's clock overlap, and
    their tiles are those of `TILES` that fit best.
    """
    timed = _timed(points)
    on_core = timed["linear"][0].clock == "thread"
    measured: dict[str, Quantity] = {}
    kept: list[str] = []
    errors: dict[str, float] = {}
    profile_at = partial(measured_profile, name, points[0], on_core=on_core, kernel=KERNEL, like=like)
    start = profile_at(peak_rates(points, like), {}, source="start").with_defaults()
    for kind, section in (("linear", "gemm"), ("attention", "attention")):
        named = (IN_TURN if on_core else OVERLAPPED)[section]
        prefix = "gemm" if section == "gemm" else f"attention.{KERNEL}"
        paths = [f"{prefix}.{figure}" for figure in named]
        fits = [_fit(start, kind, timed[kind], paths, fixed) for fixed in _forms(section, on_core)]
        best = min(fits, key=lambda fit: fit.error)
        while len(paths) > 1 and (best.deviations > MOST_SPREAD).any():
            loosest = paths[int(best.deviations.argmax())]
            kept.append(loosest)
            paths.remove(loosest)
            best = _fit(start, kind, timed[kind], paths, best.fixed)
        source = f"fitted to {len(timed[kind])} {kind} times of draftplan measure, {_circumstances(points)}"
        for path, value in best.fixed.items():
            measured[path] = Quantity(
                value, value, value, "", f"the form that fits best; {source}", "measured"
            )
        for path, value, deviation in zip(paths, best.values, best.deviations, strict=True):
            reach = np.exp(Z90 * max(deviation, LEAST_SPREAD))
            measured[path] = Quantity(value, value / reach, value * reach, "", source, "measured")
        errors[kind] = best.error
    rates = peak_rates(points, like, start, measured)
    measured = shares_of(rates, start, measured)
    source = f"highest rate in the times of draftplan measure, {_circumstances(points)}"
    return FittedMachine(read_back(profile_at(rates, measured, source=source)), errors, tuple(kept))


@dataclass(frozen=True)
class _KernelFit:
    """One fit: values, deviations of their logarithms, what was held fixed, mean absolute log error."""

    values: FloatArray
    deviations: FloatArray
    fixed: Values
    error: float


def _timed(points: Sequence[MachinePoint]) -> dict[str, list[MachinePoint]]:
    devices = {point.device for point in points}
    if len(devices) > 1:
        problem = f"the points are of {', '.join(sorted(devices))}"
        raise SpecError.single("", "device", problem, "Fit one machine at a time")
    timed = {kind: [point for point in points if point.kind == kind] for kind in ("linear", "attention")}
    for kind, points in timed.items():
        if len(points) < FEWEST:
            problem = f"{len(points)} {kind} times are too few to fit a profile"
            raise SpecError.single("", "points", problem, f"Measure at least {FEWEST}: run it longer")
    return timed


def _circumstances(points: Sequence[MachinePoint]) -> str:
    first = points[0]
    dates = sorted({point.date for point in points})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"{first.device}, torch {first.torch}, {when}"


def _forms(section: str, on_core: bool) -> list[dict[str, float]]:
    """Return the discrete choices to try."""
    if section == "gemm":
        return [{}] if on_core else [{"gemm.fixed_rules": rules} for rules in (0.0, 1.0)]
    place = f"attention.{KERNEL}"
    if on_core:
        return [{f"{place}.tile_large": CPU_TILE}]
    parts = [f"{place}.{part}" for part in ("tile_small", "tile_mid", "tile_large", "packs", "ctas_per_sm")]
    return [
        dict(zip(parts, (*tiles, packs, slots), strict=True))
        for tiles, packs, slots in product(TILES, (0.0, 1.0), (1.0, 2.0))
    ]


def _fit(
    start: HardwareProfile, kind: str, points: Sequence[MachinePoint], paths: Sequence[str], fixed: Values
) -> _KernelFit:
    from scipy.optimize import least_squares

    measured = np.log([point.seconds for point in points])
    bounds = np.log([_plausible(path) for path in paths])
    center = np.log([_initial(start, path) for path in paths])
    center = np.clip(center, bounds[:, 0] + 1e-3, bounds[:, 1] - 1e-3)

    def errors(logs: FloatArray) -> FloatArray:
        profile = start.with_values({**fixed, **dict(zip(paths, np.exp(logs).tolist(), strict=True))})
        return np.asarray(np.log(_priced(profile, kind, points)) - measured)

    solution = least_squares(
        errors,
        center,
        bounds=(bounds[:, 0], bounds[:, 1]),
        loss="soft_l1",
        f_scale=SPREAD,
        x_scale=0.3,
        max_nfev=60,
    )
    left = errors(solution.x)
    variance = float(np.mean(left**2)) * len(left) / max(len(left) - len(paths), 1)
    slopes = np.asarray(solution.jac)
    information = slopes.T @ slopes
    # A weak belief of one e-fold keeps what the points say nothing about from being singular.
    covariance = np.linalg.inv(information / max(variance, 1e-8) + np.eye(len(paths)))
    return _KernelFit(np.exp(solution.x), np.sqrt(np.diag(covariance)), fixed, float(np.mean(np.abs(left))))


def _priced(profile: HardwareProfile, kind: str, points: Sequence[MachinePoint]) -> FloatArray:
    """Computed seconds of kernel points, dtype by dtype. [s]"""
    seconds = np.empty(len(points))
    for dtype in {point.dtype for point in points}:
        chosen = np.array([point.dtype == dtype for point in points])
        rows = [point for point in points if point.dtype == dtype]

        def column(name: str, rows: Sequence[MachinePoint] = rows) -> FloatArray:
            return np.array([getattr(row, name) for row in rows], dtype=float)

        if kind == "linear":
            sizes = {name: column(name) for name in ("tokens", "n", "k")}
            seconds[chosen] = linear(profile, **sizes, dtype=dtype, cold=True)
        else:
            sizes = {name: column(name) for name in _READ}
            seconds[chosen] = attention(profile, **sizes, kv_dtype=dtype, kernel=KERNEL, cold=True)
    return seconds


_READ = ("batch", "query_tokens", "kv_tokens", "heads", "kv_heads", "head_dim")


def _initial(start: HardwareProfile, path: str) -> float:
    return max(float(np.asarray(start.quantities[path].value)), _plausible(path)[0])


def _plausible(path: str) -> tuple[float, float]:
    """Range of a fitted figure: within what a profile may say, and above zero. SI"""
    last = path.rpartition(".")[2]
    ranges = {
        "t0": (1e-7, 1e-3), "cta": (1e-9, 1e-4), "tile_edge": (0.1, 1e3), "k_latency": (1e-11, 1e-6),
        "k_split": (16.0, 1e6), "contention": (1e-3, 2.0), "row_passes": (0.1, 100.0),
        "tile_overhead": (0.1, 1024.0), **dict.fromkeys(("memory_fraction", "compute_fraction"), (0.05, 1.2)),
    }  # fmt: skip
    return ranges[last]
