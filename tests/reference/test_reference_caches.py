"""Draft caches hold what the strategy keeps, and every cache is right again after every rejection."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import strategies  # noqa: E402
from perfmodel.reference.acceptance_rule import Greedy  # noqa: E402
from perfmodel.reference.cache import KVCache  # noqa: E402
from perfmodel.reference.draft_cache import CompactCache, InPlaceCache, PerPassCache  # noqa: E402
from perfmodel.reference.drafters import Dial, ModelDrafter, NGramDrafter  # noqa: E402
from perfmodel.reference.drafting import drafter_of  # noqa: E402
from perfmodel.reference.rounds import draft_verify_round, generate  # noqa: E402
from perfmodel.reference.scores import PageBounds, observe_attention  # noqa: E402
from perfmodel.reference.sequences import prefill  # noqa: E402
from perfmodel.reference.weights import round_to_bits  # noqa: E402
from strategies.base import budget_after  # noqa: E402
from strategies.quest import page_bounds  # noqa: E402

pytestmark = pytest.mark.torch

GAMMA = 3


class Pattern(Dial):
    """A dial that is right a given number of times in each sequence, and then wrong."""

    def __init__(self, inside, truth, counts):
        super().__init__(inside, truth, 0.5, 64)
        self.counts = counts

    def draw_evenly(self, batch, gamma):  # noqa: ARG002
        return np.where(np.arange(gamma) < np.asarray(self.counts)[:, None], 0.0, 1.0)


def drafter_in(name, target, sequences, kv_budget=16, gamma=GAMMA, draft_model=None):
    make = drafter_of(
        strategies.load(name), target,
        kv_budget=kv_budget, gamma=gamma, output_len=40, draft_model=draft_model,
    )  # fmt: skip
    return make(sequences)


def assert_same_entries(cache, row, alone, length):
    """Assert that a sequence of a batch has the entries that it has alone."""
    for batched, single in ((cache.keys, alone.keys), (cache.values, alone.values)):
        assert torch.allclose(batched[:, row, :, :length], single[:, 0, :, :length], atol=1e-10)


@pytest.mark.parametrize(
    ("name", "own"), [("streaming_llm", False), ("quest", False), ("full_kv", True), ("streaming_llm", True)]
)
def test_lengths_and_entries_are_right_after_every_pattern_of_rejections(
    target, draft_model, ragged, name, own
):
    patterns = list(itertools.product(range(GAMMA + 1), repeat=2))
    truth = generate(target, ragged, 24).tokens
    for first, second in patterns:
        sequences, logits = prefill(target, ragged, 40)
        sequences.tokens.scatter_(
            1, torch.as_tensor(sequences.cache.lens)[:, None], logits.argmax(-1)[:, None]
        )
        inside = drafter_in(name, target, sequences, draft_model=draft_model if own else None)
        drafter = Pattern(inside, truth, [first, second, GAMMA])
        drafter.begin(sequences)
        expected = sequences.prompt_lens.copy()
        for turn in range(2):
            drafter.counts = [first, second, GAMMA] if turn == 0 else [second, first, 0]
            came = draft_verify_round(target, drafter, sequences, GAMMA, Greedy())
            assert came.tolist() == [count + 1 for count in drafter.counts]
            expected += came
            assert sequences.cache.lens.tolist() == expected.tolist()
            source = inside.cache.source
            assert source.lens.tolist() == (expected - (1 if own else 0)).tolist()
        for row, length in enumerate(expected):
            text = sequences.tokens[row, : length + 1].tolist()
            assert text[len(ragged[row]) :] == truth[row, : length + 1 - len(ragged[row])].tolist()
            alone, _ = prefill(target, [text], 1)
            assert_same_entries(sequences.cache, row, alone.cache, int(length))
            if own and name == "full_kv":
                alone, _ = prefill(draft_model, [text], 1)
                assert_same_entries(source, row, alone.cache, int(length) - 1)


def decode_rounds(target, prompts, name, kv_budget, rounds, gamma=GAMMA, draft_model=None):
    """Return the sequences and the drafter after some rounds."""
    sequences, logits = prefill(target, prompts, 80)
    sequences.tokens.scatter_(1, torch.as_tensor(sequences.cache.lens)[:, None], logits.argmax(-1)[:, None])
    drafter = drafter_in(name, target, sequences, kv_budget, gamma, draft_model)
    drafter.begin(sequences)
    for _ in range(rounds):
        draft_verify_round(target, drafter, sequences, gamma, Greedy())
    return sequences, drafter


@pytest.mark.parametrize("kv_budget", [6, 17, 64, 200])
@pytest.mark.parametrize("rounds", [0, 1, 7])
def test_a_window_holds_exactly_the_entries_that_the_selector_keeps(target, ragged, kv_budget, rounds):
    sequences, drafter = decode_rounds(target, ragged, "streaming_llm", kv_budget, rounds)
    cache, selector = drafter.cache, strategies.load("streaming_llm").selector
    assert isinstance(cache, CompactCache)
    for row, length in enumerate(sequences.cache.lens):
        kept = selector.keep(int(length), kv_budget)
        held = cache.positions[row, : cache.kept.lens[row]]
        assert sorted(held.tolist()) == kept.tolist()
        for slot, position in enumerate(held):
            assert torch.equal(cache.kept.keys[:, row, :, slot], sequences.cache.keys[:, row, :, position])
            assert torch.equal(
                cache.kept.values[:, row, :, slot], sequences.cache.values[:, row, :, position]
            )


def test_snapkv_keeps_its_choice_of_the_prompt_and_every_later_token(target, ragged):
    sequences, drafter = decode_rounds(target, ragged, "snapkv", 40, 0)
    cache = drafter.cache
    scores = observe_attention(target, sequences.cache, sequences.tokens, 32)
    chosen = [
        strategies.load("snapkv").selector.keep(len(prompt), 40, *by_stack.values())
        for prompt, by_stack in zip(ragged, scores, strict=True)
    ]
    at_start = cache.kept.lens.copy()
    for _ in range(5):
        draft_verify_round(target, drafter, sequences, GAMMA, Greedy())
    assert (cache.kept.lens == at_start + sequences.cache.lens - sequences.prompt_lens).all()
    for row, kept in enumerate(chosen):
        whole = np.broadcast_to(kept, (2, 2, kept.shape[-1]))
        later = np.arange(sequences.prompt_lens[row], sequences.cache.lens[row])
        for layer, head in itertools.product(range(2), range(2)):
            held = sequences.cache.keys[layer, row, head][np.concatenate([whole[layer, head], later])]
            assert torch.equal(cache.kept.keys[layer, row, head, : cache.kept.lens[row]], held)


def test_observe_attention_is_all_that_the_window_pays(target, ragged):
    sequences, _ = prefill(target, ragged, 4)
    before = sequences.cache.keys.clone()
    for row, by_stack in enumerate(observe_attention(target, sequences.cache, sequences.tokens, 8)):
        (mass,) = by_stack.values()
        assert mass.shape == (2, 2, len(ragged[row]))
        assert np.allclose(mass.sum(-1), 8 * 2)  # two query heads share each head of keys
    assert sequences.cache.lens.tolist() == [len(prompt) for prompt in ragged]
    assert torch.allclose(sequences.cache.keys, before, atol=1e-11)


def test_page_bounds_are_those_of_the_strategy_after_any_number_of_rounds(target, ragged):
    sequences, drafter = decode_rounds(target, ragged, "quest", 32, 4)
    assert isinstance(drafter.cache, PerPassCache)
    scores = drafter.cache.scores
    query = torch.randn(3, 4, 1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for layer in range(2):
        bounds = scores.score(layer, query, sequences.cache)
        for row, length in enumerate(sequences.cache.lens):
            keys = sequences.cache.keys[layer, row, :, : int(length)].numpy()
            by_query = page_bounds(query[row, :, 0].numpy().reshape(2, 2, 8), keys[:, None])
            assert np.allclose(bounds[row, :, : int(length)], by_query.max(axis=1))


def test_page_bounds_shrink_with_the_cache(target):
    cache = KVCache(target.architecture, 1, 64, dtype=torch.float64)
    cache.fill_randomly(60)
    bounds = PageBounds(cache, 16)
    bounds.follow(cache)
    cache.keys[:, :, :, 40:60] = 0.0
    cache.lens[:] = 40
    bounds.follow(cache)
    cache.keys[:, :, :, 40:60] = 100.0
    query = torch.ones(1, 4, 1, 8, dtype=torch.float64)
    keys = cache.keys[0, 0, :, :40].numpy()
    assert np.allclose(bounds.score(0, query, cache)[0, :, :40], page_bounds(np.ones((2, 8)), keys))


def test_a_quantised_cache_holds_the_rounded_entries_of_the_target(target, ragged):
    sequences, drafter = decode_rounds(target, ragged, "quantized_kv", 0, 5)
    cache = drafter.cache
    for row, length in enumerate(sequences.cache.lens):
        assert cache.kept.lens[row] == length
        for rounded, exact in (
            (cache.kept.keys, sequences.cache.keys),
            (cache.kept.values, sequences.cache.values),
        ):
            expected = round_to_bits(exact[:, row, :, : int(length)])
            assert torch.allclose(rounded[:, row, :, : int(length)], expected)


class Counting:
    """An attention kernel that notes how many entries it reads."""

    def __init__(self, inside):
        self.inside, self.widths = inside, []

    def __call__(self, query, keys, values, visible):
        self.widths.append(keys.shape[2])
        return self.inside(query, keys, values, visible)


@pytest.mark.parametrize(
    ("name", "kv_budget"),
    [
        ("streaming_llm", 32), ("snapkv", 40), ("quest", 32), ("topk_oracle", 24), ("quantized_kv", 0),
        ("layer_skip", 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("gamma", [1, 4])
def test_a_draft_pass_reads_the_entries_that_are_priced(target, name, kv_budget, gamma):
    prompts = [[3, 1] * 40, [4, 1] * 40]
    sequences, drafter = decode_rounds(target, prompts, name, kv_budget, 0, gamma)
    cache = drafter.cache
    storage = cache.kept if isinstance(cache, CompactCache) else cache.source
    storage.attention = counting = Counting(storage.attention)
    drafter.draft(sequences, gamma, Greedy())
    counted = strategies.load(name).draft_pass(
        context_len=80.0, kv_budget=float(kv_budget), gamma=float(gamma)
    )
    layers = drafter.decoder.layers
    assert layers == max(1, round(2 * float(counted.layer_fraction)))
    assert len(counting.widths) == layers * float(counted.passes)
    # A pass reads its own token on top of what is priced as the cache.
    assert np.mean(counting.widths) - 1 == float(counted.kv_tokens)


@pytest.mark.parametrize(
    ("name", "kv_budget"),
    [("streaming_llm", 32), ("snapkv", 40), ("topk_oracle", 24), ("quantized_kv", 0), ("layer_skip", 0)],
)
def test_the_entries_that_are_priced_are_read_at_every_step_of_a_generation(target, name, kv_budget):
    """A choice of the prompt keeps what is generated; where passes choose or a window moves, it displaces."""
    strategy, gamma = strategies.load(name), 2
    sequences, drafter = decode_rounds(target, [[3, 1] * 40], name, kv_budget, 0, gamma)
    for _ in range(8):
        cache = drafter.cache
        storage = cache.kept if isinstance(cache, CompactCache) else cache.source
        inside, context_len = storage.attention, float(sequences.cache.lens[0])
        storage.attention = counting = Counting(inside)
        draft_verify_round(target, drafter, sequences, gamma, Greedy())
        storage.attention = inside
        counted = strategy.draft_pass(
            context_len=context_len,
            kv_budget=budget_after(strategy.selector, float(kv_budget), context_len - 80.0),
            gamma=float(gamma),
        )
        drafted = counting.widths[: drafter.decoder.layers * int(float(counted.passes))]
        assert np.mean(drafted) - 1 == float(counted.kv_tokens)


def test_whole_caches_are_read_in_place(target, ragged, draft_model):
    _, drafter = decode_rounds(target, ragged, "layer_skip", 0, 0)
    assert isinstance(drafter.cache, InPlaceCache)
    assert drafter.decoder.layers == 1
    _, drafter = decode_rounds(target, ragged, "full_kv", 0, 0, draft_model=draft_model)
    assert isinstance(drafter, ModelDrafter)
    assert isinstance(drafter.cache, InPlaceCache)
    assert drafter.own_source


def test_an_ngram_draft_is_what_followed_the_last_match():
    find = NGramDrafter().find
    assert find(np.array([1, 2, 3, 9, 8, 1, 2, 3]), 3).tolist() == [9, 8, 1]
    assert find(np.array([7, 3, 5, 2, 3]), 4).tolist() == [5, 2, 3, 3]
    assert find(np.array([1, 2, 3, 4]), 2).tolist() == [4, 4]
    assert find(np.array([6]), 2).tolist() == [6, 6]
