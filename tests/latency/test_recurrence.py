"""Recurrent layers: a step, a verification and a prefill worked out by hand, and beside measured kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from perfmodel.deployment import Deployment
from perfmodel.engine import EngineOverhead
from perfmodel.hardware import HardwareProfile
from perfmodel.latency import ForwardPass, prefill_latency, price_pass
from perfmodel.latency.recurrence import recurrence
from perfmodel.model import ModelSpec

H100, H200, L40S = map(HardwareProfile.load, ("h100-sxm-80gb", "h200-sxm-141gb", "l40s-48gb"))
PROFILES = {"h100": H100, "h200": H200, "l40s": L40S}
IDEAL = EngineOverhead.load("ideal")
HYBRID = ModelSpec.load("qwen3-next-80b-a3b")
LAYER = next(mixer for mixer, _ in HYBRID.token_mixers if mixer.state is not None)

STATE = 32 * 128 * 128 * 4
"""A matrix of 128 x 128 for each of 32 value heads of Qwen3-Next, in fp32. [B]"""
KEPT = 3 * (2 * 16 * 128 + 32 * 128) * 2
"""Three inputs of the convolution over queries, keys and values, in bf16. [B]"""
ROW = (2 * 16 * 128 + 2 * 32 * 128) * 2
"""Queries, keys, values and the output of a token, in bf16. [B]"""


def launch(**forward):
    """The one launch of a layer of Qwen3-Next in a pass."""
    ((only,),) = LAYER.ways(ForwardPass(batch=1.0, **forward))
    return only


class TestQwen3NextByHand:
    """One gated delta layer: 16 key heads, 32 value heads of 128, a convolution of 4."""

    def test_a_decode_step_reads_and_writes_the_state(self):
        """2 x (2 MiB + 48 KiB) and a row of 24 KiB; 6 FLOPs per element of the state."""
        step = launch(kv_tokens=1000.0)
        assert (STATE, KEPT, ROW) == (2 * 2**20, 48 * 2**10, 24 * 2**10)
        assert float(step.bytes_moved(1.0)) == 2 * (STATE + KEPT) + ROW
        assert float(step.flops) == 6 * 32 * 128 * 128

    def test_a_verification_writes_a_state_for_each_token(self):
        """Read once, written 5 times; where none is kept it is read and written twice, computed twice."""
        kept = launch(kv_tokens=1000.0, query_tokens=5.0)
        assert float(kept.bytes_moved(1.0)) == 6 * (STATE + KEPT) + 5 * ROW
        assert float(kept.flops) == 5 * 6 * 32 * 128 * 128
        replayed = launch(kv_tokens=1000.0, query_tokens=5.0, kept_states=0.0, state_trips=1.0)
        assert float(replayed.bytes_moved(1.0)) == 3 * (STATE + KEPT) + 5 * ROW
        assert float(replayed.flops) == 2 * float(kept.flops)

    def test_verifying_one_token_is_a_decode_step(self):
        step, one = launch(kv_tokens=1000.0), launch(kv_tokens=1000.0, query_tokens=1.0)
        assert float(one.bytes_moved(1.0)) == float(step.bytes_moved(1.0))
        assert float(one.flops) == float(step.flops)

    def test_a_chunk_of_a_prefill_moves_the_state_once(self):
        """In chunks of 64: 32 x (6 x 128 x 128 + 2 x 64 x (3 x 128 + 2 x 128)) FLOPs a token."""
        chunk = launch(kv_tokens=4096.0, query_tokens=2048.0, history=2048.0)
        assert float(chunk.bytes_moved(1.0)) == 2 * (STATE + KEPT) + 2048 * ROW
        assert float(chunk.flops) == 2048 * 32 * (6 * 128**2 + 2 * 64 * 5 * 128)

    def test_gpus_share_the_heads(self):
        step = launch(kv_tokens=1000.0)
        shared = step.bytes_moved(np.array([1.0, 4.0, 32.0, 64.0]))
        assert_allclose(shared[0] / shared, [1.0, 4.0, 32.0, 32.0])

    def test_the_pass_adds_its_36_layers(self):
        """A quarter of 48 layers is full attention; seconds of the others follow from the bytes above."""
        step = price_pass(Deployment(H100, HYBRID, IDEAL), ForwardPass(batch=64.0, kv_tokens=1.0))
        each = recurrence(H100, bytes_moved=64.0 * (2 * (STATE + KEPT) + ROW), flops=0.0)
        assert step.recurrence == pytest.approx(36 * float(each), rel=1e-3)

    def test_a_prefill_in_two_chunks_takes_its_state_along(self):
        """The second of two chunks costs the recurrent layers what the first does, not a longer context."""
        whole = prefill_latency(H100, HYBRID, IDEAL, batch=1.0, prompt_tokens=np.array([2048.0]))
        later = prefill_latency(
            H100, HYBRID, IDEAL, batch=1.0, prompt_tokens=np.array([2048.0]), kv_tokens=np.array([4096.0])
        )
        assert_allclose(whole.linear, later.linear)
        assert_allclose(whole.recurrence, later.recurrence)
        assert np.all(later.attention > whole.attention)


class TestMeasuredKernels:
    """Rows of aiconfigurator-core 0.12.0 (Apache-2.0), without convolutions, which are launched apart."""

    GATED_DELTA = (
        # profile, sequences, microseconds of fused_recurrent_gated_delta_rule_packed_decode, vLLM 0.24.0
        ("h100", 32, 50.3), ("h100", 256, 363.9), ("h200", 32, 38.9), ("h200", 256, 267.4),
        ("l40s", 256, 1633.1),
    )  # fmt: skip
    VERIFICATION = (
        # profile, tokens, microseconds of fused_recurrent_kda with 24 heads of Kimi-K3, 64 sequences, vLLM
        ("h100", 2, 108.8), ("h100", 4, 183.6), ("h100", 8, 335.9), ("h200", 2, 80.8), ("h200", 8, 246.8),
        ("l40s", 2, 482.6), ("l40s", 8, 1460.7),
    )  # fmt: skip
    CHUNKED = (
        # profile, sequences, tokens of each, microseconds of the chunk kernel that vLLM 0.24.0 calls
        ("h100", 1, 2048, 106.4), ("h100", 1, 8192, 390.9), ("h100", 8, 8192, 875.2),
        ("h200", 1, 8192, 399.3), ("h200", 8, 8192, 866.1), ("l40s", 1, 8192, 1942.3),
        ("l40s", 8, 8192, 18288.9),
    )  # fmt: skip

    @pytest.mark.parametrize(("name", "batch", "microseconds"), GATED_DELTA)
    def test_a_decode_step(self, name, batch, microseconds):
        seconds = recurrence(PROFILES[name], bytes_moved=batch * (2.0 * STATE + ROW), flops=0.0)
        assert float(seconds) == pytest.approx(microseconds * 1e-6, rel=0.12)

    @pytest.mark.parametrize(("name", "tokens", "microseconds"), VERIFICATION)
    def test_a_verification_that_keeps_every_state(self, name, tokens, microseconds):
        state, row = 24 * 128 * 128 * 4, 4 * 24 * 128 * 2
        moved = 64.0 * ((1.0 + tokens) * state + tokens * row)
        seconds = recurrence(PROFILES[name], bytes_moved=moved, flops=64.0 * tokens * 6 * state / 4)
        assert float(seconds) == pytest.approx(microseconds * 1e-6, rel=0.12)

    @pytest.mark.parametrize(("name", "batch", "tokens", "microseconds"), CHUNKED)
    def test_a_chunked_prefill(self, name, batch, tokens, microseconds):
        flops = batch * tokens * 32.0 * (6 * 128**2 + 2 * 64 * 5 * 128)
        moved = batch * (2.0 * STATE + tokens * ROW)
        seconds = recurrence(PROFILES[name], bytes_moved=moved, flops=flops, states=batch * 32.0)
        assert float(seconds) == pytest.approx(microseconds * 1e-6, rel=0.30)


@given(
    profile=st.sampled_from(list(PROFILES.values())), batch=st.integers(1, 512), tokens=st.integers(1, 8192),
    more=st.floats(1.0, 4.0), history=st.sampled_from([None, 0.0]),
)  # fmt: skip
def test_more_sequences_or_tokens_never_take_less(profile, batch, tokens, more, history):
    runs = Deployment(profile, HYBRID, IDEAL)
    grown = [
        price_pass(runs, ForwardPass(batch=b, query_tokens=q, kv_tokens=16384.0, history=history)).total
        for b, q in ((batch, tokens), (batch * more, tokens), (batch, tokens * more))
    ]
    assert min(grown[1:]) >= grown[0] * (1 - 1e-9)
