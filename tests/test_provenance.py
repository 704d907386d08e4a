"""What a source says holds of the value that it stands beside, in every bundled profile and engine."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile

PROFILES = {name: HardwareProfile.load(name) for name in HardwareProfile.available()}
ENGINES = {name: EngineOverhead.load(name) for name in EngineOverhead.available()}
NAMED = {
    "A10G": "a10g-24gb", "A100-SXM4-80GB": "a100-sxm-80gb", "B200": "b200", "B200-SXM": "b200",
    "H100-SXM5": "h100-sxm-80gb", "H100-SXM5-80GB": "h100-sxm-80gb", "H100 PCIe": "h100-pcie-80gb",
    "MI300X": "mi300x", "RTX 4090": "rtx-4090",
}  # fmt: skip
"""Profiles as sources name them."""
SAME = ("as the {}", "as {}:", "as {},", "same die as the {};")
"""How a source says that the value is that of another profile."""
FACTOR = {
    ("gemm", "narrow_memory_fraction"): 0.95,
    ("gemm", "narrow_compute_fraction"): 0.84,
    ("attention", "narrow_memory_fraction"): 0.94,
}
BORROWED = re.compile(r"(as the |as [A-Z][A-Z0-9]|figures of |not in a data sheet|assum|no data)")
"""How a source begins that is not of this very hardware."""


def exact(quantity):
    return float(np.asarray(quantity.value))


def sourced(profile):
    """Yield path and quantity of every figure that is one number."""
    for path, quantity in profile.quantities.items():
        if np.ndim(quantity.value) == 0:
            yield path, quantity


def contradictions(profile):
    """Return the figures of a profile that are not what their source says, each with what it should be."""
    said = []
    for path, quantity in sourced(profile):
        source, last = quantity.source, path.rpartition(".")[2]
        if last == "packs" and "at any number of query tokens" in source:
            said.append((path, 1.0))
        if last == "packs" and "single queries only" in source:
            said.append((path, 0.0))
        if "bf16 fraction times" in source:
            wide = profile.quantities[path.replace("narrow_", "")]
            said.append((path, FACTOR[path.partition(".")[0], last] * exact(wide)))
        if source.startswith("twice the bf16 rate"):
            said.append((path, 2.0 * exact(profile.quantities["peak.bf16"])))
        if source.startswith(("as bf16", "same tensor rate as bf16")):
            said.append((path, exact(profile.quantities["peak.bf16"])))
        if "already that of long runs" in source:
            said.append((path, 1.0))
        if found := re.search(r"(\d+) MB (?:last-level cache|L2\b|Infinity Cache)", source):
            said.append(("memory.l2", 1e6 * float(found[1])))
        if found := re.search(r"\b(\d+) SMs", source):
            said.append(("sms", float(found[1])))
        if found := re.search(r"same die, (\d+) GB/s", source):
            said.append(("memory.bandwidth", 1e9 * float(found[1])))
        for name, other in NAMED.items():
            if any(re.search(rf"(^|; ){re.escape(form.format(name))}", source) for form in SAME):
                said.append((path, exact(PROFILES[other].quantities[path])))
        if source.startswith("as the vllm kernel of H100"):
            said.append((path, exact(PROFILES["h100-sxm-80gb"].quantities[f"attention.vllm.{last}"])))
    return [
        (path, exact(profile.quantities[path]), value)
        for path, value in said
        if exact(profile.quantities[path]) != pytest.approx(value, rel=2e-3)
    ]


@pytest.mark.parametrize("name", PROFILES)
def test_no_figure_contradicts_its_source(name):
    assert contradictions(PROFILES[name]) == []


@pytest.mark.parametrize(
    ("name", "path", "wrong"),
    [
        ("a100-sxm-80gb", "attention.flashinfer.packs", 0.0),
        ("mi300x", "memory.l2", 32e6),
        ("b200", "gemm.narrow_compute_fraction", 0.734),
        ("mi325x", "attention.vllm.t0", 3e-5),
        ("h100-nvl-94gb", "peak.fp8", 835e12),
        ("b300", "attention.vllm.split_below", 1.0),
    ],
)
def test_the_rules_see_a_figure_that_is_not_what_its_source_says(name, path, wrong):
    quantity = replace(PROFILES[name].quantities[path], value=wrong)
    changed = PROFILES[name].with_quantities({path: quantity}, digits=6)
    assert path in [each for each, _, _ in contradictions(changed)]


@pytest.mark.parametrize("name", PROFILES)
def test_what_is_taken_from_elsewhere_is_assumed(name):
    for path, quantity in sourced(PROFILES[name]):
        if BORROWED.match(quantity.source):
            assert quantity.kind == "assumed", path


@pytest.mark.parametrize("name", PROFILES)
def test_the_size_that_a_gpu_is_sold_with_bounds_what_its_driver_reports(name):
    quantity = PROFILES[name].quantities["memory.capacity"]
    if found := re.search(r"sold as (\d+) GB", quantity.source):
        assert 0.91 * float(found[1]) < exact(quantity) / 2**30 < float(found[1])
    else:
        assert quantity.kind == "assumed"


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_calibrated_on_the_hardware_that_its_figures_were_fitted_on(name):
    engine = ENGINES[name]
    fitted = {
        found[1]
        for quantity in engine.quantities.values()
        if (found := re.match(r"fitted to \d+ rows on (\S+):", quantity.source))
    }
    assert fitted <= {engine.calibrated_on}
    assert fitted or engine.calibrated_on == "nothing"
