"""What the texts of the traffic flags mean: times, policies, speeds and rents."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from perfmodel.errors import SpecError, nearest_name
from perfmodel.files.units import parse_count, parse_quantity

if TYPE_CHECKING:
    from perfmodel.traffic.metrics import WarmUp

__all__ = ["POLICIES", "read_factors", "read_policies", "read_prices", "read_warm_up", "seconds"]

POLICIES = ("none", "fixed:N", "schedule", "adaptive")
_MOST_CASES = 64


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
    policies = []
    for name in (part.strip().lower() for part in text.split(",") if part.strip()):
        kind, _, length = name.partition(":")
        if kind == "fixed" and length:
            gamma = parse_count(length)
            if gamma > 64:
                raise SpecError.single("", "", f"found {name}", "Give a length from 0 to 64")
            policies.append((f"fixed:{gamma}" if gamma else "none", gamma))
        elif name in POLICIES and kind != "fixed":
            policies.append((name, 0))
        else:
            nearest = nearest_name(kind, ("none", "fixed", "schedule", "adaptive"))
            known = f"Known: {', '.join(POLICIES)}"
            raise SpecError.single(
                "", "", f"found {name[:60]!r}", known, nearest if nearest != kind else None
            )
    if not policies:
        raise SpecError.single("", "", "names no policy", f"Known: {', '.join(POLICIES)}")
    return list(dict.fromkeys(policies))


def read_factors(text: str) -> list[float]:
    """Return positive factors, such as ``0.5,1,2``."""
    values = [parse_quantity(part.strip(), "count") for part in text.split(",") if part.strip()]
    if not 1 <= len(values) <= _MOST_CASES or not all(0.0 < value < 1e9 for value in values):
        remedy = f"Give 1 to {_MOST_CASES} numbers above 0 and below 1e9"
        raise SpecError.single("", "", f"found {text[:60]!r}", remedy)
    return list(dict.fromkeys(values))


def read_warm_up(text: str) -> WarmUp:
    """Return a warm-up of so many requests, or of seconds such as 30s. Raises SpecError."""
    from perfmodel.traffic.metrics import WarmUp

    if text[-1:].isalpha() and text[-1:].lower() != "k":
        return WarmUp(seconds=parse_quantity(text, "seconds"))
    return WarmUp(requests=parse_count(text))


def read_prices(text: str) -> dict[str, float]:
    """Return the rents that a text such as ``h100-sxm-80gb=2.1`` names. [USD/h]"""
    prices = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, rent = part.partition("=")
        price = parse_quantity(rent.strip(), "count") if rent else 0.0
        if not 0.0 < price < 1e4:
            raise SpecError.single(
                "", "", f"found {part[:60]!r}", "Write NAME=USD, such as h100-sxm-80gb=2.1"
            )
        prices[name.strip()] = price
    return prices
