"""The matrix products of one forward pass have the shapes that engines run."""

from __future__ import annotations

import numpy as np

from perfmodel.model import ForwardPass, ModelSpec
from perfmodel.model.mixers import Cache


def test_the_products_of_a_dense_layer_are_fused_and_split_as_engines_do() -> None:
    shapes = {
        layer.name: (layer.n, layer.k, layer.count, layer.split)
        for layer in ModelSpec.load("Llama-3.1-8B").linears
    }
    assert shapes == {
        "qkv": (6144, 4096, 32, "column"),
        "o": (4096, 4096, 32, "row"),
        "gate_up": (28672, 4096, 32, "column"),
        "down": (4096, 14336, 32, "row"),
        "lm_head": (128256, 4096, 1, "column"),
    }


def test_keys_and_values_are_copied_beyond_their_heads() -> None:
    qkv = ModelSpec.load("Llama-3.1-8B").linears[0]
    np.testing.assert_allclose(qkv.n_per_gpu(np.array([1.0, 8.0, 16.0])), [6144, 768, 256 + 256])
    np.testing.assert_allclose(qkv.k_per_gpu(np.array([1.0, 8.0])), [4096, 4096])


def test_latent_attention_reads_one_latent_for_all_heads() -> None:
    model = ModelSpec.load("DeepSeek-V3")
    ((mixer, count),) = model.token_mixers
    assert (count, mixer.caches) == (61, (Cache(576, 1),))
    ((launch,),) = mixer.ways(ForwardPass(batch=1.0, kv_tokens=1000.0))
    assert (launch.heads, launch.kv_heads, launch.key_dim, launch.value_dim) == (128, 1, 576, 512)
    shapes = {
        layer.name: (layer.n, layer.k, layer.split) for layer in model.linears if layer.block == "attention"
    }
    assert shapes == {
        "q_a": (1536, 7168, "none"),
        "q_b": (128 * 192, 1536, "column"),
        "kv_a": (576, 7168, "none"),
        "kv_b": (128 * 256, 512, "column"),
        "o": (7168, 128 * 128, "row"),
    }


def test_experts_and_router_come_from_the_moe_layers_only() -> None:
    counts = {layer.name: (layer.count, layer.experts) for layer in ModelSpec.load("DeepSeek-V3").linears}
    assert counts["gate_up"] == (3, 0)
    assert counts["expert_gate_up"] == counts["expert_down"] == (58, 256)
    assert counts["router"] == counts["shared_gate_up"] == (58, 0)


def test_a_plain_mlp_has_no_gate() -> None:
    sizes = {
        "model_type": "gpt2",
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "n_ctx": 1024,
        "vocab_size": 50257,
    }
    model = ModelSpec.from_config(sizes)
    assert [layer.n for layer in model.linears if layer.name == "up"] == [4 * 768]
