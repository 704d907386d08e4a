"""Flags of traffic to traces, policies, targets and replicas, each fault with its flag."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import typer

from perfmodel.cli.ask.config import place_of
from perfmodel.errors import SpecError, nearest_name
from perfmodel.files.units import parse_count, parse_quantity

__all__ = ["POLICIES", "read_factors", "read_one", "read_policies", "seconds"]

T = TypeVar("T")
POLICIES = ("none", "fixed:N", "schedule", "adaptive")
_MOST_CASES = 64


def read_one(ctx: typer.Context, name: str, parse: Callable[[str], T], text: str | None) -> T | None:
    """Return what one flag means, None where it is absent; SpecError names the flag."""
    if text is None:
        return None
    try:
        return parse(text.strip())
    except SpecError as refusal:
        file, line, flag = place_of(ctx, name)
        if any(fault.file not in ("", "policy", "synthetic trace") for fault in refusal.faults):
            raise
        problems = "; ".join(
            f"{fault.field} {fault.problem}" if fault.field else fault.problem for fault in refusal.faults
        )
        first = refusal.faults[0]
        raise SpecError.single(file, flag, problems, first.remedy, first.nearest, line) from None


def seconds(text: str) -> float:
    """Return seconds from a text of milliseconds, or of a number with a unit such as 2s. Raises SpecError."""
    bare = text[-1:].isdigit() or text[-1:] == "."
    value = parse_quantity(text, "count") / 1e3 if bare else parse_quantity(text, "seconds")
    if not value > 0.0 or not math.isfinite(value):
        raise SpecError.single(
            "", "", f"found {text}", "Give milliseconds above 0, or a number with its unit"
        )
    return value


def read_policies(text: str) -> list[tuple[str, int]]:
    """Return the names of policies with their length, such as ``fixed:3`` and 3; 0 where they have none."""
    found = []
    for name in (part.strip().lower() for part in text.split(",") if part.strip()):
        kind, _, length = name.partition(":")
        if kind == "fixed" and length:
            gamma = parse_count(length)
            if gamma > 64:
                raise SpecError.single("", "", f"found {name}", "Give a length from 0 to 64")
            found.append((f"fixed:{gamma}" if gamma else "none", gamma))
        elif name in POLICIES and kind != "fixed":
            found.append((name, 0))
        else:
            nearest = nearest_name(kind, ("none", "fixed", "schedule", "adaptive"))
            known = f"Known: {', '.join(POLICIES)}"
            raise SpecError.single(
                "", "", f"found {name[:60]!r}", known, nearest if nearest != kind else None
            )
    if not found:
        raise SpecError.single("", "", "names no policy", f"Known: {', '.join(POLICIES)}")
    return list(dict.fromkeys(found))


def read_factors(text: str) -> list[float]:
    """Return positive factors, such as ``0.5,1,2``."""
    values = [parse_quantity(part.strip(), "count") for part in text.split(",") if part.strip()]
    if not 1 <= len(values) <= _MOST_CASES or not all(0.0 < value < 1e9 for value in values):
        raise SpecError.single("", "", f"found {text[:60]!r}", f"Give 1 to {_MOST_CASES} numbers above 0")
    return list(dict.fromkeys(values))
