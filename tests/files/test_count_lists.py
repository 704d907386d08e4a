"""Lists and ranges of counts: read as people and the product itself write them, never as something else."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.errors import SpecError
from perfmodel.files.count_lists import parse_list, read_list
from perfmodel.files.units import parse_count

COUNTS = st.integers(1, 10**7)
MARKS = st.sampled_from([",", "_", " ", "\u202f", "\u00a0", "'"])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1,8,64", [1, 8, 64]),
        ("16:64:16", [16, 32, 48, 64]),
        ("16:70:16", [16, 32, 48, 64]),
        ("16:256:x2", [16, 32, 64, 128, 256]),
        ("4k..16k:x2", [4000, 8000, 16000]),
        ("4k..16k:*2", [4000, 8000, 16000]),
        ("1k:4K:x2", [1000, 2000, 4000]),
        ("1,4:12:4,8", [1, 4, 8, 12]),
        ("7", [7]),
        ("32k-128k", [32_000, 64_000, 128_000]),
        ("32k..128k", [32_000, 64_000, 128_000]),
        ("32k \u2013 128k", [32_000, 64_000, 128_000]),
        ("32k to 128k", [32_000, 64_000, 128_000]),
        ("1:8", [1, 2, 4, 8]),
        ("3-20", [3, 6, 12, 20]),
        ("0-4", [0, 1, 2, 4]),
        ("1e3-4e3", [1000, 2000, 4000]),
        ("64-64", [64]),
        ("4,8,16", [4, 8, 16]),
        ("64,128,256", [64, 128, 256]),
        ("512,256,128", [512, 256, 128]),
        ("32,000", [32_000]),
        ("131,072", [131_072]),
        ("1,048,576", [1_048_576]),
        ("32,000,64,000", [32_000, 64_000]),
        ("32,000,128,000", [32_000, 128_000]),
        ("128,256,512,1,024", [128, 256, 512, 1024]),
        ("32,000-128,000", [32_000, 64_000, 128_000]),
        ("32_000, 64 000", [32_000, 64_000]),
        ("8, 192", [8, 192]),
        ("1M,1.5k", [2**20, 1500]),
    ],
)
def test_a_list_is_read_as_it_is_typed(written, expected):
    assert parse_list(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [("8,192", [8192]), ("262,144", [262_144]), ("32,768,65,536", [32_768, 65_536]),
     ("128,256,512", [128, 256, 512]), ("32,64,128", [32, 64, 128]), ("4,8,16", [4, 8, 16])],
)  # fmt: skip
def test_contexts_that_no_list_would_have_are_numbers(written, expected):
    assert read_list(written, contexts=True).counts == expected


@pytest.mark.parametrize(
    "written",
    ["", "1,", "1:2:3:4", "8:1:1", "8-1", "1:8:0", "1:8:x1", "1:8:x0", "0:8:x2", "1:8:y2", "1:1e9:1", "a,b",
     "-", "..", "1..", "-3", "1,048,576,131,072", "00,000"],
)  # fmt: skip
def test_lists_that_never_end_or_name_nothing_are_refused(written):
    with pytest.raises(SpecError):
        parse_list(written)


@given(st.integers(1, 10**6), st.integers(1, 10**4), st.integers(0, 300))
def test_a_range_holds_its_ends_when_the_step_divides_it(first, step, steps):
    last = first + step * steps
    assert parse_list(f"{first}:{last}:{step}") == list(range(first, last + 1, step))


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.sampled_from(["-", "..", "\u2013", " to ", ":"]))
def test_a_range_without_a_step_doubles_and_has_both_ends(one_end, other_end, sign):
    first, last = sorted((one_end, other_end))
    counts = parse_list(f"{first}{sign}{last}")
    assert counts[0] == first and counts[-1] == last
    assert counts == sorted(set(counts))
    inner = counts[1:-1] if first else counts[2:-1]
    assert all(count == 2 * before for before, count in zip(counts[1 - bool(first) :], inner, strict=False))


@given(st.integers(0, 64), st.integers(0, 64))
def test_a_range_by_ones_has_every_count(one_end, other_end):
    first, last = sorted((one_end, other_end))
    assert read_list(f"{first}-{last}", by_one=True).counts == list(range(first, last + 1))


@given(COUNTS, MARKS)
def test_what_the_product_prints_is_read_back(count, mark):
    printed = f"{count:,}".replace(",", mark)
    assert parse_count(printed) == count
    assert read_list(printed, contexts=True).counts == [count] or 100 <= count // 1000 < count % 1000
    if mark != ",":
        assert parse_list(printed) == [count]


@given(st.lists(COUNTS, min_size=1, max_size=12, unique=True))
def test_a_list_that_is_printed_with_spaces_is_read_back(counts):
    assert parse_list(", ".join(map(str, counts))) == counts
    assert parse_list(", ".join(f"{count:_}" for count in counts)) == counts


@given(st.lists(st.integers(0, 99), min_size=1, max_size=12, unique=True))
def test_counts_of_two_digits_are_never_joined(counts):
    for contexts in (True, False):
        assert read_list(",".join(map(str, counts)), contexts=contexts).counts == counts


@given(st.text(alphabet="0123456789,.-:_ kKMxto", max_size=40) | st.text(max_size=40), st.booleans())
def test_any_text_is_counts_or_a_refusal(text, contexts):
    with contextlib.suppress(SpecError):
        counts = read_list(text, contexts=contexts).counts
        assert counts and all(isinstance(count, int) and count >= 0 for count in counts)
        assert read_list(", ".join(map(str, counts)), contexts=contexts).counts == counts


@pytest.mark.parametrize("written", ["32k-128k", "32,000", "1:8"])
def test_whatever_could_be_meant_otherwise_is_said(written):
    (sentence,) = read_list(written).readings
    assert sentence.startswith(f"{written} is read as ")


@pytest.mark.parametrize("written", ["4,8,16", "32k", "16:256:x2", "16:64:16"])
def test_what_is_plain_goes_without_a_word(written):
    assert read_list(written).readings == ()


def test_a_long_list_takes_no_long_time():
    text = ",".join(str(100 + number % 900) for number in range(20_000))
    assert parse_list(text)[:2] == [100, 101]
    with pytest.raises(SpecError):
        parse_list(text + ",000")
