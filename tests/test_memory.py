"""What must be resident on each GPU: laws of what fits, then bytes worked out by hand."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.memory import kv_bytes_per_gpu, largest_batch, resident_memory, weight_bytes_per_gpu
from perfmodel.model import ModelSpec

H100 = HardwareProfile.load("h100-sxm-80gb")
ENGINE = EngineOverhead.load("vllm-h100")
LLAMA, SMALL, MISTRAL, LATENT, MOE = (
    ModelSpec.load(name)
    for name in ("llama-3.1-8b", "llama-3.2-1b", "mistral-7b-v0.1", "deepseek-v2-lite", "qwen3-30b-a3b")
)
PARTS = (
    "weights", "draft_weights", "target_kv", "draft_kv", "lookahead_kv", "states", "kept_states", "activations",
    "fixed",
)  # fmt: skip

models = st.sampled_from([ModelSpec.load(name) for name in ModelSpec.available()])
gpus = st.sampled_from([1.0, 2.0, 4.0, 8.0, 16.0])
deployments = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 4096).map(float),
        "context_len": st.integers(1, 1_000_000).map(float),
        "gamma": st.integers(0, 16).map(float),
        "tensor_parallel": gpus,
        "draft_resident_kv_tokens": st.integers(0, 8192).map(float),
    }
)
drafts = st.sampled_from([None, SMALL, LLAMA.head()])


@given(models, drafts, deployments, st.integers(1, 10_000))
def test_more_sequences_context_or_drafted_tokens_never_need_less(model, draft, one, extra):
    need = partial(resident_memory, H100, model, ENGINE, draft=draft)
    for name in ("batch", "context_len", "gamma", "draft_resident_kv_tokens"):
        longer = {**one, name: one[name] + extra}
        assert need(**longer).total >= need(**one).total


@given(models, drafts, st.lists(deployments, min_size=2, max_size=4))
def test_an_array_call_is_its_scalar_calls(model, draft, several):
    columns = {name: np.array([one[name] for one in several]) for name in several[0]}
    together = resident_memory(H100, model, ENGINE, draft=draft, **columns)
    alone = [resident_memory(H100, model, ENGINE, draft=draft, **one) for one in several]
    assert_allclose(together.total, [one.total for one in alone], rtol=1e-12)
    assert together.fits.tolist() == [bool(one.fits) for one in alone]


@given(models, drafts, deployments)
def test_the_parts_add_up_and_say_whether_they_fit(model, draft, one):
    memory = resident_memory(H100, model, ENGINE, draft=draft, **one)
    assert memory.total == pytest.approx(sum(getattr(memory, part) for part in PARTS))
    assert bool(memory.fits) == (memory.total <= memory.usable)


@given(models, drafts, deployments)
def test_the_largest_batch_is_the_last_that_fits(model, draft, one):
    deployment = {name: value for name, value in one.items() if name != "batch"}
    most = int(largest_batch(H100, model, ENGINE, draft=draft, limit=100_000, **deployment))
    fits = partial(resident_memory, H100, model, ENGINE, draft=draft, **deployment)
    assert 0 <= most <= 100_000
    assert most == 0 or fits(batch=most).fits
    assert most == 100_000 or not fits(batch=most + 1).fits


@given(models, gpus)
def test_gpus_together_hold_the_model_at_least_once(model, count):
    assert count * weight_bytes_per_gpu(model, count) >= model.weight_bytes * (1 - 1e-12)
    assert count * kv_bytes_per_gpu(model, 5000.0, count) >= model.kv_bytes(5000.0) * (1 - 1e-12)
    assert weight_bytes_per_gpu(model, 1.0) == pytest.approx(model.weight_bytes)
    assert kv_bytes_per_gpu(model, 5000.0, 1.0) == pytest.approx(model.kv_bytes(5000.0))


def test_the_largest_batch_is_found_for_every_element_at_once():
    contexts = np.array([[1024.0, 8192.0], [131072.0, 10_000_000.0]])
    found = largest_batch(H100, LLAMA, ENGINE, context_len=contexts)
    assert found.shape == (2, 2)
    assert found.ravel().tolist() == [
        int(largest_batch(H100, LLAMA, ENGINE, context_len=context)) for context in contexts.ravel()
    ]
    assert found[1, 1] == 0


class TestWeights:
    def test_llama_has_sixteen_gigabytes_of_weights(self):
        """32 layers of 4096 x (6144 + 4096 + 28672) + 14336 x 4096 and two norms of 4096; embedding and
        output layer of 128256 x 4096 each, one last norm: 8.030e9 parameters of two bytes."""
        layer = 4096 * (6144 + 4096 + 28672) + 14336 * 4096 + 2 * 4096
        parameters = 32 * layer + 2 * 128256 * 4096 + 4096
        assert parameters == 8_030_261_248
        assert weight_bytes_per_gpu(LLAMA, 1) == 2 * parameters

    def test_eight_gpus_hold_an_eighth_each_but_for_the_norms(self):
        norms = 65 * 4096 * 2
        each = (2 * 8_030_261_248 - norms) / 8 + norms
        assert weight_bytes_per_gpu(LLAMA, 8) == each

    def test_sixteen_gpus_hold_two_copies_of_the_projections_of_eight_kv_heads(self):
        """32 layers of 2048 x 4096 for keys and values are 537 MB, of which each GPU has an eighth."""
        share = weight_bytes_per_gpu(LLAMA, np.array([8.0, 16.0]))
        copied, norms = 32 * 2048 * 4096 * 2, 65 * 4096 * 2
        assert share[1] == pytest.approx((share[0] - norms) / 2 + norms + copied / 8 - copied / 16)

    def test_latent_down_projections_and_routers_are_on_every_gpu(self):
        """27 latent projections of 2048 x 576 and 26 routers of 2048 x 64, of two bytes a value."""
        whole = 27 * 2048 * 576 * 2 + 26 * 2048 * 64 * 2
        beyond_share = 8 * weight_bytes_per_gpu(LATENT, 8) - LATENT.weight_bytes
        assert beyond_share == pytest.approx(7 * whole, rel=0.02)  # norms beside

    def test_a_draft_model_and_a_head_come_beside_the_target(self):
        """A head of Llama-3.1-8B is a layer and a projection of 8192 x 4096; it shares the vocabulary."""
        layer = 4096 * (6144 + 4096 + 28672) + 14336 * 4096 + 8192 * 4096
        need = partial(resident_memory, H100, LLAMA, ENGINE, batch=1, context_len=1)
        assert need().draft_weights == 0
        assert need(draft=SMALL).draft_weights == SMALL.weight_bytes
        assert need(draft=LLAMA.head()).draft_weights == pytest.approx(2 * layer, rel=0.001)
        assert need(draft_weight_fraction=0.25).draft_weights == LLAMA.weight_bytes / 4


class TestCache:
    def test_an_entry_of_llama_has_128_kib_shared_by_at_most_eight_gpus(self):
        """2 x 8 heads x 128 x 32 layers x 2 bytes = 131072 B; 16384 B on 8 GPUs, and on 16 as well."""
        assert kv_bytes_per_gpu(LLAMA, 1, np.array([1, 8, 16])).tolist() == [131072, 16384, 16384]

    def test_a_window_caps_the_cache(self):
        assert kv_bytes_per_gpu(MISTRAL, np.array([4095, 4096, 100_000]), 1).tolist() == [
            4095 * 131072,
            4096 * 131072,
            4096 * 131072,
        ]

    def test_a_latent_cache_is_on_every_gpu(self):
        """512 + 64 values of two bytes in 27 layers."""
        assert kv_bytes_per_gpu(LATENT, 1, np.array([1, 8])).tolist() == [27 * 576 * 2] * 2

    def test_an_eight_bit_cache_has_half_the_bytes(self):
        assert kv_bytes_per_gpu(LLAMA.with_dtypes(kv="fp8"), 1, 1) == 65536

    def test_drafted_tokens_and_the_bonus_token_need_slots_until_they_are_verified(self):
        """64 sequences, 5 slots each at gamma 4, 131072 bytes; none without speculation."""
        need = partial(resident_memory, H100, LLAMA, ENGINE, batch=64, context_len=1000)
        assert need(gamma=4).lookahead_kv == 64 * 5 * 131072
        assert need(gamma=0).lookahead_kv == 0

    def test_a_draft_cache_is_counted_in_entries_of_whoever_drafts(self):
        """An entry of the target has 131072 bytes, one of Llama-3.2-1B (16 layers, 8 heads of 64) 32768."""
        need = partial(resident_memory, H100, LLAMA, ENGINE, batch=10, context_len=9000, gamma=2)
        assert need(draft_resident_kv_tokens=512).draft_kv == 10 * 512 * 131072
        assert need(draft_resident_kv_tokens=512, draft=SMALL).draft_kv == 10 * 512 * 32768
        assert need(draft_resident_kv_tokens=512, draft_kv_fraction=0.25).draft_kv == 10 * 128 * 131072

    def test_llama_serves_half_a_million_entries_on_one_h100(self):
        """79.2 GiB at 90 %, less 16.06 GB of weights, 0.74 GB of activations (8192 tokens of 4 x 4096 + 28672
        values of two bytes) and 0.54 GB fixed, are 59.2 GB: 452 thousand entries of 131072 bytes."""
        held = 2 * 8_030_261_248 + 2 * 8192 * (4 * 4096 + 28672) + 2**29
        entries = (0.9 * 79.2 * 2**30 - held) / 131072
        engine = ENGINE.with_values({"memory_utilization": 0.9})
        assert largest_batch(H100, LLAMA, engine, context_len=8192) == int(entries / 8192) == 55


class TestCapacity:
    """Largest batches from what drivers report, worked out by hand; memory of the process left out."""

    @pytest.mark.parametrize(
        ("name", "gib"),
        [
            ("b200", 178.35), ("gb200", 184.31), ("b300", 267.69), ("mi300x", 191.98), ("mi325x", 255.98),
            ("h100-nvl-94gb", 93.10), ("h100-sxm-80gb", 79.2), ("a100-sxm-80gb", 79.25),
            ("h200-sxm-141gb", 139.8), ("rtx-4090", 23.65), ("rtx-3090", 23.69), ("rtx-5090", 31.36),
            ("l40s-48gb", 44.4), ("l40-48gb", 44.4), ("a40-48gb", 44.4), ("l4-24gb", 22.05),
            ("a10g-24gb", 22.06),
        ],
    )  # fmt: skip
    def test_a_gpu_has_the_memory_that_its_driver_reports(self, name, gib):
        profile = HardwareProfile.load(name)
        assert profile.memory_capacity == pytest.approx(gib * 2**30, rel=0.005)
        assert profile.quantities["memory.capacity"].kind == "measured"

    @pytest.mark.parametrize("name", HardwareProfile.available())
    def test_no_gpu_has_all_of_the_gibibytes_it_is_named_after(self, name):
        """Memory is binary; the driver keeps up to 2 % and error correction a sixteenth."""
        sold = float(name.rpartition("-")[2].removesuffix("gb")) if name.endswith("gb") else None
        capacity = HardwareProfile.load(name).memory_capacity / 2**30
        assert sold is None or 0.91 * sold < capacity < sold

    @pytest.mark.parametrize(
        ("name", "model", "most"),
        [("b200", "llama-3.1-70b", 11), ("gb200", "llama-3.1-70b", 13), ("mi300x", "llama-3.1-70b", 16),
         ("mi325x", "llama-3.1-70b", 39), ("h100-nvl-94gb", "qwen2.5-32b", 11)],
    )  # fmt: skip
    def test_what_one_gpu_serves_at_a_context_of_8000(self, name, model, most):
        bare = ENGINE.with_values({"memory_utilization": 0.9, "fixed_memory": 0.0})
        run = partial(largest_batch, HardwareProfile.load(name), ModelSpec.load(model), context_len=8000.0)
        assert run(bare) == most
        assert most - 1 <= run(bare.with_values({"fixed_memory": 2**29})) <= most

    def test_a_24_gb_card_holds_as_many_entries_as_vllm_found(self):
        """43,296 entries for Llama-3.1-8B at a share of 0.9."""
        engine = EngineOverhead.load("generic")
        run = partial(resident_memory, HardwareProfile.load("rtx-4090"), LLAMA, engine, batch=1)
        memory = run(context_len=0.0)
        assert (memory.usable - memory.total) / 131072 == pytest.approx(43296, rel=0.04)


def test_experts_hold_a_copy_of_a_chunk_for_each_expert_of_a_token():
    """Qwen3-235B on 4 GPUs: 8192 tokens x 8 experts x (768 + 384 + 4096) values of two bytes are 688 MB, and
    residual and input of 4096 values 134 MB."""
    model = ModelSpec.load("qwen3-235b-a22b")
    memory = resident_memory(H100, model, ENGINE, batch=1, context_len=1, tensor_parallel=4)
    hidden = memory.activations - model.vocab_size * 4
    assert hidden == pytest.approx(8192 * 2 * (8 * (768 + 384 + 4096) + 2 * 4096))


def test_memory_of_the_process_is_resident_beside_everything_else():
    need = partial(resident_memory, H100, LLAMA, batch=1, context_len=1)
    with_it, without = (need(ENGINE.with_values({"fixed_memory": size})) for size in (2e9, 0.0))
    assert with_it.total - without.total == pytest.approx(2e9)


def test_logits_of_verified_tokens_are_gathered_on_one_gpu():
    """256 sequences of 5 tokens over a vocabulary of 128256 in float32: 657 MB, split over no GPUs."""
    need = partial(resident_memory, H100, LLAMA, ENGINE, batch=256, context_len=1, tensor_parallel=8)
    one, five = need(gamma=0).activations, need(gamma=4).activations
    assert five - one == pytest.approx(256 * 4 * 128256 * 4)
