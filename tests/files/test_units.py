"""Units: what people write becomes SI, and nothing can be mistaken for something else."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.errors import SpecError
from perfmodel.files.units import (
    DIMENSIONS,
    EXAMPLE,
    SI_UNIT,
    format_bytes,
    format_quantity,
    format_rate,
    format_seconds,
    parse_count,
    parse_quantity,
)


@pytest.mark.parametrize(
    ("written", "dimension", "expected"),
    [
        ("2039 GB/s", "bytes_per_s", 2.039e12),
        ("900 Gb/s", "bytes_per_s", 112.5e9),
        ("400Gbit/s", "bytes_per_s", 50e9),
        ("80 GiB", "bytes", 80 * 2**30),
        ("80 GB", "bytes", 80e9),
        ("312 TFLOPS", "flops", 312e12),
        ("1979 TOPS", "flops", 1979e12),
        ("989.5 TFLOP/s", "flops", 989.5e12),
        ("5.2 us", "seconds", 5.2e-6),
        ("5.2 \u00b5s", "seconds", 5.2e-6),
        ("90 us", "seconds", 9e-5),
        ("400 W", "watts", 400.0),
        ("1.41 GHz", "hertz", 1.41e9),
        ("2 USD/h", "usd_per_hour", 2.0),
        ("85 %", "ratio", 0.85),
        (0.85, "ratio", 0.85),
        ("1e3", "count", 1000.0),
        (108, "count", 108.0),
    ],
)
def test_a_quantity_is_read_into_si(written, dimension, expected):
    assert parse_quantity(written, dimension) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("written", "dimension", "says"),
    [
        ("5.2", "seconds", "without a unit"),
        (5.2, "seconds", "without a unit"),
        (2.039e12, "bytes_per_s", "2039 GB/s"),
        ("5.2 GB/s", "seconds", "one of bytes_per_s"),
        ("5.2 sec", "seconds", "not known"),
        ("80 gib", "bytes", "Did you mean 'GiB'"),
        ("nan GB", "bytes", "not a number"),
        ("inf s", "seconds", "not a number"),
        ("1e400 s", "seconds", "not a finite number"),
        (math.nan, "ratio", "not a finite number"),
        (math.inf, "ratio", "not a finite number"),
        (True, "count", "not a number"),
        (None, "count", "not a number"),
        ([1], "count", "not a number"),
        ("1_000", "count", "not known"),
        ("0x10", "count", "not known"),
        ("\u0663 s", "seconds", "not a number"),
        ("1" * 200, "count", "not a number"),
        (10**400, "count", "not a finite number"),
        ("", "count", "not a number"),
    ],
)
def test_what_could_be_misread_is_refused_with_the_reason(written, dimension, says):
    with pytest.raises(SpecError) as error:
        parse_quantity(written, dimension)
    assert says in str(error.value)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_the_example_of_every_dimension_is_accepted(dimension):
    assert parse_quantity(EXAMPLE[dimension], dimension) > 0


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_one_si_unit_of_every_dimension_is_one(dimension):
    unit = SI_UNIT[dimension].replace("FLOP/s", "FLOPS")
    assert parse_quantity(f"1 {unit}" if unit else 1, dimension) == 1.0


@given(st.sampled_from(sorted(DIMENSIONS)), st.floats(1e-9, 1e17))
def test_formatting_and_parsing_are_inverse(dimension, value):
    assert parse_quantity(format_quantity(value, dimension), dimension) == pytest.approx(value, rel=1e-5)


@given(st.sampled_from(sorted(DIMENSIONS)), st.one_of(st.text(max_size=30), st.floats(), st.integers()))
def test_any_input_gives_a_finite_number_or_a_spec_error(dimension, written):
    with contextlib.suppress(SpecError):
        assert math.isfinite(parse_quantity(written, dimension))


@pytest.mark.parametrize(
    ("written", "expected"),
    [("64", 64), (64, 64), ("32k", 32_000), ("32K", 32_768), ("1m", 10**6), ("1M", 2**20), ("1e5", 100_000),
     ("1.5k", 1500), ("0", 0), (" 8 ", 8)],
)  # fmt: skip
def test_counts_take_decimal_and_binary_suffixes(written, expected):
    assert parse_count(written) == expected


@pytest.mark.parametrize(
    "written",
    ["", "-1", -1, "1.5", "1e30", 10**40, "k", "32kk", "nan", "inf", True, None, 3.0, "9" * 200, "1e999"],
)
def test_counts_refuse_what_is_not_a_plausible_whole_number(written):
    with pytest.raises(SpecError):
        parse_count(written)


@given(st.integers(0, 10**9))
def test_suffixes_multiply_by_a_thousand_and_by_1024(number):
    if number < 10**6:
        assert parse_count(f"{number}k") == 1000 * number
        assert parse_count(f"{number}K") == 1024 * number
    assert parse_count(str(number)) == number


def test_people_read_rounded_values_with_suitable_prefixes():
    assert format_seconds(0.00123) == "1.23 ms"
    assert format_seconds(0.0) == "0 s"
    assert format_seconds(9.999e-4) == "1 ms"
    assert format_seconds(math.inf) == "inf s"
    assert format_bytes(80 * 2**30) == "80 GiB"
    assert format_rate(2.039e12) == "2.04 TB/s"
    assert format_rate(312e12, "flops") == "312 TFLOPS"
