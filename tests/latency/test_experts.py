"""Experts on several GPUs: the busiest GPU's share, in closed form, against draws and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import ForwardPass, all_reduce, price_pass, step_latency
from perfmodel.latency.all_reduce import all_to_all
from perfmodel.latency.linear import linear
from perfmodel.memory import resident_memory, weight_bytes_per_gpu
from perfmodel.model import ModelSpec
from perfmodel.model.routing import busiest_experts, busiest_visits, experts_held, gpus_visited

H100 = HardwareProfile.load("h100-sxm-80gb")
IDEAL = EngineOverhead.load("ideal")
DENSE, MOE, SHARED = map(ModelSpec.load, ("llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v3"))
GPUS = np.array([1.0, 2.0, 4.0, 8.0])
SOME = st.sampled_from([(8, 2), (16, 4), (64, 6), (128, 8), (256, 8), (512, 10)])


def drawn_shares(
    experts: int, per_token: int, tokens: int, gpus: int, draws: int
) -> tuple[float, float]:
    """Mean distinct experts and visits of the busiest GPU where every token draws its experts evenly."""
    rng = np.random.default_rng([experts, per_token, tokens, gpus])
    visits = np.zeros((draws, experts))
    for _ in range(tokens):
        chosen = np.argpartition(rng.random((draws, experts)), per_token - 1, axis=1)[:, :per_token]
        np.add.at(visits, (np.arange(draws)[:, None], chosen), 1.0)
    shares = visits.reshape(draws, gpus, -1)
    return (shares > 0).sum(-1).max(-1).mean(), shares.sum(-1).max(-1).mean()


class TestTheBusiestShare:
    """Balls in bins: what the fullest of G bins holds."""

    @pytest.mark.parametrize(("experts", "per_token"), [(8, 2), (64, 6), (128, 8), (256, 8)])
    @pytest.mark.parametrize("gpus", [2, 4, 8])
    def test_it_is_what_draws_give_within_a_tenth(self, experts, per_token, gpus):
        """Every number within 10 %, their mean within 3 %; draws of 400 leave about 1 %."""
        errors = []
        for tokens in (1, 2, 4, 16, 64):
            distinct, visits = drawn_shares(experts, per_token, tokens, gpus, draws=400)
            shares = {"tokens": float(tokens), "gpus": float(gpus)}
            errors.append(float(busiest_experts(experts, per_token, **shares)) / distinct - 1.0)
            errors.append(float(busiest_visits(experts, per_token, **shares)) / visits - 1.0)
        assert np.abs(errors).max() < 0.10
        assert np.abs(errors).mean() < 0.03

    @given(shape=SOME, tokens=st.floats(0.0, 1e5))
    def test_one_gpu_holds_every_expert_that_is_met(self, shape, tokens):
        experts, per_token = shape
        exact = experts * (1.0 - (1.0 - per_token / experts) ** tokens)
        assert busiest_experts(experts, per_token, tokens=tokens) == exact
        assert busiest_visits(experts, per_token, tokens=tokens) == tokens * per_token

    def test_one_token_with_one_expert_keeps_one_gpu_busy(self):
        share = {"tokens": 1.0, "gpus": np.array([1.0, 2.0, 8.0, 16.0])}
        assert_allclose(busiest_experts(16, 1, **share), 1.0)
        assert_allclose(busiest_visits(16, 1, **share), 1.0)

    @given(shape=SOME, tokens=st.floats(1.0, 1e4), more=st.floats(1.0, 4.0))
    def test_more_tokens_never_leave_it_less(self, shape, tokens, more):
        for share in (busiest_experts, busiest_visits):
            few, many = (share(*shape, tokens=count, gpus=GPUS) for count in (tokens, tokens * more))
            assert np.all(many >= few * (1 - 1e-12))

    @given(shape=SOME, tokens=st.floats(1.0, 1e4))
    def test_it_lies_between_the_mean_and_all_it_holds(self, shape, tokens):
        experts, per_token = shape
        share = busiest_experts(experts, per_token, tokens=tokens, gpus=GPUS)
        everywhere = busiest_experts(experts, per_token, tokens=tokens)
        assert np.all(share >= everywhere / GPUS * (1 - 1e-12))
        assert np.all(share <= np.minimum(experts / GPUS, everywhere) * (1 + 1e-12))

    def test_many_tokens_meet_all_that_it_holds(self):
        assert_allclose(busiest_experts(128, 8, tokens=1e4, gpus=GPUS), 128 / GPUS)

    def test_experts_that_do_not_divide_leave_one_gpu_fuller(self):
        assert_array_equal(experts_held(60, np.array([1.0, 4.0, 8.0, 64.0])), [60, 15, 8, 1])

    def test_a_token_is_sent_to_the_gpus_of_its_experts(self):
        """Of 8 experts on 2 GPUs, 2 chosen: both on one in 3 of 7 cases, so 1 + 4/7 GPUs."""
        assert float(gpus_visited(8, 2, 2.0)) == pytest.approx(11 / 7)
        assert float(gpus_visited(256, 8, 1.0)) == 1.0
        assert float(gpus_visited(16, 1, 8.0)) == pytest.approx(1.0)


class TestAStep:
    """Seconds under expert parallelism."""

    PASS = ForwardPass(batch=np.array([1.0, 8.0, 64.0, 512.0]), kv_tokens=4096.0)

    def test_one_gpu_has_nobody_to_share_with(self):
        plain, dealt = (price_pass(Deployment(H100, MOE, IDEAL, 1.0, ep), self.PASS) for ep in (False, True))
        assert_array_equal(plain.total, dealt.total)

    def test_a_model_without_experts_does_not_change(self):
        plain, dealt = (
            price_pass(Deployment(H100, DENSE, IDEAL, 8.0, ep), self.PASS) for ep in (False, True)
        )
        assert_array_equal(plain.total, dealt.total)

    def test_arrays_choose_for_each_configuration(self):
        mixed = price_pass(Deployment(H100, MOE, IDEAL, 8.0, np.array([0.0, 1.0])[:, None]), self.PASS)
        for row, ep in enumerate((False, True)):
            alone = price_pass(Deployment(H100, MOE, IDEAL, 8.0, ep), self.PASS)
            assert_allclose(mixed.linear[row], alone.linear, rtol=1e-12)

    @given(batch=st.integers(1, 512).map(float), more=st.floats(1.0, 4.0), gpus=st.sampled_from([2.0, 8.0]))
    def test_a_larger_batch_never_takes_less(self, batch, more, gpus):
        passes = ForwardPass(batch=np.array([batch, batch * more]), kv_tokens=1024.0)
        few, many = price_pass(Deployment(H100, MOE, IDEAL, gpus, True), passes).total
        assert many >= few * (1 - 1e-9)

    def test_verifying_one_token_is_a_decode_step(self):
        runs = Deployment(H100, SHARED, IDEAL, 8.0, True)
        one = replace(self.PASS, query_tokens=np.ones(4))
        assert_array_equal(price_pass(runs, one).total, price_pass(runs, self.PASS).total)

    def test_shared_experts_are_split_all_the_same(self):
        """Only products with routed experts change their shape."""
        for product in SHARED.linears:
            split, dealt = product.shares(8.0, True)
            assert (split, dealt) == ((1.0, 8.0) if product.experts else (8.0, 1.0))

    def test_the_busiest_gpu_reads_its_experts_whole(self):
        """Without arithmetic or fixed times: 8 tokens of 8 on 8 GPUs of 16 experts, 3 x 2048 x 768 each."""
        figures = {"peak.bf16": 1e30, "gemm.t0": 0, "gemm.memory_fraction": 1, "gemm.k_latency": 0,
                   "gemm.contention": 0, "gemm.tile_switch": 0}  # fmt: skip
        flawless = H100.with_values(figures)
        experts = [product for product in MOE.linears if product.experts]
        rest = replace(MOE, layers=tuple(
            replace(layer, products=tuple(p for p in layer.products if not p.experts)) for layer in MOE.layers
        ))  # fmt: skip
        step = {"batch": 8.0, "kv_tokens": 1.0, "tensor_parallel": 8.0, "expert_parallel": True}
        seconds = [step_latency(flawless, model, IDEAL, **step).linear for model in (MOE, rest)]
        distinct = float(busiest_experts(128, 8, tokens=8.0, gpus=8.0))
        assert 128 * (1 - (120 / 128) ** 8) / 8 < distinct < 10
        read = (seconds[0] - seconds[1]) * H100.memory_bandwidth
        assert read == pytest.approx(48 * 2 * distinct * 3 * 2048 * 768, rel=0.02)
        assert len(experts) == 2

    def test_the_fixed_cost_is_paid_once_a_layer_with_experts(self):
        """DeepSeek-V3 has 58 such layers, the first 3 of 61 are dense."""
        slow = replace(IDEAL, expert_layer_s=20e-6)
        for model, layers in ((SHARED, 58), (MOE, 48), (DENSE, 0)):
            seconds = [
                step_latency(H100, model, engine, batch=4, kv_tokens=512, tensor_parallel=8.0).overhead
                for engine in (IDEAL, slow)
            ]
            assert seconds[1] - seconds[0] == pytest.approx(layers * 20e-6, abs=1e-12)


class TestTheExchange:
    """How rows get to experts on other GPUs."""

    @staticmethod
    def seconds(engine: EngineOverhead, *, dealt: bool, gpus: float = 8.0) -> float:
        runs = Deployment(H100, MOE, engine, gpus, dealt)
        return float(price_pass(runs, ForwardPass(batch=64.0, kv_tokens=512.0)).communication)

    def test_gpus_that_have_every_row_reduce_as_before(self):
        assert self.seconds(IDEAL, dealt=True) == self.seconds(IDEAL, dealt=False)

    def test_all_to_all_takes_the_place_of_one_reduction_a_layer(self):
        """64 rows, 8 of each GPU's own, 4096 B wide, are sent once to every GPU that they visit, and back."""
        sends = replace(IDEAL, expert_all_to_all=1.0)
        assert self.seconds(sends, dealt=False) == self.seconds(IDEAL, dealt=False)
        assert self.seconds(sends, dealt=True, gpus=1.0) == 0.0
        one_way = float(all_to_all(H100, bytes=8 * 4096 * gpus_visited(128, 8, 8.0), gpus=8.0))
        kernel = Deployment(H100, MOE, IDEAL).all_reduce
        reduced = float(all_reduce(H100, bytes=64 * 4096, gpus=8.0, implementation=kernel))
        changed = self.seconds(sends, dealt=True) - self.seconds(sends, dealt=False)
        assert changed == pytest.approx(48 * (2 * one_way - reduced))

    def test_an_exchange_takes_what_was_measured(self):
        """DeepEP's low-latency combine among 8 H100, 256 experts of 7168, 8 a token: 48 to 170 us
        (aiconfigurator-core 0.12.0, vLLM 0.24.0)."""
        tokens, measured = np.array([16.0, 128.0, 256.0]), np.array([48.7e-6, 96.6e-6, 169.9e-6])
        sent = tokens * 7168 * 2 * gpus_visited(256, 8, 8.0)
        assert_allclose(all_to_all(H100, bytes=sent, gpus=8.0), measured, rtol=0.25)

    def test_latent_experts_send_what_they_read(self):
        """The width that travels is the experts' own, not the hidden size."""
        sends = replace(IDEAL, expert_all_to_all=1.0)
        narrow = replace(MOE, layers=tuple(
            replace(layer, channel_mixers=tuple(replace(mixer, latent=512) for mixer in layer.channel_mixers))
            for layer in MOE.layers
        ))  # fmt: skip
        rows = ForwardPass(batch=4096.0, kv_tokens=512.0)
        latent_s, wide_s = (
            price_pass(Deployment(H100, model, sends, 8.0, True), rows).communication
            for model in (narrow, MOE)
        )
        one_way = [
            float(all_to_all(H100, bytes=512 * width * 2 * gpus_visited(128, 8, 8.0), gpus=8.0))
            for width in (512, 2048)
        ]
        assert wide_s - latent_s == pytest.approx(48 * 2 * (one_way[1] - one_way[0]))


class TestResidentBytes:
    """What each GPU holds."""

    @pytest.mark.parametrize("model", [MOE, SHARED])
    def test_all_gpus_together_hold_the_same_experts(self, model):
        split, dealt = (GPUS * weight_bytes_per_gpu(model, GPUS, expert_parallel=ep) for ep in (False, True))
        assert_allclose(split, dealt, rtol=1e-12)

    def test_the_fullest_gpu_counts_where_experts_do_not_divide(self):
        """128 experts on 48 GPUs: three on the fullest, where slices would be 2.67."""
        held = [float(weight_bytes_per_gpu(MOE, 48.0, expert_parallel=ep)) for ep in (False, True)]
        expert = 48 * 3 * 2048 * 768 * 2
        assert held[1] - held[0] == pytest.approx((3 - 128 / 48) * expert)

    def test_activations_of_whole_experts_are_wider(self):
        sizes = {"batch": 8.0, "context_len": 1024.0, "tensor_parallel": 8.0}
        split, dealt = (
            resident_memory(H100, MOE, IDEAL, **sizes, expert_parallel=ep).activations for ep in (False, True)
        )
        assert dealt > split


class TestNarrowExperts:
    """A tile of another matrix begins with nothing to stream, which narrow experts show."""

    FIXED = 20e-6
    MEASURED = (
        # profile, dtype, width of an expert on a GPU, microseconds of the fused kernel
        ("h100-sxm-80gb", "bf16", 96, 98.1), ("h100-sxm-80gb", "bf16", 192, 138.3),
        ("h100-sxm-80gb", "bf16", 768, 422.3), ("h100-sxm-80gb", "fp8", 96, 69.9),
        ("h100-sxm-80gb", "fp8", 192, 90.3), ("h200-sxm-141gb", "bf16", 96, 68.9),
        ("h200-sxm-141gb", "bf16", 192, 103.2), ("h200-sxm-141gb", "fp8", 96, 65.5),
        ("l40s-48gb", "bf16", 96, 244.7), ("l40s-48gb", "bf16", 192, 469.7), ("l40s-48gb", "fp8", 192, 265.7),
    )  # fmt: skip

    @pytest.mark.parametrize(("profile", "dtype", "width", "microseconds"), MEASURED)
    def test_they_take_what_was_measured(self, profile, dtype, width, microseconds):
        """32 tokens meet all 128 experts of Qwen3-30B-A3B at TP 1, 4 and 8: vLLM 0.24.0, and TensorRT-LLM
        1.3.0rc20 in fp8 on Hopper, of aiconfigurator-core 0.12.0. Sorting tokens, activation and sums are a
        fixed time on top, which engines' figures hold."""
        hardware = HardwareProfile.load(profile)
        seconds = sum(
            linear(hardware, tokens=2.0, n=n, k=k, products=128.0, dtype=dtype)
            for n, k in ((2.0 * width, 2048.0), (2048.0, width))
        )
        assert float(seconds) + self.FIXED == pytest.approx(microseconds * 1e-6, rel=0.15)

    def test_dense_products_do_not_switch(self):
        still = H100.with_values({"gemm.tile_switch": 0.0})
        shape = {"tokens": 4.0, "n": 4096.0, "k": 4096.0}
        assert linear(H100, **shape) == linear(still, **shape)

    def test_the_same_bytes_take_longer_in_narrower_experts(self):
        """Widths halved, experts doubled: bytes stay, the achieved share of bandwidth falls."""
        width, experts = np.array([768.0, 384.0, 192.0, 96.0]), np.array([64.0, 128.0, 256.0, 512.0])
        seconds = sum(
            linear(H100, tokens=1.0, n=n, k=k, products=experts, cold=True)
            for n, k in ((2 * width, 4096.0), (4096.0, width))
        )
        assert np.all(np.diff(seconds) > 0)
