"""Published acceptance figures by the names of their models, and what stands in for others."""

from __future__ import annotations

import csv
import re
from functools import cache

import numpy as np

from perfmodel.acceptance.odds import expit
from strategies.base import AcceptanceLaw, Figure

SIZE_INTERCEPT, SIZE_SLOPE, SIZE_SD = 1.56, 0.37, 0.08


def plain_name(name: str) -> str:
    """Return a model's name without owner, case and punctuation, so that spellings compare equal."""
    return re.sub(r"[^a-z0-9]", "", name.rsplit("/", 1)[-1].lower())


def level_of(law: AcceptanceLaw, target_name: str) -> tuple[Figure, float]:
    """Return a law's level for this target, and the spread to add because the target was not observed."""
    target = plain_name(target_name)
    for name, figure in law.levels.items():
        if plain_name(name) in target:
            return figure, 0.0
    return law.level, law.unseen if law.level.value else 0.0


@cache
def published_rows(table: str) -> tuple[dict[str, str], ...]:
    """Return the rows of a bundled table of points: ``window``, ``chains``, ``pairs`` or ``tiny``."""
    from importlib.resources import files  # here, so that a plan that needs no table begins sooner

    text = (files("perfmodel") / "data" / "acceptance" / f"{table}.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def pair_rate(target_name: str, draft_name: str, size_ratio: float | None) -> Figure:
    """Return the rate of a draft model with its whole cache, greedy: published for the pair, or by size."""
    target, draft = plain_name(target_name), plain_name(draft_name)
    for row in published_rows("pairs"):
        if (
            row["drafter"] == "draft"
            and plain_name(row["target"]) in target
            and plain_name(row["draft"]) in draft
        ):
            return Figure(float(row["first"]), float(row["sd"]), "published", row["source"])
    ratio = 0.1 if size_ratio is None else size_ratio
    source = f"by size, {ratio:.3g} of the target, through 4 published pairs"
    return Figure(float(expit(SIZE_INTERCEPT + SIZE_SLOPE * np.log(ratio))), SIZE_SD, "assumed", source)


def head_rates(strategy_name: str, target_name: str) -> tuple[Figure, Figure] | None:
    """Return the greedy (first, rest) rates of a head for this target, or None where none is published."""
    target = plain_name(target_name)
    for row in published_rows("pairs"):
        if row["drafter"] == strategy_name and plain_name(row["target"]) in target:
            first, rest = (
                Figure(float(row[part]), float(row["sd"]), "published", row["source"])
                for part in ("first", "rest")
            )
            return first, rest
    return None
