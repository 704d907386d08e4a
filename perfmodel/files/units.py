"""Numbers with units as people write them, to SI floats and back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from perfmodel.errors import SpecError, nearest_name, shown

__all__ = [
    "DIMENSIONS", "EXAMPLE", "SI_UNIT", "format_bytes", "format_quantity", "format_rate", "format_seconds",
    "parse_count", "parse_quantity", "plural", "round_quantity", "short_tokens", "write_quantity",
]  # fmt: skip

_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BYTES = {f"{prefix}B": factor for prefix, factor in _DECIMAL.items()} | {
    "KB": 1e3, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40,
}  # fmt: skip
_BITS = {
    f"{prefix}{bit}": factor / 8 for prefix, factor in _DECIMAL.items() if prefix for bit in ("b", "bit")
}

#: Accepted units of every dimension, with their factor to the SI unit. Case counts: GB/s is eight times Gb/s.
DIMENSIONS: Mapping[str, Mapping[str, float]] = {
    "bytes": _BYTES,
    "bytes_per_s": {f"{unit}/s": factor for unit, factor in (_BYTES | _BITS).items()},
    "flops": {
        f"{prefix}{unit}": factor
        for prefix, factor in _DECIMAL.items()
        if prefix in ("", "G", "T", "P")
        for unit in ("FLOPS", "FLOP/s", "OPS", "OP/s")
    },
    "seconds": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ns": 1e-9},
    "watts": {"W": 1.0, "kW": 1e3},
    "usd_per_hour": {"USD/h": 1.0, "USD/hour": 1.0, "$/h": 1.0},
    "hertz": {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9},
    "ratio": {"": 1.0, "%": 0.01},
    "count": {"": 1.0},
}

#: The unit in which every dimension is kept inside.
SI_UNIT: Mapping[str, str] = {
    "bytes": "B", "bytes_per_s": "B/s", "flops": "FLOP/s", "seconds": "s", "watts": "W",
    "usd_per_hour": "USD/h", "hertz": "Hz", "ratio": "", "count": "",
}  # fmt: skip

#: One well-written quantity of every dimension.
EXAMPLE: Mapping[str, str] = {
    "bytes": "80 GiB", "bytes_per_s": "2039 GB/s", "flops": "312 TFLOPS", "seconds": "5.2 us",
    "watts": "400 W", "usd_per_hour": "1.5 USD/h", "hertz": "1.41 GHz", "ratio": "0.85", "count": "108",
}  # fmt: skip

_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_QUANTITY = re.compile(rf"\s*({_NUMBER})\s*(\S*)\s*", re.ASCII)
_COUNT = re.compile(rf"\s*({_NUMBER})\s*([kKmMgG]?)\s*", re.ASCII)
_COUNT_SUFFIX = {"": 1, "k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20, "g": 10**9, "G": 2**30}
_SEPARATED = re.compile(
    r"\s*[1-9][0-9]{0,2}(?P<mark>[,_ '\u2019\u00a0\u2009\u202f])[0-9]{3}(?:(?P=mark)[0-9]{3})*\s*[kKmMgG]?\s*"
)
"""A number with a separator of thousands, the same throughout."""
_LONGEST_TEXT = 100
_LARGEST_COUNT = 10**15


def parse_quantity(text: str | float, dimension: str) -> float:
    """Return the SI value of a number with its unit, such as "2039 GB/s" for the dimension bytes_per_s.

    A bare number is accepted for the dimensions ratio and count only. Raises SpecError on a missing, unknown
    or foreign unit and on anything that is not a finite number.
    """
    units = DIMENSIONS[dimension]
    example = f"Write a number and a unit, for example {EXAMPLE[dimension]}"
    if "" in units:
        example = f"Write a plain number, for example {EXAMPLE[dimension]}"
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        raise _refusal(dimension, f"found {shown(text)}, not a number", example)
    if isinstance(text, str):
        match = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
        if match is None:
            raise _refusal(dimension, f"found {shown(text)}, not a number with a unit", example)
        number, unit = float(match[1]), match[2]
    else:
        number, unit = _as_float(text), ""
    if unit not in units:
        raise _unit_refusal(text, unit, dimension, example)
    factor = units[unit]
    value = number * factor if factor >= 1.0 else number / round(1.0 / factor)  # 90 us is 9e-05 exactly
    if not math.isfinite(value):
        raise _refusal(dimension, f"found {shown(text)}, not a finite number", example)
    return value


def parse_count(text: str | int) -> int:
    """Return a whole number of tokens, requests or GPUs: "32k" is 32000, "32K" is 32768; m, M, g, G likewise.

    Thousands may be separated: "32,000", "32_000" and "32 000" are 32000. Raises SpecError on negative,
    fractional and absurdly large counts (above 1e15).
    """
    if isinstance(text, str) and len(text) < 16 and text.isascii() and text.isdigit():
        return int(text)
    remedy = "Write a whole number such as 64, 32k (32000) or 32K (32768)"
    short = text if isinstance(text, str) and len(text) <= _LONGEST_TEXT else ""
    if separated := _SEPARATED.fullmatch(short):
        short = short.replace(separated["mark"], "")
    match = _COUNT.fullmatch(short)
    if isinstance(text, int) and not isinstance(text, bool):
        exact = float(text) if abs(text) <= _LARGEST_COUNT else math.inf
    elif match is not None:
        exact = float(match[1]) * _COUNT_SUFFIX[match[2]]
    else:
        raise SpecError.single("", "", f"found {shown(text)}, not a whole number", remedy)
    if not 0 <= exact <= _LARGEST_COUNT:
        raise SpecError.single("", "", f"found {shown(text)}, allowed are counts from 0 to 1e15", remedy)
    if exact != int(exact):
        raise SpecError.single("", "", f"found {shown(text)}, which is not whole", remedy)
    return int(exact)


def plural(number: int, word: str) -> str:
    """Return a number of things in words: ``1 token``, ``2 tokens``."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def round_quantity(value: float, dimension: str, digits: int) -> float:
    """Return an SI value with so many significant digits in the unit in which it is written."""
    return parse_quantity(_in_unit(value, _written_units(value, dimension)[0], dimension, digits), dimension)


def write_quantity(value: float, dimension: str) -> str:
    """Return the shortest text that `parse_quantity` reads back as exactly this SI value."""
    units = _written_units(value, dimension)
    texts = (_in_unit(value, unit, dimension, digits) for digits in range(1, 18) for unit in units)
    return next(text for text in texts if parse_quantity(text, dimension) == value)


def _written_units(value: float, dimension: str) -> list[str]:
    """Return the units that are not larger than a value, the largest first, and the SI unit."""
    units = DIMENSIONS[dimension]
    return [unit for unit in _WRITTEN.get(dimension, ()) if abs(value) >= units[unit]] + [SI_UNIT[dimension]]


def _in_unit(value: float, unit: str, dimension: str, digits: int) -> str:
    rounded = float(f"{value / DIMENSIONS[dimension][unit]:.{digits}g}")
    return f"{rounded:.{max(digits, 15)}g} {unit}".rstrip()


def format_quantity(value: float, dimension: str) -> str:
    """Return an SI value as text that `parse_quantity` reads back, in the prefix that suits its size."""
    if dimension in ("ratio", "count"):
        return f"{value:.6g}"
    return _scale(value, dimension, 6, 1.0)


def format_seconds(value: float) -> str:
    """Return a time [s] for people, such as "12.3 ms"."""
    return _for_people(value, "seconds")


def format_bytes(value: float) -> str:
    """Return a memory size [B] for people in binary units, such as "74.5 GiB"."""
    return _for_people(value, "bytes")


def format_rate(value: float, dimension: str = "bytes_per_s") -> str:
    """Return a bandwidth [B/s] or, with dimension "flops", a compute rate for people, such as "2.04 TB/s"."""
    return _for_people(value, dimension)


_LADDERS = {
    "bytes": ("TiB", "GiB", "MiB", "KiB", "B"),
    "bytes_per_s": ("TB/s", "GB/s", "MB/s", "kB/s", "B/s"),
    "flops": ("PFLOPS", "TFLOPS", "GFLOPS", "FLOPS"),
    "seconds": ("s", "ms", "us", "ns"),
    "watts": ("W",),
    "usd_per_hour": ("USD/h",),
    "hertz": ("GHz", "MHz", "kHz", "Hz"),
}
_WRITTEN = {**_LADDERS, "bytes": ("TB", "GB", "MB", "kB", *_LADDERS["bytes"])}


def _for_people(value: float, dimension: str) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {SI_UNIT[dimension]}"
    return _scale(value, dimension, 3, 0.9995)


def _scale(value: float, dimension: str, digits: int, least: float) -> str:
    """Return a value in the largest unit of which it is at least the share `least`."""
    units, ladder = DIMENSIONS[dimension], _LADDERS[dimension]
    unit = next((unit for unit in ladder if abs(value) >= least * units[unit]), ladder[-1])
    scaled = value / units[unit]
    digits = max(digits, len(f"{abs(scaled):.0f}"))  # 1,023 MiB is no power of ten
    return f"{scaled:.{digits}g} {unit}"


def _as_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _unit_refusal(text: str | float, unit: str, dimension: str, example: str) -> SpecError:
    named = [name for name in DIMENSIONS[dimension] if name]
    allowed = ", ".join(named) or "none"
    if not unit:
        return _refusal(dimension, f"found {shown(text)} without a unit", f"{example}; units: {allowed}")
    foreign = next((name for name, units in DIMENSIONS.items() if unit in units), None)
    known = f"one of {foreign}" if foreign else "not known"
    problem = f"found {shown(text)}, whose unit {shown(unit)} is {known}"
    nearest = None if foreign else nearest_name(unit, named)
    return SpecError.single("", "", f"{problem}; expected {dimension}", f"Allowed units: {allowed}", nearest)


def _refusal(dimension: str, problem: str, remedy: str) -> SpecError:
    return SpecError.single("", "", f"{problem}; expected {dimension}", remedy)


def short_tokens(value: float) -> str:
    """Return a number of tokens as it may be typed: 32k is 32000, 32K is 32768."""
    whole = round(value)
    if whole >= 1000 and whole % 1000 == 0:
        return f"{whole // 1000}k"
    if whole >= 1024 and whole % 1024 == 0:
        return f"{whole // 1024}K"
    return f"{whole / 1000:g}k" if whole >= 1000 and whole % 100 == 0 else f"{whole:,}"
