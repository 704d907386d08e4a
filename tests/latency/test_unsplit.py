"""Kernels that split the KV for single queries only, and verification by latent attention: published points.

None of the rows below was fitted; the figures are those of other shapes, cards or sources.
"""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.hardware import FLASH_ATTENTION_2, HardwareProfile
from perfmodel.latency import attention

RTX_3090 = HardwareProfile.load("rtx-3090")
LATENT = {"kv_heads": 1, "head_dim": 576, "value_dim": 512, "entry_elements": 576}


def microseconds(hardware, **shape):
    return float(np.squeeze(attention(hardware, **shape))) * 1e6


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "kv_tokens", "queries", "measured"),
    [
        (12, 2, 256, 4096, 8, 375.0),  # vllm-project/flash-attention pull request 193, RTX 3090
        (12, 2, 256, 32768, 8, 2939.3),
        (12, 2, 256, 200_000, 8, 15788.6),
        (32, 8, 128, 32768, 8, 1336.0),
        (32, 8, 128, 31_000, 2, 1400.0),  # pull request 190, RTX 3090 Ti: about 1.4 ms at any length
        (32, 8, 128, 31_000, 4, 1400.0),
        (32, 8, 128, 31_000, 8, 1400.0),
    ],
)
def test_verification_by_flash_attention_2_is_met_within_a_sixth(
    heads, kv_heads, head_dim, kv_tokens, queries, measured
):
    priced = microseconds(
        RTX_3090, batch=1, query_tokens=queries, kv_tokens=kv_tokens, heads=heads, kv_heads=kv_heads,
        head_dim=head_dim, kernel=FLASH_ATTENTION_2,
    )  # fmt: skip
    assert abs(np.log(priced / measured)) <= np.log(7 / 6)


def test_flash_attention_2_is_what_vllm_runs_below_hopper():
    for name in ("a100", "l40s", "rtx-4090", "rtx-5090", "l20"):
        assert HardwareProfile.load(name).attention_name(FLASH_ATTENTION_2) == "vllm"
    hopper = HardwareProfile.load("h100")
    assert hopper.attention_name(FLASH_ATTENTION_2) == next(iter(hopper.attention))


def test_the_unsplit_kernel_of_triton_takes_tens_of_decode_steps():
    """39 times at 7,400 entries, 4 queries, 8 heads on one KV head: vllm-project/vllm pull request 51995."""
    shape = {"batch": 1, "kv_tokens": 7400, "heads": 8, "kv_heads": 1, "head_dim": 256}
    for name in ("mi300x", "mi355x"):
        profile = HardwareProfile.load(name)
        decode, verified = (
            microseconds(profile, query_tokens=queries, kernel="triton-unified", **shape)
            for queries in (1, 4)
        )
        assert 15 <= verified / decode <= 60


def test_the_unsplit_kernel_of_triton_splits_single_queries_and_fills_the_gpu_with_many_sequences():
    profile = HardwareProfile.load("mi300x")
    shape = {"kv_tokens": 16_000.0, "heads": 32, "kv_heads": 8, "head_dim": 128, "kernel": "triton-unified"}
    alone = [microseconds(profile, batch=1, query_tokens=queries, **shape) for queries in (1, 4)]
    many = [microseconds(profile, batch=128, query_tokens=queries, **shape) for queries in (1, 4)]
    assert alone[1] > 8 * alone[0]
    assert many[1] <= 1.05 * many[0]


@pytest.mark.parametrize("name", ["h100", "rtx-3090", "mi300x"])
def test_a_verification_costs_a_step_at_least_and_so_many_steps_at_most_where_it_splits(name):
    profile = HardwareProfile.load(name)
    kv_tokens = np.geomspace(64, 128_000, 12)
    for kernel, figures in profile.attention.items():
        shape = {"batch": 1, "kv_tokens": kv_tokens, "heads": 8, "kv_heads": 1, "head_dim": 128}
        shape["kernel"] = kernel
        step, verified = attention(profile, **shape), attention(profile, query_tokens=6.0, **shape)
        assert np.all(verified >= step)
        assert np.all(np.diff(verified) >= 0)
        if figures.packs == 1:
            assert np.all(verified <= 6.0 * step * (1 + 1e-12))


@pytest.mark.parametrize(
    ("queries", "measured"), [(3, 3407), (4, 4641), (5, 5852), (6, 6748), (7, 7965), (8, 9711)]
)
def test_verification_by_latent_attention_on_h20_is_foretold_from_h100(queries, measured):
    """deepseek-ai/FlashMLA issue 30: 64 heads, 128 sequences of 8192, bound by arithmetic."""
    priced = microseconds(
        HardwareProfile.load("h20"), batch=128, query_tokens=queries, kv_tokens=8192, heads=64, **LATENT
    )
    assert priced == pytest.approx(measured, rel=0.07)


@pytest.mark.parametrize(
    ("heads", "queries", "measured"), [(16, 1, 215), (16, 2, 218), (32, 1, 218), (32, 2, 223), (64, 1, 223)]
)
def test_decoding_by_latent_attention_on_h100_is_met(heads, queries, measured):
    """FlashMLA on 128 sequences of 4096: ai-bot-pro/achatbot pull request 123."""
    priced = microseconds(
        HardwareProfile.load("h100"), batch=128, query_tokens=queries, kv_tokens=4096, heads=heads, **LATENT
    )
    assert priced == pytest.approx(measured, rel=0.08)


def test_registers_hold_64_rows_of_latent_attention():
    """More than 64 rows are tiles of 64: 65 rows compute what 128 do, and 192 half again as much."""
    profile = HardwareProfile.load("h20")
    rows = [
        microseconds(profile, batch=156, query_tokens=1, kv_tokens=65_536, heads=heads, **LATENT)
        for heads in (64, 65, 128, 192)
    ]
    assert rows[1] == pytest.approx(rows[2], rel=0.01)
    assert rows[2] > 1.5 * rows[0]
    assert rows[3] == pytest.approx(1.5 * rows[2], rel=0.1)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "batch", "kv_len"), [(32, 8, 128, 64, 8192), (64, 4, 256, 32, 4096)]
)
def test_an_h20_decodes_at_its_bandwidth_with_tiles_of_16_rows_and_not_with_those_of_64(
    heads, kv_heads, head_dim, batch, kv_len
):
    profile = HardwareProfile.load("h20")
    shape = {"batch": batch, "kv_tokens": kv_len, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}
    streamed = 4.0 * batch * kv_len * kv_heads * head_dim / float(profile.memory_bandwidth) * 1e6
    assert microseconds(profile, kernel="flashinfer", **shape) < 1.6 * streamed
    assert microseconds(profile, kernel="vllm", **shape) > 1.7 * streamed
