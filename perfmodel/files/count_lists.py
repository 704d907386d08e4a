"""Lists and ranges of whole numbers as people type them, with how each was understood."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from perfmodel.errors import SpecError, shown
from perfmodel.files.units import parse_count

__all__ = ["CountList", "parse_list", "read_list"]

_MOST_COUNTS = 100_000
_MOST_GROUPS = 64
"""Numbers and groups of digits between commas that are told apart. [1]"""
_LARGEST_GROUPED = 10_000_000
"""A number with commas in a list is not larger: two beside each other are taken for two. [1]"""
_SHORTEST_LISTED = 100
"""A list of contexts does not begin below: 8,192 is one number, 128,256 are two. [tokens]"""
_MOST_SHOWN = 12
_LONGEST_PART = 100
_RUN = re.compile(r"(?<!\w)(?<!\d\.)[0-9]+(?:,[0-9]+)+(?!\w|\.\d)", re.ASCII)
"""Digits and commas alone: a list, or numbers with separators."""
_SPACED = re.compile(r"(?<![\w.,])[0-9]{1,3}(?:[ \u00a0\u2009\u202f'\u2019][0-9]{3})+(?!\w|\.\d)", re.ASCII)
_RANGE = re.compile(r"\s*(\S.*?)\s*(?:\.{2,3}|(?<![eE])-|[\u2013\u2014]|\bto\b)\s*([^\s:].*?)\s*(?::(.*))?")
_FORMS = "Write 32k-128k, 16:256:16 with a step or 16:256:x2 to multiply"


class CountList(NamedTuple):
    """What a list names, its order kept, and a sentence for whatever could have been meant otherwise."""

    counts: list[int]
    readings: tuple[str, ...]


def parse_list(text: str) -> list[int]:
    """Return the counts that `read_list` reads. Raises SpecError."""
    return read_list(text).counts


def read_list(text: str, *, by_one: bool = False, contexts: bool = False) -> CountList:
    """Read counts such as "1,8,64", "32k-128k", "32k..128k", "16:256:16" or "4k..128k:x2", also mixed.

    Repeated counts are dropped. A range without a step doubles from its first value on; both ends are in it.
    A comma before exactly three digits separates thousands where one such group begins with 0, as in 32,000
    or 131,072; all others, and each before a space, separate values.

    Parameters
    ----------
    by_one : a range without a step holds every count between its ends.
    contexts : values are contexts of a model: what would be a list that begins below 100 or does not rise,
        such as 8,192 or 262,144, is a number too where its groups allow it.

    Raises
    ------
    SpecError
        Where it is no list of counts, or could be several.
    """
    readings: list[str] = []

    def ungrouped(run: re.Match[str]) -> str:
        numbers = _numbers_in(run[0].split(","), contexts)
        if numbers is None:
            return run[0]
        each = "one number" if len(numbers) == 1 else f"{len(numbers)} numbers"
        readings.append(f"{run[0][:60]} is read as {each}: {_listed(numbers)}")
        return ",".join(map(str, numbers))

    plain = _RUN.sub(ungrouped, _SPACED.sub(lambda match: re.sub(r"\D", "", match[0]), text))
    counts: dict[int, None] = {}
    for part in plain.split(","):
        named, is_stepped = _expand(part, by_one)
        counts.update(dict.fromkeys(named))
        if not is_stepped and len(named) > 1:
            how = "by ones" if by_one else "doubling, ends included"
            readings.append(f"{part.strip()[:60]} is read as {_listed(named)} ({how})")
        if len(counts) > _MOST_COUNTS:
            problem = f"{shown(text)} names more than {_MOST_COUNTS} values"
            raise SpecError.single("", "", problem, "Use a wider step")
    return CountList(list(counts), tuple(readings))


def _listed(numbers: Sequence[int]) -> str:
    if len(numbers) > _MOST_SHOWN:
        return ", ".join(map(str, (*numbers[:3], "...", numbers[-1])))
    return ", ".join(map(str, numbers))


def _expand(part: str, by_one: bool) -> tuple[list[int], bool]:
    """Return the counts of one value or range, and whether it says how they follow each other."""
    written = _RANGE.fullmatch(part) if len(part) <= _LONGEST_PART else None
    if written is not None:
        ends = [written[1], written[2], *([] if written[3] is None else [written[3]])]
    elif ":" in part:
        ends = part.split(":")
    else:
        return [parse_count(part)], True
    if len(ends) not in (2, 3):
        raise SpecError.single("", "", f"found {shown(part)}, a range with several steps", _FORMS)
    first, last = parse_count(ends[0]), parse_count(ends[1])
    if last < first:
        raise SpecError.single("", "", f"found {shown(part)}, which ends before it starts", _FORMS)
    if len(ends) == 2 and not by_one:
        return [*_multiplied(max(first, 1), last - 1, 2, [first]), last] if last > first else [first], False
    step = ends[2].strip() if len(ends) == 3 else "1"
    if step[:1] not in ("x", "*", "\u00d7"):
        stride = parse_count(step)
        if stride < 1 or (last - first) // stride >= _MOST_COUNTS:
            raise SpecError.single("", "", f"found step {shown(step)}, none or far too many values", _FORMS)
        return list(range(first, last + 1, stride)), len(ends) == 3
    ratio = parse_count(step[1:])
    if ratio < 2 or first < 1:
        raise SpecError.single("", "", f"found {shown(part)}, which never ends", _FORMS)
    return _multiplied(first, last, ratio, []), True


def _multiplied(first: int, last: int, ratio: int, before: list[int]) -> list[int]:
    """Return the values of a geometric series up to the last, behind those that are `before` it."""
    values = list(before)
    while first <= last:
        if first not in values:
            values.append(first)
        first *= ratio
    return values


def _numbers_in(groups: list[str], contexts: bool) -> list[int] | None:
    """Return the numbers that groups of digits between commas make up; None where each is a number itself."""
    shown_as = ",".join(groups)
    separated = any(len(group) == 3 and group[0] == "0" for group in groups[1:])
    singles = [int(group) for group in groups[:_MOST_GROUPS]]
    listed = singles[0] >= _SHORTEST_LISTED and _rises(singles)
    if not separated and (not contexts or listed or len(groups) > _MOST_GROUPS):
        return None
    if len(groups) > _MOST_GROUPS:
        raise _unclear(shown_as)
    every = list(_splits(groups))
    if not separated:
        every = [numbers for numbers in every if min(numbers) >= 1000]
    fewest = min(map(len, every), default=0)
    likely = [numbers for numbers in every if len(numbers) == fewest]
    if len(likely) == 1:
        return likely[0]
    if not separated:
        return None
    whole = _number(groups) if len(groups) <= 3 else None  # beyond any in a list, but nothing else
    if likely or whole is None:
        raise _unclear(shown_as)
    return [whole]


def _splits(groups: list[str], above: int = -1) -> Iterator[list[int]]:
    """Yield every way to take groups for rising numbers above another one, none beyond the largest."""
    if not groups:
        yield []
    for size in range(1, min(len(groups), 3) + 1):
        number = _number(groups[:size])
        if number is not None and above < number <= _LARGEST_GROUPED:
            for others in _splits(groups[size:], number):
                yield [number, *others]


def _number(groups: list[str]) -> int | None:
    """Return the number that groups write, the first of one to three digits; None where they write none."""
    first, *others = groups
    if len(first) > 1 and first[0] == "0":
        return None
    if others and (len(first) > 3 or first == "0" or any(len(group) != 3 for group in others)):
        return None
    return int("".join(groups))


def _rises(values: list[int]) -> bool:
    return all(low < high for low, high in itertools.pairwise(values))


def _unclear(text: str) -> SpecError:
    return SpecError.single(
        "", "", f"{shown(text)} can be read in several ways", "Write 32000 or 32k, and commas between values"
    )
