"""From a priced drafting configuration to the drafter that runs it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import SpecError
from perfmodel.reference.cache import KVCache
from perfmodel.reference.decoder import Decoder
from perfmodel.reference.draft_cache import Chosen, DraftCache, InPlace, Kept, PromptScores
from perfmodel.reference.drafters import Drafter, ModelDrafter, NGramDrafter
from perfmodel.reference.scores import ExactScores, PageBounds, PassScores, observed_attention
from perfmodel.reference.sequences import Sequences
from perfmodel.reference.weights import in_few_bits, quantized
from strategies.base import DraftPass, DraftStrategy, WholeCache

__all__ = ["RUNNABLE", "drafter_of"]

RUNNABLE = (
    "full_kv",
    "layer_skip",
    "ngram",
    "quantized_kv",
    "quest",
    "snapkv",
    "streaming_llm",
    "topk_oracle",
)
"""Strategies that the reference decoder runs. The others need a trained head or product-quantised keys."""
SCALE_BITS = 32.0 / 128.0
"""Scale and zero point of a group, in bits per value."""


def drafter_of(
    strategy: DraftStrategy,
    target: Decoder,
    *,
    kv_budget: float = float("inf"),
    gamma: int,
    output_len: int,
    draft_model: Decoder | None = None,
) -> Callable[[Sequences], Drafter]:
    """Return what makes the drafter of a configuration for a batch of prefilled sequences.

    What runs is read off the strategy's own counts: whose weights, which share of the layers, how many bytes
    of a weight and of a cache entry; the cache obeys the strategy's selector.

    Parameters
    ----------
    kv_budget : entries that the draft may read [tokens]. gamma : tokens drafted per round.
    output_len : tokens to be generated, for which room is kept. draft_model : drafts in the target's place.

    Raises
    ------
    SpecError
        Where the reference decoder cannot run the strategy, or a draft model is missing or out of place.
    """
    kind = "draft" if draft_model is not None else strategy.drafters[0]
    if strategy.name not in RUNNABLE:
        raise _refusal(
            f"the reference decoder does not run {strategy.name}", f"It runs {', '.join(RUNNABLE)}"
        )
    if kind not in strategy.drafters or (kind == "draft" and draft_model is None):
        raise _refusal(
            f"{strategy.name} drafts with: {', '.join(strategy.drafters)}", "Name a draft model or none"
        )
    counted = strategy.draft_pass(context_len=1.0, kv_budget=kv_budget, gamma=float(gamma), drafter=kind)
    if counted.weights == "none":
        return _look_up
    decoder = _decoder(target if draft_model is None else draft_model, counted)
    if decoder.architecture.vocab_size != target.architecture.vocab_size:
        raise _refusal("the draft model has another vocabulary than the target", "Name one with the same")
    return partial(
        _model_drafter,
        strategy=strategy,
        decoder=decoder,
        counted=counted,
        kv_budget=kv_budget,
        room=output_len + 2 * gamma + 2,
    )


def _look_up(sequences: Sequences) -> Drafter:
    del sequences
    return NGramDrafter()


def _decoder(decoder: Decoder, counted: DraftPass) -> Decoder:
    """The weights that a draft pass runs through: all layers or the first ones, whole or in few bits."""
    share, bits = float(counted.layer_fraction), float(counted.weight_fraction) * 16.0 - SCALE_BITS
    if bits < 8.0:
        decoder = Decoder(decoder.architecture, quantized(decoder.weights, round(bits)))
    return decoder if share == 1.0 else decoder.leaving_after(max(1, round(decoder.layers * share)))


def _model_drafter(
    sequences: Sequences,
    *,
    strategy: DraftStrategy,
    decoder: Decoder,
    counted: DraftPass,
    kv_budget: float,
    room: int,
) -> Drafter:
    own = counted.weights == "draft"
    source = sequences.cache
    if own:
        source = KVCache(
            decoder.architecture,
            source.batch,
            source.capacity,
            dtype=decoder.dtype,
            device=decoder.device,
            attention=source.attention,
        )
    cache = _draft_cache(strategy, source, sequences, decoder, counted, kv_budget, room)
    return ModelDrafter(decoder, cache, own_source=own)


def _draft_cache(
    strategy: DraftStrategy,
    source: KVCache,
    sequences: Sequences,
    decoder: Decoder,
    counted: DraftPass,
    kv_budget: float,
    room: int,
) -> DraftCache:
    """The cache that the strategy's selector and its bytes per entry ask for."""
    selector, own = strategy.selector, counted.weights == "draft"
    bits = float(counted.kv_fraction) * 16.0 - SCALE_BITS
    if bits < 8.0:
        codec = partial(in_few_bits, bits=round(bits))
        return Kept(source, selector, float("inf"), room=room, codec=codec, owns_source=own)
    if isinstance(selector, WholeCache):
        return InPlace(source)
    if selector.moment == "pass":
        return Chosen(source, selector, kv_budget, _pass_scores(strategy, source))
    scores = _prompt_scores(strategy, source, sequences, decoder) if selector.needs_scores else None
    return Kept(source, selector, kv_budget, room=room, scores=scores, owns_source=own)


def _pass_scores(strategy: DraftStrategy, source: KVCache) -> PassScores:
    page = getattr(strategy.selector, "page", None)
    return ExactScores() if page is None else PageBounds(source, int(page))


def _prompt_scores(
    strategy: DraftStrategy, source: KVCache, sequences: Sequences, decoder: Decoder
) -> PromptScores:
    """Scores of the observation window; for a draft model they exist once its own prompt is in its cache."""
    window = int(getattr(strategy.selector, "observation_window", 1))
    found: list[NDArray[np.float64]] = []

    def scores(sequence: int) -> NDArray[np.float64]:
        if not found:
            found.extend(observed_attention(decoder, source, sequences.tokens, window))
        return found[sequence]

    return scores


def _refusal(problem: str, remedy: str) -> SpecError:
    return SpecError.single("request", "strategy", problem, remedy)
