"""The decoder computes what its definition says, whatever way its tokens enter."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from perfmodel.errors import SpecError  # noqa: E402
from perfmodel.model import BYTES, ModelSpec  # noqa: E402
from perfmodel.reference.architecture import Architecture, RopeScaling  # noqa: E402
from perfmodel.reference.attention import Visible, exact, packed  # noqa: E402
from perfmodel.reference.cache import KVCache  # noqa: E402
from perfmodel.reference.decoder import Decoder, LayerWeights, Weights, rotate  # noqa: E402
from perfmodel.reference.sequences import prefill  # noqa: E402
from perfmodel.reference.weights import random_weights, round_to_bits  # noqa: E402

pytestmark = pytest.mark.torch


def random(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("query_tokens", [1, 2, 5])
@pytest.mark.parametrize("lens", [(9, 9), (3, 9)])
def test_folded_attention_is_attention_by_its_definition(kv_heads, query_tokens, lens):
    query, keys, values = (
        random(2, 4, query_tokens, 8),
        random(2, kv_heads, 16, 8, seed=1),
        random(2, kv_heads, 16, 8),
    )
    slots = max(lens) + query_tokens
    last = torch.tensor(lens)[:, None] + torch.arange(query_tokens)
    visible = Visible(last, slots, aligned=len(set(lens)) == 1)
    read = packed(query, keys[:, :, :slots], values[:, :, :slots], visible)
    for row, length in enumerate(lens):
        for head in range(4):
            for token in range(query_tokens):
                seen = length + token + 1
                k, v = (part[row, head * kv_heads // 4, :seen] for part in (keys, values))
                weights = (query[row, head, token] @ k.T / 8**0.5).softmax(-1)
                assert torch.allclose(read[row, head, token], weights @ v, atol=1e-12)
    assert torch.allclose(read, exact(query, keys[:, :, :slots], values[:, :, :slots], visible), atol=1e-12)


def test_the_causal_edge_is_at_the_bottom_right():
    visible = Visible(torch.tensor([[5, 6, 7]]), 8, aligned=True)
    open_slots = (visible.mask(torch.float32, 1)[0, 0] == 0).sum(-1)
    assert open_slots.tolist() == [6, 7, 8]


def test_rotated_scores_depend_on_the_distance_only(target):
    frequencies = torch.tensor(target.architecture.frequencies(), dtype=torch.float64)

    def at(vector, position):
        angle = frequencies * position
        return rotate(vector, angle.cos(), angle.sin())

    query, key = random(8), random(8, seed=1)
    near, far = at(query, 7.0) @ at(key, 4.0), at(query, 1007.0) @ at(key, 1004.0)
    assert float(near) == pytest.approx(float(far), abs=1e-10)
    assert float(near) != pytest.approx(float(at(query, 8.0) @ at(key, 4.0)), abs=1e-3)


@pytest.mark.parametrize("steps", [(1,) * 12, (12,), (5, 1, 6), (2, 2, 8)])
def test_tokens_give_the_same_logits_however_they_are_split_into_passes(target, steps):
    tokens = torch.arange(24).reshape(2, 12) * 5 % 64
    whole = target.forward(tokens, KVCache(target.architecture, 2, 12, dtype=torch.float64).next(12))
    cache, start = KVCache(target.architecture, 2, 12, dtype=torch.float64), 0
    for count in steps:
        logits = target.forward(tokens[:, start : start + count], cache.next(count))
        assert torch.allclose(logits, whole[:, start : start + count], atol=1e-11)
        start += count
        cache.lens += count


def test_a_ragged_batch_gives_what_each_sequence_gives_alone(target, ragged):
    _, together = prefill(target, ragged, 1)
    for row, prompt in enumerate(ragged):
        _, alone = prefill(target, [prompt], 1)
        assert torch.allclose(together[row], alone[0], atol=1e-11)


def test_prompts_longer_than_a_chunk_are_prefilled_as_one(target):
    prompt = (np.arange(1100) * 7 % 64).tolist()
    sequences, logits = prefill(target, [prompt, prompt[:513]], 1)
    whole = KVCache(target.architecture, 1, 1100, dtype=torch.float64)
    assert torch.allclose(
        logits[0], target.forward(torch.tensor([prompt]), whole.next(1100))[0, -1], atol=1e-11
    )
    assert sequences.cache.lens.tolist() == [1100, 513]


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [({}, "fp32"), ({"tie_word_embeddings": True}, "fp32"), ({"model_type": "qwen2"}, "fp32"), ({}, "bf16")],
)
def test_weights_and_cache_have_the_bytes_that_are_priced(tiny, changes, dtype):
    held = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    decoder = tiny(dtype=held, **changes)
    spec = decoder.architecture.spec.with_dtypes(weights=dtype, kv=dtype)
    weights = decoder.weights
    read = [weights.final_norm, weights.lm_head]
    read += [part for layer in weights.layers for part in vars(layer).values()]
    held_bytes = sum(part.nbytes for part in read if isinstance(part, torch.Tensor))
    assert held_bytes == float(spec.weight_bytes_read())
    cache = KVCache(decoder.architecture, 3, 50, dtype=held)
    assert 2 * cache.keys.numel() * cache.keys.element_size() == 3 * float(spec.kv_bytes(50.0))
    assert cache.keys.element_size() == BYTES[dtype]


def test_the_planners_own_model_file_becomes_a_decoder():
    architecture = Architecture.load("llama-3.1-8b")
    assert (architecture.layers, architecture.heads, architecture.kv_heads) == (32, 32, 8)
    assert (architecture.head_dim, architecture.mlp_width) == (128, 14336)
    assert not architecture.qkv_bias
    assert Architecture.load("qwen2.5-0.5b").qkv_bias
    assert architecture.spec == ModelSpec.load("llama-3.1-8b")


@pytest.mark.parametrize(
    ("name", "trait"),
    [
        ("gemma-2-9b", "gemma2"),
        ("mixtral-8x7b-v0.1", "mixtral"),
        ("phi-4", "phi3"),
    ],
)
def test_a_model_of_another_kind_is_refused_by_the_trait_that_differs(name, trait):
    with pytest.raises(SpecError, match=trait):
        Architecture.load(name)


def test_a_window_in_every_layer_runs_and_is_not_timed():
    architecture = Architecture.load("mistral-7b-v0.1")
    assert {type(mixer).__name__ for mixer in architecture.mixers} == {"SlidingWindow"}
    with pytest.raises(SpecError, match="its layers are SlidingWindow"):
        _ = architecture.heads


def test_an_unknown_stretching_of_positions_is_refused():
    with pytest.raises(SpecError, match="yarn"):
        Architecture.from_config({**_llama(), "rope_scaling": {"rope_type": "yarn", "factor": 4.0}})


def test_scaled_frequencies_keep_the_fast_and_divide_the_slow():
    scaling = RopeScaling("llama3", 8.0, 1.0, 4.0, 8192.0)
    assert scaling.stretch(1.0) == 1.0
    assert scaling.stretch(1e-6) == 1e-6 / 8.0
    between = 2 * np.pi * 2.5 / 8192.0
    assert between / 8.0 < scaling.stretch(between) < between
    assert RopeScaling("linear", 4.0).stretch(0.5) == 0.125


def _llama():
    return {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 64, "max_position_embeddings": 512,
    }  # fmt: skip


def test_a_pass_that_does_not_fit_the_cache_is_refused(target):
    cache = KVCache(target.architecture, 1, 4, dtype=torch.float64)
    with pytest.raises(IndexError, match="4 slots; a pass needs 5"):
        cache.next(5)


def test_four_bits_round_to_half_a_level_and_keep_what_has_one_value():
    values = random(3, 256)
    error = (round_to_bits(values) - values).abs().unflatten(-1, (2, 128))
    groups = values.unflatten(-1, (2, 128))
    step = (groups.amax(-1) - groups.amin(-1)) / 15
    assert bool((error.amax(-1) <= step / 2 + 1e-12).all())
    assert len(round_to_bits(values)[0, :128].unique()) <= 16
    assert torch.equal(round_to_bits(torch.full((2, 64), 0.3)), torch.full((2, 64), 0.3))


def test_random_weights_repeat_with_their_seed(target):
    again = random_weights(target.architecture, seed=1, dtype=torch.float64, attention_gain=3.0)
    other = random_weights(target.architecture, seed=2, dtype=torch.float64, attention_gain=3.0)
    assert torch.equal(again.layers[1].qkv, target.weights.layers[1].qkv)
    assert not torch.equal(other.layers[1].qkv, target.weights.layers[1].qkv)


def test_leaving_early_runs_the_first_layers_only(target):
    first = target.exit_after(1)
    tokens = torch.tensor([[3, 1, 4]])
    cache = KVCache(target.architecture, 1, 3, dtype=torch.float64)
    logits = first.forward(tokens, cache.next(3))
    assert bool((cache.keys[0] != 0).any())
    assert not bool((cache.keys[1] != 0).any())
    assert isinstance(first, Decoder)
    assert logits.shape == (1, 3, 64)


def weights_of(model):
    """Return the weights of a decoder of transformers."""
    state = {name.removeprefix("model."): tensor.double() for name, tensor in model.state_dict().items()}

    def fuse(layer, names, kind="weight"):
        return torch.cat([state[f"layers.{layer}.{name}_proj.{kind}"] for name in names])

    attention = [f"self_attn.{name}" for name in "qkv"]
    layers = tuple(
        LayerWeights(
            attention_norm=state[f"layers.{layer}.input_layernorm.weight"],
            qkv=fuse(layer, attention),
            output=fuse(layer, ["self_attn.o"]),
            mlp_norm=state[f"layers.{layer}.post_attention_layernorm.weight"],
            gate_up=fuse(layer, ["mlp.gate", "mlp.up"]),
            down=fuse(layer, ["mlp.down"]),
            qkv_bias=fuse(layer, attention, "bias") if "layers.0.self_attn.q_proj.bias" in state else None,
        )
        for layer in range(model.config.num_hidden_layers)
    )
    return Weights(state["embed_tokens.weight"], layers, state["norm.weight"], state["lm_head.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Mistral"])
def test_logits_are_those_of_transformers(kind):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "vocab_size": 101, "max_position_embeddings": 512}
    stretched = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    extra = {
        "Llama": {"rope_scaling": {**stretched, "original_max_position_embeddings": 64}, "rope_theta": 5e5},
        "Qwen2": {},
        "Mistral": {"sliding_window": 40},
    }[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes, **extra)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tokens = torch.arange(300).reshape(2, 150) * 7 % 101
    decoder = Decoder(Architecture.from_config(config.to_dict()), weights_of(model))
    _, logits = prefill(decoder, tokens.tolist(), 1)
    assert torch.allclose(logits, model.double()(tokens).logits[:, -1], atol=1e-5)
