"""Checkpoints in the layout of Hugging Face are read whole or refused by name."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from perfmodel.errors import SpecError  # noqa: E402
from perfmodel.reference.checkpoint import load_decoder  # noqa: E402
from perfmodel.reference.rounds import generate  # noqa: E402

pytestmark = pytest.mark.torch


def named(decoder):
    """Return a decoder's weights under their Hugging Face names."""
    sizes, weights = decoder.architecture, decoder.weights
    found = {"model.embed_tokens.weight": weights.embedding, "model.norm.weight": weights.final_norm}
    if not sizes.tied_embeddings:
        found["lm_head.weight"] = weights.lm_head
    split = [count * sizes.head_dim for count in (sizes.heads, sizes.kv_heads, sizes.kv_heads)]
    for index, layer in enumerate(weights.layers):
        prefix = f"model.layers.{index}."
        found[prefix + "input_layernorm.weight"] = layer.attention_norm
        found[prefix + "post_attention_layernorm.weight"] = layer.mlp_norm
        found[prefix + "self_attn.o_proj.weight"] = layer.output
        found[prefix + "mlp.down_proj.weight"] = layer.down
        for name, part in zip("qkv", layer.qkv.split(split), strict=True):
            found[f"{prefix}self_attn.{name}_proj.weight"] = part
        if layer.qkv_bias is not None:
            for name, part in zip("qkv", layer.qkv_bias.split(split), strict=True):
                found[f"{prefix}self_attn.{name}_proj.bias"] = part
        for name, part in zip(("gate", "up"), layer.gate_up.chunk(2), strict=True):
            found[f"{prefix}mlp.{name}_proj.weight"] = part
    return {name: tensor.contiguous().clone() for name, tensor in found.items()}


def saved(folder, decoder, config, tensors=None, parts=1):
    """Write a checkpoint folder."""
    (folder / "config.json").write_text(json.dumps(config))
    tensors = named(decoder) if tensors is None else tensors
    if parts == 1:
        safetensors.save_file(tensors, folder / "model.safetensors")
        return folder
    where = {name: f"model-{index % parts + 1:05d}.safetensors" for index, name in enumerate(sorted(tensors))}
    for file in set(where.values()):
        safetensors.save_file({n: tensors[n] for n, f in where.items() if f == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("changes", [{}, {"model_type": "qwen2"}, {"tie_word_embeddings": True}])
def test_a_checkpoint_gives_the_decoder_that_was_saved(tmp_path, tiny, ragged, settings, parts, changes):
    decoder = tiny(**changes)
    loaded = load_decoder(saved(tmp_path, decoder, settings(**changes), parts=parts), dtype=torch.float64)
    assert torch.equal(loaded.weights.layers[1].qkv, decoder.weights.layers[1].qkv)
    assert torch.equal(generate(loaded, ragged, 12).tokens, generate(decoder, ragged, 12).tokens)
    assert (loaded.weights.lm_head is loaded.weights.embedding) == bool(changes.get("tie_word_embeddings"))


def test_weights_are_converted_as_they_are_read(tmp_path, tiny, settings):
    folder = saved(tmp_path, tiny(), settings())
    assert load_decoder(folder, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_every_missing_or_misshapen_weight_is_named(tmp_path, tiny, settings):
    tensors = named(tiny())
    del tensors["model.layers.1.mlp.down_proj.weight"]
    tensors["model.norm.weight"] = torch.zeros(31)
    with pytest.raises(SpecError) as refused:
        load_decoder(saved(tmp_path, None, settings(), tensors))
    assert [fault.field for fault in refused.value.faults] == [
        "model.layers.1.mlp.down_proj.weight",
        "model.norm.weight",
    ]
    assert "(31,), the config says (32,)" in str(refused.value)


def test_a_folder_without_weights_is_refused(tmp_path, settings):
    (tmp_path / "config.json").write_text(json.dumps(settings()))
    with pytest.raises(SpecError, match=r"model\.safetensors: .*does not exist"):
        load_decoder(tmp_path)


def test_a_damaged_file_is_refused(tmp_path, settings):
    (tmp_path / "config.json").write_text(json.dumps(settings()))
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(SpecError, match="cannot be read"):
        load_decoder(tmp_path)


@pytest.mark.parametrize("index", ["not json", "{}", '{"weight_map": {"a": "../outside.safetensors"}}'])
def test_an_index_that_is_damaged_or_points_elsewhere_is_refused(tmp_path, settings, index):
    (tmp_path / "config.json").write_text(json.dumps(settings()))
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(SpecError, match="weight_map"):
        load_decoder(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Mistral"])
def test_logits_are_those_of_transformers(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "vocab_size": 101, "max_position_embeddings": 512}
    stretched = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    extra = {
        "Llama": {"rope_scaling": {**stretched, "original_max_position_embeddings": 64}, "rope_theta": 5e5},
        "Qwen2": {},
        "Mistral": {"sliding_window": None},
    }[kind]
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(
        getattr(transformers, f"{kind}Config")(**sizes, **extra)
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path)
    from perfmodel.reference.sequences import prefill

    tokens = torch.arange(300).reshape(2, 150) * 7 % 101
    _, logits = prefill(load_decoder(tmp_path, dtype=torch.float64), tokens.tolist(), 1)
    assert torch.allclose(logits, model.double()(tokens).logits[:, -1], atol=1e-5)
