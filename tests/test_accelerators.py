"""Names of accelerators: how people write them, those without a profile, and what is never suggested."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import perfmodel
from perfmodel.accelerators import not_profiled, spelling
from perfmodel.errors import SpecError
from perfmodel.files.document import read_yaml
from perfmodel.hardware import HardwareProfile

NAMES = HardwareProfile.available()
PROFILES = {name: HardwareProfile.load(name) for name in NAMES}
TABLE = read_yaml(Path(perfmodel.__file__).parent / "data" / "accelerators.yaml").data
KNOWN = tuple(word for profile in PROFILES.values() for word in (profile.name, *profile.aliases))
ENTRIES = {word: name for name, entry in TABLE.items() for word in (name, *entry.get("also", ()))}


def refusal(name):
    with pytest.raises(SpecError) as error:
        HardwareProfile.load(name)
    return error.value.faults[0]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-sxm-80gb"),
        ("NVIDIA H100 PCIe", "h100-pcie-80gb"),
        ("NVIDIA H100 NVL", "h100-nvl-94gb"),
        ("H100 SXM5 80GB", "h100-sxm-80gb"),
        ("h100_sxm", "h100-sxm-80gb"),
        ("h100-80g", "h100-sxm-80gb"),
        ("h100 80 gb", "h100-sxm-80gb"),
        ("H 100", "h100-sxm-80gb"),
        ("NVIDIA H200", "h200-sxm-141gb"),
        ("NVIDIA H20", "h20-96gb"),
        ("NVIDIA H800", "h800-sxm-80gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-sxm-40gb"),
        ("A100 80GB PCIe", "a100-pcie-80gb"),
        ("NVIDIA A800-SXM4-80GB", "a800-sxm-80gb"),
        ("NVIDIA GH200 480GB", "gh200-96gb"),
        ("NVIDIA GH200 144G HBM3e", "gh200-144gb"),
        ("Tesla V100-SXM2-32GB", "v100-sxm-32gb"),
        ("NVIDIA L20", "l20-48gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("RTX4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 3060", "rtx-3060"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtx-pro-6000"),
        ("DGX Spark", "gb10"),
        ("NVIDIA GB10", "gb10"),
        ("AMD Instinct MI300X", "mi300x"),
        ("MI 355X", "mi355x"),
        ("Intel(R) Arc(TM) Pro B60 Graphics", "arc-pro-b60-24gb"),
    ],
)
def test_a_name_means_one_profile_however_it_is_written(written, name):
    assert HardwareProfile.load(written).name == name


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(NAMES), st.randoms(use_true_random=False))
def test_order_case_and_signs_of_a_name_do_not_count(name, random):
    words = sorted(spelling(name))
    random.shuffle(words)
    assert HardwareProfile.load(" ".join(words).upper()).name == name


def test_no_spelling_means_two_accelerators():
    spelled = {}
    for profile in PROFILES.values():
        for word in (profile.name, *profile.aliases):
            assert spelled.setdefault(spelling(word), profile.name) == profile.name
    assert not {word for word in ENTRIES if spelling(word) in spelled}
    assert len({spelling(word) for word in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("word", ENTRIES)
def test_an_accelerator_without_a_profile_is_said_to_have_none_and_no_other_is_suggested(word):
    entry = TABLE[ENTRIES[word]]
    fault = not_profiled(word.upper(), KNOWN)
    assert "no profile" in fault.problem
    assert fault.nearest is None
    assert entry["change"] in fault.remedy
    assert entry.get("nearest", "Nothing here is near it") in fault.remedy


@pytest.mark.parametrize("name", TABLE)
def test_the_nearest_in_kind_is_a_profile_and_no_key_is_unknown(name):
    entry = TABLE[name]
    assert set(entry) <= {"also", "nearest", "change"}
    assert entry.get("nearest", NAMES[0]) in NAMES
    assert entry["change"]


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("h10", "h100"),
        ("h100-smx", "h100-sxm"),
        ("h100-smx-80gb", "h100-sxm-80gb"),
        ("rtx-4090 24gb", "rtx-4090"),
        ("l40-s", "l40s"),
        ("mi300xx", "mi300x"),
    ],
)
def test_a_slip_of_the_pen_gets_a_suggestion(word, nearest):
    suggested = refusal(word).nearest
    assert HardwareProfile.load(suggested).name == HardwareProfile.load(nearest).name


@pytest.mark.parametrize("word", ["h300", "n100", "mi305x", "b400", "rtx-6090", "a200", "", "hopper"])
def test_another_number_is_another_accelerator_and_never_suggested(word):
    fault = refusal(word)
    assert fault.nearest is None
    assert "Known:" in fault.remedy


@pytest.mark.parametrize(
    ("word", "gpus"), [("8xH100", 8), ("8 x H100 SXM", 8), ("h100x4", 4), ("2\u00d7L40S", 2)]
)
def test_a_name_with_a_number_of_gpus_is_taken_apart(word, gpus):
    assert f"--tp {gpus}" in refusal(word).remedy


def test_a_number_of_accelerators_without_a_profile_is_still_such_an_accelerator():
    assert "mi300x" in refusal("8xMI308X").remedy


def test_a_profile_of_the_user_goes_before_the_table(tmp_path):
    copied = (Path(__file__).parents[1] / "hardware_profiles" / "mi300x.yaml").read_text()
    renamed = copied.replace("name: mi300x", "name: mi308x", 1)
    renamed = renamed.replace("aliases: [mi300, mi300x-192gb]", "aliases: [mi308]", 1)
    (tmp_path / "mi308x.yaml").write_text(renamed)
    assert HardwareProfile.load("AMD Instinct MI308X", tmp_path).name == "mi308x"
