"""Laws of attention on thousands of launches of every kernel, and whole waves where they were measured."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose

from perfmodel.hardware import HardwareProfile
from perfmodel.latency import attention

PROFILES = {name: HardwareProfile.load(name) for name in HardwareProfile.available()}
KERNELS = [(name, kernel) for name, profile in PROFILES.items() for kernel in profile.attention]
COUNT = 4000


def launches(seed):
    """Random launches, kernels near a whole wave among them."""
    rng = np.random.default_rng(seed)
    kv_heads = 2.0 ** rng.integers(0, 6, COUNT)
    return {
        "batch": rng.integers(1, 513, COUNT).astype(float),
        "query_tokens": rng.integers(1, 18, COUNT).astype(float),
        "kv_tokens": np.exp(rng.uniform(np.log(16), np.log(2e5), COUNT)).round(),
        "kv_heads": kv_heads,
        "heads": kv_heads * 2.0 ** rng.integers(0, 5, COUNT),
        "head_dim": rng.choice([64.0, 96.0, 128.0, 256.0], COUNT),
    }


@pytest.mark.parametrize(("name", "kernel"), KERNELS)
def test_more_sequences_queries_or_entries_are_never_faster(name, kernel):
    run, launch = partial(attention, PROFILES[name], kernel=kernel, cold=True), launches(1)
    seconds = run(**launch)
    for what in ("batch", "query_tokens", "kv_tokens"):
        assert np.all(run(**{**launch, what: launch[what] + 1.0}) >= seconds * (1.0 - 1e-12)), what


@pytest.mark.parametrize(("name", "kernel"), KERNELS)
def test_more_bandwidth_is_never_slower_and_a_verification_never_faster_than_a_decode_step(name, kernel):
    profile, launch = PROFILES[name], launches(2)
    run = partial(attention, kernel=kernel, cold=True)
    seconds = run(profile, **launch)
    wider = profile.with_values({"memory.bandwidth": 1.1 * float(profile.memory_bandwidth)})
    assert np.all(run(wider, **launch) <= seconds * (1.0 + 1e-12))
    assert np.all(run(profile, **{**launch, "query_tokens": 1.0}) <= seconds * (1.0 + 1e-12))


@pytest.mark.parametrize(("name", "kernel"), KERNELS)
def test_no_verification_jumps_at_the_edge_of_a_wave(name, kernel):
    """A hundredth of a sequence more, which is no batch but meets every edge, adds less than a tenth."""
    seconds = attention(
        PROFILES[name], batch=np.arange(1.0, 400.0, 0.01), query_tokens=4.0, kv_tokens=32000.0, heads=8.0,
        kv_heads=2.0, head_dim=128.0, kernel=kernel, cold=True,
    )  # fmt: skip
    assert np.max(seconds[1:] / seconds[:-1]) < 1.1


class TestWholeWaves:
    """Launches of equal lengths, as published; each ratio is free of fixed times and bandwidth."""

    def test_blocks_that_cannot_split_share_an_sm_only_beyond_one_for_each(self):
        """108 SMs: 1, 64 and 128 blocks of 8192 entries take 193.4, 209.6 and 396.7 us (aiconfigurator, A100,
        vLLM 0.14.0, decode of ungrouped heads)."""
        a100 = PROFILES["a100-sxm-80gb"]
        shape = {"kv_tokens": 8192.0, "heads": 1.0, "kv_heads": 1.0, "head_dim": 128.0, "kernel": "vllm"}
        seconds = attention(a100, batch=np.array([1.0, 64.0, 128.0]), **shape)
        assert_allclose(seconds, [193.4e-6, 209.6e-6, 396.7e-6], rtol=0.1)

    def test_a_quarter_of_a_wave_takes_a_whole_one(self):
        """128 SMs, 32 heads: 3, 5 and 9 sequences of 8192 entries are 0.75, 1.25 and 2.25 waves, which take
        266, 520 and 771 us (LLMServingSim, RTX 4090, vLLM: a chunk of 16 beside 2, 4 and 8 decodes)."""
        shape = {"kv_tokens": 8192.0, "heads": 32.0, "kv_heads": 8.0, "head_dim": 128.0, "kernel": "vllm"}
        batch = np.array([3.0, 5.0, 9.0])
        seconds = attention(PROFILES["rtx-4090"], batch=batch, query_tokens=16.0, **shape)
        assert_allclose(seconds, [266e-6, 520e-6, 771e-6], rtol=0.05)
