"""Whether an output is the target's greedy output, with ties told from faults."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from perfmodel.reference.decoder import Decoder
from perfmodel.reference.sequences import prefill

__all__ = ["TIE", "greedy_shortfall", "is_greedy"]

TIE = 1e-4
"""Shortfall below which two logits in float32 count as equal: ten times what other kernel shapes change."""


def greedy_shortfall(target: Decoder, prompts: Sequence[Sequence[int]], tokens: Tensor) -> Tensor:
    """Return how far each token's logit lies below the best one, relative to the largest; [batch, count].

    Every token is judged by its own prefix, as it stands in the output, in float64. Where two logits are
    equal up to rounding, kernels of other shapes may choose either, and what follows differs; comparing two
    outputs token by token would have to excuse all of it. Here a tie excuses one token and none after it.
    """
    exact = Decoder(target.architecture, target.weights.to(torch.float64), target.layers)
    generated = tokens.tolist()
    texts = [list(prompt) + row[:-1] for prompt, row in zip(prompts, generated, strict=True)]
    with torch.no_grad():
        sequences, _ = prefill(exact, texts, 1)
        count = tokens.shape[1]
        first = sequences.cache.lens - count
        view = sequences.cache.view(first, count, first)
        logits = exact.forward(sequences.tokens.gather(1, view.positions.expand(len(texts), -1)), view)
    chosen = logits.gather(-1, tokens[..., None])[..., 0]
    return (logits.amax(-1) - chosen) / logits.abs().amax(-1)


def is_greedy(target: Decoder, prompts: Sequence[Sequence[int]], tokens: Tensor, tie: float = TIE) -> bool:
    """Whether every token of an output is the target's choice after its own prefix, ties allowed."""
    return bool((greedy_shortfall(target, prompts, tokens) <= tie).all())
