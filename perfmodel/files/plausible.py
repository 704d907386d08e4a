"""What every figure and grid of a file keeps to: plausible, between its ends, rising."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from perfmodel.errors import SpecError
from perfmodel.files.units import format_quantity, parse_count, parse_quantity

__all__ = ["LONGEST_NAME", "LONGEST_SOURCE", "NAME", "number_from", "refuse_disorder", "refuse_no_grid"]

NAME = r"^[a-z0-9][a-z0-9._-]*$"
"""How what files name freely is spelled."""
LONGEST_NAME, LONGEST_SOURCE = 100, 2000
"""Characters of such a name, and of a source."""


def number_from(given: str | float, dimension: str, least: float, most: float) -> float:
    """Return a number of a file in SI units. Raises SpecError where it is none or not plausible.

    Parameters
    ----------
    least, most : the plausible range, SI units.
    """
    value = parse_quantity(given, dimension)
    if not least <= value <= most:
        allowed = f"{format_quantity(least, dimension)} to {format_quantity(most, dimension)}"
        raise SpecError.single("", "", f"found {given}, which is not plausible", f"Allowed: {allowed}")
    return value


def refuse_disorder(value: float, low: float | None, high: float | None, kind: str) -> None:
    """Refuse a figure outside of its range, or without one unless it is published. Raises SpecError."""
    absent = [name for name, end in (("low", low), ("high", high)) if end is None]
    if len(absent) == 1 or (absent and kind != "published"):
        remedy = "Give the range of a measured or assumed figure in full"
        raise SpecError.single("", "", f"{' and '.join(absent)} missing", remedy)
    if low is not None and high is not None and not low <= value <= high:
        problem = "the value is not between low and high"
        raise SpecError.single("", "", problem, "Write low <= value <= high")


def refuse_no_grid(sizes: Sequence[float], gpus: Collection[str], rows: Collection[Sequence[float]]) -> None:
    """Refuse what is no grid of seconds over sizes and counts of GPUs. Raises SpecError.

    Parameters
    ----------
    sizes : of messages, which rise. [B]
    gpus, rows : counts as they are written, which rise from 2, and for each the seconds by size.
    """
    counts = [parse_count(count) for count in gpus]
    if len(sizes) < 2 or not _rises(sizes):
        raise SpecError.single("", "", "sizes do not rise", "Give at least two rising message sizes")
    if not counts or min(counts) < 2 or not _rises(counts):
        remedy = "Give rows for rising counts such as 2, 4, 8"
        raise SpecError.single("", "", "GPU counts do not rise from 2", remedy)
    for count, row in zip(gpus, rows, strict=True):
        if len(row) != len(sizes):
            problem = f"the row for {count} GPUs has {len(row)} times for {len(sizes)} sizes"
            raise SpecError.single("", "", problem, "Give one time per size")
        if any(after < before for before, after in pairwise(row)):
            problem = f"the row for {count} GPUs falls with size"
            raise SpecError.single("", "", problem, "Give times that never fall")


def _rises(numbers: Sequence[float]) -> bool:
    return all(before < after for before, after in pairwise(numbers))
