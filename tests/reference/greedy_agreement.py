"""Whether an output is the target's greedy output, with ties told from faults."""

from __future__ import annotations

from dataclasses import fields, replace

import torch

from perfmodel.reference.decoder import Decoder
from perfmodel.reference.sequences import prefill

TIE = 1e-4
"""Shortfall below which two logits in float32 count as equal: ten times what other kernel shapes change."""


def greedy_shortfall(target, prompts, tokens):
    """Return how far each token's logit lies below the best one, relative to the largest; [batch, count].

    Every token is judged by its own prefix, as it stands in the output, in float64. Where two logits are
    equal up to rounding, kernels of other shapes may choose either, and what follows differs; comparing two
    outputs token by token would have to excuse all of it. Here a tie excuses one token and none after it.
    """
    texts = [list(prompt) + row[:-1] for prompt, row in zip(prompts, tokens.tolist(), strict=True)]
    exact = Decoder(target.architecture, in_float64(target.weights), target.layers)
    sequences, _ = prefill(exact, texts, 1)
    count = tokens.shape[1]
    view = sequences.cache.view(sequences.cache.lens - count, count)
    logits = exact.forward(sequences.tokens.gather(1, view.positions.expand(len(texts), -1)), view)
    chosen = logits.gather(-1, tokens[..., None])[..., 0]
    return (logits.amax(-1) - chosen) / logits.abs().amax(-1)


def is_greedy(target, prompts, tokens):
    """Whether every token of an output is the target's choice after its own prefix, ties allowed."""
    return bool((greedy_shortfall(target, prompts, tokens) <= TIE).all())


def in_float64(weights):
    """Return the same weights, of a decoder or of a layer of it, in float64."""
    values = {field.name: getattr(weights, field.name) for field in fields(weights)}
    if "layers" in values:
        values["layers"] = tuple(in_float64(layer) for layer in values["layers"])
    tensors = {name: value.double() for name, value in values.items() if isinstance(value, torch.Tensor)}
    return replace(weights, **{**values, **tensors})
