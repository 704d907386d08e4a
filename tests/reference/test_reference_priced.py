"""The mixers that are priced are the mixers that run: kinds, sizes, what is stored, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import strategies  # noqa: E402
from perfmodel.errors import SpecError  # noqa: E402
from perfmodel.model import ModelSpec  # noqa: E402
from perfmodel.reference.architecture import Architecture  # noqa: E402
from perfmodel.reference.decoder import Decoder  # noqa: E402
from perfmodel.reference.drafting import drafter_of  # noqa: E402
from perfmodel.reference.mixers.recurrence import scan  # noqa: E402
from perfmodel.reference.priced_mixers import unknown_mixers  # noqa: E402
from perfmodel.reference.rounds import generate  # noqa: E402
from perfmodel.reference.weights import random_weights  # noqa: E402

pytestmark = pytest.mark.torch

COMMON = {
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "vocab_size": 64, "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip
DELTA = {
    "model_type": "qwen3_next", "num_hidden_layers": 4, "full_attention_interval": 4, "num_experts": 0,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 6, "linear_conv_kernel_dim": 4,
}  # fmt: skip
WINDOW = {
    "model_type": "gemma3_text", "num_hidden_layers": 6, "sliding_window": 12, "sliding_window_pattern": 3,
}  # fmt: skip
CHUNK = {
    "model_type": "llama4_text", "num_hidden_layers": 4, "attention_chunk_size": 16, "num_local_experts": 4,
    "num_experts_per_tok": 1, "intermediate_size_mlp": 64, "interleave_moe_layer_step": 2,
    "layer_types": ["chunked_attention"] * 3 + ["full_attention"],
}  # fmt: skip
SHARED = {
    "model_type": "gemma4_text", "num_hidden_layers": 6, "sliding_window": 12, "num_kv_shared_layers": 3,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
}  # fmt: skip
LATENT = {
    "model_type": "deepseek_v2", "num_hidden_layers": 2, "kv_lora_rank": 12, "q_lora_rank": 16,
    "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6,
}  # fmt: skip
SPARSE = {
    **LATENT, "model_type": "deepseek_v32", "n_routed_experts": 0, "index_n_heads": 2, "index_head_dim": 8,
    "index_topk": 10,
}  # fmt: skip
MAMBA = {
    "model_type": "nemotron_h", "num_hidden_layers": 5, "hybrid_override_pattern": "M-M*-",
    "mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 6, "n_groups": 2, "conv_kernel": 4,
}  # fmt: skip
KIMI = {
    **LATENT, "model_type": "kimi_linear", "num_hidden_layers": 4, "q_lora_rank": None,
    "linear_attn_config": {
        "num_heads": 3, "head_dim": 8, "short_conv_kernel_size": 4, "kda_layers": [1, 2, 3],
        "full_attn_layers": [4],
    },
}  # fmt: skip
CONVOLUTION = {
    "model_type": "lfm2", "num_hidden_layers": 2, "layer_types": ["conv", "full_attention"],
    "conv_L_cache": 3,
}  # fmt: skip
LIGHTNING = {"model_type": "minimax", "num_hidden_layers": 4, "attn_type_list": [0, 0, 0, 1]}
CONFIGS = {
    "delta": (DELTA, "GatedDelta GatedDelta GatedDelta FullAttention"),
    "window": (WINDOW, "SlidingWindow SlidingWindow FullAttention " * 2),
    "chunk": (CHUNK, "Chunked Chunked Chunked FullAttention"),
    "shared": (SHARED, "SlidingWindow SlidingWindow FullAttention " * 2),
    "latent": (LATENT, "Latent Latent"),
    "index": (SPARSE, "LatentIndex LatentIndex"),
    "mamba": (MAMBA, "Mamba2 Mamba2 FullAttention"),
    "kimi": (KIMI, "KimiDelta KimiDelta KimiDelta Latent"),
    "convolution": (CONVOLUTION, "ShortConvolution FullAttention"),
    "lightning": (LIGHTNING, "Lightning Lightning Lightning FullAttention"),
}


def stored_elements(spec):
    """Return elements per token of all layers, and per sequence, of a priced model."""
    per_token = sum(cache.elements * count for cache, count in spec.caches)
    states = [(mixer.state, count) for mixer, count in spec.token_mixers if mixer.state]
    return per_token, sum(count * (state.elements + state.inputs) for state, count in states)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_tiny_config_runs_as_the_layers_that_are_priced(kind):
    changes, expected = CONFIGS[kind]
    architecture = Architecture.from_config({**COMMON, **changes}, sketch=True)
    assert [type(mixer).__name__ for mixer in architecture.mixers] == expected.split()
    target = Decoder(
        architecture, random_weights(architecture, seed=1, dtype=torch.float64, attention_gain=3.0)
    )
    prompts = [np.random.default_rng(0).integers(0, 64, length).tolist() for length in (5, 40)]
    plain = generate(target, prompts, 12).tokens
    for name in ("streaming_llm", "quest", "ngram"):
        make = drafter_of(strategies.load(name), target, kv_budget=12, gamma=3, output_len=12)
        assert torch.equal(generate(target, prompts, 12, drafter=make, gamma=3).tokens, plain)


@pytest.mark.parametrize("name", ModelSpec.available())
def test_what_a_bundled_model_stores_is_what_is_priced_or_it_is_refused_by_its_mixer(name):
    if unknown_mixers(ModelSpec.load(name)):
        with pytest.raises(SpecError, match=r"is not run[\s\S]*Token mixers that run: chunked"):
            Architecture.load(name, sketch=True)
        return
    architecture = Architecture.load(name, sketch=True)
    per_token, per_sequence = stored_elements(architecture.spec)
    held = sum(entry.elements * len(layers) for entry, layers in architecture.entries.items())
    states = sum(math.prod(shape) for mixer in architecture.mixers for shape in mixer.state_shapes)
    assert (held, states) == (per_token, per_sequence)


def test_a_kind_of_layer_is_refused_by_name_where_it_does_not_run():
    config = {**COMMON, **SPARSE, "indexer_types": ["full", "shared"]}
    with pytest.raises(SpecError, match="latent with an index is not run"):
        Architecture.from_config(config, sketch=True)


def test_without_a_sketch_a_hybrid_is_refused():
    with pytest.raises(SpecError, match="qwen3_next"):
        Architecture.from_config({**COMMON, **DELTA})


def test_layers_that_share_a_cache_come_last_and_read_that_of_their_kind():
    architecture = Architecture.from_config({**COMMON, **SHARED}, sketch=True)
    assert [mixer.owns_cache for mixer in architecture.mixers] == [True] * 3 + [False] * 3
    assert architecture.places[3:] == (*architecture.places[1:2] * 2, architecture.places[2])


def test_most_bundled_models_run():
    names = ModelSpec.available()
    assert sum(not unknown_mixers(ModelSpec.load(name)) for name in names) > 0.95 * len(names)


@pytest.mark.slow
def test_the_gated_delta_rule_is_that_of_transformers():
    module = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 9, 3, 8, generator=generator) for _ in range(3))
    fall, strength = -torch.rand(2, 9, 3, generator=generator), torch.rand(2, 9, 3, generator=generator)
    expected, state = module.torch_recurrent_gated_delta_rule(
        query, key, value, fall, strength, initial_state=None, output_final_state=True,
        use_qk_l2norm_in_kernel=True,
    )  # fmt: skip
    unit = torch.nn.functional.normalize
    read, states = scan(
        torch.zeros(2, 3, 8, 8), unit(query, dim=-1) * 8**-0.5, unit(key, dim=-1), value,
        fall.exp()[..., None], strength[..., None],
    )  # fmt: skip
    assert torch.allclose(read, expected, atol=1e-4)
    assert torch.allclose(states[-1], state, atol=1e-4)
