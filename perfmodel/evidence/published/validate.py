"""How far to believe the equations: every published table, its errors, and the limits they must keep."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from perfmodel.errors import Fault, SpecError, nearest_name
from perfmodel.evidence.published import measurements
from perfmodel.evidence.published.choices import GammaChoice, gamma_choices
from perfmodel.evidence.published.comparison import MEASURES, Compared, ErrorSummary, compare_steps, summarise
from perfmodel.evidence.published.tokens import TABLES as TOKEN_TABLES
from perfmodel.evidence.published.tokens import compare_tokens
from perfmodel.files.csv_rows import each_row, read_csv
from perfmodel.files.opening import TABLE, read_file
from perfmodel.files.scalars import number_in

__all__ = ["GammaSummary", "Limit", "Validation", "available", "limits_of", "validate"]

STATISTICS = ("mean_absolute_error", "bias", "share_within_one", "mean_regret")
LIMIT_COLUMNS = ("scope", "measure", "statistic", "at_least", "at_most")
_MOST = 100.0
"""Greatest limit of an error or a regret: computed and measured are a hundredfold apart. Assumed. [1]"""


@dataclass(frozen=True)
class GammaSummary:
    """Planned lengths of a scope: how many within one of the published best, and the speedup lost. [1]

    The untuned shares are those of `perfmodel.evidence.published.choices.GammaChoice.untuned`.
    """

    scope: str
    count: int
    share_within_one: float
    mean_regret: float
    worst_regret: float
    worst_cell: str
    untuned_within_one: float
    untuned_regret: float


@dataclass(frozen=True)
class Limit:
    """What one statistic must keep, and what it is; `found` is NaN where nothing was compared."""

    scope: str
    measure: str
    statistic: str
    at_least: float
    at_most: float
    found: float = math.nan

    @property
    def passed(self) -> bool:
        """Whether the statistic lies beyond its limit."""
        return self.found < self.at_least or self.found > self.at_most

    def __str__(self) -> str:
        bound = (
            f"at most {self.at_most:.1%}" if math.isfinite(self.at_most) else f"at least {self.at_least:.1%}"
        )
        return f"{self.scope}, {self.measure}, {self.statistic.replace('_', ' ')}: {self.found:.2%}, {bound}"


@dataclass(frozen=True)
class Validation:
    """Published beside computed, summed up by table, by accelerators and in total."""

    compared: tuple[Compared, ...]
    tables: tuple[ErrorSummary, ...]
    scopes: tuple[ErrorSummary, ...]
    total: tuple[ErrorSummary, ...]
    choices: tuple[GammaChoice, ...]
    gammas: tuple[GammaSummary, ...]
    limits: tuple[Limit, ...]

    @property
    def passed_limits(self) -> tuple[Limit, ...]:
        """The limits that are not kept."""
        return tuple(limit for limit in self.limits if limit.passed)


def available() -> tuple[str, ...]:
    """Return the names of all published tables."""
    return (*measurements.available(), *TOKEN_TABLES)


def validate(tables: Iterable[str] | None = None, limits: str | os.PathLike[str] | None = None) -> Validation:
    """Compare published tables, all where none is named, with what is computed for them.

    Parameters
    ----------
    limits : a CSV of limits with the columns ``LIMIT_COLUMNS``; those that belong to the tables where absent.
        A limit on accelerators counts when all tables of these accelerators are compared.

    Raises
    ------
    SpecError
        On unknown tables and on limits that cannot be read.
    """
    names = available()
    wanted = tuple(dict.fromkeys(names if tables is None else tables))
    unknown = [name for name in wanted if name not in names]
    if unknown:
        known = f"Known: {', '.join(names)}"
        raise SpecError(
            Fault(
                "", None, "table", f"there is no published table {name!r}", known, nearest_name(name, names)
            )
            for name in unknown
        )
    asked = limits_of(limits)
    scopes = {*names, "all", *(row.scope for row in measurements.load())}
    if lost := [limit.scope for limit in asked if limit.scope not in scopes]:
        file = "limits.csv" if limits is None else os.fspath(limits)
        raise SpecError(
            Fault(file, None, "scope", f"nothing is called {scope!r}", f"Known: {', '.join(sorted(scopes))}",
                  nearest_name(scope, scopes))
            for scope in dict.fromkeys(lost)
        )  # fmt: skip
    rows = measurements.load([name for name in wanted if name not in TOKEN_TABLES])
    steps = compare_steps(rows)
    compared = (*steps, *compare_tokens(wanted))
    choices = gamma_choices(rows)
    drafting = {_family(row.table) for row in steps if row.measure == "draft"}
    results = {
        "tables": tuple(summarise(compared, lambda row: row.table)),
        "scopes": tuple(
            summarise([row for row in steps if _family(row.table) in drafting], lambda row: row.scope)
        ),
        "total": tuple(summarise(steps, lambda _: "all")),
    }
    gammas = (
        *(
            _gamma_summary(name, [row for row in choices if row.table == name])
            for name in _names(choices, "table")
        ),
        *(
            _gamma_summary(name, [row for row in choices if row.scope == name])
            for name in _names(choices, "scope")
        ),
        *([_gamma_summary("all", choices)] if choices else []),
    )
    whole = set(wanted) | _complete_scopes(wanted)
    kept = tuple(_checked(limit, (*results["tables"], *results["scopes"], *results["total"]), gammas)
                 for limit in asked if limit.scope in whole)  # fmt: skip
    return Validation(
        compared, results["tables"], results["scopes"], results["total"], choices, gammas,
        tuple(limit for limit in kept if not math.isnan(limit.found)),
    )  # fmt: skip


def limits_of(path: str | os.PathLike[str] | None = None) -> tuple[Limit, ...]:
    """Return the limits of a CSV file, the bundled ones where none is named. Raises SpecError."""
    bundled = files("perfmodel") / "data" / "measurements" / "limits.csv"
    file = "limits.csv" if path is None else os.fspath(path)
    content = bundled.read_bytes() if path is None else read_file(path, TABLE)
    table = read_csv(content, file, required=LIMIT_COLUMNS, known=LIMIT_COLUMNS, exact=True)
    return each_row(table, LIMIT_COLUMNS, lambda _, cells: _limit(**cells))


def _limit(scope: str, measure: str, statistic: str, at_least: str, at_most: str) -> Limit:
    known = {"measure": (measure, (*MEASURES, "gamma")), "statistic": (statistic, STATISTICS)}
    for column, (word, words) in known.items():
        if word not in words:
            raise SpecError.single("", column, f"found {word!r}", f"There are {', '.join(words)}")
    least, most = _bound("at_least", at_least, statistic), _bound("at_most", at_most, statistic)
    if least is None and most is None:
        raise SpecError.single("", "at_least", "is empty, and at_most is too", "Give one of them, or both")
    if least is not None and most is not None and least > most:
        raise SpecError.single("", "at_least", f"found {least:g} above at_most, {most:g}", "Turn them round")
    return Limit(
        scope, measure, statistic, -math.inf if least is None else least, math.inf if most is None else most
    )


def _bound(column: str, text: str, statistic: str) -> float | None:
    """Return one end of a limit, None where it is empty; every statistic is 0 or more, shares at most 1."""
    if not text:
        return None
    value, problem = number_in(text)
    highest = 1.0 if statistic.startswith("share") else _MOST
    if problem or isinstance(value, str) or not 0.0 <= value <= highest:
        remedy = f"Give a number from 0 to {highest:g}, or leave one end empty"
        raise SpecError.single("", column, f"found {text[:40]!r}", remedy)
    return float(value)


def _complete_scopes(wanted: Sequence[str]) -> set[str]:
    """Return the scopes none of whose tables is left out; ``all`` where nothing is."""
    missing = [name for name in measurements.available() if name not in wanted]
    everywhere = {row.scope for row in measurements.load()}
    left_out = {row.scope for row in measurements.load(missing)} if missing else set()
    return (everywhere - left_out) | (set() if missing else {"all"})


def _family(table: str) -> str:
    """Return what tables of one engine have in common: the name up to the first hyphen."""
    return table.partition("-")[0]


def _checked(limit: Limit, summaries: Sequence[ErrorSummary], gammas: Sequence[GammaSummary]) -> Limit:
    of: Sequence[ErrorSummary | GammaSummary] = gammas if limit.measure == "gamma" else summaries
    for summary in of:
        same = summary.scope == limit.scope and (
            limit.measure == "gamma" or getattr(summary, "measure", "") == limit.measure
        )
        if same and hasattr(summary, limit.statistic):
            value = (
                abs(getattr(summary, limit.statistic))
                if limit.statistic == "bias"
                else getattr(summary, limit.statistic)
            )
            return Limit(
                limit.scope, limit.measure, limit.statistic, limit.at_least, limit.at_most, float(value)
            )
    return limit


def _names(choices: Sequence[GammaChoice], field: str) -> list[str]:
    return list(dict.fromkeys(getattr(row, field) for row in choices))


def _gamma_summary(scope: str, choices: Sequence[GammaChoice]) -> GammaSummary:
    regrets = np.array([row.regret for row in choices])
    worst = choices[int(regrets.argmax())]
    return GammaSummary(
        scope=scope,
        count=len(choices),
        share_within_one=float(np.mean([row.within_one for row in choices])),
        mean_regret=float(regrets.mean()),
        worst_regret=worst.regret,
        worst_cell=f"{worst.table}: {worst.cell}",
        untuned_within_one=float(np.mean([row.untuned_within_one for row in choices])),
        untuned_regret=float(np.mean([row.untuned_regret for row in choices])),
    )
