"""Weights that look up what followed a token before, and texts in which the answer is known.

A decoder with these weights is a pair of induction heads (Olsson et al., arXiv 2209.11895): a head of the
first layer copies each token's predecessor, a head of the second finds where the current token was one and
copies the token there. A text that plants the successors of some symbols inside a draft's window, and of all
symbols outside it, has an acceptance known in advance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from perfmodel.reference.architecture import Architecture
from perfmodel.reference.cache import Counts
from perfmodel.reference.decoder import LayerWeights, Weights

__all__ = ["PlantedText", "induction_architecture", "induction_weights", "planted_text"]

SEPARATOR = 0
BLOCK = 3
"""Tokens of one planted pair: symbol, successor, separator."""
TURN = 0.1
"""Largest rotation [rad] over the whole context of the pairs that compare content."""
SHARPNESS = 100.0
"""Attention score of a match; the next best is at least 30 lower."""


def induction_architecture(symbols: int, *, context: int) -> Architecture:
    """Return a decoder that has room for induction heads.

    Parameters
    ----------
    symbols : tokens of its vocabulary beside the separator.
    context : longest context. [tokens]
    """
    config = {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "vocab_size": symbols + 1,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
        # The second half of the pairs must turn by less than TURN over the context.
        "rope_theta": (context / TURN) ** 2,
    }
    return Architecture.from_config(config, "induction heads")


def induction_weights(architecture: Architecture) -> Weights:
    """Return weights under which the decoder repeats what followed the current token before.

    The residual stream holds the token's content, its predecessor's content, the answer, a constant and a
    mark of separators. The MLPs run and add nothing.
    """
    content, hidden = architecture.head_dim // 2, architecture.hidden_size
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(architecture.vocab_size, content, generator=generator, dtype=torch.float64)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    constant, mark = 3 * content, 3 * content + 1
    embedding = torch.zeros(architecture.vocab_size, hidden, dtype=torch.float64)
    embedding[:, :content] = directions
    embedding[:, constant] = 1.0
    embedding[SEPARATOR, :content] = 0.0
    embedding[SEPARATOR, mark] = 1.0
    head = torch.zeros_like(embedding)
    head[1:, 2 * content : 3 * content] = directions[1:]
    layers = (_copy_predecessor(architecture, content), _look_up(architecture, content))
    return Weights(embedding.float(), layers, torch.ones(hidden), head.float())


def _make_layer(architecture: Architecture, qkv: Tensor, output: Tensor) -> LayerWeights:
    """Return a layer whose MLP adds nothing."""
    ones = torch.ones(architecture.hidden_size)
    gate_up, down = (torch.zeros(architecture.shape(name)) for name in ("gate_up", "down"))
    return LayerWeights(ones, qkv.float(), output.float(), ones, gate_up, down)


def _make_blank(architecture: Architecture) -> tuple[Tensor, Tensor]:
    qkv, output = (torch.zeros(architecture.shape(name), dtype=torch.float64) for name in ("qkv", "o"))
    return qkv, output


def _copy_predecessor(architecture: Architecture, content: int) -> LayerWeights:
    """Score ``sum_i cos(theta_i (distance - 1))`` over the fast pairs; copy content to the second place."""
    qkv, output = _make_blank(architecture)
    half, constant = architecture.head_dim // 2, 3 * content
    key, value = _find_key_rows(architecture)
    # Content and constant have norm one each: RMSNorm multiplies by sqrt(hidden / 2).
    norm = math.sqrt(architecture.hidden_size / 2.0)
    size = math.sqrt(SHARPNESS * math.sqrt(architecture.head_dim)) / norm
    for pair, frequency in enumerate(architecture.frequencies()[: half // 2]):
        qkv[pair, constant] = size * math.cos(frequency)
        qkv[half + pair, constant] = -size * math.sin(frequency)
        qkv[key + pair, constant] = size
    for element in range(content):
        qkv[value + element, element] = 1.0 / norm
        output[content + element, element] = 1.0
    return _make_layer(architecture, qkv, output)


def _look_up(architecture: Architecture, content: int) -> LayerWeights:
    """Score content against predecessors on the slow pairs; copy the content there to the third place."""
    qkv, output = _make_blank(architecture)
    half = architecture.head_dim // 2
    key, value = _find_key_rows(architecture)
    # Content, predecessor and constant: RMSNorm multiplies by sqrt(hidden / 3).
    norm = math.sqrt(architecture.hidden_size / 3.0)
    size = math.sqrt(SHARPNESS * math.sqrt(architecture.head_dim)) / norm
    for element in range(content):
        place = half // 2 + element // 2 + half * (element % 2)
        qkv[place, element] = size
        qkv[key + place, content + element] = size
        qkv[value + element, element] = 1.0 / norm
        output[2 * content + element, element] = 1.0
    return _make_layer(architecture, qkv, output)


def _find_key_rows(architecture: Architecture) -> tuple[int, int]:
    """First rows of the first key head and of the first value head in the fused product."""
    key = architecture.heads * architecture.head_dim
    return key, key + architecture.kv_heads * architecture.head_dim


@dataclass(frozen=True)
class PlantedText:
    """Prompts over a successor map whose answers stand in a draft's window for a known share of symbols.

    Attributes
    ----------
    prompts : [batch, context_len]; each ends with a symbol from which the map is to be followed.
    answers : what a decoder that follows the map generates, [batch, output_len].
    coverage : share of the lookups that can be answered from the window: the acceptance of a draft. [0..1]
    """

    prompts: Counts
    answers: Counts
    coverage: float


def planted_text(
    *,
    symbols: int,
    context_len: int,
    window: int,
    coverage: float,
    batch: int,
    output_len: int,
    ahead: int = 16,
    seed: int = 0,
) -> PlantedText:
    """Return texts in which a window of the last `window` tokens answers a share `coverage` of the lookups.

    Each sequence has a successor map of its own, one cycle through all symbols. All pairs stand in the part
    before the window; in the window stand those of a random subset, the rest of it is separators.

    Parameters
    ----------
    symbols : tokens of the vocabulary beside the separator.
    context_len : tokens of each prompt.
    window : tokens at the end of a prompt that a draft reads.
    coverage : share of the symbols whose successor stands in the window. [0..1]
    batch : prompts.
    output_len : tokens that are to be generated.
    ahead : tokens beyond `output_len` that may be drafted.
    seed : of the maps.

    Raises
    ------
    ValueError
        Where the pairs do not fit, or the output would come round the cycle.
    """
    reach = output_len + ahead
    room = window - 8 - reach
    inside = round(coverage * symbols)
    outside = context_len - window
    if BLOCK * inside > room or BLOCK * symbols >= outside or reach >= symbols:
        raise ValueError(
            f"{symbols} symbols, {inside} of them in a window of {window}, and {reach} tokens to come "
            f"do not fit into a context of {context_len}"
        )
    generator = np.random.default_rng(seed)
    prompts, answers, covered = [], [], 0
    for _ in range(batch):
        cycle = generator.permutation(symbols) + 1
        near = generator.permutation(symbols)[:inside]
        prompts.append(_write_prompt(cycle, near, context_len, window, generator))
        answers.append(cycle[1 : 1 + reach])
        covered += int(np.isin(np.arange(output_len), near).sum())
    return PlantedText(np.stack(prompts), np.stack(answers), covered / (batch * output_len))


def _write_prompt(
    cycle: Counts, near: Counts, context_len: int, window: int, generator: np.random.Generator
) -> Counts:
    """Return a prompt that ends with the first symbol of the cycle."""
    pairs = np.stack([cycle, np.roll(cycle, -1), np.full_like(cycle, SEPARATOR)], axis=1)
    far = [SEPARATOR]
    while len(far) + pairs.size <= context_len - window:
        far.extend(pairs[generator.permutation(len(cycle))].ravel())
    planted = pairs[generator.permutation(near)].ravel()
    filler = np.full(context_len - len(far) - planted.size - 1, SEPARATOR)
    return np.concatenate([far, filler, planted, cycle[:1]]).astype(np.int64)
