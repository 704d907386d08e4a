"""Kernels of hardware that loads and computes in turn, as one CPU core does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.errors import SpecError
from perfmodel.files.document import parse_yaml
from perfmodel.files.nouns import noun_from
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import attention, linear

CORE = HardwareProfile.load("a100").with_values(
    {
        "overlap": 0.0,
        "memory.bandwidth": 10e9,
        "peak.bf16": 100e9,
        "gemm.t0": 1e-5,
        "gemm.memory_fraction": 0.5,
        "gemm.compute_fraction": 0.4,
        "attention.vllm.t0": 2e-5,
        "attention.vllm.memory_fraction": 0.8,
        "attention.vllm.compute_fraction": 0.5,
        "attention.vllm.tile_large": 32.0,
    }
)


def read(batch=2, query_tokens=1.0, kv_tokens=1000.0, hardware=CORE):
    return attention(
        hardware,
        batch=batch,
        query_tokens=query_tokens,
        kv_tokens=kv_tokens,
        heads=8,
        kv_heads=2,
        head_dim=64,
        kernel="vllm",
        cold=True,
    )


def test_a_linear_layer_takes_its_bytes_and_then_its_arithmetic():
    moved = 2 * (512 * 256 + 8 * (512 + 256)) / 5e9
    worked = 2 * 8 * 512 * 256 / 40e9
    assert linear(CORE, tokens=8, n=512, k=256, cold=True) == pytest.approx(1e-5 + moved + worked)


@pytest.mark.parametrize(("query_tokens", "times_read"), [(1, 1), (8, 1), (9, 2), (16, 2), (17, 3)])
def test_attention_reads_its_entries_once_for_every_tile_of_rows(query_tokens, times_read):
    moved = times_read * 2 * (2 * 2 * 2 * 1000 * 64) / 8e9
    worked = 4 * 2 * (8 * query_tokens) * 1000 * 64 / 50e9
    assert read(query_tokens=float(query_tokens)) == pytest.approx(2e-5 + moved + worked)


@given(st.integers(1, 16), st.integers(1, 12), st.integers(1, 20_000), st.integers(1, 16), st.integers(1, 12))
def test_more_work_never_takes_less(batch, query_tokens, kv_tokens, more_batch, more_query_tokens):
    less = read(batch, float(query_tokens), float(kv_tokens))
    more = read(batch + more_batch, float(query_tokens + more_query_tokens), float(kv_tokens + 1))
    assert less <= more
    assert read(batch, 1.0, float(kv_tokens)) <= less <= query_tokens * read(batch, 1.0, float(kv_tokens))


@pytest.mark.parametrize("path", ["memory.bandwidth", "peak.bf16"])
def test_better_hardware_is_never_slower(path):
    value = {"memory.bandwidth": 10e9, "peak.bf16": 100e9}[path]
    better = CORE.with_values({path: 2 * value})
    tokens = np.array([1.0, 4.0, 64.0])
    assert np.all(linear(better, tokens=tokens, n=512, k=512) <= linear(CORE, tokens=tokens, n=512, k=512))
    assert np.all(read(query_tokens=tokens, hardware=better) <= read(query_tokens=tokens))


def test_overlap_is_the_usual_form_and_no_assumption_about_an_accelerator():
    profile = HardwareProfile.load("a100")
    assert profile.overlap == 1.0
    assert not any("overlap is not in the file" in sentence for sentence in profile.assumed)


def test_one_core_has_rates_that_no_accelerator_has():
    text = """
name: core
memory:
  capacity: {value: 16 GB, source: test, kind: published}
  bandwidth: {value: 8 GB/s, source: test, kind: published}
peak:
  bf16: {value: 40 GFLOPS, source: test, kind: published}
overlap: {value: 0, source: test, kind: published}
"""
    core = noun_from(HardwareProfile, parse_yaml(text.encode(), "core.yaml"))
    assert core.overlap == 0.0
    slower = text.replace("8 GB/s", "0.8 GB/s")
    with pytest.raises(SpecError, match="not plausible"):
        noun_from(HardwareProfile, parse_yaml(slower.encode(), "core.yaml"))
