"""From a priced drafting configuration to the drafter that runs it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import SpecError
from perfmodel.reference.architecture import Architecture
from perfmodel.reference.cache import KVCache
from perfmodel.reference.decoder import Decoder
from perfmodel.reference.draft_cache import CompactCache, DraftCache, InPlaceCache, PerPassCache, PromptScores
from perfmodel.reference.drafters import ModelDrafter, NGramDrafter, TokenDrafter
from perfmodel.reference.mixers import Entry
from perfmodel.reference.scores import ExactScores, PageBounds, PassScores, observe_attention
from perfmodel.reference.sequences import Sequences
from perfmodel.reference.weights import GROUP, quantize, round_to_bits
from strategies.base import DraftStrategy, KVSelector, Numeric, WholeCache

__all__ = ["RUNNABLE", "MakeDrafter", "drafter_of"]

RUNNABLE = (
    "full_kv", "layer_skip", "ngram", "quantized_kv", "quest", "snapkv", "streaming_llm", "topk_oracle",
)  # fmt: skip
"""Strategies that the reference decoder runs. The others need a trained head or product-quantised keys."""
MakeDrafter = Callable[[Sequences], TokenDrafter]


def drafter_of(
    strategy: DraftStrategy,
    target: Decoder,
    *,
    kv_budget: float = float("inf"),
    gamma: int,
    output_len: int,
    draft_model: Decoder | None = None,
) -> MakeDrafter:
    """Return what makes the drafter of a configuration for a batch of prefilled sequences.

    What runs is read off the strategy's own counts: whose weights, which share of the layers, how many bytes
    of a weight and of a cache entry; the cache obeys the strategy's selector.

    Parameters
    ----------
    strategy : as it is priced.
    target : the decoder that verifies, and drafts where no draft model is given.
    kv_budget : entries that the draft may read of a layer whose cache grows; windows, chunks and recurrent
        states are not affected. [tokens]
    gamma : tokens drafted per round.
    output_len : tokens to be generated, for which room is kept.
    draft_model : drafts in the target's place.

    Raises
    ------
    SpecError
        Where the reference decoder cannot run the strategy, a draft model is missing or out of place, or the
        strategy chooses or copies entries of a growing cache and no layer has one.
    """
    kind = "draft" if draft_model is not None else strategy.drafters[0]
    if strategy.name not in RUNNABLE:
        raise _refuse(f"the reference decoder does not run {strategy.name}", f"It runs {', '.join(RUNNABLE)}")
    if kind not in strategy.drafters or (kind == "draft" and draft_model is None):
        choices = ", ".join(strategy.drafters)
        raise _refuse(f"{strategy.name} drafts with: {choices}", "Name a draft model or none")
    counts = strategy.draft_pass(context_len=1.0, kv_budget=kv_budget, gamma=float(gamma), drafter=kind)
    if counts.weights == "none":
        return lambda sequences: NGramDrafter()  # noqa: ARG005
    decoder = target if draft_model is None else draft_model
    _check_mixers(strategy, decoder.architecture, bool(_read_bits(counts.kv_fraction)))
    if decoder.architecture.vocab_size != target.architecture.vocab_size:
        raise _refuse("the draft model has another vocabulary than the target", "Name one with the same")
    if bits := _read_bits(counts.weight_fraction):
        decoder = Decoder(decoder.architecture, quantize(decoder.weights, bits))
    if (share := float(counts.layer_fraction)) < 1.0:
        decoder = decoder.exit_after(max(1, round(decoder.layers * share)))
    own, room, selector = counts.weights == "draft", output_len + 2 * gamma + 2, strategy.selector

    def make(sequences: Sequences) -> TokenDrafter:
        source = sequences.cache
        if own:
            source = KVCache(
                decoder.architecture, source.batch, source.capacity,
                dtype=decoder.dtype, device=decoder.device, attention=source.attention,
            )  # fmt: skip
        compact = partial(CompactCache, source, selector, room=room, owns_source=own)
        draft_cache: DraftCache
        if bits := _read_bits(counts.kv_fraction):
            draft_cache = compact(float("inf"), codec=partial(round_to_bits, bits=bits))
        elif isinstance(selector, WholeCache):
            draft_cache = InPlaceCache(source, own)
        elif selector.moment == "pass":
            pass_scores = _make_pass_scores(selector, source)
            draft_cache = PerPassCache(source, selector, kv_budget, pass_scores, own)
        else:
            draft_cache = compact(kv_budget, scores=_make_prompt_scores(selector, source, sequences, decoder))
        return ModelDrafter(decoder, draft_cache, own_source=own)

    return make


def _check_mixers(strategy: DraftStrategy, architecture: Architecture, copies_all: bool) -> None:
    """Refuse a choice among cache entries, or a smaller copy of them, where no layer has a growing cache."""
    if isinstance(strategy.selector, WholeCache) and not copies_all:
        return
    entries = [mixer.entry for mixer in architecture.mixers if mixer.entry is not None]
    if any(entry.grows for entry in entries):
        return
    kinds = ", ".join(dict.fromkeys(type(mixer).__name__ for mixer in architecture.mixers))
    raise _refuse(
        f"{strategy.name} chooses or copies entries of a growing cache, and no layer ({kinds}) has one",
        "Draft with ngram, layer_skip, or full_kv and a draft model, which choose nothing",
    )


def _read_bits(fraction: Numeric) -> int:
    """Return the bits of a value that is stored in that fraction of 16, without its share of a group's scale.

    A group holds a scale and a zero point, 32 bits together. 0 where values are stored as they are.
    """
    bits = float(fraction) * 16.0 - 32.0 / GROUP
    return round(bits) if bits < 8.0 else 0


def _make_pass_scores(selector: KVSelector, source: KVCache) -> PassScores:
    page = getattr(selector, "page", None)
    return ExactScores() if page is None else PageBounds(source, int(page))


def _make_prompt_scores(
    selector: KVSelector, source: KVCache, sequences: Sequences, decoder: Decoder
) -> PromptScores | None:
    """Scores of the observation window; for a draft model they exist once its own prompt is in its cache."""
    if not selector.needs_scores:
        return None

    @cache
    def observe() -> list[dict[Entry, NDArray[np.float64]]]:
        window = int(getattr(selector, "observation_window", 1))
        return observe_attention(decoder, source, sequences.tokens, window)

    return lambda sequence: observe()[sequence]


def _refuse(problem: str, remedy: str) -> SpecError:
    return SpecError.single("request", "strategy", problem, remedy)
