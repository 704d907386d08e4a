"""Hardware profiles: found by name, sourced figure by figure, and the same whether one or many."""

import dataclasses
import json
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.errors import SpecError
from perfmodel.files import catalogue, nouns, quantity, schema
from perfmodel.files.numbers import Numeric
from perfmodel.files.quantity import Figure, Grid, figures_of
from perfmodel.files.spec import Spec
from perfmodel.hardware import DTYPES, HardwareProfile, json_schema

NAMES = HardwareProfile.available()
PROFILES = {name: HardwareProfile.load(name) for name in NAMES}
names = st.sampled_from(NAMES)

SMALL = """\
name: small
aliases: [tiny]
memory:
  capacity: {value: 24 GB, source: sheet, kind: published}
  bandwidth: {value: 500 GB/s, low: 450 GB/s, high: 520 GB/s, source: run, kind: measured}
peak:
  bf16: {value: 100 TFLOPS, source: sheet, kind: published}
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def refusal(path, *also):
    with pytest.raises(SpecError) as error:
        HardwareProfile.load(path, *also)
    return error.value


def values_of(profile):
    return {path: value for path, _, value in figures_of(profile)}


@pytest.mark.parametrize("name", NAMES)
def test_every_bundled_profile_names_the_source_of_every_figure(name):
    profile = PROFILES[name]
    assert set(profile.quantities) == set(profile.paths())
    for path, value in values_of(profile).items():
        quantity = profile.quantities[path]
        assert quantity.source
        assert np.all(np.asarray(quantity.low) <= quantity.value)
        assert np.all(np.asarray(quantity.value) <= quantity.high)
        seconds = value.seconds if isinstance(value, Grid) else value
        np.testing.assert_array_equal(seconds, quantity.value)


@pytest.mark.parametrize("name", NAMES)
def test_every_bundled_profile_gives_its_data_sheet_itself(name):
    sheet = ("memory", "sms", "peak", "link", "tdp", "price")
    assert not [sentence for sentence in PROFILES[name].assumed if sentence.startswith(sheet)]


def test_names_and_aliases_mean_one_profile_each():
    spellings = [word.lower() for profile in PROFILES.values() for word in (profile.name, *profile.aliases)]
    assert len(spellings) == len(set(spellings))
    for profile in PROFILES.values():
        for word in profile.aliases:
            assert HardwareProfile.load(word.upper()).name == profile.name


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("a100-sxm-80gb", "peak.bf16", 312e12),
        ("a100-sxm-80gb", "memory.bandwidth", 2039e9),
        ("a100-sxm-80gb", "link.bandwidth", 300e9),
        ("h100-sxm-80gb", "peak.bf16", 989e12),
        ("h100-sxm-80gb", "link.bandwidth", 450e9),
        ("l40-48gb", "peak.bf16", 181.05e12),
        ("l40s-48gb", "peak.bf16", 362e12),
        ("rtx-4090", "peak.bf16", 165.2e12),
        ("b200", "peak.bf16", 2250e12),
        ("b200", "link.bandwidth", 900e9),
    ],
)
def test_peaks_are_dense_and_links_one_way(name, path, expected):
    assert PROFILES[name].quantities[path].value == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_eight_bit_products_are_at_most_four_times_as_fast_as_sixteen_bit_ones(name):
    profile = PROFILES[name]
    for dtype in ("fp8", "int8"):
        assert profile.peak("bf16") <= profile.peak(dtype) <= 4.01 * profile.peak("bf16")


@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_units_of_its_own_is_multiplied_in_bf16(name):
    """NVFP4 on Hopper, Ada and CDNA 3 is a dtype of storage, as int4 and MXFP4 are everywhere."""
    profile = PROFILES[name]
    for dtype in {*DTYPES, "int4", "mxfp4"} - set(profile.peak_flops):
        assert profile.peak(dtype) == profile.peak("bf16")


@pytest.mark.parametrize("name", NAMES)
def test_all_reduce_never_gets_faster_with_size_and_nccl_is_always_there(name):
    profile = PROFILES[name]
    assert "nccl" in profile.all_reduce
    for table in profile.all_reduce.values():
        assert np.all(np.diff(table.latency.seconds, axis=-1) >= 0)
        assert np.all(np.diff(table.latency.sizes) > 0)


def test_what_a_file_leaves_out_is_assumed_in_one_sentence_each(small):
    profile = HardwareProfile.load(small)
    assumed = {sentence.partition(" is not in the")[0] for sentence in profile.assumed}
    assert {
        "sms",
        "memory.l2",
        "link.bandwidth",
        "gemm.t0",
        "attention.generic",
        "all_reduce.nccl",
    } <= assumed
    assert len(profile.assumed) == len(assumed)
    kinds = {path: quantity.kind for path, quantity in profile.quantities.items()}
    assert kinds["gemm.t0"] == "assumed"
    assert (kinds["memory.capacity"], kinds["memory.bandwidth"]) == ("published", "measured")
    assert set(profile.quantities) == set(profile.paths())


def test_every_generic_default_is_plausible_and_in_order():
    for path, declared, _ in figures_of(PROFILES["h100-sxm-80gb"]):
        if isinstance(declared, Figure) and declared.default:
            low, middle, high = declared.default
            assert declared.least <= low <= middle <= high <= declared.most, path


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "says"),
    [
        ("24 GB,", "24,", 4, "memory.capacity.value", "without a unit"),
        ("24 GB,", "24 GB/s,", 4, "memory.capacity.value", "one of bytes_per_s"),
        ("24 GB,", "24 gB,", 4, "memory.capacity.value", "Did you mean 'GB'"),
        ("24 GB,", "24 MB,", 4, "memory.capacity.value", "not plausible"),
        ("24 GB,", "-24 GB,", 4, "memory.capacity.value", "not plausible"),
        ("24 GB,", ".nan,", 4, "memory.capacity.value", "finite"),
        ("24 GB,", "no,", 4, "memory.capacity.value", "true or false"),
        ("24 GB,", "[24 GB],", 4, "memory.capacity.value", "not a number"),
        ("source: sheet, kind: published}\n", "kind: published}\n", 4, "memory.capacity.source", "missing"),
        ("source: run", "source: ''", 5, "memory.bandwidth.source", "at least 1 character"),
        ("source: run", "source: 12", 5, "memory.bandwidth.source", "a text"),
        ("kind: measured", "kind: mesured", 5, "memory.bandwidth.kind", "Did you mean 'measured'"),
        ("low: 450 GB/s, ", "", 5, "memory.bandwidth", "low missing"),
        ("low: 450", "low: 510", 5, "memory.bandwidth", "not between"),
        ("low: 450 GB/s, high: 520 GB/s, ", "", 5, "memory.bandwidth", "low and high missing"),
        ("  bf16:", "  bf61:", 7, "peak.bf61", "Did you mean 'bf16'"),
        ("peak:", "peek:", 6, "peek", "Did you mean 'peak'"),
        ("{value: 100 TFLOPS, source: sheet, kind: published}", "100 TFLOPS", 7, "peak.bf16", "{value:"),
        ("name: small", "name: large", 1, "name", "the same name"),
        ("name: small", "name: 7", 1, "name", "a text"),
        ("[tiny]", "tiny", 2, "aliases", "a list"),
        ("[tiny]", "[4090]", 2, "aliases.0", "put it in quotes"),
        ("memory:", "memory: {}\nmemory:", 4, "memory", "twice"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_line_field_and_remedy(small, old, new, line, field, says):
    assert old in SMALL
    small.write_text(SMALL.replace(old, new, 1))
    error = refusal(small)
    fault = next(fault for fault in error.faults if fault.field == field and says in str(fault))
    assert (fault.file, fault.line) == (str(small), line)


LATENCY = """\
all_reduce:
  mine:
    latency:
      source: run
      kind: measured
      sizes: [1 KiB, 1 MiB]
      gpus:
        2: [5 us, 20 us]
        8: [9 us, 50 us]
"""


def test_an_all_reduce_table_is_read_by_gpus_and_sizes(small):
    small.write_text(SMALL + LATENCY)
    grid = HardwareProfile.load(small).all_reduce["mine"].latency
    np.testing.assert_array_equal(grid.sizes, [1024.0, 1024.0**2])
    np.testing.assert_array_equal(grid.gpus, [2.0, 8.0])
    np.testing.assert_allclose(grid.seconds, [[5e-6, 20e-6], [9e-6, 50e-6]])


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("2: [5 us, 20 us]", "2: [5 us]", "1 times for 2 sizes"),
        ("2: [5 us, 20 us]", "2: [25 us, 20 us]", "falls with size"),
        ("2: [5 us, 20 us]", "1: [5 us, 20 us]", "do not rise from 2"),
        ("2: [5 us, 20 us]", "9: [5 us, 20 us]", "do not rise from 2"),
        ("2: [5 us, 20 us]", "two: [5 us, 20 us]", "not a whole number"),
        ("2: [5 us, 20 us]", "2: [5, 20 us]", "without a unit"),
        ("2: [5 us, 20 us]", "2: [0 us, 20 us]", "not plausible"),
        ("[1 KiB, 1 MiB]", "[1 MiB, 1 KiB]", "do not rise"),
        ("[1 KiB, 1 MiB]", "[]", "do not rise"),
        ("  mine:", "  Mine Own:", "lower-case"),
    ],
)
def test_a_wrong_all_reduce_table_is_refused(small, old, new, says):
    small.write_text(SMALL + LATENCY.replace(old, new, 1))
    assert says in str(refusal(small))


def test_an_unknown_name_is_refused_with_the_nearest_and_all_known():
    error = refusal("h100-smx-80gb")
    assert error.faults[0].nearest == "h100-sxm-80gb"
    assert all(name in str(error) for name in NAMES)


def test_a_path_that_is_not_there_is_refused_by_name(tmp_path):
    assert str(tmp_path / "x.yaml") in str(refusal(tmp_path / "x.yaml"))


def test_folders_of_the_user_add_to_and_win_over_the_bundled_one(small, monkeypatch):
    assert HardwareProfile.load("small", small.parent).memory_bandwidth == 500e9
    assert HardwareProfile.load("TINY", small.parent).name == "small"
    assert "small" in HardwareProfile.available(small.parent)
    assert "small" not in HardwareProfile.available()
    monkeypatch.setenv("DRAFTPLAN_PROFILES", str(small.parent))
    assert HardwareProfile.load("small").name == "small"
    own = small.with_name("h100-sxm-80gb.yaml")
    own.write_text(SMALL.replace("name: small", "name: h100-sxm-80gb"))
    assert HardwareProfile.load("h100-sxm-80gb").memory_bandwidth == 500e9


def test_a_broken_file_beside_it_does_not_hide_a_good_one(small):
    small.with_name("broken.yaml").write_text("aliases: [")
    assert HardwareProfile.load("tiny", small.parent).name == "small"


def test_a_folder_that_is_not_there_is_refused(monkeypatch, tmp_path):
    assert "does not exist" in str(refusal("a100-sxm-80gb", tmp_path / "no"))
    monkeypatch.setenv("DRAFTPLAN_PROFILES", str(tmp_path / "no"))
    assert "DRAFTPLAN_PROFILES" in str(refusal("a100-sxm-80gb"))


def test_with_values_replaces_exactly_the_named_figures_and_says_who_did():
    profile = PROFILES["h100-sxm-80gb"]
    changed = profile.with_values({"memory.bandwidth": 1e12, "peak.bf16": 5e14, "gemm.t0": 2e-6}, "a what-if")
    before, after = values_of(profile), values_of(changed)
    assert {path for path in before if before[path] is not after[path]} == {
        "memory.bandwidth",
        "peak.bf16",
        "gemm.t0",
    }
    assert (changed.memory_bandwidth, changed.peak_flops["bf16"], changed.gemm.t0) == (1e12, 5e14, 2e-6)
    assert changed.quantities["memory.bandwidth"].source == "a what-if"
    assert profile.memory_bandwidth == 3350e9


def test_with_values_takes_arrays_and_grids():
    profile = PROFILES["h100-sxm-80gb"]
    rates = np.array([1e12, 2e12])
    np.testing.assert_array_equal(profile.with_values({"memory.bandwidth": rates}).memory_bandwidth, rates)
    path = "all_reduce.nccl.latency"
    assert np.all(profile.with_values({path: 1e-5}).all_reduce["nccl"].latency.seconds == 1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, [1.0, np.nan]])
def test_with_values_refuses_what_is_no_finite_positive_figure(value):
    with pytest.raises(SpecError, match=r"memory\.bandwidth"):
        PROFILES["b200"].with_values({"memory.bandwidth": value})


def test_with_values_names_the_nearest_path():
    with pytest.raises(SpecError, match=r"Did you mean 'memory\.bandwidth'"):
        PROFILES["b200"].with_values({"memory_bandwidth": 1.0})


@settings(max_examples=10, deadline=None)
@given(names, st.integers(0, 2**32))
def test_draws_are_positive_within_range_and_the_same_for_the_same_seed(name, seed):
    profile = PROFILES[name]
    drawn, again = profile.sample(50, seed), profile.sample(50, seed)
    repeated = values_of(again)
    for path, declared, value in figures_of(drawn):
        if isinstance(declared, Figure):
            sourced = profile.quantities[path]
            assert np.shape(value) == ((50,) if sourced.low < sourced.high else ())
            assert np.all((value >= declared.least) & (value <= declared.most))
            np.testing.assert_array_equal(value, repeated[path])


def test_low_and_high_are_the_tenth_and_ninetieth_percentile_of_the_draws_and_the_value_their_median():
    profile = PROFILES["h100-sxm-80gb"]
    quantity = profile.quantities["price"]
    drawn = np.asarray(profile.sample(40_000, seed=1).price_per_hour)
    np.testing.assert_allclose(
        np.percentile(drawn, [10, 50, 90]), [quantity.low, quantity.value, quantity.high], rtol=0.03
    )


def test_figures_that_count_something_are_drawn_from_low_value_and_high():
    profile = PROFILES["a10g-24gb"]
    quantity = profile.quantities["sms"]
    assert set(np.asarray(profile.sample(100).sms)) == {quantity.low, quantity.value, quantity.high}


def test_published_figures_without_a_range_are_not_drawn():
    assert PROFILES["a100-sxm-80gb"].sample(10).memory_bandwidth == 2039e9


def test_a_new_figure_is_one_line_and_everything_follows_from_it(tmp_path):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Part:
        delay: Numeric = quantity.figure("seconds", 0, 1, "a delay", (1e-6, 2e-6, 4e-6))

    @dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
    class Thing(Spec):
        name: str = quantity.text("its name")
        part: Part = quantity.section(Part)

    path = tmp_path / "x.yaml"
    path.write_text(
        "name: x\npart: {delay: {value: 3 us, low: 2 us, high: 5 us, source: me, kind: measured}}"
    )
    thing = nouns.noun_from(Thing, catalogue.read_yaml(path))
    assert thing.part.delay == 3e-6
    assert thing.quantities["part.delay"].source == "me"
    assert thing.with_values({"part.delay": 1e-6}).part.delay == 1e-6
    assert np.shape(thing.sample(5).part.delay) == (5,)
    assert "delay" in json.dumps(schema.json_schema(Thing))
    path.write_text("name: x")
    assert nouns.noun_from(Thing, catalogue.read_yaml(path)).part.delay == 2e-6


def test_profiles_survive_pickling_and_cannot_be_changed():
    profile = PROFILES["b200"]
    assert values_of(pickle.loads(pickle.dumps(profile)))["memory.bandwidth"] == 8e12
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.sms = 1


def test_the_json_schema_accepts_every_bundled_file_and_refuses_a_bare_number():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    folder = pathlib.Path(catalogue.own_package("hardware_profiles").__path__[0])
    for path in folder.glob("*.yaml"):
        assert not list(validator.iter_errors(catalogue.read_yaml(path).data)), path
    assert list(validator.iter_errors({"name": "x", "memory": {"capacity": 80}}))
    assert set(DTYPES) <= set(json.dumps(json_schema()).replace('"', " ").split())


def test_a_folder_of_the_user_that_hides_ours_is_named(tmp_path):
    (tmp_path / "hardware_profiles").mkdir()
    (tmp_path / "hardware_profiles" / "__init__.py").write_text("")
    home = str(pathlib.Path(catalogue.__file__).parents[2])
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {home!r}]\n"
        "from perfmodel.errors import SpecError\n"
        "from perfmodel.hardware import HardwareProfile\n"
        "try:\n    HardwareProfile.available()\n"
        "except SpecError as error:\n    print(error)\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path / "hardware_profiles") in output
    assert "Rename it" in output


def test_the_generic_all_reduce_is_slower_over_a_slower_link(small):
    slow = HardwareProfile.load(small)
    small.write_text(SMALL + "link:\n  bandwidth: {value: 900 GB/s, source: sheet, kind: published}\n")
    fast = HardwareProfile.load(small)
    assert np.all(fast.all_reduce["nccl"].latency.seconds < slow.all_reduce["nccl"].latency.seconds)
