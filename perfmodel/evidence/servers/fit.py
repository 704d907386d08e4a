"""Engines fitted to what servers took: few physical figures, a set for a software and family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from perfmodel.engine import EngineOverhead
from perfmodel.evidence.servers.price import possible_rows, price_servers
from perfmodel.evidence.servers.rows import ServerRow
from perfmodel.files.numbers import FloatArray
from perfmodel.files.quantity import Z90

__all__ = [
    "FIGURES", "Belief", "Fitted", "beliefs_of", "figures_for", "fit_servers",
    "fit_without",
]  # fmt: skip

SPREAD = 0.08
"""Relative spread of published steps beside figures that hold for all of a server's: clocks, versions,
lengths that a source gives as a mean. [1]"""
MOST_OF_SOURCE = 6.0
"""Rows that a source counts for at most: its rows err together. [rows]"""
SHARED = 0.7
"""Deviation of a family's figure from its software's, over that of softwares from each other. [1]"""


@dataclass(frozen=True)
class Belief:
    """What is believed of a figure before its server's rows are seen.

    middle, deviation : of the figure, or where `relative` of its logarithm.
    """

    middle: float
    deviation: float
    relative: bool = False

    def at(self, z: float) -> float:
        """The figure `z` deviations above the middle; none is below zero."""
        if self.relative:
            return float(self.middle * np.exp(self.deviation * z))
        return max(self.middle + self.deviation * z, 0.0)


FIGURES: Mapping[str, Belief] = {
    "streaming": Belief(1.08, 0.08, relative=True),
    "layer": Belief(20e-6, 0.4, relative=True),
    "row": Belief(5e-6, 5e-6),
    "expert_layer": Belief(15e-6, 8e-6),
    "quantise": Belief(2e-6, 3e-6),
    "expert_parallel_layer": Belief(35e-6, 20e-6),
    "round": Belief(0.5e-3, 0.4e-3),
}
"""By path in an engine's file. Layers and rounds as in `generic`; layers with experts as the fixed time of
fused kernels (15 to 56 us: vLLM pull requests 19049 and 31448, SGLang pull request 11730)."""
OF_SOFTWARE: Mapping[str, Mapping[str, Belief]] = {
    "sglang": {"round": Belief(2e-3, 1.5e-3)},
    "tensorrt-llm": {"round": Belief(0.2e-3, 0.3e-3)},
}
"""What differs by software: SGLang's host steers its draft workers, TensorRT-LLM's rounds are one graph."""
OF_FAMILY: Mapping[str, Mapping[str, Belief]] = {
    "cdna3": {
        "streaming": Belief(1.1, 0.25, relative=True),
        "layer": Belief(18e-6, 0.6, relative=True),
        "quantise": Belief(8e-6, 15e-6),
    },
}
"""What differs by accelerator: no kernel tables of AMD's are public, so its profiles are assumed."""


@dataclass(frozen=True)
class Fitted:
    """Figures of one software on one family of accelerators, by path.

    values, low, high : fitted, and the 10th and 90th percentile. SI units
    rows, sources : how many published numbers they were fitted to, and of which sources.
    """

    values: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    rows: int
    sources: tuple[str, ...]


def with_figures(engine: EngineOverhead, values: Mapping[str, float]) -> EngineOverhead:
    """Return an engine with these figures on whatever hardware."""
    return replace(engine, presets=()).with_values(values)


def fit_servers(rows: Iterable[ServerRow]) -> dict[tuple[str, str], Fitted]:
    """Fit every software: on all families but AMD's together, under "", and then on each.

    A family's figures are pulled to its software's, and these to `FIGURES`. Rows that cannot be what they
    say are left out. Of AMD, what quantising costs is learned from the other software first.
    """
    every = list(rows)
    possible = [row for row, is_possible in zip(every, possible_rows(every), strict=True) if is_possible]
    fitted: dict[tuple[str, str], Fitted] = {}
    softwares = list(dict.fromkeys(row.group.engine.name for row in possible))
    for software in softwares:
        rows_of = [row for row in possible if row.group.engine.name == software]
        common = [row for row in rows_of if row.group.hardware.family not in OF_FAMILY]
        fitted[software, ""] = everywhere = _solve(common, beliefs_of(software))
        for family in dict.fromkeys(row.group.hardware.family for row in rows_of):
            own = [row for row in rows_of if row.group.hardware.family == family]
            nearer = beliefs_of(software, family, everywhere.values)
            if family in OF_FAMILY:
                others = [
                    row
                    for row in possible
                    if row.group.hardware.family == family and row.group.engine.name != software
                ]
                learned = _solve(others, nearer).values["quantise"]
                nearer["quantise"] = replace(nearer["quantise"], middle=learned)
            fitted[software, family] = _solve(own, nearer)
    return fitted


def fit_without(rows: Iterable[ServerRow], source: str) -> dict[tuple[str, str], Fitted]:
    """Fit the engines that a source's rows ran on to all other sources."""
    rows = list(rows)
    softwares = {row.group.engine.name for row in rows if row.source == source}
    others = [row for row in rows if row.source != source]
    return fit_servers(
        row for row in others if row.group.engine.name in softwares or row.group.hardware.family in OF_FAMILY
    )


def figures_for(fitted: Mapping[tuple[str, str], Fitted], software: str, family: str) -> Fitted:
    """Return the figures of a software on a family: fitted there, or what is believed of them before that."""
    if (software, family) in fitted:
        return fitted[software, family]
    everywhere = fitted.get((software, "")) or _solve([], beliefs_of(software))
    if family not in OF_FAMILY:
        return everywhere
    return _solve([], beliefs_of(software, family, everywhere.values))


def beliefs_of(
    software: str, family: str = "", everywhere: Mapping[str, float] | None = None
) -> dict[str, Belief]:
    """Return what is believed of each figure before the rows of a software, or of one family, are seen.

    Those of a family lie around what its software has `everywhere`, or are its own where it has some.
    """
    of_software = {**FIGURES, **OF_SOFTWARE.get(software, {})}
    if not family:
        return of_software
    middles = everywhere or {path: belief.middle for path, belief in of_software.items()}
    own = OF_FAMILY.get(family, {})
    return {
        path: own[path]
        if path in own
        else replace(belief, middle=middles[path], deviation=SHARED * belief.deviation)
        for path, belief in of_software.items()
    }


def _solve(rows: Sequence[ServerRow], beliefs: Mapping[str, Belief]) -> Fitted:
    """Fit figures to rows: least squares of log ratios, few far ones, and of deviations from the beliefs."""
    counts = {row.source: sum(other.source == row.source for other in rows) for row in rows}
    weight = np.array([min(MOST_OF_SOURCE / counts[row.source], 1.0) ** 0.5 for row in rows])
    measured = np.array([row.seconds for row in rows])

    def values(z: FloatArray) -> dict[str, float]:
        return {path: belief.at(float(z[place])) for place, (path, belief) in enumerate(beliefs.items())}

    def misses(z: FloatArray) -> FloatArray:
        if not rows:
            return z
        figures = values(z)
        computed = price_servers(rows, lambda engine, _: with_figures(engine, figures)).seconds
        return np.concatenate([weight * np.log(measured / computed) / SPREAD, z])

    solved = least_squares(misses, np.zeros(len(beliefs)), loss="soft_l1", diff_step=[0.05], max_nfev=10)
    slopes = np.asarray(solved.jac, dtype=float)
    deviation = Z90 * np.sqrt(np.diag(np.linalg.inv(slopes.T @ slopes)))
    return Fitted(
        values(solved.x), values(solved.x - deviation), values(solved.x + deviation),
        len(rows), tuple(dict.fromkeys(row.source for row in rows)),
    )  # fmt: skip
