"""Every token mixer: what one decode step, one verification and one prefill read, compute and keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.model import ForwardPass, ModelSpec
from perfmodel.model.launches import Attend, Choose, Multiply, Recur
from perfmodel.model.mixers import mixers
from perfmodel.model.mixers.block_sparse import BlockSparse
from perfmodel.model.mixers.chunked import Chunked
from perfmodel.model.mixers.compressed import Compressed
from perfmodel.model.mixers.full_attention import FullAttention
from perfmodel.model.mixers.gated_delta import GatedDelta
from perfmodel.model.mixers.kimi_delta import KimiDelta
from perfmodel.model.mixers.latent import Latent
from perfmodel.model.mixers.latent_index import LatentIndex
from perfmodel.model.mixers.lightning import Lightning
from perfmodel.model.mixers.mamba1 import Mamba1
from perfmodel.model.mixers.mamba2 import Mamba2
from perfmodel.model.mixers.short_convolution import ShortConvolution
from perfmodel.model.mixers.sliding_window import SlidingWindow

SOFTMAX = {"heads": 32, "kv_heads": 8, "head_dim": 128, "value_dim": 128}
LATENT = {"heads": 128, "q_rank": 1536, "kv_rank": 512, "rope_dim": 64, "nope_dim": 128, "value_dim": 128}
FULL = FullAttention(**SOFTMAX)
INDEX = LatentIndex(**LATENT, index_heads=64, index_dim=128, top_k=2048)
DELTA = GatedDelta(heads=32, key_heads=16, key_dim=128, value_dim=128, convolution=4)
COMPRESSED = Compressed(
    heads=64, head_dim=512, window=128, ratio=4, q_rank=1024, o_rank=1024, o_groups=8, index_heads=64,
    index_dim=128, top_k=512,
)  # fmt: skip

USED_BY = {
    "full_attention": "Llama-3.1-8B", "sliding_window": "gpt-oss-20b", "chunked": "Llama-4-Scout",
    "latent": "DeepSeek-V3", "latent_index": "DeepSeek-V3.2", "block_sparse": "MiniMax-M3",
    "compressed": "DeepSeek-V4-Flash", "gated_delta": "Qwen3-Next-80B-A3B",
    "kimi_delta": "Kimi-Linear-48B-A3B", "lightning": "MiniMax-M1",
    "mamba2": "Nemotron-3-Nano-30B-A3B", "mamba1": "Jamba-1.5-Mini", "short_convolution": "LFM2-8B-A1B",
}  # fmt: skip


def step(context_len, query_tokens=1.0, **fields):
    return ForwardPass(batch=1.0, kv_tokens=np.add(context_len, query_tokens - 1.0),
                       query_tokens=query_tokens, **fields)  # fmt: skip


def prefill(prompt_tokens):
    return ForwardPass(batch=1.0, kv_tokens=prompt_tokens, query_tokens=prompt_tokens, history=0.0)


def count(mixer, forward, way=0, cache_bytes=2.0):
    """Bytes read and written and FLOPs of one sequence."""
    moved, flops = 0.0, 0.0
    for launch in mixer.ways(forward)[way]:
        if isinstance(launch, Attend):
            moved += float(launch.elements(1.0)) * cache_bytes
            flops += float(launch.flops(1.0))
        elif isinstance(launch, Recur):
            moved += float(launch.bytes_moved(1.0))
            flops += float(launch.flops)
        elif isinstance(launch, Multiply):
            flops += 2.0 * float(launch.tokens) * launch.product.n * launch.product.k
        else:
            assert isinstance(launch, Choose)
    return moved, flops


S, Q, P = 32_768.0, 4.0, 4096.0
STATE = 32 * 128 * 128 * 4 + 3 * 8192 * 2
"""Bytes of a gated delta net's state in fp32 and of what its convolution keeps in bf16. [B]"""
CASES = {
    "full_attention": (
        FULL,
        (S * 8 * 256 * 2, 2 * S * 32 * 256),
        ((S + 3) * 8 * 256 * 2, 2 * 4 * (S + 3) * 32 * 256),
        ((P + 1) / 2 * 8 * 256 * 2, 2 * P * (P + 1) / 2 * 32 * 256),
    ),
    "sliding_window": (
        SlidingWindow(**SOFTMAX, window=1024),
        (1024 * 8 * 256 * 2, 2 * 1024 * 32 * 256),
        (1027 * 8 * 256 * 2, 2 * 4 * 1027 * 32 * 256),
        (None, 2 * (1024 * 1025 / 2 + 3072 * 1024) * 32 * 256),
    ),
    "chunked": (
        Chunked(**SOFTMAX, chunk=1024),
        (512.5 * 8 * 256 * 2, 2 * 512.5 * 32 * 256),
        (512.5 * 8 * 256 * 2, 2 * 4 * 512.5 * 32 * 256),
        (None, 2 * P * 512.5 * 32 * 256),
    ),
    "latent": (
        Latent(**LATENT),
        (S * 576 * 2, 2 * S * 128 * (576 + 512)),
        ((S + 3) * 576 * 2, 2 * 4 * (S + 3) * 128 * 1088),
        (None, 2 * P * (P + 1) / 2 * 128 * 1088),
    ),
    "latent_index": (
        INDEX,
        (S * 128 * 2 + 2048 * 576 * 2, 2 * S * 64 * 128 + 2 * 2048 * 128 * 1088),
        (
            (S + 3) * 128 * 2 + 4 * 2048 * 576 * 2,
            2 * 4 * (S + 3) * 64 * 128 + 2 * 4 * 2048 * 128 * 1088,
        ),
        (None, 2 * P * (P + 1) / 2 * 64 * 128 + 2 * (2048 * 2049 / 2 + 2048 * 2048) * 128 * 1088),
    ),
    "block_sparse": (
        BlockSparse(
            **{**SOFTMAX, "heads": 64, "kv_heads": 4}, index_heads=4, index_dim=128, block=128, blocks=16
        ),
        (S * 128 * 2 + 2048 * 4 * 256 * 2, 2 * S * 4 * 128 + 2 * 2048 * 64 * 256),
        (
            (S + 3) * 128 * 2 + 4 * 2048 * 4 * 256 * 2,
            2 * 4 * (S + 3) * 4 * 128 + 2 * 4 * 2048 * 64 * 256,
        ),
        (None, 2 * P * (P + 1) / 2 * 4 * 128 + 2 * (2048 * 2049 / 2 + 2048 * 2048) * 64 * 256),
    ),
    "compressed": (
        COMPRESSED,
        (S / 4 * 128 * 2 + (128 + 512) * 512 * 2, 2 * S / 4 * 64 * 128 + 2 * 640 * 64 * 1024),
        (
            (S + 3) / 4 * 128 * 2 + 4 * (131 + 512) * 512 * 2,
            2 * 4 * (S + 3) / 4 * 64 * 128 + 2 * 4 * (131 + 512) * 64 * 1024,
        ),
        (None, None),
    ),
    "gated_delta": (
        DELTA,
        (2 * STATE + 12_288 * 2, 6 * 32 * 128 * 128),
        (5 * STATE + 4 * 12_288 * 2, 4 * 6 * 32 * 128 * 128),
        (2 * STATE + P * 12_288 * 2, P * 32 * (6 * 128 * 128 + 2 * 64 * 5 * 128)),
    ),
    "kimi_delta": (
        KimiDelta(heads=32, head_dim=128, convolution=4),
        (None, 6 * 32 * 128 * 128),
        (None, 4 * 6 * 32 * 128 * 128),
        (None, P * 32 * (6 * 128 * 128 + 2 * 64 * 5 * 128)),
    ),
    "lightning": (
        Lightning(heads=64, head_dim=128),
        (2 * 64 * 128 * 128 * 4 + 4 * 8192 * 2, 4 * 64 * 128 * 128),
        (5 * 64 * 128 * 128 * 4 + 4 * 4 * 8192 * 2, 4 * 4 * 64 * 128 * 128),
        (None, P * 64 * (4 * 128 * 128 + 4 * 256 * 128)),
    ),
    "mamba2": (
        Mamba2(heads=64, head_dim=64, state_size=128, groups=8, convolution=4, chunk=128),
        (2 * (4096 * 128 * 4 + 3 * 6144 * 2) + (6144 + 4096) * 2, 5 * 4096 * 128),
        (5 * (4096 * 128 * 4 + 3 * 6144 * 2) + 4 * (6144 + 4096) * 2, 4 * 5 * 4096 * 128),
        (None, P * (4 * 4096 * 128 + 2 * 128 * (8 * 128 + 4096))),
    ),
    "mamba1": (
        Mamba1(heads=8192, state_size=16, step_rank=256, convolution=4),
        (None, 9 * 8192 * 16),
        (None, 4 * 9 * 8192 * 16),
        (None, P * 9 * 8192 * 16),
    ),
    "short_convolution": (
        ShortConvolution(heads=2048, convolution=3),
        (2 * 2048 * 2 * 2 + 4 * 2048 * 2, 2 * 3 * 2048),
        (5 * 2048 * 2 * 2 + 4 * 4 * 2048 * 2, 4 * 2 * 3 * 2048),
        (None, P * 2 * 3 * 2048),
    ),
}


@pytest.mark.parametrize("name", mixers())
def test_a_mixer_reads_and_computes_what_its_equations_say(name):
    mixer, *expected = CASES[name]
    for forward, (moved, flops) in zip((step(S), step(S, Q), prefill(P)), expected, strict=True):
        counted = count(mixer, forward)
        assert moved is None or counted[0] == pytest.approx(moved, rel=1e-12)
        assert flops is None or counted[1] == pytest.approx(flops, rel=1e-12)


@pytest.mark.parametrize("name", mixers())
def test_every_mixer_has_a_model_that_people_serve(name):
    model = ModelSpec.load(USED_BY[name])
    kinds = [type(mixer) for mixer, _ in model.token_mixers]
    assert mixers()[name] in kinds
    assert all(cache.elements > 0 for cache, _ in model.caches)
    assert all(mixer.label for mixer, _ in model.token_mixers)


@pytest.mark.parametrize("name", mixers())
def test_verifying_one_token_is_a_decode_step(name):
    mixer = CASES[name][0]
    assert count(mixer, step(S, 1.0, kept_states=1.0, state_trips=1.0)) == count(mixer, step(S))


@pytest.mark.parametrize("name", mixers())
def test_more_queries_never_read_or_compute_less(name):
    mixer = CASES[name][0]
    counted = np.array([count(mixer, step(S, float(queries))) for queries in range(1, 17)])
    assert np.all(np.diff(counted, axis=0) >= 0.0)


@pytest.mark.parametrize("name", sorted(set(mixers()) - {"chunked"}))
def test_a_longer_context_never_reads_or_computes_less(name):
    mixer = CASES[name][0]
    counted = np.array([count(mixer, step(context)) for context in np.geomspace(16, 1e6, 60).round()])
    assert np.all(np.diff(counted, axis=0) >= 0.0)


@pytest.mark.parametrize("queries", [1.0, 4.0])
def test_a_window_or_a_chunk_as_long_as_the_context_is_full_attention(queries):
    forward = step(S, queries)
    whole = count(FULL, forward)
    assert count(SlidingWindow(**SOFTMAX, window=int(S + 3)), forward) == whole
    assert count(Chunked(**SOFTMAX, chunk=int(S + 3)), forward) == whole
    assert count(SlidingWindow(**SOFTMAX, window=int(P)), prefill(P)) == count(FULL, prefill(P))
    assert count(Chunked(**SOFTMAX, chunk=int(P)), prefill(P)) == count(FULL, prefill(P))


def test_a_chunk_holds_at_most_itself_and_is_half_full_on_average():
    """Over all positions of a chunk the entries that are seen average (C + 1) / 2."""
    chunked = Chunked(**SOFTMAX, chunk=512)
    (cache,) = chunked.caches
    assert float(cache.entries(10_000.0)) == 512
    seen = [position % 512 + 1 for position in range(5120)]
    assert float(chunked.entries(step(5120.0))) == pytest.approx(np.mean(seen))
    assert float(chunked.entries(prefill(5120.0))) == pytest.approx(np.mean(seen))
    assert float(chunked.entries(prefill(700.0))) == pytest.approx(np.mean(seen[:700]))


@pytest.mark.parametrize("name", ["sliding_window", "chunked", "gated_delta", "mamba2"])
def test_a_draft_budget_leaves_windows_chunks_and_states_alone(name):
    mixer = CASES[name][0]
    drafts = ForwardPass(batch=1.0, kv_tokens=100.0, context_len=S, selection_launches=2.0)
    assert mixer.ways(drafts) == mixer.ways(step(S))
    assert count(FULL, drafts)[0] == 100 / S * count(FULL, step(S))[0]


@pytest.mark.parametrize("context", [500.0, 510.0, 512.0, 513.0, 700.0])
def test_a_verification_over_the_end_of_a_chunk_reads_no_less_than_a_step(context):
    chunked = Chunked(**SOFTMAX, chunk=512)
    assert count(chunked, step(context, 4.0))[0] >= count(chunked, step(context))[0]


@pytest.mark.parametrize("queries", [1.0, 4.0])
def test_an_index_that_chooses_everything_reads_everything_and_its_index(queries):
    everything = replace(INDEX, top_k=100_000)
    plain = count(Latent(**LATENT), step(S, queries))
    index = ((S + queries - 1) * 128 * 2, 2 * queries * (S + queries - 1) * 64 * 128)
    assert count(everything, step(S, queries)) == pytest.approx(np.add(plain, index))
    shared = count(replace(everything, owns_index=False), step(S, queries))
    assert shared == pytest.approx(plain)


def test_queries_of_a_verification_share_what_all_of_them_read():
    """Full attention reads its entries once for all queries, an index chooses for each of them."""
    full, choice = count(FULL, step(S, Q))[0], count(INDEX, step(S, Q))[0] - (S + 3) * 256
    assert full / count(FULL, step(S))[0] == pytest.approx(1.0, abs=1e-3)
    assert choice / (count(INDEX, step(S))[0] - S * 256) == pytest.approx(Q)


def test_latent_attention_may_write_keys_and_values_out_in_a_prefill():
    latent = Latent(**LATENT)
    forward = replace(prefill(P), history=P, kv_tokens=2 * P)
    entries = P + (P + 1) / 2
    _, flops = count(latent, forward, way=1)
    assert flops == pytest.approx(2 * P * entries * 128 * (192 + 128) + 2 * P * 512 * 128 * 256)
    assert len(latent.ways(step(S))) == 1


@pytest.mark.parametrize(
    ("kept", "trips", "moved", "computed"),
    [(1.0, 0.0, 1 + 4, 4), (1.0, 1.0, 2 + 5, 4), (0.0, 1.0, 2 + 1, 8)],
    ids=["a state per drafted token", "scratch, then the accepted one copied", "replay of what was accepted"],
)
def test_a_verification_keeps_states_as_the_engine_does(kept, trips, moved, computed):
    counted = count(DELTA, step(S, Q, kept_states=kept, state_trips=trips))
    assert counted == (moved * STATE + 4 * 12_288 * 2, computed * 6 * 32 * 128 * 128)


def test_a_hybrid_without_recurrent_layers_is_the_plain_model():
    """Granite's hybrid class with attention in all layers, and a Llama of the same sizes."""
    sizes = {
        "hidden_size": 2560, "num_hidden_layers": 8, "num_attention_heads": 40, "num_key_value_heads": 8,
        "vocab_size": 100352, "max_position_embeddings": 131072, "intermediate_size": 8192,
        "torch_dtype": "bfloat16", "tie_word_embeddings": True,
    }  # fmt: skip
    mamba = {"mamba_n_heads": 80, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_d_conv": 4}
    hybrid = ModelSpec.from_config(
        {**sizes, **mamba, "model_type": "granitemoehybrid", "layer_types": ["attention"] * 8,
         "num_local_experts": 0, "shared_intermediate_size": 8192}
    )  # fmt: skip
    plain = ModelSpec.from_config({**sizes, "model_type": "llama"})
    assert hybrid.layers == plain.layers
    assert hybrid.state_bytes == 0
