"""The three kernels of a forward pass: laws that hold on every accelerator, then cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from perfmodel.hardware import HardwareProfile
from perfmodel.latency import all_gather, all_reduce, attention, linear

PROFILES = {name: HardwareProfile.load(name) for name in HardwareProfile.available()}
H100 = PROFILES["h100-sxm-80gb"]

ADAPTIVE = [profile for profile in PROFILES.values() if not profile.gemm.fixed_rules]

profiles = st.sampled_from(list(PROFILES.values()))
more = st.floats(1.01, 8.0)
dtypes = st.sampled_from(["bf16", "fp8", "int4"])


def whole(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(float)


matrices = st.fixed_dictionaries(
    {"tokens": whole(1, 8192), "n": whole(16, 65536), "k": whole(16, 32768), "cold": st.booleans()}
)
launches = st.fixed_dictionaries(
    {
        "batch": whole(1, 512),
        "query_tokens": whole(1, 32),
        "kv_tokens": whole(1, 262144),
        "kv_heads": whole(1, 16),
        "head_dim": st.sampled_from([64.0, 128.0, 256.0]),
        "cold": st.booleans(),
    }
)
groups = whole(1, 16)
kernels = st.sampled_from(["vllm", "flashinfer", "sglang", "trtllm"])
messages = st.floats(256.0, 2.0**30)
gpu_counts = st.sampled_from([1.0, 2.0, 4.0, 6.0, 8.0, 16.0, 32.0])


def with_more(profile: HardwareProfile, factor: float, *, flops: bool) -> HardwareProfile:
    """The accelerator with that much more bandwidth, or more FLOPs in every dtype."""
    peaks = {f"peak.{dtype}": peak for dtype, peak in profile.peak_flops.items()}
    figures = peaks if flops else {"memory.bandwidth": profile.memory_bandwidth}
    return profile.with_values({path: factor * value for path, value in figures.items()})


def never_below(found, least) -> None:
    """`found` is at least `least`, but for rounding."""
    assert np.all(found >= least * (1.0 - 1e-12))


class TestLinearLayers:
    @given(profiles, matrices, dtypes, whole(1, 4096))
    def test_more_tokens_are_never_faster(self, profile, matrix, dtype, extra):
        longer = {**matrix, "tokens": matrix["tokens"] + extra}
        never_below(linear(profile, **longer, dtype=dtype), linear(profile, **matrix, dtype=dtype))

    @given(st.sampled_from(ADAPTIVE), matrices, dtypes, whole(1, 4096))
    def test_a_longer_reduction_is_never_faster(self, profile, matrix, dtype, extra):
        """Where the library weighs every split; by fixed rules one just long enough to be split is."""
        longer = {**matrix, "k": matrix["k"] + extra}
        never_below(linear(profile, **longer, dtype=dtype), linear(profile, **matrix, dtype=dtype))

    @given(profiles, matrices, dtypes, more, st.booleans())
    def test_a_better_accelerator_is_never_slower(self, profile, matrix, dtype, factor, flops):
        better = with_more(profile, factor, flops=flops)
        never_below(linear(profile, **matrix, dtype=dtype), linear(better, **matrix, dtype=dtype))

    @given(profiles, matrices, st.floats(0.1, 1.0))
    def test_fewer_bytes_of_weights_are_never_slower(self, profile, matrix, fraction):
        never_below(linear(profile, **matrix), linear(profile, **matrix, weight_fraction=fraction))

    @given(profiles, matrices)
    def test_weights_found_in_l2_are_never_slower_than_cold_ones(self, profile, matrix):
        cold, warm = ({**matrix, "cold": value} for value in (True, False))
        never_below(linear(profile, **cold), linear(profile, **warm))

    @given(profiles, st.lists(matrices, min_size=2, max_size=5), dtypes)
    def test_an_array_call_is_its_scalar_calls(self, profile, several, dtype):
        columns = {name: np.array([one[name] for one in several]) for name in ("tokens", "n", "k")}
        one_by_one = [linear(profile, **{**one, "cold": True}, dtype=dtype) for one in several]
        assert_allclose(linear(profile, **columns, dtype=dtype, cold=True), one_by_one, rtol=1e-12)

    def test_no_tile_holds_columns_of_two_products(self):
        """100 products of 65 columns are padded to 128 each, where one product of 6500 has 51 x 128."""
        price = partial(linear, H100.with_values({"memory.bandwidth": 1e20}), tokens=8192.0, k=8192.0)
        assert price(n=65.0, products=100.0) / price(n=6500.0) > 1.9

    def test_one_token_takes_the_time_to_read_the_weights(self):
        """4096 x 14336 weights in bf16 are 2 x 4096 x 14336 = 117.4 MB: 40.1 us at 87.5 % of 3.35 TB/s."""
        figures = {"gemm.memory_fraction": 0.875, "gemm.t0": 2.716e-6, "gemm.contention": 0}
        seconds = linear(H100.with_values(figures), tokens=1, n=14336, k=4096, cold=True)
        assert seconds == pytest.approx(40.1e-6 + 2.716e-6, rel=0.01)

    def test_weights_beyond_l2_stream_slower_with_tokens_up_to_32(self):
        """469.8 MB of weights against 50 MB of L2: a share of 0.904, so 1 + 0.5 x 0.904 at 32 tokens."""
        crowded = with_more(H100, 1e6, flops=True).with_values({"gemm.contention": 0.5, "gemm.t0": 0})
        alone = crowded.with_values({"gemm.contention": 0})
        times = [
            linear(one, tokens=np.array([8.0, 32.0]), n=28672, k=8192, cold=True) for one in (crowded, alone)
        ]
        assert_allclose(times[0] / times[1], [1.226, 1.452], rtol=1e-3)

    def test_a_partial_wave_counts_by_its_share_where_waves_overlap(self):
        """4096^3 is 512 tiles of 128 x 256, 3.88 waves on 132 SMs, of which whole waves make 4."""
        lasting = with_more(H100, 1e6, flops=False).with_values({"gemm.t0": 0, "gemm.k_latency": 0})
        whole_waves, shared = (
            linear(lasting.with_values({"gemm.wave_overlap": share}), tokens=4096, n=4096, k=4096)
            for share in (0, 1)
        )
        assert shared / whole_waves == pytest.approx(3.8788 / 4, rel=1e-3)

    def test_fixed_rules_leave_the_smallest_tile_beyond_32_tokens(self):
        """Three tiles of 32 rows hold 96 tokens, two of 64 rows 128."""
        ada = with_more(PROFILES["l40s-48gb"], 1e6, flops=False).with_values({"gemm.tile_edge": 0})
        adaptive = ada.with_values({"gemm.fixed_rules": 0})
        times = [linear(one, tokens=np.array([32.0, 96.0]), n=65536, k=8192) for one in (ada, adaptive)]
        assert times[0][0] == pytest.approx(times[1][0])
        assert times[0][1] > 1.25 * times[1][1]

    def test_a_large_product_runs_in_whole_waves_of_tiles(self):
        """4096^3 is 137.4 GFLOP, 139.0 us at 989 TFLOP/s, were it not for whole waves and whole tiles.

        32 x 16 tiles of 128 x 256 on 132 SMs are 3.88 waves, so 4 are run (4 / 3.88 = 1.031), and each
        reduction of 4096 has 128 elements of prologue and epilogue (1.031): 147.8 us. Reading is hidden.
        """
        flawless = H100.with_values({"gemm.t0": 0, "gemm.compute_fraction": 1})
        seconds = linear(flawless, tokens=4096, n=4096, k=4096)
        assert seconds == pytest.approx(2 * 4096**3 / 989e12 * (4 / 3.8788) * (4224 / 4096), rel=0.005)

    def test_the_smallest_tile_makes_one_token_cost_what_32_do_in_arithmetic(self):
        endless_bandwidth = with_more(H100, 1e3, flops=False)
        times = linear(endless_bandwidth, tokens=np.array([1.0, 32.0, 65.0]), n=65536, k=8192)
        assert times[0] == pytest.approx(times[1], rel=1e-3)
        assert times[2] > 1.2 * times[1]

    def test_a_dtype_without_units_of_its_own_multiplies_in_a_wider_one(self):
        """The A100 has no fp8 units: fp8 halves the bytes of a decode step, not the time of a prefill."""
        a100 = partial(linear, PROFILES["a100-sxm-80gb"], n=28672, k=8192, cold=True)
        assert a100(tokens=1, dtype="fp8") < 0.62 * a100(tokens=1)
        assert a100(tokens=8192, dtype="fp8") > 0.95 * a100(tokens=8192)

    @pytest.mark.parametrize("profile", [one for one in PROFILES.values() if "fp4" not in one.peak_flops])
    def test_four_bit_floats_without_their_units_take_as_long_as_four_bit_integers(self, profile):
        """Both are converted to bf16 first; compute bound, bytes of scales do not show."""
        run = partial(linear, profile, tokens=4096.0, n=28672.0, k=8192.0, cold=True)
        assert_allclose([run(dtype=dtype) for dtype in ("fp4", "mxfp4")], run(dtype="int4"), rtol=0.01)


BEST_SHAPE = {
    "a100-sxm-80gb": 271.2, "a100-pcie-80gb": 256.4, "h100-sxm-80gb": 821.2, "h100-pcie-80gb": 499.5,
    "h100-nvl-94gb": 488.5, "h200-sxm-141gb": 794.5, "b200": 1745.0, "b300": 1769.0, "gb200": 1822.0,
    "l40-48gb": 170.3, "l40s-48gb": 252.0, "l4-24gb": 91.4, "a10g-24gb": 69.7, "rtx-3090": 78.0,
    "rtx-4090": 178.8, "rtx-5090": 236.0, "mi300x": 788.2, "mi325x": 784.9,
}  # fmt: skip
"""bf16 rate of the best shape in long runs: stas00/ml-engineering@744d01e1, accelerator chapter;
mag-/gpu_benchmark@93322b7; zzc0721/torch-performance-test-data. [TFLOP/s]"""
MEDIAN_SHAPES = {
    "a100-sxm-80gb": (242.0, 265.0), "h100-sxm-80gb": (744.0, 784.0), "h200-sxm-141gb": (735.0, 778.0),
    "l40s-48gb": (198.0, 226.0), "b200": (1457.0, 1547.0),
}  # fmt: skip
"""Lowest and highest median of the aiconfigurator tables of several engines from 2048 on. [TFLOP/s]"""


class TestSustainedClocks:
    """Products that are bound by arithmetic run slower in serving than in a short timing."""

    @given(profiles, matrices, dtypes, st.floats(0.3, 1.0))
    def test_sustained_clocks_are_never_faster_and_no_part_of_a_kernel_benchmark(
        self, profile, matrix, dtype, share
    ):
        slow, boosted = (
            profile.with_values({"gemm.sustained": value, "gemm.narrow_sustained": value})
            for value in (share, 1.0)
        )
        run = partial(linear, **{**matrix, "cold": True}, dtype=dtype)
        never_below(run(slow), run(boosted))
        never_below(run(boosted) / share, run(slow))
        warm = partial(linear, **{**matrix, "cold": False}, dtype=dtype)
        assert warm(slow) == warm(boosted)

    @pytest.mark.parametrize("name", BEST_SHAPE)
    def test_no_product_in_serving_is_faster_than_the_best_shape_of_long_runs(self, name):
        tokens, n, k = np.meshgrid(*3 * [2.0 ** np.arange(10, 18)], indexing="ij")
        seconds = linear(PROFILES[name], tokens=tokens, n=n, k=k, cold=True)
        assert np.max(2e-12 * tokens * n * k / seconds) <= 1.03 * BEST_SHAPE[name]

    @pytest.mark.parametrize("name", MEDIAN_SHAPES)
    def test_large_products_reach_what_kernel_tables_reach_in_the_median(self, name):
        sizes = np.array([2048.0, 4096.0, 8192.0])
        tokens, n, k = np.meshgrid(sizes, 2.0 * sizes, sizes, indexing="ij")
        seconds = linear(PROFILES[name], tokens=tokens, n=n, k=k, cold=True)
        low, high = MEDIAN_SHAPES[name]
        assert low <= np.median(2e-12 * tokens * n * k / seconds) <= high


class TestAttention:
    @given(profiles, launches, groups, kernels, whole(1, 65536))
    def test_more_of_anything_is_never_faster(self, profile, launch, group, kernel, extra):
        run = partial(attention, profile, kernel=kernel)
        heads = group * launch["kv_heads"]
        for name in ("batch", "query_tokens", "kv_tokens"):
            longer = {**launch, name: launch[name] + extra}
            never_below(run(**longer, heads=heads), run(**launch, heads=heads))

    @given(profiles, launches, groups, kernels, more, st.booleans())
    def test_a_better_accelerator_is_never_slower(self, profile, launch, group, kernel, factor, flops):
        run = partial(attention, **launch, heads=group * launch["kv_heads"], kernel=kernel)
        never_below(run(profile), run(with_more(profile, factor, flops=flops)))

    @given(profiles, launches, groups, kernels)
    def test_a_verification_costs_between_one_decode_step_and_one_for_each_of_its_tokens(
        self, profile, launch, group, kernel
    ):
        run = partial(attention, profile, kernel=kernel, heads=group * launch["kv_heads"])
        verification, decode = run(**launch), run(**{**launch, "query_tokens": 1.0})
        never_below(verification, decode)
        never_below(launch["query_tokens"] * decode, verification)

    @given(profiles, launches, groups, kernels, st.floats(0.1, 1.0))
    def test_fewer_bytes_per_entry_are_never_slower(self, profile, launch, group, kernel, fraction):
        run = partial(attention, profile, **launch, heads=group * launch["kv_heads"], kernel=kernel)
        never_below(run(), run(kv_fraction=fraction))

    @given(profiles, st.lists(launches, min_size=2, max_size=5), groups, kernels)
    def test_an_array_call_is_its_scalar_calls(self, profile, several, group, kernel):
        run = partial(attention, profile, kernel=kernel)
        columns = {name: np.array([one[name] for one in several]) for name in several[0] if name != "cold"}
        together = run(**columns, heads=group * columns["kv_heads"], cold=True)
        one_by_one = [run(**{**one, "cold": True}, heads=group * one["kv_heads"]) for one in several]
        assert_allclose(together, one_by_one, rtol=1e-12)

    @given(profiles, whole(1, 8), whole(2, 17))
    def test_a_verification_reads_the_cache_once(self, profile, group, query_tokens):
        """Where arithmetic is free, 32K further entries cost many query tokens exactly what they cost one."""
        profile = profile.with_values({"peak.bf16": 1e30})
        run = partial(attention, profile, batch=4, heads=group, kv_heads=1, head_dim=128, kernel="flashinfer")
        decode = run(kv_tokens=65536.0) - run(kv_tokens=32768.0)
        verification = run(kv_tokens=65536.0, query_tokens=query_tokens) - run(
            kv_tokens=32768.0, query_tokens=query_tokens
        )
        assert verification == pytest.approx(decode, rel=1e-6)

    def test_a_decode_step_takes_the_time_to_read_the_cache(self):
        """Llama-3.1-8B on 8 GPUs has one KV head of 128 each: 32 sequences of 32768 entries are
        2 (keys, values) x 2 bytes x 128 x 32 x 32768 = 537 MB, 160.3 us at 3.35 TB/s."""
        flawless = {"t0": 0, "cta": 0, "memory_fraction": 1, "compute_fraction": 1e6}
        h100 = H100.with_values({f"attention.flashinfer.{name}": value for name, value in flawless.items()})
        shape = {"batch": 32, "kv_tokens": 32768, "heads": 4, "kv_heads": 1, "head_dim": 128}
        seconds = attention(h100, **shape, kernel="flashinfer", cold=True)
        assert seconds == pytest.approx(536.87e6 / 3.35e12, rel=0.001)

    def test_a_kernel_that_cannot_split_the_cache_keeps_one_sm_busy_per_head_and_sequence(self):
        """Four heads of one long sequence occupy 4 of an A100's 108 SMs; grouped heads are split over all."""
        run = partial(attention, PROFILES["a100-sxm-80gb"], batch=1, kv_tokens=16384, head_dim=128)
        assert run(heads=4, kv_heads=4, kernel="vllm") > 5 * run(heads=16, kv_heads=4, kernel="vllm")


class TestAllReduce:
    @given(profiles, messages, more)
    def test_one_gpu_communicates_nothing(self, profile, message, factor):
        assert np.all(all_reduce(profile, bytes=np.array([message, factor * message]), gpus=1) == 0.0)

    @given(profiles, messages, gpu_counts, more)
    def test_more_bytes_are_never_faster(self, profile, message, gpus, factor):
        for name in profile.all_reduce:
            run = partial(all_reduce, profile, gpus=gpus, implementation=name)
            never_below(run(bytes=factor * message), run(bytes=message))

    @given(profiles, st.lists(st.tuples(messages, gpu_counts), min_size=2, max_size=5))
    def test_an_array_call_is_its_scalar_calls(self, profile, several):
        bytes_, gpus = np.array(several).T
        one_by_one = [all_reduce(profile, bytes=message, gpus=count) for message, count in several]
        assert_allclose(all_reduce(profile, bytes=bytes_, gpus=gpus), one_by_one, rtol=1e-12)

    @pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
    def test_the_tables_of_a_profile_are_met(self, profile):
        for name, table in profile.all_reduce.items():
            grid = table.latency
            together = replace(profile, link_gpus=grid.gpus.max())  # whatever one node of them holds
            found = all_reduce(together, bytes=grid.sizes, gpus=grid.gpus[:, None], implementation=name)
            assert_allclose(found, grid.seconds, rtol=1e-9)

    def test_between_two_sizes_time_is_a_line_and_between_gpu_counts_a_power(self):
        """Eight H100s, vLLM in a graph: 5.59 us at 32 KiB and 6.35 us at 64 KiB, so 5.97 us half way. Four
        need 4.90 us at 32 KiB, so six, log2(6) - 2 = .585 of the way, 4.90 (5.59 / 4.90)^.585 = 5.29 us."""
        assert all_reduce(H100, bytes=48 * 1024, gpus=8) == pytest.approx(5.97e-6, rel=1e-3)
        assert all_reduce(H100, bytes=32 * 1024, gpus=6) == pytest.approx(5.29e-6, rel=1e-3)

    @given(profiles, messages, gpu_counts)
    def test_an_all_gather_moves_half_of_what_an_all_reduce_moves(self, profile, message, gpus):
        gathered = all_gather(profile, bytes=message, gpus=gpus)
        reduced = all_reduce(profile, bytes=message, gpus=gpus, implementation="nccl")
        never_below(reduced, gathered)
        assert gathered == all_reduce(profile, bytes=message / 2, gpus=gpus, implementation="nccl")
        assert all_gather(profile, bytes=message, gpus=1) == 0.0

    def test_beyond_the_table_gpus_of_a_node_count_with_their_exponent(self):
        """The exponent is .5: 16 GPUs of one link take sqrt(2) times as long as 8."""
        larger = H100.with_values({"link.gpus": 16.0})
        eight, sixteen = (all_reduce(larger, bytes=65536, gpus=gpus) for gpus in (8, 16))
        assert sixteen == pytest.approx(np.sqrt(2.0) * eight)

    def test_an_unknown_implementation_is_priced_as_nccl(self):
        run = partial(all_reduce, H100, bytes=65536, gpus=8)
        assert run(implementation="carrier-pigeon") == run(implementation="nccl") != run()


CALLS = {
    "linear": partial(linear, n=6144.0, k=4096.0),
    "attention": partial(
        attention, kv_tokens=8192.0, heads=8.0, kv_heads=2.0, head_dim=128.0, query_tokens=4.0
    ),
    "all_reduce": partial(all_reduce, gpus=np.array([2.0, 8.0])[:, None]),
}
ROWS = {"linear": "tokens", "attention": "batch", "all_reduce": "bytes"}


@pytest.mark.parametrize("name", CALLS)
class TestPossibleWorlds:
    def test_draws_of_a_profile_are_a_last_axis(self, name):
        rows = np.array([16.0, 512.0, 65536.0])[:, None]
        drawn = H100.sample(200, seed=1)
        call = CALLS[name] if name != "all_reduce" else partial(all_reduce, gpus=8.0)
        found, middle = call(drawn, **{ROWS[name]: rows}), call(H100, **{ROWS[name]: rows})
        assert found.shape == (3, 200)
        assert_allclose(np.median(found, axis=-1), middle[:, 0], rtol=0.15)
