"""Attention in one piece, in blocks and compiled is one number, to the last bit, on every kernel."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from perfmodel.engine import EngineOverhead
from perfmodel.files import compiled as seam
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import attention
from perfmodel.model import ModelSpec
from perfmodel.speculation import Drafter, price_round
from strategies import load

PROFILES = {name: HardwareProfile.load(name) for name in HardwareProfile.available()}
KERNELS = [(name, kernel) for name, profile in PROFILES.items() for kernel in profile.attention]
BATCH, KV = np.array([1.0, 2, 3, 7, 33, 128, 500])[:, None], np.geomspace(1, 2e5, 40).round()
GROUPED = {"heads": 32.0, "kv_heads": 8.0, "head_dim": 128.0}
LATENT = {"heads": 16.0, "kv_heads": 1.0, "head_dim": 576.0, "value_dim": 512.0, "entry_elements": 576.0}
LAUNCHES = [
    {**heads, "kv_dtype": dtype, "cold": cold, "query_tokens": queries}
    for heads in (GROUPED, LATENT)
    for dtype in ("bf16", "fp8")
    for cold in (True, False)
    for queries in (1.0, 2.0, 17.0)
]


def set_limits(monkeypatch, worth_it):
    monkeypatch.delenv("DRAFTPLAN_FAST", raising=False)
    for limit, elements in {"BLOCK": 64, "WORTH_IT": worth_it, "LOADED": worth_it}.items():
        monkeypatch.setattr(seam, limit, elements)


def answers(profile, kernel):
    return [attention(profile, batch=BATCH, kv_tokens=KV, kernel=kernel, **launch) for launch in LAUNCHES]


@pytest.mark.parametrize(("name", "kernel"), KERNELS)
def test_blocks_and_compiled_code_give_the_same_bits(name, kernel, monkeypatch):
    at_once = answers(PROFILES[name], kernel)
    set_limits(monkeypatch, worth_it=2**62)
    in_blocks = answers(PROFILES[name], kernel)
    set_limits(monkeypatch, worth_it=1)
    for _ in range(2):
        by_compiler = answers(PROFILES[name], kernel)
        if find_spec("numba"):  # from now on nothing but compiled code
            monkeypatch.setattr(seam, "_fill", pytest.fail)
    for ways in zip(LAUNCHES, at_once, in_blocks, by_compiler, strict=True):
        launch, plain, *others = ways
        assert all(np.array_equal(plain, other) for other in others), launch


def test_accelerators_with_and_without_overlap_in_one_array_are_priced_as_each_alone():
    kinds = [replace(PROFILES["h100-sxm-80gb"], overlap=overlap) for overlap in (0.0, 1.0)]
    fleet = replace(kinds[0], overlap=np.array([0.0, 1.0])[:, None, None])
    for together, *alone in zip(*(answers(profile, "vllm") for profile in (fleet, *kinds)), strict=True):
        assert np.array_equal(together, np.stack(alone))


def test_where_everything_overlaps_nobody_asks_what_it_takes_in_turn():
    hardware = PROFILES["h100-sxm-80gb"]
    assert hardware.as_it_runs(2.0, pytest.fail) == 2.0
    assert replace(hardware, overlap=0.0).as_it_runs(2.0, lambda: 3.0) == 3.0


@pytest.mark.parametrize("figure", ["round_s", "tpot", "throughput", "speedup"])
def test_a_round_joined_in_blocks_or_compiled_is_the_round_at_once(figure, monkeypatch):
    nouns = (PROFILES["h100-sxm-80gb"], ModelSpec.load("llama-3.1-8b"), EngineOverhead.load("magicdec-h100"))
    priced = price_round(
        *nouns, Drafter(load("snapkv")), batch=BATCH[:, :, None],
        context_len=np.geomspace(1e3, 1e5, 12)[:, None], kv_budget=512.0, gamma=np.arange(0.0, 9.0),
    )  # fmt: skip
    at_once = getattr(priced, figure)
    for worth_it in (2**62, 1, 1):
        set_limits(monkeypatch, worth_it)
        assert np.array_equal(getattr(priced, figure), at_once)


@pytest.mark.bench
@pytest.mark.parametrize("way", ["numpy", "compiled"])
@pytest.mark.parametrize("queries", [1, 4, 17])
def test_attention_of_shapes_with_nothing_to_share(benchmark, monkeypatch, way, queries):
    """512 batch sizes times 512 contexts: a decode step, and verifications of 4 and of 17 tokens."""
    monkeypatch.setattr(seam, "_KERNELS", {})
    monkeypatch.setattr(seam, "WORTH_IT", 1 if way == "compiled" else 2**62)
    monkeypatch.setattr(seam, "LOADED", seam.WORTH_IT)
    batch, kv_tokens = np.arange(1.0, 513.0)[:, None], np.arange(1024.0, 132_096.0, 256.0)
    benchmark.pedantic(
        attention, (PROFILES["h100-sxm-80gb"],), rounds=5, warmup_rounds=2,
        kwargs={"batch": batch, "kv_tokens": kv_tokens, "query_tokens": float(queries),
            "cold": True, **GROUPED},
    )  # fmt: skip
