"""Speculation changes the speed and nothing else: greedy outputs are equal, token for token."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from greedy_agreement import TIE, greedy_shortfall, is_greedy  # noqa: E402

import strategies  # noqa: E402
from perfmodel.acceptance import tokens_per_round  # noqa: E402
from perfmodel.errors import SpecError  # noqa: E402
from perfmodel.reference.acceptance_rule import Draft, Greedy  # noqa: E402
from perfmodel.reference.drafters import Dial, NoDrafter  # noqa: E402
from perfmodel.reference.drafting import RUNNABLE, drafter_of  # noqa: E402
from perfmodel.reference.rounds import generate  # noqa: E402

pytestmark = pytest.mark.torch

COUNT = 16
PAIRS = [
    (name, kind)
    for name in RUNNABLE
    for kind in strategies.load(name).drafters
    if kind in ("self", "draft", "none")
]


def run(target, prompts, name, kind, gamma, draft_model, count=COUNT, kv_budget=32):
    make = drafter_of(
        strategies.load(name), target, kv_budget=kv_budget, gamma=gamma, output_len=count,
        draft_model=draft_model if kind == "draft" else None,
    )  # fmt: skip
    return generate(target, prompts, count, drafter=make, gamma=gamma)


def accepted_counts(decoded):
    """Return how many rounds accepted 0, 1, ... drafts."""
    tokens = np.concatenate(decoded.rounds)
    return np.bincount(tokens[tokens > 0] - 1)


@pytest.fixture(scope="module")
def plain(target, ragged):
    return generate(target, ragged, COUNT)


@pytest.mark.parametrize("gammas", [(1, 4, 8), pytest.param((2, 3, 5, 6, 7), marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_greedy_output_is_the_targets_own_for_every_speculation_length(
    target, ragged, plain, draft_model, name, kind, gammas
):
    accepted = rejected = 0
    for gamma in gammas:
        decoded = run(target, ragged, name, kind, gamma, draft_model)
        assert torch.equal(decoded.tokens, plain.tokens), f"{name} ({kind}) with gamma {gamma}"
        counts = accepted_counts(decoded)
        accepted += counts[1:].sum()
        rejected += counts[:gamma].sum()
    assert accepted > 0, "no draft was ever accepted: the test proves little"
    assert rejected > 0, "no draft was ever rejected: the test proves little"


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_it_holds_for_shared_and_for_separate_key_heads(tiny, ragged, kv_heads):
    target = tiny(num_key_value_heads=kv_heads)
    plain = generate(target, ragged, COUNT).tokens
    for name in ("streaming_llm", "snapkv", "quest", "layer_skip"):
        assert torch.equal(run(target, ragged, name, "self", 3, None).tokens, plain)


def test_it_holds_where_the_budget_exceeds_some_contexts_and_not_others(target, draft_model):
    prompts = [[5], list(range(20)), list(range(60))]
    plain = generate(target, prompts, COUNT).tokens
    for name, kind in PAIRS:
        assert torch.equal(run(target, prompts, name, kind, 4, draft_model).tokens, plain), name


def test_plain_decoding_is_a_round_with_nothing_drafted(plain, target, ragged):
    assert plain.tokens_per_round == 1.0
    assert len(plain.rounds) == COUNT - 1
    assert torch.equal(generate(target, ragged, COUNT, drafter=lambda _: NoDrafter()).tokens, plain.tokens)


def test_every_draft_is_accepted_where_nothing_is_left_out(target, ragged):
    decoded = run(target, ragged, "streaming_llm", "self", 4, None, kv_budget=10_000)
    complete = np.concatenate(decoded.rounds[:-1])
    assert (complete[complete > 0] == 5).all()


def test_every_draft_of_an_equal_model_is_accepted(target, ragged):
    decoded = run(target, ragged, "full_kv", "draft", 4, target)
    complete = np.concatenate(decoded.rounds[:-1])
    assert (complete[complete > 0] == 5).all()


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_dial_reaches_both_of_its_ends(target, ragged, alpha):
    truth = generate(target, ragged, COUNT + 8).tokens
    gamma = 3

    def dialled(sequences):
        inside = drafter_of(
            strategies.load("streaming_llm"), target, kv_budget=16, gamma=gamma, output_len=COUNT
        )
        return Dial(inside(sequences), truth, alpha, 64)

    decoded = generate(target, ragged, COUNT, drafter=dialled, gamma=gamma)
    assert torch.equal(decoded.tokens, truth[:, :COUNT])
    counts = accepted_counts(decoded)
    assert counts[0 if alpha == 0.0 else gamma] == counts.sum()


def test_the_dial_sets_the_acceptance(target):
    prompts = [[seed, 3, 5] for seed in range(8)]
    truth = generate(target, prompts, 208).tokens

    def dialled(sequences):
        inside = drafter_of(strategies.load("ngram"), target, gamma=4, output_len=200)
        return Dial(inside(sequences), truth, 0.8, 64)

    decoded = generate(target, prompts, 200, drafter=dialled, gamma=4)
    assert decoded.tokens_per_round == pytest.approx(float(tokens_per_round(0.8, 4)), rel=0.05)


@pytest.mark.parametrize("name", ["streaming_llm", "quest", "quantized_kv"])
def test_in_float32_every_token_is_greedy_up_to_a_tie(tiny, ragged, name):
    target = tiny(dtype=torch.float32)
    decoded = run(target, ragged, name, "self", 4, None, count=48)
    assert is_greedy(target, ragged, decoded.tokens)


def test_the_tie_rule_judges_every_token_and_excuses_only_ties(target, ragged, plain):
    assert float(greedy_shortfall(target, ragged, plain.tokens).max()) < 1e-12
    for place in (0, 11, COUNT - 1):
        wrong = plain.tokens.clone()
        wrong[1, place] = (wrong[1, place] + 1) % 64
        shortfall = greedy_shortfall(target, ragged, wrong)
        assert float(shortfall[1, place]) > TIE
        assert not is_greedy(target, ragged, wrong)


class OneTooMany(Greedy):
    """A fault on purpose: the first rejected draft is accepted."""

    def accept(self, logits, draft):
        accepted, token = super().accept(logits, draft)
        return (accepted + 1).clamp(max=draft.tokens.shape[1]), token


class Stale(Greedy):
    """A fault on purpose: the token after the drafts is the target's choice one place too early."""

    def accept(self, logits, draft):
        accepted, _ = super().accept(logits, draft)
        return accepted, logits.argmax(-1).gather(1, (accepted - 1).clamp(min=0)[:, None])[:, 0]


@pytest.mark.parametrize("faulty", [OneTooMany(), Stale()])
def test_the_tie_rule_finds_faults_that_are_planted(tiny, ragged, faulty):
    target = tiny(dtype=torch.float32)
    make = drafter_of(strategies.load("streaming_llm"), target, kv_budget=16, gamma=3, output_len=COUNT)
    decoded = generate(target, ragged, COUNT, drafter=make, gamma=3, rule=faulty)
    assert not is_greedy(target, ragged, decoded.tokens)


@pytest.mark.parametrize(
    ("name", "message"),
    [("eagle", "does not run eagle"), ("pqcache", "does not run pqcache"), ("full_kv", "drafts with: draft")],
)
def test_a_configuration_that_cannot_run_is_refused(target, name, message):
    with pytest.raises(SpecError, match=message):
        drafter_of(strategies.load(name), target, gamma=2, output_len=8)


def test_a_draft_model_of_another_vocabulary_is_refused(target, tiny):
    with pytest.raises(SpecError, match="another vocabulary"):
        drafter_of(strategies.load("full_kv"), target, gamma=2, output_len=8, draft_model=tiny(vocab_size=32))


def test_greedy_takes_the_lowest_of_equal_logits_on_both_sides():
    logits = torch.zeros(1, 3, 5)
    accepted, token = Greedy().accept(logits, Draft(torch.tensor([[0, 1]])))
    assert (accepted.tolist(), token.tolist()) == ([1], [0])
    assert Greedy().propose(logits[:, 0])[0].tolist() == [0]


@pytest.mark.slow
def test_ten_thousand_tokens_do_not_drift(tiny):
    small = tiny(num_hidden_layers=1, hidden_size=16, intermediate_size=16, num_attention_heads=2)
    prompts = [[1, 2, 3], list(range(40))]
    plain = generate(small, prompts, 10_000).tokens
    assert len(plain[0].unique()) > 1
    for name, budget in (("streaming_llm", 64), ("quantized_kv", 64)):
        assert torch.equal(run(small, prompts, name, "self", 7, None, 10_000, budget).tokens, plain), name


@pytest.mark.slow
def test_a_thousand_tokens_of_a_second_model_do_not_drift(draft_model, target, ragged):
    plain = generate(target, ragged, 1000).tokens
    for name in ("full_kv", "streaming_llm", "quest"):
        assert torch.equal(run(target, ragged, name, "draft", 5, draft_model, 1000, 64).tokens, plain), name
