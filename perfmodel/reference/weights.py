"""Random weights of a decoder, and what four bits leave of weights."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from perfmodel.reference.architecture import Architecture
from perfmodel.reference.decoder import LayerWeights, Weights

__all__ = ["in_few_bits", "quantized", "random_weights"]

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
    attention_gain : factor on the output of attention. Near 1 attention averages to little and any draft is
        accepted; at 4 what a draft leaves out shows.
    """
    generator = torch.Generator(device).manual_seed(seed)
    hidden = architecture.hidden_size

    def matrix(outputs: int, inputs: int, gain: float = 1.0) -> Tensor:
        drawn = torch.randn(outputs, inputs, generator=generator, dtype=_drawn(dtype), device=device)
        scaled: Tensor = drawn * (gain * inputs**-0.5)
        return scaled.to(dtype)

    ones = torch.ones(hidden, dtype=dtype, device=device)
    columns = (architecture.heads + 2 * architecture.kv_heads) * architecture.head_dim
    layers = tuple(
        LayerWeights(
            attention_norm=ones,
            qkv=matrix(columns, hidden),
            output=matrix(hidden, architecture.heads * architecture.head_dim, attention_gain),
            mlp_norm=ones,
            gate_up=matrix(2 * architecture.mlp_width, hidden),
            down=matrix(hidden, architecture.mlp_width),
            qkv_bias=matrix(columns, 1, 0.1)[:, 0] if architecture.qkv_bias else None,
        )
        for _ in range(architecture.layers)
    )
    embedding = matrix(architecture.vocab_size, hidden, hidden**0.5)
    head = embedding if architecture.tied_embeddings else matrix(architecture.vocab_size, hidden)
    return Weights(embedding, layers, ones, head)


def _drawn(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def quantized(weights: Weights, bits: int = 4) -> Weights:
    """Return the weights with the layers' matrices rounded to `bits`, as a quantised copy would hold them.

    The values are those of a quantised copy, the bytes are not: they stay in the dtype they come in, so a
    pass over them is not faster. Norms, biases, embedding and head are left as they are.
    """
    return replace(weights, layers=tuple(_quantized_layer(layer, bits) for layer in weights.layers))


def _quantized_layer(layer: LayerWeights, bits: int) -> LayerWeights:
    rounded = {
        f.name: in_few_bits(matrix, bits)
        for f in fields(layer)
        if (matrix := getattr(layer, f.name)) is not None and matrix.dim() == 2
    }
    return replace(layer, **rounded)


def in_few_bits(values: Tensor, bits: int = 4, group: int = GROUP) -> Tensor:
    """Round to ``2**bits`` levels between the least and the greatest of each `group` along the last axis.

    Where the last axis is no multiple of `group`, all of it is one group. An error is at most half a level.
    """
    width = values.shape[-1]
    grouped = values.reshape(*values.shape[:-1], -1, group if width % group == 0 else width)
    low = grouped.amin(-1, keepdim=True)
    step = (grouped.amax(-1, keepdim=True) - low) / (2**bits - 1)
    level = torch.where(step > 0, (grouped - low) / step, torch.zeros_like(grouped)).round()
    rounded: Tensor = low + level * step
    return rounded.flatten(-2)
