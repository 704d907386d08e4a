"""The bundled profiles: memory as it is seen, and what carries over between cards of one die."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from perfmodel.files import catalogue
from perfmodel.hardware import HardwareProfile

NAMES = HardwareProfile.available()
PROFILES = {name: HardwareProfile.load(name) for name in NAMES}


@pytest.mark.parametrize(
    ("name", "sold_gb", "driver_mib"),
    [
        ("b200", 180, 183_359), ("b300", 270, 275_040), ("rtx-5090", 32, 32_607), ("rtx-4090", 24, 24_564),
        ("rtx-3090", 24, 24_576), ("rtx-pro-6000", 96, 97_887), ("h100-sxm-80gb", 80, 81_559),
        ("a100-sxm-80gb", 80, 81_920), ("l40s-48gb", 46, 46_068), ("l4-24gb", 22, 23_034),
    ],
)  # fmt: skip
def test_memory_is_what_pytorch_sees_of_what_the_driver_reports(name, sold_gb, driver_mib):
    """nvidia-smi counts MiB, of which PyTorch and engines see 94.5 to 99.9 % (CUDA keeps the rest)."""
    capacity = float(PROFILES[name].memory_capacity)
    assert 0.945 * driver_mib * 2**20 <= capacity <= 0.999 * driver_mib * 2**20
    assert capacity > 0.98 * sold_gb * 1e9


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_written_in_gib_with_its_range(name):
    quantity = PROFILES[name].quantities["memory.capacity"]
    assert quantity.kind in ("measured", "assumed")
    assert float(quantity.low) <= float(quantity.value) <= float(quantity.high)
    text = (Path(catalogue.own_package("hardware_profiles").__path__[0]) / f"{name}.yaml").read_text()
    assert re.search(r"^  capacity: \{value: [\d.]+ GiB,", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "like", "same"),
    [
        ("a800", "a100", ("peak.bf16", "memory.bandwidth", "sms", "gemm.memory_fraction")),
        ("h800", "h100", ("peak.bf16", "memory.bandwidth", "sms", "attention.vllm.compute_fraction")),
        ("gh200", "h100", ("peak.bf16", "sms", "attention.vllm.memory_fraction")),
        ("gh200-144gb", "h200", ("peak.bf16", "sms", "attention.vllm.memory_fraction")),
        ("rtx-pro-6000", "rtx-5090", ("memory.bandwidth", "gemm.memory_fraction")),
    ],
)
def test_what_carries_over_from_the_same_die_is_assumed_with_a_range_at_least_as_wide(name, like, same):
    own, other = HardwareProfile.load(name), HardwareProfile.load(like)
    for path in same:
        carried, measured = own.quantities[path], other.quantities[path]
        assert carried.value == measured.value
        assert carried.low <= measured.low
        assert carried.high >= min(measured.high, 1.0) or path.startswith(("peak", "memory", "sms"))
        if path.startswith(("gemm", "attention")):
            assert carried.kind == "assumed"
            assert other.name in carried.source


def test_slower_links_reduce_more_slowly():
    for name, like in (("a800", "a100"), ("h800", "h100")):
        slow, fast = HardwareProfile.load(name), HardwareProfile.load(like)
        assert slow.link_bandwidth < fast.link_bandwidth
        for implementation, table in slow.all_reduce.items():
            times = fast.all_reduce[implementation].latency.seconds
            assert np.all(table.latency.seconds >= times * 0.999)
            assert np.all(table.latency.seconds <= times * 2.26)
