"""Random weights of a decoder, and what four bits leave of weights."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from perfmodel.reference.architecture import Architecture
from perfmodel.reference.decoder import LayerWeights, Weights
from perfmodel.reference.mixers import Mixer

__all__ = ["GROUP", "quantize", "random_weights", "round_to_bits"]

GROUP = 128
"""Values that share a scale and a zero point."""


def random_weights(
    architecture: Architecture,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    attention_gain: float = 1.0,
) -> Weights:
    """Return normal weights of variance 1 / inputs: enough for proofs and timings, no evidence on acceptance.

    Parameters
    ----------
    architecture : shapes of the matrices, as they are priced.
    seed : of the random numbers.
    dtype : type of the weights.
    device : where they are put.
    attention_gain : factor on the output of attention. Near 1 attention averages to little and any draft is
        accepted; at 4 what a draft leaves out shows.
    """
    generator = torch.Generator(device).manual_seed(seed)
    drawn_dtype = torch.float64 if dtype == torch.float64 else torch.float32

    def draw(outputs: int, inputs: int, gain: float = 1.0) -> Tensor:
        normal = torch.randn(outputs, inputs, generator=generator, dtype=drawn_dtype, device=device)
        scaled: Tensor = normal * (gain * inputs**-0.5)
        return scaled.to(dtype)

    hidden = architecture.hidden_size
    ones = torch.ones(hidden, dtype=dtype, device=device)

    def draw_extra(name: str, shape: tuple[int, ...]) -> Tensor:
        if name.endswith("norm"):
            return torch.ones(shape, dtype=dtype, device=device)
        return draw(shape[0], shape[1]) if len(shape) == 2 else draw(shape[0], 1)[:, 0]

    def draw_layer(mixer: Mixer) -> LayerWeights:
        shapes = mixer.shapes(hidden)
        (rows, columns), (outputs, inputs) = shapes.pop("qkv"), shapes.pop("output")
        return LayerWeights(
            attention_norm=ones,
            qkv=draw(rows, columns),
            output=draw(outputs, inputs, attention_gain),
            mlp_norm=ones,
            gate_up=draw(*architecture.shape("gate_up")),
            down=draw(*architecture.shape("down")),
            qkv_bias=draw(rows, 1, 0.1)[:, 0] if architecture.qkv_bias else None,
            extra={name: draw_extra(name, shape) for name, shape in shapes.items()},
        )

    layers = tuple(draw_layer(mixer) for mixer in architecture.mixers)
    embedding = draw(architecture.vocab_size, hidden, hidden**0.5)
    head = embedding if architecture.tied_embeddings else draw(*architecture.shape("lm_head"))
    return Weights(embedding, layers, ones, head)


def quantize(weights: Weights, bits: int = 4) -> Weights:
    """Return the weights with the layers' matrices rounded to `bits`, as a quantised copy would hold them.

    The values are those of a quantised copy, the bytes are not: they stay in the dtype they come in, so a
    pass over them is not faster. Norms, biases, embedding and head are left as they are.
    """
    return replace(weights, layers=tuple(_quantize_layer(layer, bits) for layer in weights.layers))


def _quantize_layer(layer: LayerWeights, bits: int) -> LayerWeights:
    tensors = {field.name: getattr(layer, field.name) for field in fields(layer)}
    matrices = {name: part for name, part in tensors.items() if isinstance(part, Tensor) and part.dim() == 2}
    extra = {
        name: round_to_bits(part, bits) if part.dim() == 2 else part for name, part in layer.extra.items()
    }
    return replace(
        layer, extra=extra, **{name: round_to_bits(matrix, bits) for name, matrix in matrices.items()}
    )


def round_to_bits(values: Tensor, bits: int = 4) -> Tensor:
    """Round to ``2**bits`` levels between the least and the greatest of each `GROUP` along the last axis.

    Where the last axis is no multiple of `GROUP`, all of it is one group. An error is at most half a level.
    """
    last = values.shape[-1]
    grouped = values.reshape(*values.shape[:-1], -1, GROUP if last % GROUP == 0 else last)
    low = grouped.amin(-1, keepdim=True)
    step = (grouped.amax(-1, keepdim=True) - low) / (2**bits - 1)
    level = torch.where(step > 0, (grouped - low) / step, torch.zeros_like(grouped)).round()
    rounded: Tensor = low + level * step
    return rounded.flatten(-2)
