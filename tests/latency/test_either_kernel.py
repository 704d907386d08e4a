"""Attention where the engine leaves open which kernel runs: between both, and each of them in its worlds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from perfmodel import plan
from perfmodel.deployment import Deployment, Drafter
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import ForwardPass, price_pass
from perfmodel.model import ModelSpec
from perfmodel.speculation import price_round
from perfmodel.workload import Workload

PROFILES = {name: HardwareProfile.load(name) for name in HardwareProfile.available()}
GENERIC = EngineOverhead.load("generic")
LLAMA = ModelSpec.load("llama-3.1-8b")
A100 = PROFILES["a100-sxm-80gb"]
EITHER = Deployment(A100, LLAMA, GENERIC, 8.0)
VLLM, FLASHINFER = (
    replace(EITHER, engine=GENERIC.calling(attention_kernel=kernel, all_reduce=GENERIC.all_reduce))
    for kernel in ("vllm", "flashinfer")
)
OPEN = [name for name, profile in PROFILES.items() if {"vllm", "flashinfer"} <= set(profile.attention)]

passes = st.builds(
    ForwardPass,
    batch=st.integers(1, 512).map(float),
    query_tokens=st.integers(1, 17).map(float),
    kv_tokens=st.integers(1, 262144).map(float),
)


@given(passes)
def test_attention_lies_halfway_between_both_kernels_on_a_logarithmic_scale(forward):
    between, first, other = (price_pass(one, forward).attention for one in (EITHER, VLLM, FLASHINFER))
    assert between == pytest.approx(np.sqrt(first * other))


def test_worlds_are_of_one_kernel_of_the_other_and_between():
    forward = ForwardPass(batch=28.0, query_tokens=7.0, kv_tokens=32000.0)
    drawn = price_pass(replace(EITHER, engine=GENERIC.sample(1000)), forward).attention
    prices = [float(price_pass(one, forward).attention) for one in (VLLM, EITHER, FLASHINFER)]
    shares = [np.mean(np.isclose(drawn, price, rtol=1e-9)) for price in prices]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.05)
    assert np.median(drawn) == pytest.approx(prices[1])


def test_an_engine_that_knows_its_kernel_is_priced_with_that_one():
    assert EITHER.attention_kernels == ("vllm", "flashinfer")
    for name in EngineOverhead.available():
        if name != "generic":
            assert len(replace(EITHER, engine=EngineOverhead.load(name)).attention_kernels) == 1
    assert VLLM.attention_kernels == ("vllm",)
    assert VLLM.engine.quantities["other_kernel_share"].high == 0.0


def test_a_profile_without_the_other_kernel_has_one():
    assert replace(EITHER, hardware=PROFILES["mi300x"]).attention_kernels == ("vllm",)
    assert len(OPEN) >= 13


@pytest.mark.parametrize(("name", "count"), [("a100-sxm-80gb", 1), ("mi300x", 0)])
def test_a_plan_says_so_in_one_line_with_the_remedy(name, count):
    answer = plan(PROFILES[name], LLAMA, GENERIC, Workload([8], [4000]), draws=0)
    lines = [line for line in answer.assumed if "which attention kernel" in line]
    assert len(lines) == count
    assert all("vllm or flashinfer" in line and "name your engine" in line for line in lines)
    assert not any("other_kernel_share" in line for line in answer.assumed)


DRAFTER = Drafter(strategies.load("streaming_llm"))
BATCHES = np.arange(1.0, 301.0)


def best_speedups(profile, model, gpus, context_len):
    """Best speedup over the speculation lengths, plain decoding among them, of batches 1 to 300."""
    priced = price_round(
        profile, model, GENERIC, DRAFTER, batch=BATCHES, context_len=context_len, kv_budget=512.0,
        gamma=np.arange(0.0, 9.0)[:, None], tensor_parallel=gpus,
    )  # fmt: skip
    return np.broadcast_to(priced.speedup, (9, BATCHES.size)).max(axis=0)


@pytest.mark.parametrize("name", ["a100-sxm-80gb", "l40s-48gb", "rtx-4090", "h100-sxm-80gb"])
@pytest.mark.parametrize(
    ("model", "gpus"), [("llama-3.1-8b", 8), ("llama-3.1-8b", 1), ("llama-2-7b", 8), ("qwen2.5-32b", 8)]
)
def test_one_sequence_more_changes_the_best_speedup_by_a_tenth_or_by_its_share_of_the_batch(
    name, model, gpus
):
    for context_len in (4000.0, 32000.0, 128000.0):
        best = best_speedups(PROFILES[name], ModelSpec.load(model), gpus, context_len)
        change = np.abs(np.log(best[1:] / best[:-1]))
        assert np.all(change <= np.maximum(np.log(1.1), np.log1p(1.0 / BATCHES[:-1])))
