"""After every rejection a recurrent state is that of the accepted prefix; drafting leaves it as it is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hybrids import FULL, MODELS, RECURRENT, SPARSE, WINDOW, decoder_of, disturbed  # noqa: E402

import strategies  # noqa: E402
from perfmodel.reference.acceptance_rule import Greedy  # noqa: E402
from perfmodel.reference.cache import KVCache  # noqa: E402
from perfmodel.reference.drafters import Dial  # noqa: E402
from perfmodel.reference.drafting import drafter_of  # noqa: E402
from perfmodel.reference.rounds import draft_verify_round, generate  # noqa: E402
from perfmodel.reference.scores import observe_attention  # noqa: E402
from perfmodel.reference.sequences import prefill  # noqa: E402
from perfmodel.reference.states import States  # noqa: E402

pytestmark = pytest.mark.torch

GAMMA = 3
PROMPTS = [[1, 2, 3], list(range(20)), list(range(33))]


class NoRollBack(States):
    """A fault on purpose: whatever was accepted, the state after the last draft is gone on with."""

    def at(self, layer, lens, counted=None):  # noqa: ARG002
        return tuple(part[-1] for part in self._slots[layer])


class Pattern(Dial):
    """A dial that is right a given number of times in each sequence, and then wrong."""

    def __init__(self, inside, truth, counts):
        super().__init__(inside, truth, 0.5, 64)
        self.counts = counts

    def draw_evenly(self, batch, gamma):  # noqa: ARG002
        return np.where(np.arange(gamma) < np.asarray(self.counts)[:, None], 0.0, 1.0)


def begin(target, name, draft_model=None, kv_budget=8, room=60, gamma=GAMMA):
    sequences, logits = prefill(target, PROMPTS, room)
    sequences.tokens.scatter_(1, torch.as_tensor(sequences.cache.lens)[:, None], logits.argmax(-1)[:, None])
    make = drafter_of(
        strategies.load(name), target,
        kv_budget=kv_budget, gamma=gamma, output_len=40, draft_model=draft_model,
    )  # fmt: skip
    return sequences, make(sequences)


def assert_states_of_prefix(decoder, cache, tokens, lens):
    """Assert that every state is what a prefill of the known tokens alone leaves."""
    for row, length in enumerate(lens):
        if length == 0:
            continue
        alone, _ = prefill(decoder, [tokens[row, : int(length)].tolist()], 1)
        for layer, mixer in enumerate(decoder.architecture.mixers):
            if mixer.state_shapes:
                held = cache.states.at(layer, np.asarray(lens))
                for part, expected in zip(held, alone.cache.states.at(layer, alone.cache.lens), strict=True):
                    assert torch.allclose(part[row], expected[0], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("length", range(6))
def test_a_pass_leaves_the_state_of_every_prefix(name, length):
    decoder = decoder_of((RECURRENT[name], FULL, RECURRENT[name]))
    tokens = torch.arange(10).reshape(2, 5) * 7 % 64
    cache, step = (KVCache(decoder.architecture, 2, 16, dtype=torch.float64) for _ in range(2))
    decoder.forward(tokens, cache.next(5))
    for place in range(length):
        decoder.forward(tokens[:, place : place + 1], step.next(1))
        step.lens = step.lens + 1
    for layer in (0, 2):
        for part, expected in zip(
            cache.states.at(layer, step.lens), step.states.at(layer, step.lens), strict=True
        ):
            assert torch.allclose(part, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("model", ["gated_delta", "kimi_delta", "mamba2", "lightning", "all"])
def test_after_any_pattern_of_rejections_the_state_is_that_of_the_accepted_prefix(model):
    target = decoder_of(MODELS[model])
    truth = generate(target, PROMPTS, 24).tokens
    for first, second in itertools.product((0, 1, GAMMA), (0, 2, GAMMA)):
        sequences, inside = begin(target, "streaming_llm")
        drafter = Pattern(inside, truth, [first, second, GAMMA])
        drafter.begin(sequences)
        for turn in range(2):
            drafter.counts = [first, second, GAMMA] if turn == 0 else [second, first, 0]
            came = draft_verify_round(target, drafter, sequences, GAMMA, Greedy())
            assert came.tolist() == [count + 1 for count in drafter.counts]
        assert_states_of_prefix(target, sequences.cache, sequences.tokens, sequences.cache.lens)


@pytest.mark.parametrize("name", ["full_kv", "streaming_llm", "quest", "snapkv"])
def test_a_draft_models_own_states_follow_what_is_accepted_of_its_drafts(name):
    target = decoder_of(MODELS["gated_delta"])
    draft_model = disturbed(target)
    truth = generate(target, PROMPTS, 32).tokens
    sequences, inside = begin(target, name, draft_model)
    drafter = Pattern(inside, truth, [])
    drafter.begin(sequences)
    own = inside.cache.source
    for counts in ([0, 1, GAMMA], [GAMMA, 0, 2], [1, GAMMA, 0], [2, 2, 2], [GAMMA, GAMMA, GAMMA]):
        assert (own.lens == sequences.cache.lens - 1).all()
        assert_states_of_prefix(draft_model, own, sequences.tokens, own.lens)
        drafter.counts = counts
        came = draft_verify_round(target, drafter, sequences, GAMMA, Greedy())
        assert came.tolist() == [count + 1 for count in counts]
    assert_states_of_prefix(draft_model, own, sequences.tokens, own.lens)


@pytest.mark.parametrize("model", ["gated_delta", "mamba2", "all"])
@pytest.mark.parametrize("name", ["streaming_llm", "quest", "layer_skip", "quantized_kv"])
def test_self_drafting_runs_on_a_scratch_copy_of_the_states(model, name):
    target = decoder_of(MODELS[model])
    sequences, drafter = begin(target, name)
    drafter.begin(sequences)
    states, lens = sequences.cache.states, sequences.cache.lens
    layers = [layer for layer, mixer in enumerate(target.architecture.mixers) if mixer.state_shapes]
    before = {layer: [part.clone() for part in states.at(layer, lens)] for layer in layers}
    drafter.draft(sequences, GAMMA, Greedy())
    for layer in layers:
        assert states.kept(layer) == 1, "a draft left states with the target"
        assert all(map(torch.equal, states.at(layer, lens), before[layer]))


def test_verification_leaves_a_state_per_possible_length_and_a_prompt_one():
    target = decoder_of(MODELS["gated_delta"])
    sequences, drafter = begin(target, "ngram")
    assert sequences.cache.states.kept(0) == 1
    for gamma in (GAMMA, 1, 0):
        draft_verify_round(target, drafter, sequences, gamma, Greedy())
        assert sequences.cache.states.kept(0) == gamma + 2


def test_a_verification_of_one_token_is_a_decode_step():
    for mixers in MODELS.values():
        target = decoder_of(mixers)
        one, other = (prefill(target, PROMPTS, 8)[0] for _ in range(2))
        fed = torch.tensor([[5], [6], [7]])
        step = target.forward(fed, one.cache.next(1))
        verified = target.forward(torch.cat((fed, fed), dim=1), other.cache.next(2))
        assert torch.allclose(step[:, 0], verified[:, 0], atol=1e-10)
        one.cache.lens, other.cache.lens = one.cache.lens + 1, other.cache.lens + 1
        assert torch.allclose(
            target.forward(fed, one.cache.next(1)), target.forward(fed, other.cache.next(1)), atol=1e-10
        )


@pytest.mark.parametrize("name", RECURRENT)
def test_going_on_from_a_state_that_was_not_rolled_back_gives_other_logits(name, monkeypatch):
    """Were the state not rolled back, decoding would go on from the rejected draft: all proofs above bite."""
    target = decoder_of((RECURRENT[name], FULL))

    def logits_after_rejection():
        sequences, _ = prefill(target, PROMPTS, 8)
        target.forward(torch.full((3, 4), 9), sequences.cache.next(4))
        sequences.cache.lens = sequences.cache.lens + 1
        return target.forward(torch.full((3, 1), 5), sequences.cache.next(1))

    right = logits_after_rejection()
    monkeypatch.setattr("perfmodel.reference.cache.States", NoRollBack)
    assert float((logits_after_rejection() - right).abs().max()) > 1e-3


@pytest.mark.parametrize(
    "model", ["gated_delta", "kimi_delta", "mamba1", "mamba2", "lightning", "short_convolution"]
)
def test_greedy_equality_fails_where_states_are_not_rolled_back(model, monkeypatch):
    target = decoder_of(MODELS[model])
    plain = generate(target, PROMPTS, 16).tokens
    make = drafter_of(strategies.load("ngram"), target, gamma=GAMMA, output_len=16)
    monkeypatch.setattr("perfmodel.reference.cache.States", NoRollBack)
    assert torch.equal(generate(target, PROMPTS, 16).tokens, plain), "without drafts nothing is rolled back"
    assert not torch.equal(generate(target, PROMPTS, 16, drafter=make, gamma=GAMMA).tokens, plain)


def test_a_length_that_no_pass_left_a_state_at_is_refused():
    target = decoder_of(MODELS["gated_delta"])
    sequences, _ = prefill(target, PROMPTS, 8)
    with pytest.raises(IndexError, match="layer 0 has no state"):
        sequences.cache.states.at(0, sequences.cache.lens - 1)
    with pytest.raises(IndexError, match="layer 0 has no state"):
        target.forward(torch.zeros(3, 1, dtype=torch.long), sequences.cache.next(1, ahead=2))


def test_a_budget_touches_growing_caches_and_nothing_else():
    target = decoder_of((WINDOW, FULL, SPARSE, RECURRENT["GatedDelta"]))
    for budget in (5, 30):
        sequences, drafter = begin(target, "streaming_llm", kv_budget=budget)
        drafter.begin(sequences)
        cache, lens = drafter.cache, sequences.cache.lens
        assert set(cache.kept.stacks) == {FULL.entry, SPARSE.entry}
        assert cache.kept.lens.tolist() == np.minimum(lens, budget).tolist()
        for drafted in range(3):
            around = cache.next(1)._around
            seen = around.visible_in(0).seen()[:, 0, 0].sum(-1)
            assert seen.tolist() == [min(12, int(n) + drafted + 1) for n in lens]


def test_an_observed_prompt_is_the_same_with_and_without_states_before_the_window():
    """With recurrent layers the prompt runs once more, in a cache of its own."""
    target = decoder_of(MODELS["gated_delta"])
    sequences, _ = prefill(target, PROMPTS, 4)
    before = [part.clone() for stack in sequences.cache.stacks.values() for part in stack.stored]
    together = observe_attention(target, sequences.cache, sequences.tokens, 2)
    after = [part for stack in sequences.cache.stacks.values() for part in stack.stored]
    assert all(map(torch.equal, before, after))
    for row, prompt in enumerate(PROMPTS):
        alone, _ = prefill(target, [prompt], 4)
        (paid,) = observe_attention(target, alone.cache, alone.tokens, 2)[0].values()
        assert np.allclose(paid, *together[row].values())
        assert np.allclose(paid.sum(-1), 2 * 2)
