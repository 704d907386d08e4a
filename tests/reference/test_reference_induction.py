"""Acceptance with a known answer: induction heads over texts that plant it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import strategies  # noqa: E402
from perfmodel.acceptance import tokens_per_round  # noqa: E402
from perfmodel.reference.decoder import Decoder  # noqa: E402
from perfmodel.reference.demo.induction import (  # noqa: E402
    SEPARATOR,
    induction_architecture,
    induction_weights,
    planted_text,
)
from perfmodel.reference.drafting import drafter_of  # noqa: E402
from perfmodel.reference.rounds import generate  # noqa: E402

pytestmark = pytest.mark.torch

SYMBOLS, WINDOW, OUTPUT = 100, 448, 64


@pytest.fixture(scope="module")
def decoder():
    architecture = induction_architecture(SYMBOLS, context=4096)
    return Decoder(architecture, induction_weights(architecture))


def text_of(coverage, batch=12, seed=0):
    return planted_text(
        symbols=SYMBOLS,
        context_len=800,
        window=WINDOW,
        coverage=coverage,
        batch=batch,
        output_len=OUTPUT,
        seed=seed,
    )


def speculated(decoder, text, name, kv_budget, gamma):
    make = drafter_of(strategies.load(name), decoder, kv_budget=kv_budget, gamma=gamma, output_len=OUTPUT)
    return generate(decoder, text.prompts, OUTPUT, drafter=make, gamma=gamma)


def test_the_text_plants_every_pair_before_the_window_and_a_share_inside():
    text = text_of(0.6)
    for prompt, answers in zip(text.prompts, text.answers, strict=True):
        pairs = set(itertools.pairwise(prompt[: 800 - WINDOW]))
        chain = [prompt[-1], *answers]
        assert all(pair in pairs for pair in itertools.pairwise(chain))
        inside = prompt[800 - WINDOW : -1]
        assert (inside != SEPARATOR).sum() == 2 * 60
    assert text.coverage == pytest.approx(0.6, abs=0.05)
    assert text.prompts.shape == (12, 800)


def test_a_text_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="do not fit"):
        planted_text(symbols=500, context_len=800, window=WINDOW, coverage=0.5, batch=1, output_len=8)


def test_the_target_follows_the_planted_map_without_a_fault(decoder):
    text = text_of(0.5, batch=4)
    output = generate(decoder, text.prompts, OUTPUT).tokens.numpy()
    assert np.array_equal(output, text.answers[:, :OUTPUT])


@pytest.mark.parametrize(("coverage", "gamma"), [(0.5, 3), (0.9, 6)])
def test_tokens_per_round_are_those_of_the_planted_coverage(decoder, coverage, gamma):
    text = text_of(coverage)
    decoded = speculated(decoder, text, "streaming_llm", WINDOW, gamma)
    assert np.array_equal(decoded.tokens.numpy(), text.answers[:, :OUTPUT])
    assert decoded.tokens_per_round == pytest.approx(float(tokens_per_round(text.coverage, gamma)), rel=0.05)


def test_choosing_entries_by_the_query_finds_what_a_window_misses(decoder):
    text = text_of(0.2, batch=3)
    window = speculated(decoder, text, "streaming_llm", 128, 4).tokens_per_round
    pages = speculated(decoder, text, "quest", 128, 4).tokens_per_round
    best = speculated(decoder, text, "topk_oracle", 32, 4).tokens_per_round
    assert window < 1.6 < pages < best
    assert best > 4.5


@pytest.mark.slow
@pytest.mark.parametrize("coverage", [0.31, 0.643, 0.828, 0.958])
@pytest.mark.parametrize("gamma", [1, 4, 6])
def test_tokens_per_round_hold_over_more_text(coverage, gamma):
    architecture = induction_architecture(150, context=1 << 13)
    decoder = Decoder(architecture, induction_weights(architecture))
    text = planted_text(
        symbols=150, context_len=2048, window=640, coverage=coverage, batch=24, output_len=120, seed=3
    )
    make = drafter_of(strategies.load("streaming_llm"), decoder, kv_budget=640, gamma=gamma, output_len=120)
    decoded = generate(decoder, text.prompts, 120, drafter=make, gamma=gamma)
    assert np.array_equal(decoded.tokens.numpy(), text.answers[:, :120])
    assert decoded.tokens_per_round == pytest.approx(float(tokens_per_round(text.coverage, gamma)), rel=0.05)
