"""One forward pass by cause: laws over every accelerator and model, then passes worked out by hand."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import (
    CAUSES,
    ForwardPass,
    StepLatency,
    all_gather,
    all_reduce,
    prefill_latency,
    price_pass,
    step_latency,
)
from perfmodel.model import LinearLayer, ModelSpec

PROFILES = {name: HardwareProfile.load(name) for name in HardwareProfile.available()}
ENGINES = {name: EngineOverhead.load(name) for name in EngineOverhead.available()}
DENSE, WINDOWED, GEMMA = map(ModelSpec.load, ("llama-3.1-8b", "mistral-7b-v0.1", "gemma-3-12b"))
MOE, SPARSE, LATENT = map(ModelSpec.load, ("qwen3-30b-a3b", "gpt-oss-20b", "deepseek-v2-lite"))
H100, IDEAL = PROFILES["h100-sxm-80gb"], ENGINES["ideal"]
LINKED = [profile for profile in PROFILES.values() if profile.link_kind != "pcie"]


def flawless(profile: HardwareProfile) -> HardwareProfile:
    """The accelerator at its peaks: no fixed times, every byte at full bandwidth, arithmetic for nothing."""
    figures = {"peak.bf16": 1e30, "gemm.t0": 0, "gemm.memory_fraction": 1, "gemm.k_latency": 0}
    figures |= {"gemm.contention": 0, "gemm.tile_switch": 0}
    for kernel in profile.attention:
        shares = {"t0": 0, "cta": 0, "memory_fraction": 1, "row_passes": 0}
        figures |= {f"attention.{kernel}.{name}": value for name, value in shares.items()}
    return profile.with_values(figures)


def whole(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(float)


profiles = st.sampled_from(list(PROFILES.values()))
engines = st.sampled_from(list(ENGINES.values()))
models = st.sampled_from([DENSE, GEMMA, MOE, SPARSE, LATENT, WINDOWED, DENSE.head(), MOE.keep_layers(0.25)])
more = st.floats(1.01, 8.0)
passes = st.fixed_dictionaries(
    {
        "batch": whole(1, 512),
        "query_tokens": whole(1, 17),
        "kv_tokens": whole(1, 262144),
        "tensor_parallel": st.sampled_from([1.0, 2.0, 4.0, 8.0, 16.0]),
    }
)


def never_below(found, least) -> None:
    """`found` is at least `least`, but for rounding."""
    assert np.all(found >= least * (1.0 - 1e-12))


@given(profiles, models, engines, st.lists(passes, min_size=2, max_size=4))
def test_an_array_call_is_its_scalar_calls(profile, model, engine, several):
    columns = {name: np.array([one[name] for one in several]) for name in several[0]}
    together = step_latency(profile, model, engine, **columns)
    for index, one in enumerate(several):
        alone = step_latency(profile, model, engine, **one)
        for cause in (*CAUSES, "total"):
            assert_allclose(
                np.broadcast_to(getattr(together, cause), len(several))[index],
                getattr(alone, cause),
                rtol=1e-12,
            )


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize("name", ["deepseek-v2", "qwen3-30b-a3b", "mixtral-8x7b-v0.1", "step-3.5-flash"])
def test_the_last_bits_of_how_many_experts_are_distinct_change_nothing(profile, name, monkeypatch):
    """Powers of one number and of many are rounded differently, and which way must not show."""
    batch, exact, prices = np.arange(1.0, 257.0), LinearLayer.distinct_experts, []
    for rounding in (-1e-14, 1e-14):

        def rounded(layer, tokens, gpus=1.0, rounding=rounding):
            return exact(layer, tokens, gpus) * (1.0 + rounding)

        monkeypatch.setattr(LinearLayer, "distinct_experts", rounded)
        sizes = {"batch": batch, "kv_tokens": 1.0, "tensor_parallel": np.array([[1.0], [2.0], [4.0], [8.0]])}
        prices.append(step_latency(profile, ModelSpec.load(name), IDEAL, **sizes).linear)
    assert_allclose(*prices, rtol=1e-12)


@given(profiles, models, engines, passes)
def test_a_grid_call_is_its_scalar_calls(profile, model, engine, one):
    """Axes in the order of the package: tensor parallelism, batch, cache entries, query tokens."""
    grid = step_latency(
        profile,
        model,
        engine,
        tensor_parallel=np.array([1.0, one["tensor_parallel"]]).reshape(2, 1, 1, 1),
        batch=np.array([1.0, one["batch"]]).reshape(2, 1, 1),
        kv_tokens=np.array([1.0, one["kv_tokens"]]).reshape(2, 1),
        query_tokens=np.array([1.0, one["query_tokens"]]),
    ).total
    assert grid.shape == (2, 2, 2, 2)
    assert grid[1, 1, 1, 1] == pytest.approx(step_latency(profile, model, engine, **one).total, rel=1e-12)


@given(profiles, models, engines, passes, whole(1, 4096))
def test_more_of_anything_is_never_cheaper(profile, model, engine, one, extra):
    price = partial(step_latency, profile, model, engine)
    for name in ("batch", "query_tokens", "kv_tokens"):
        never_below(price(**{**one, name: one[name] + extra}).total, price(**one).total)


@given(profiles, models, engines, passes, more)
def test_a_better_accelerator_is_never_slower(profile, model, engine, one, factor):
    peaks = {f"peak.{dtype}": factor * peak for dtype, peak in profile.peak_flops.items()}
    for better in (peaks, {"memory.bandwidth": factor * profile.memory_bandwidth}):
        faster = step_latency(profile.with_values(better), model, engine, **one).total
        never_below(step_latency(profile, model, engine, **one).total, faster)


@given(profiles, models, engines, passes)
def test_a_verification_never_costs_less_than_a_decode_step(profile, model, engine, one):
    price = partial(step_latency, profile, model, engine)
    never_below(price(**one).total, price(**{**one, "query_tokens": 1.0}).total)


@given(st.sampled_from(LINKED), models, engines, passes, whole(1, 200))
def test_a_verification_never_costs_more_than_a_decode_step_for_each_token(
    profile, model, engine, one, batch
):
    """Up to 200 sequences. Beyond, a matrix product that just filled its waves may start another one."""
    price = partial(step_latency, profile, model, engine)
    decode = price(**{**one, "batch": batch, "query_tokens": 1.0}).total
    never_below(one["query_tokens"] * decode, price(**{**one, "batch": batch}).total)


@given(profiles, models, engines, passes)
def test_one_gpu_communicates_nothing_and_several_do(profile, model, engine, one):
    price = partial(step_latency, profile, model, engine)
    assert np.all(price(**{**one, "tensor_parallel": 1.0}).communication == 0.0)
    assert np.all(price(**{**one, "tensor_parallel": 2.0}).communication > 0.0)


@given(profiles, models, engines, passes)
def test_the_causes_add_up_and_the_largest_bounds_the_step(profile, model, engine, one):
    step = step_latency(profile, model, engine, **one)
    seconds = [float(getattr(step, cause)) for cause in CAUSES]
    assert step.total == pytest.approx(sum(seconds))
    assert step.bound_by == CAUSES[int(np.argmax(seconds))]


@given(profiles, models, engines, whole(1, 512), whole(1, 262144))
def test_prefilling_the_last_token_of_a_prompt_is_a_decode_step(profile, model, engine, batch, context_len):
    last = prefill_latency(profile, model, engine, batch=batch, prompt_tokens=1.0, kv_tokens=context_len)
    decode = step_latency(profile, model, engine, batch=batch, kv_tokens=context_len)
    assert last.total == pytest.approx(decode.total, rel=1e-12)


class TestWhatAPassReads:
    """On an accelerator at its peaks, seconds times bandwidth are bytes."""

    def bytes_read(self, cause: str, model: ModelSpec, **one) -> np.ndarray:
        step = step_latency(flawless(H100), model, IDEAL, **one)
        return getattr(step, cause) * H100.memory_bandwidth

    def test_a_decode_step_of_llama_reads_every_matrix_once(self):
        """32 layers of 4096 x (6144 + 4096 + 28672) + 14336 x 4096 and an output layer of 128256 x 4096 are
        7.505e9 weights, 15.01 GB in bf16; the embedding, one row of it, is left out."""
        weights = 32 * (4096 * (6144 + 4096 + 28672) + 14336 * 4096) + 128256 * 4096
        assert weights == 7_504_658_432
        read = self.bytes_read("linear", DENSE, batch=1, kv_tokens=1)
        assert read == pytest.approx(2 * weights, rel=0.001)

    def test_a_decode_step_of_llama_reads_128_kib_per_entry(self):
        """Keys and values of 8 heads of 128 in 32 layers, two bytes each: 2 x 8 x 128 x 32 x 2 = 131072 B."""
        read = self.bytes_read("attention", DENSE, batch=4, kv_tokens=32768)
        assert read == pytest.approx(4 * 32768 * 131072, rel=0.001)

    def test_eight_gpus_share_the_heads_and_sixteen_hold_copies(self):
        """Llama-3.1-8B has 8 KV heads: on 8 GPUs each reads an eighth of every entry, on 16 too."""
        gpus = np.array([1.0, 8.0, 16.0])
        read = self.bytes_read("attention", DENSE, batch=4, kv_tokens=32768, tensor_parallel=gpus)
        assert_allclose(read / (4 * 32768 * 131072), [1.0, 1 / 8, 1 / 8], rtol=0.001)

    def test_beyond_the_kv_heads_their_projections_are_copied_too(self):
        """Of 6144 columns for queries, keys and values each of 16 GPUs has 4096 / 16 + 2048 / 8 = 512."""
        read = self.bytes_read("linear", DENSE, batch=1, kv_tokens=1, tensor_parallel=np.array([8.0, 16.0]))
        layers = 32 * 4096 * np.array([768 + 512 + 3584 + 1792, 512 + 256 + 1792 + 896])
        assert_allclose(read, 2 * (layers + 128256 * 4096 / np.array([8, 16])), rtol=0.003)

    def test_a_verification_reads_the_weights_and_the_cache_once(self):
        for cause in ("linear", "attention"):
            decode = self.bytes_read(cause, DENSE, batch=16, kv_tokens=32768)
            verify = self.bytes_read(cause, DENSE, batch=16, kv_tokens=32768, query_tokens=5.0)
            assert verify == pytest.approx(decode, rel=0.025)  # what is left are activations

    def test_a_sliding_window_caps_what_is_read(self):
        """All 32 layers of Mistral-7B-v0.1 see 4096 entries of 131072 bytes; five queries share 4100."""
        contexts = np.array([2048.0, 4096.0, 8192.0, 131072.0])
        read = self.bytes_read("attention", WINDOWED, batch=8, kv_tokens=contexts)
        assert_allclose(read / (8 * 131072), [2048, 4096, 4096, 4096], rtol=0.001)
        five = self.bytes_read("attention", WINDOWED, batch=8, kv_tokens=131072.0, query_tokens=5.0)
        assert five == pytest.approx(8 * 131072 * 4100, rel=0.001)

    def test_only_the_global_layers_grow_beyond_the_window(self):
        """8 of Gemma-3-12B's 48 layers are global; each adds 2 x 8 x 256 x 2 = 8192 bytes per entry."""
        read = self.bytes_read("attention", GEMMA, batch=1, kv_tokens=np.array([65536.0, 131072.0]))
        assert read[1] - read[0] == pytest.approx(65536 * 8 * 8192, rel=0.001)

    def test_selection_reads_on_top_of_what_grows_and_leaves_windows_alone(self):
        chosen = partial(self.bytes_read, "attention", batch=1, selection_kv_tokens=8192.0)
        assert chosen(DENSE, kv_tokens=1024.0) == pytest.approx(9216 * 131072, rel=0.001)
        assert chosen(WINDOWED, kv_tokens=1024.0) == pytest.approx(1024 * 131072, rel=0.001)

    def test_latent_attention_keeps_one_vector_for_all_heads_on_every_gpu(self):
        """DeepSeek-V2-Lite stores 512 + 64 values per entry in 27 layers: 31104 bytes, however many GPUs."""
        gpus = np.array([1.0, 8.0])
        read = self.bytes_read("attention", LATENT, batch=8, kv_tokens=32768.0, tensor_parallel=gpus)
        assert_allclose(read, 8 * 32768 * 27 * 576 * 2, rtol=0.001)

    def test_more_tokens_visit_more_experts(self):
        """Of 128 experts each token visits 8: 8 tokens meet 128 (1 - (120 / 128)^8) = 51.6, 200 meet all.

        Between the products a visit's 2 x 768 go out, 768 in, 2048 out, and a token's sum of 2048.
        """
        tokens = np.array([1.0, 8.0, 200.0])
        read = self.bytes_read("linear", MOE, batch=tokens, kv_tokens=1.0)
        read = read - 48 * 2 * tokens * (8 * (3 * 768 + 2048) + 2048)
        expert = 3 * 2048 * 768 * 48 * 2
        assert_allclose((read[1:] - read[0]) / expert, [51.6 - 8, 128 - 8], rtol=0.05)
        assert self.bytes_read("linear", DENSE, batch=8.0, kv_tokens=1.0) < 1.01 * self.bytes_read(
            "linear", DENSE, batch=1.0, kv_tokens=1.0
        )

    def test_narrower_copies_are_read_in_proportion(self):
        one = {"batch": 1.0, "kv_tokens": 32768.0}
        quarter = {"weight_fraction": 0.25, "kv_fraction": 0.25}
        for cause in ("linear", "attention"):
            full, short = (self.bytes_read(cause, DENSE, **one, **extra) for extra in ({}, quarter))
            assert short == pytest.approx(full / 4, rel=0.01)


class TestPrefill:
    """A prompt is bound by arithmetic, and every query reads what stands before it."""

    def seconds(self, model: ModelSpec, prompt_tokens: float, kv_tokens: float | None = None) -> StepLatency:
        return prefill_latency(H100, model, IDEAL, batch=1, prompt_tokens=prompt_tokens, kv_tokens=kv_tokens)

    def test_a_prompt_takes_two_flops_per_weight_and_token(self):
        """6.98e9 weights in the layers of Llama-3.1-8B, 8192 tokens: 114 TFLOP, 130 ms at 89 % of peak."""
        rate = H100.gemm.compute_fraction * 989e12
        least = 2 * (7_504_658_432 - 128256 * 4096) * 8192 / rate
        assert self.seconds(DENSE, 8192.0).linear == pytest.approx(least, rel=0.15)

    def test_logits_are_computed_for_the_last_token_only(self):
        """The output layer of 128256 x 4096 would take 2 x 128256 x 4096 x 8192 / 989e12 = 8.7 ms for all."""
        prompt = self.seconds(DENSE, 8192.0).linear
        verification = step_latency(H100, DENSE, IDEAL, batch=1, query_tokens=8192.0, kv_tokens=8192.0).linear
        assert verification - prompt > 8.7e-3

    def test_chunks_take_together_what_the_whole_prompt_takes(self):
        whole_prompt = self.seconds(DENSE, 32768.0)
        ends = np.arange(4096.0, 32769.0, 4096.0)
        chunks = self.seconds(DENSE, 4096.0, kv_tokens=ends)
        for cause in ("linear", "attention"):
            together = np.broadcast_to(getattr(chunks, cause), ends.shape).sum()
            assert together == pytest.approx(getattr(whole_prompt, cause), rel=0.06)

    def test_attention_grows_with_the_square_of_the_prompt_until_a_window_stops_it(self):
        """Four times the prompt: sixteen times the pairs without a window; with one of 4096 entries,
        65536 - 2048 against 16384 - 2048 windows of 4096, 4.43 times."""
        for model, factor in ((DENSE, 16.0), (WINDOWED, (65536 - 2048) / (16384 - 2048))):
            short, long = self.seconds(model, 16384.0), self.seconds(model, 65536.0)
            assert long.attention / short.attention == pytest.approx(factor, rel=0.05)


class TestPrefillOfLatentAttention:
    """Keys of 192 and values of 128 are written out for every head; decoding multiplies latents of 576."""

    H200 = PROFILES["h200-sxm-141gb"]

    def attention(self, name: str, gpus: float, chunk: float, reached: float) -> float:
        one = {"batch": 1.0, "tensor_parallel": gpus, "prompt_tokens": chunk, "kv_tokens": reached}
        return float(prefill_latency(self.H200, ModelSpec.load(name), IDEAL, **one).attention)

    @pytest.mark.parametrize(
        ("name", "heads", "gpus"), [("deepseek-v3", 128, 8), ("deepseek-v2-lite", 16, 1)]
    )
    @pytest.mark.parametrize(("chunk", "reached"), [(4096.0, 4096.0), (8192.0, 32768.0)])
    def test_it_takes_the_arithmetic_of_all_pairs_and_of_the_history_written_out(
        self, name, heads, gpus, chunk, reached
    ):
        """``2 heads (192 + 128)`` for each pair of query and entry, ``2 x 512 heads 256`` for each entry
        before the chunk: 240 ms for the last 8192 of 32768 tokens of DeepSeek-V3 on eight GPUs."""
        pairs = chunk * (reached - chunk) + chunk * (chunk + 1) / 2
        flops = 2 * heads / gpus * ((192 + 128) * pairs + (reached - chunk) * 512 * 256)
        kernel, layers = self.H200.attention_kernel("vllm"), ModelSpec.load(name).num_layers
        seconds = layers * (flops / (float(kernel.compute_fraction) * self.H200.peak("bf16")) + kernel.t0)
        assert seconds < self.attention(name, gpus, chunk, reached) < 1.15 * seconds

    def test_few_tokens_on_a_long_history_keep_the_absorbed_form(self):
        """Writing 131072 entries out for one query takes longer than multiplying their latents."""
        one = {"batch": 1.0, "tensor_parallel": 8.0}
        model = ModelSpec.load("deepseek-v3")
        decode = step_latency(self.H200, model, IDEAL, kv_tokens=131072.0, **one)
        assert self.attention("deepseek-v3", 8.0, 1.0, 131072.0) == pytest.approx(decode.attention)


class TestWhatTheEngineAdds:
    def test_time_per_layer_and_per_row_and_layer_are_added(self):
        """30 us a layer and 0.08 us a row and layer in 32 layers: 16 times 4 tokens, 0.96 + 0.16 ms."""
        engine = ENGINES["magicdec-h100"].with_values(
            {"forward": 0, "layer": 30e-6, "row_layer": 0.08e-6, "draft_row_layer": 0}
        )
        step = step_latency(H100, DENSE, engine, batch=16, query_tokens=4.0, kv_tokens=1.0)
        assert step.overhead == pytest.approx(32 * 30e-6 + 32 * 64 * 0.08e-6)

    def test_upkeep_of_a_draft_cache_is_paid_by_draft_passes_only(self):
        engine = IDEAL.with_values({"draft_row_layer": 1e-6})
        price = partial(step_latency, H100, DENSE, engine, batch=16.0, kv_tokens=512.0)
        assert price(drafting=True).total - price().total == pytest.approx(32 * 16 * 1e-6)

    def test_every_layer_reduces_twice_among_the_gpus_the_embedding_once_and_logits_are_gathered(self):
        """32 sequences of 4096 values in bf16 are 256 KiB: 10.8 us with vLLM's kernel, 65 times. Their
        logits, 128256 values each, are 7.83 MiB: NCCL's all-reduce of half of that."""
        engine = ENGINES["vllm-h100"]
        assert engine.all_reduce == "custom-graph"
        step = step_latency(H100, DENSE, engine, batch=32.0, kv_tokens=1.0, tensor_parallel=8.0)
        gathered = all_reduce(H100, bytes=32 * 128256.0, gpus=8.0, implementation="nccl")
        assert step.communication == pytest.approx(65 * 10.8e-6 + gathered, rel=1e-6)

    def test_a_prompt_gathers_the_logits_of_its_last_token(self):
        prefill = partial(prefill_latency, H100, DENSE, IDEAL, batch=1, tensor_parallel=8.0)
        one = step_latency(H100, DENSE, IDEAL, batch=1.0, kv_tokens=1.0, tensor_parallel=8.0)
        assert prefill(prompt_tokens=1.0).communication == pytest.approx(float(one.communication))

    @pytest.mark.parametrize(
        ("hardware", "batch", "seconds", "share"),
        [("h100-sxm-80gb", 128.0, 0.4e-3, 0.015), ("l40s-48gb", 64.0, 3.6e-3, 0.037)],
    )
    def test_logits_of_a_verification_of_five_tokens_take_their_time(self, hardware, batch, seconds, share):
        """164 and 82 MB of logits, gathered on eight GPUs after 32,000 entries of context."""
        deployment = Deployment(HardwareProfile.load(hardware), DENSE, ENGINES["generic"], 8.0)
        verification = ForwardPass(batch=batch, query_tokens=5.0, kv_tokens=32_004.0)
        gathered = all_gather(
            deployment.hardware,
            bytes=batch * 5 * 128256 * 2.0,
            gpus=8.0,
            implementation=deployment.all_gather,
        )
        assert gathered == pytest.approx(seconds, rel=0.1)
        assert gathered / price_pass(deployment, verification).total == pytest.approx(share, rel=0.15)


class TestWhatChoosingLaunches:
    """Kernels that choose entries are launches of their own, in every attention layer that runs."""

    KERNEL = H100.attention_kernel("vllm")

    def added(self, model: ModelSpec, kv_tokens: float) -> float:
        price = partial(step_latency, H100, model, IDEAL, batch=4.0, kv_tokens=kv_tokens)
        return float((price(selection_launches=2.0).total - price().total) / self.KERNEL.t0)

    def test_every_layer_launches_them_at_the_price_of_an_attention_launch(self):
        assert self.added(DENSE, 512.0) == pytest.approx(2 * 32)
        assert self.added(DENSE.keep_layers(0.25), 512.0) == pytest.approx(2 * 8)

    def test_a_layer_whose_whole_window_is_read_chooses_nothing(self):
        """12 of gpt-oss-20b's 24 layers see 128 entries."""
        assert self.added(SPARSE, 4096.0) == pytest.approx(2 * 12)


class TestPossibleWorlds:
    GRID = {  # noqa: RUF012
        "tensor_parallel": np.array([1.0, 8.0])[:, None, None],
        "batch": np.array([1.0, 64.0])[:, None],
        "kv_tokens": np.array([512.0, 32768.0]),
    }

    def test_draws_are_a_last_axis(self):
        wide = {name: values[..., None] for name, values in self.GRID.items()}
        drawn = step_latency(H100.sample(40, seed=3), DENSE, ENGINES["vllm-h100"].sample(40, seed=3), **wide)
        assert drawn.total.shape == (2, 2, 2, 40)
        middle = step_latency(H100, DENSE, ENGINES["vllm-h100"], **self.GRID).total
        assert_allclose(np.median(drawn.total, axis=-1), middle, rtol=0.15)
