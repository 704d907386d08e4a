"""How far to believe prices of servers: errors by source, and of engines that the source did not teach."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from perfmodel.engine import EngineOverhead
from perfmodel.evidence.servers.fit import Fitted, figures_for, fit_without
from perfmodel.evidence.servers.presets import preset_of
from perfmodel.evidence.servers.price import possible_rows, price_servers, server_intervals
from perfmodel.evidence.servers.rows import ServerRow, published_servers
from perfmodel.files.numbers import FloatArray
from perfmodel.hardware import HardwareProfile

__all__ = [
    "ServerError", "ServerErrors", "compare_servers", "engines_without", "figures_without",
    "summarise_servers",
]  # fmt: skip

KINDS: Mapping[str, str] = {
    "step": "plain step", "round": "round", "speedup": "speedup", "loop": "TPOT of a closed loop",
}  # fmt: skip
"""What is compared; a burst is a closed loop."""
HELD_OUT = "servers_held_out.json"


@dataclass(frozen=True)
class ServerError:
    """One published number beside what is computed for it.

    fitted, held_out : by the engine that ships, and by one fitted without this source.
    low, high : between which 80 % of cases are to lie, by the latter; NaN for a speedup.
    possible : False where its source measured something else than it says: `possible_rows`.
    """

    row: ServerRow
    kind: str
    published: float
    fitted: float
    held_out: float
    low: float
    high: float
    possible: bool

    @property
    def error(self) -> float:
        """Computed over published, less 1, by an engine that the source did not teach."""
        return self.held_out / self.published - 1.0

    @property
    def covered(self) -> bool:
        """Whether it lies in its interval."""
        return self.low <= self.published <= self.high


@dataclass(frozen=True)
class ServerErrors:
    """Errors of some numbers: how many, mean absolute, median and bias held out, mean absolute as shipped.

    coverage : share within their 80 % intervals, held out; NaN for speedups. [1]
    """

    name: str
    kind: str
    count: int
    held_out: float
    median: float
    bias: float
    fitted: float
    coverage: float


def compare_servers() -> tuple[ServerError, ...]:
    """Compare every published number with what is computed for it."""
    every = published_servers()
    shipped, believed = price_servers(every), possible_rows(every)
    sources = list(dict.fromkeys(row.source for row in every))
    errors: dict[int, list[ServerError]] = {}
    for source in sources:
        members = [index for index, row in enumerate(every) if row.source == source]
        own = [every[index] for index in members]
        untaught = price_servers(own, engines_without(source))
        low, high = server_intervals(own, engines_without(source))
        speedups = untaught.speedup(own), shipped.speedup(every)[members]
        for place, (index, row) in enumerate(zip(members, own, strict=True)):
            kind = "loop" if row.measured == "burst" else row.measured
            possible = bool(believed[index])
            errors[index] = [
                ServerError(
                    row, kind, row.seconds, shipped.seconds[index], untaught.seconds[place],
                    low[place], high[place], possible,
                )
            ]  # fmt: skip
            if np.isfinite(row.speedup):
                held, fitted = (float(values[place]) for values in speedups)
                errors[index].append(
                    ServerError(row, "speedup", row.speedup, fitted, held, np.nan, np.nan, possible)
                )
    return tuple(error for index in sorted(errors) for error in errors[index])


def summarise_servers(
    errors: Iterable[ServerError], name_of: Callable[[ServerError], str]
) -> list[ServerErrors]:
    """Sum up the errors of possible numbers, by a name and by kind, in the order in which they come."""
    groups: dict[tuple[str, str], list[ServerError]] = {}
    for error in errors:
        if error.possible:
            groups.setdefault((name_of(error), error.kind), []).append(error)
    return [_sum_up(name, kind, members) for (name, kind), members in groups.items()]


def _sum_up(name: str, kind: str, members: Sequence[ServerError]) -> ServerErrors:
    held = np.array([error.error for error in members])
    fitted = np.array([error.fitted / error.published - 1.0 for error in members])
    covered: FloatArray = np.array([error.covered for error in members], dtype=float)
    return ServerErrors(
        name, kind, len(members), float(np.abs(held).mean()), float(np.median(np.abs(held))),
        float(held.mean()), float(np.abs(fitted).mean()),
        float(covered.mean()) if kind != "speedup" else np.nan,
    )  # fmt: skip


def figures_without(rows: Sequence[ServerRow], source: str) -> list[dict[str, object]]:
    """Fit a source's engines to the others, and return the figures that its rows are priced with."""
    fitted = fit_without(rows, source)
    own = {
        (row.group.engine.name, row.group.hardware.family): None for row in rows if row.source == source
    }
    return [
        {
            "engine": software,
            "family": family,
            "fitted_there": (software, family) in fitted,
            **_rounded(figures_for(fitted, software, family)),
        }
        for software, family in own
    ]


def _rounded(figures: Fitted) -> dict[str, object]:
    ends = {
        name: {path: float(f"{value:.4g}") for path, value in getattr(figures, name).items()}
        for name in ("values", "low", "high")
    }
    return {**ends, "rows": figures.rows, "sources": list(figures.sources)}


@cache
def _held_out() -> Mapping[str, Mapping[tuple[str, str], EngineOverhead]]:
    """Return the engines of every source's rows, fitted without it, by software and family."""
    text = (files("perfmodel") / "data" / "measurements" / HELD_OUT).read_text(encoding="utf-8")
    return {
        source: {(entry["engine"], entry["family"]): _engine(**entry) for entry in entries}
        for source, entries in json.loads(text).items()
    }


def _engine(engine: str, family: str, fitted_there: bool, **figures: object) -> EngineOverhead:
    return preset_of(engine, family if fitted_there else "", Fitted(**figures))  # type: ignore[arg-type]


def engines_without(source: str) -> Callable[[EngineOverhead, HardwareProfile], EngineOverhead]:
    """Return what takes the place of an engine on its hardware: the one fitted without a source."""
    engines = _held_out()[source]

    def engine_of(engine: EngineOverhead, hardware: HardwareProfile) -> EngineOverhead:
        return engines[engine.name, hardware.family]

    return engine_of
